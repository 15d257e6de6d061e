"""The commands as a user runs them: training, killing, resuming, rendering, and one line for every mistake."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.capture.dataset import test_dataset as dataset_of_test
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import load_config
from mmlphuman.model_folder import load_model
from mmlphuman.render.rasterize import rasterize
from tests.builders import save_checkpoint
from tests.commands.runs import ROOT, call_fork, call_here, one_error_line, render, train


def test_a_run_records_itself(model):
    names = {path.name for path in model.iterdir()}
    assert {"config.yaml", "run.json", "cameras.json", "poses.npz", "template.ply", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    cameras = json.loads((model / "cameras.json").read_text())
    assert [camera["id"] for camera in cameras] == [0, 1, 2, 3] and len(cameras[0]["w2c"]) == 16
    assert [camera["trained"] for camera in cameras] == [True, True, True, False]


def test_rendering_writes_pictures_scores_and_a_sheet(files, model, tmp_path):
    status, out, err = render(files, model, tmp_path)
    assert status == 0, err
    pictures = sorted(path.name for path in (tmp_path / "render").iterdir())
    assert len(pictures) == 4 and pictures == sorted(path.name for path in (tmp_path / "gt").iterdir())
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["cameras"]["1"]["training_camera"] and not scores["cameras"]["3"]["training_camera"]
    assert "training camera" in out
    truth, drawn = (cv2.imread(str(tmp_path / kind / pictures[0])).astype(float) for kind in ("gt", "render"))
    psnr = -10 * np.log10(np.square((truth - drawn) / 255).mean())
    assert scores["images"][0]["psnr"] == pytest.approx(psnr, abs=0.01)
    assert cv2.imread(str(tmp_path / "contact_sheet.png")) is not None


def test_projecting_poses_changes_the_picture_of_a_novel_pose(files, model, tmp_path):
    novel = ("test.begin_ith_frame=24", "test.num_frame=1", "test.cam_ids=[0]")
    for name, flags in (("plain", ()), ("projected", ("--test",))):
        status, _, err = render(files, model, tmp_path / name, *flags, *novel)
        assert status == 0, err
    images = [
        cv2.imread(str(next((tmp_path / name / "render").iterdir()))) for name in ("plain", "projected")
    ]
    assert (images[0] != images[1]).any()


def drawn_where_mlps_see(trained, sample, features) -> np.ndarray:
    """(H, W, 3) RGB uint8."""
    with torch.no_grad():
        posed = trained.avatar(sample.pose, trained.active, features).posed
        image = rasterize(posed, sample.cameras, torch.ones(3)).colors[0]
    return (image.clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def test_novel_poses_are_clamped_or_on_request_projected(files, model, tmp_path):
    """The picture is the one of what the MLPs are to see; a model that was trained otherwise does as it says."""
    settings = ["test.begin_ith_frame=24", "test.num_frame=1", "test.cam_ids=[0]", "background=white"]
    config, layout = load_config(files["short"], settings), open_capture(files["data"])
    sample = dataset_of_test(config, layout, read_smpl_params(layout.pose_path)).sample(24, (0,))
    trained = load_model(model)
    # Little is learnt in six steps: a model whose MLPs are loud tells what they saw.
    with torch.no_grad():
        bases, generator = trained.avatar.property_bases, torch.Generator().manual_seed(0)
        bases.add_(torch.randn(bases.shape, generator=generator))
    published = replace(trained, config=replace(trained.config, novel_poses="pca"))
    save_checkpoint(tmp_path / "clamps", trained, {}, keep=1)
    save_checkpoint(tmp_path / "projects", published, {}, keep=1)
    space, features = trained.pose_space, sample.pose.features
    expected = {
        "as it is": drawn_where_mlps_see(trained, sample, features),
        "clamped": drawn_where_mlps_see(
            trained, sample, features.clamp(space.training_poses.amin(0), space.training_poses.amax(0))
        ),
        "projected": drawn_where_mlps_see(trained, sample, space.project(features, config.pca_sigmas)),
    }
    assert len({picture.tobytes() for picture in expected.values()}) == 3
    runs = [
        ("clamps", [], "as it is"),
        ("clamps", ["--test"], "clamped"),
        ("clamps", ["--test", "novel_poses=pca"], "projected"),
        ("projects", ["--test"], "projected"),
        ("projects", ["--test", "novel_poses=clamp"], "clamped"),
    ]
    for number, (name, words, result) in enumerate(runs):
        out = tmp_path / str(number)
        given = ("--model_dir", tmp_path / name, "--data_dir", files["data"], "--out_dir", out)
        status, said, err = call_here("test.py", *given, *words, *settings)
        assert status == 0, err
        assert ("novel_poses: " in said) == any("novel_poses" in word for word in words)
        (path,) = (out / "render").iterdir()
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], expected[result]), (name, words)


def test_a_run_with_the_face_is_drawn_with_it(files, tmp_path):
    """What the model folder says of its poses, and that test.py gives its MLPs the expression."""
    status, _, err = train(files, tmp_path / "model", "face=true")
    assert status == 0, err
    trained = load_model(tmp_path / "model")
    assert trained.config.face and trained.avatar.mlp_inputs.max() > 165
    layout = open_capture(files["data"])
    params = read_smpl_params(layout.pose_path, face=True)
    with np.load(tmp_path / "model" / "poses.npz") as poses:
        np.testing.assert_array_equal(poses["expression"], params.expressions[:24])
        np.testing.assert_array_equal(poses["poses"], params.poses[:24])
    with torch.no_grad():  # a model whose MLPs are loud tells what they saw
        for weight in trained.avatar.bank.weights:
            weight.mul_(3)
        trained.avatar.property_bases.add_(torch.randn(trained.avatar.property_bases.shape))
    save_checkpoint(tmp_path / "loud", trained, {}, keep=1)
    settings = ["test.begin_ith_frame=6", "test.num_frame=1", "test.cam_ids=[0]", "background=white"]
    config = load_config(files["short"], settings)
    assert not config.face, "the model's own counts"
    sample = dataset_of_test(config, layout, params).sample(6, (0,))
    pictures = [
        drawn_where_mlps_see(trained, sample, features)
        for features in (sample.pose.features, replace(sample.pose, expression=torch.zeros(10)).features)
    ]
    assert not np.array_equal(*pictures)
    status, _, err = render(files, tmp_path / "loud", tmp_path / "out", *settings)
    assert status == 0, err
    (path,) = (tmp_path / "out" / "render").iterdir()
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], pictures[0])


def test_the_published_method_goes_over_a_subjects_settings(files, tmp_path):
    """And back: the last file counts, and the command line over all."""
    published = ROOT / "config" / "published.yaml"
    status, _, err = train(files, tmp_path / "model", "--config", published, "light=normal")
    assert status == 0, err
    config = load_config(tmp_path / "model" / "config.yaml")
    assert (config.pose_inputs, config.novel_poses, config.light) == ("body", "pca", "normal")
    assert list(config.hidden_widths) == [512, 256, 256, 256] and config.num_features == 8
    avatar = load_model(tmp_path / "model").avatar
    assert [tuple(weight.shape[1:]) for weight in avatar.bank.weights] == [
        (512, 63), (256, 512), (256, 256), (256, 256), (30, 256)
    ]  # fmt: skip
    assert avatar.mlp_inputs.tolist() == list(range(3, 66)) and avatar.light.coefficients.shape == (8, 3)
    words = ("--config", published, "--config", files["short"], "--data_dir", files["data"], "--resume")
    result = call_fork("train.py", *words, "--out_dir", tmp_path / "model", "--no_viewer")
    one_error_line(result, "pose_inputs", "body", "local")
    one_error_line(train(files, tmp_path / "none", "--config", "no.yaml", run=call_here), "no.yaml")


def test_a_finished_run_resumes_to_itself(files, model):
    before = sorted(path.name for path in (model / "checkpoints").iterdir())
    status, out, err = train(files, model, "--resume")
    assert status == 0 and "resuming" in out, err
    assert before == sorted(path.name for path in (model / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["colour_lr=1"], ["colour_lr", "config/default.yaml"]),
        (["iterations=many"], ["iterations", "many"]),
        (["iterations=0"], ["iterations: 0", "from 1 to"]),
        (["train_cam_ids=[0,9]"], ["camera", "9"]),
        (["test.cam_ids=[4]"], ["camera", "4"]),
        (["begin_ith_frame=500"], ["500"]),
        (["pca_components=24"], ["pca_components: 24", "frames"]),
        (["smpl_pkl_path=nowhere.npz"], ["nowhere.npz", "SMPL-X"]),
        (["lambda_lpips=0.1", "vgg_path=nowhere.pth"], ["nowhere.pth", "vgg16", "lambda_lpips"]),
        (["rasterizer=gsplat"], ["gsplat", "rasterizer: torch"]),
        (["device=cuda:0"], ["device: cuda:0"]),
        (["background=pink"], ["background", "pink"]),
        (["pose_inputs=hands"], ["pose_inputs: hands", "local or body"]),
        (["hidden_widths=[]"], ["hidden_widths: []", "at least one"]),
        (["hidden_widths=[64,0]"], ["hidden_widths: [64, 0]", "1 to 4096"]),
        (["hidden_widths=64"], ["hidden_widths", "list"]),
        (["hidden_widths=[64,wide]"], ["hidden_widths", "wide"]),
        (["light=lamp"], ["light: lamp", "place, normal or none"]),
        (["novel_poses=none"], ["novel_poses: none", "clamp or pca"]),
        (["light_lr=-1"], ["light_lr: -1"]),
        (["light_lr=bright"], ["light_lr", "bright"]),
        (["lr_decay.light=0"], ["lr_decay.light", "0"]),
    ],
)
def test_wrong_settings_end_with_one_line_and_nothing_written(files, tmp_path, overrides, parts):
    if overrides == ["device=cuda:0"] and torch.cuda.is_available():
        return  # the device is there
    one_error_line(train(files, tmp_path / "model", *overrides, run=call_here), *parts)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_end_with_one_line(files, model, tmp_path):
    out = tmp_path / "out"
    one_error_line(
        call_here("train.py", "--config", "no.yaml", "--data_dir", files["data"], "--out_dir", out), "no.yaml"
    )
    one_error_line(
        call_here("train.py", "--config", files["short"], "--data_dir", tmp_path / "none", "--out_dir", out),
        "none",
    )
    one_error_line(render(files, tmp_path / "none", out), "none", "does not exist")
    (tmp_path / "empty").mkdir()
    one_error_line(render(files, tmp_path / "empty", out), "holds no checkpoint")
    one_error_line(render(files, model, out, "test.cam_ids=[17]"), "17")
    assert not out.exists()


def test_a_faulty_capture_ends_with_one_line_and_nothing_written(files, tmp_path):
    def damaged(name: str, damage) -> Path:
        copy = shutil.copytree(files["data"], tmp_path / name)
        damage(copy)
        return copy

    def shrink_masks(capture):
        for path in sorted(capture.glob("*1/mask/pha/*.jpg")):
            cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (50, 50)))

    def spoil_pose(capture):
        params = dict(np.load(capture / "smpl_params.npz"))
        params["body_pose"][7, 2] = np.nan
        np.savez(capture / "smpl_params.npz", **params)

    faults = {
        "masks": (shrink_masks, ["frame 0, camera 1", "50x50"]),
        "pose": (spoil_pose, ["body_pose", "frame 7"]),
        "calibration": (
            lambda capture: (capture / "calibration_full.json").write_text("{"),
            ["calibration_full.json"],
        ),
        "no_poses": (lambda capture: (capture / "smpl_params.npz").unlink(), ["smpl_params.npz"]),
    }
    for name, (damage, parts) in faults.items():
        capture = damaged(name, damage)
        result = call_here(
            "train.py", "--config", files["short"], "--data_dir", capture, "--out_dir", tmp_path / "model"
        )
        one_error_line(result, *parts)
    assert not (tmp_path / "model").exists()


def test_another_run_is_never_overwritten(files, model):
    one_error_line(train(files, model, run=call_here), "not empty", "--resume")
    one_error_line(
        train(files, model, "--resume", "init_num_gs=500", run=call_here), "init_num_gs: 400", "now it is 500"
    )


def test_a_damaged_checkpoint_is_named_by_rendering_and_passed_over_by_resuming(files, model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    newest = sorted((copy / "checkpoints").iterdir())[-1] / "avatar.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    one_error_line(
        render(files, copy, tmp_path / "out"),
        str(newest),
        "is damaged",
        "take an older one, --model_dir",
        "iteration_00000003",
    )
    status, out, err = train(files, copy, "--resume", "auto")
    assert status == 0, err
    assert f"{newest} is damaged" in out and "going on from iteration_00000003 instead" in out
    assert "at iteration 3" in out and (copy / "checkpoints" / "iteration_00000006").is_dir()


def test_resume_takes_auto_or_nothing(files, tmp_path):
    result = train(files, tmp_path / "model", "--resume", "iteration_00000003", run=call_here)
    one_error_line(result, "key=value")
    assert not (tmp_path / "model").exists()


def test_settings_may_stand_anywhere_and_the_last_one_counts(files, tmp_path):
    words = ["iterations=4", "--resume", "iterations=0", "--no_viewer", "views_per_pose=1"]
    one_error_line(
        train(files, tmp_path / "model", *words, run=call_here), "command line: iterations: 0 is not allowed"
    )
