"""script/eval.py: the three forms, what they print and write, and one line for every mistake."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.evaluation.fid import Inception
from mmlphuman.model_folder import load_model
from mmlphuman.picture_files import image_name, write_png
from tests.builders import save_checkpoint, small_avatar

ROOT = Path(__file__).resolve().parents[2]
TEST = "test: {cam_ids: [3, 1], begin_ith_frame: 23, num_frame: 2}\ndevice: cpu\nvgg_path: none.pth\n"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command(*arguments) -> (exit status, lines printed, lines of errors)."""
    spec = importlib.util.spec_from_file_location("eval_script", ROOT / "script" / "eval.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["eval.py", *map(str, arguments), "--out_dir", str(tmp_path / "out")]
        )
        status = 0
        try:
            script.run_command(lambda: script.main(script.parse_arguments()))
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return status, printed.out, [line for line in printed.err.splitlines() if "%|" not in line and line]

    return run


@pytest.fixture(scope="module")
def model(synthetic_body, tiny_capture, tmp_path_factory):
    """An avatar as it is before the first step, in a checkpoint: trained on cameras 0-2, frames 0-23."""
    settings = {"train_cam_ids": [0, 1, 2], "num_train_frame": 24, "pca_components": 5}
    avatar = small_avatar(synthetic_body, **settings)
    poses = torch.from_numpy(read_smpl_params(tiny_capture / "smpl_params.npz").poses[:24])
    config = default_config(init_num_gs=600, num_verts=120, num_features=10, **settings)
    folder = tmp_path_factory.mktemp("model")
    save_checkpoint(folder, TrainedAvatar(avatar, PoseSpace.fit(poses, 5), config, 3000), {}, keep=1)
    return folder


@pytest.fixture
def of_model(model, tiny_capture, tmp_path):
    (tmp_path / "config.yaml").write_text(TEST)
    return ("--config", tmp_path / "config.yaml", "--model_dir", model, "--data_dir", tiny_capture)


def test_frames_that_training_refined_are_scored_as_refined_unless_asked_otherwise(
    command, of_model, model, tiny_capture, tmp_path
):
    refining = tmp_path / "refining"
    trained = load_model(model)
    trained = replace(trained, config=replace(trained.config, refine_poses=True))
    save_checkpoint(refining, trained, {}, keep=1)
    with np.load(tiny_capture / "smpl_params.npz") as file:
        arrays = dict(file)
    arrays["transl"][:24] += 0.05
    np.savez(refining / "smpl_params.npz", **arrays)
    of_model = tuple(refining if word is model else word for word in of_model)
    scores = []
    for more in ((), ("--capture_poses",)):
        status, out, err = command(*of_model, *more)
        assert status == 0, err
        told = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert any("frames 0-23 are drawn" in note for note in told["notes"]) == (not more)
        assert ("note: frames 0-23 are drawn in the poses that training refined" in out) == (not more)
        pictures = [picture for table in told["results"].values() for picture in table["images"]]
        scores.append({picture["frame"]: picture["psnr"] for picture in pictures if picture["camera"] == 3})
    assert scores[0][23] != scores[1][23] and scores[0][24] == scores[1][24]


@pytest.fixture
def folders(tmp_path):
    for index, frame in enumerate((0, 4)):
        mask = np.zeros((60, 50), bool)
        mask[10:50, 15:35] = True
        truth = np.where(mask[..., None], np.uint8(90 + 20 * index), np.uint8(255)).repeat(3, -1)
        noise = np.random.default_rng(frame).integers(-9, 9, truth.shape)
        write_png(tmp_path / image_name("gt", 8, frame), truth)
        write_png(tmp_path / image_name("mask", 8, frame), mask)
        write_png(tmp_path / image_name("render", 8, frame), np.clip(truth + noise, 0, 255).astype(np.uint8))
    return tmp_path


def test_a_config_of_seen_and_novel_poses(command, of_model, tmp_path):
    status, printed, _ = command(*of_model)
    assert status == 0
    assert printed.index("test views: cameras 1, 3, frames 23;") < printed.index(
        "novel poses: cameras 1, 3, frames 24;"
    )
    assert "96x96 pixels; poses clamped to training's range" in printed
    assert "WARNING: test views: 1 of 2 images were trained on (camera 1, frame 23)" in printed
    assert "LPIPS is left out" in printed and "none.pth" in printed and "6726825d" in printed
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(written["results"]) == {"test views", "novel poses"}
    assert [part["poses_projected"] for part in written["protocol"]["parts"]] == [False, True]
    assert written["model"]["novel_poses"] == "clamp"
    assert written["model"]["iteration"] == 3000 and written["model"]["training_cameras"] == "0-2"
    assert written["versions"]["packages"]["torch"] and "commit" in written["versions"]
    assert set(written["left_out"]) == {"lpips", "fid"}
    views = written["results"]["test views"]
    assert views["overall"]["images"] == 2 and views["image_sizes"] == [[96, 96]]
    assert (
        views["overall"]["psnr"] > 5 and views["overall"]["fid"] is None and views["overall"]["lpips"] is None
    )
    assert views["cameras"]["1"]["training_camera"] and not views["cameras"]["3"]["training_camera"]


def test_the_protocol_decides_about_the_projection(command, of_model, monkeypatch):
    asked = []
    features = TrainedAvatar.features
    monkeypatch.setattr(
        TrainedAvatar,
        "features",
        lambda self, pose, project: asked.append(project) or features(self, pose, project),
    )
    assert command(*of_model)[0] == 0
    assert asked == [False, False, True, True]


def test_novel_poses_may_be_projected_as_published(command, of_model, tmp_path):
    status, printed, _ = command(*of_model, "novel_poses=pca")
    assert status == 0 and "96x96 pixels; poses projected into the training poses' space" in printed
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["model"]["novel_poses"] == "pca"


def test_two_folders(command, folders, tmp_path):
    arguments = ("--truth", folders / "gt", "--render", folders / "render", "device=cpu", "vgg_path=none.pth")
    status, printed, _ = command(*arguments, "--mask", folders / "mask")
    assert status == 0 and "note: LPIPS is left out" in printed and "2 pictures" in printed
    result = json.loads((tmp_path / "out" / "scores.json").read_text())["results"]["render"]
    assert result["overall"]["psnr_crop"] is not None and list(result["cameras"]) == ["8"]
    truth, render = (
        cv2.imread(str(folders / image_name(kind, 8, 4))).astype(float) for kind in ("gt", "render")
    )
    psnr = -10 * np.log10(np.square((truth - render) / 255).mean())
    assert result["images"][1]["psnr"] == pytest.approx(psnr, abs=1e-4)
    status, printed, _ = command(*arguments)
    assert status == 0 and "note: no masks: only the whole images are scored" in printed
    assert "left out" not in printed


def test_fid_with_weights_that_are_not_the_published_ones(command, folders, tmp_path):
    torch.save(Inception.with_random_weights(0).state_dict(), tmp_path / "inception.pth")
    shutil.copytree(folders / "gt", folders / "perfect")
    status, printed, _ = command(
        *("--truth", folders / "gt", "--mask", folders / "mask"),
        *("--render", folders / "render", "--render", folders / "perfect"),
        *("--inception_path", tmp_path / "inception.pth", "device=cpu", "vgg_path=none.pth"),
    )
    assert status == 0
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    assert rows["program"][-1] == "FID" and rows["perfect"][2] == "inf"
    assert float(rows["perfect"][-1]) == 0 and float(rows["render"][-1]) > 0
    assert "FID of 2 images is biased" in printed and "not the published file" in printed
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["results"]["perfect"]["overall"]["fid"] == pytest.approx(0, abs=1e-6)
    assert len(written["weights"]["fid"]["sha256"]) == 64 and set(written["left_out"]) == {"lpips"}


def one_line(result, *parts):
    status, _, errors = result
    assert status == 1 and len(errors) == 1 and errors[0].startswith("error: "), errors
    for part in parts:
        assert part in errors[0], errors[0]


def test_wrong_use_ends_with_one_line(command, of_model, folders, tmp_path):
    named = of_model[2:]
    one_line(command("--protocol", "nobody", *named), "nobody", "subject00", "zzr")
    one_line(
        command("--protocol", "zzr", *named, "device=cpu"), "zzr, novel views", "camera 7", "cameras 0 to 3"
    )
    one_line(command("--protocol", "zzr", *named, "test.cam_ids=[3]"), "test.cam_ids", "settled")
    one_line(command("--protocol", "zzr", *of_model), "--protocol", "--config")
    one_line(command(*of_model[:4]), "--data_dir")
    one_line(command(*of_model, "--truth", folders / "gt"), "--truth")
    one_line(command("--truth", folders / "gt"), "--render")
    one_line(command(*of_model, "test.num_frame=40"), "novel poses: frame 28 does not exist")
    one_line(command("--config", of_model[1], "--model_dir", tmp_path / "none", *of_model[4:]), "none")
    (tmp_path / "weights.pth").write_text("no weights")
    one_line(command(*of_model, "--inception_path", tmp_path / "weights.pth"), "weights.pth")
    assert not (tmp_path / "out").exists()


def test_nothing_is_rendered_where_nothing_can_be_written(command, of_model, monkeypatch, tmp_path):
    (tmp_path / "out").write_text("a file")
    monkeypatch.setattr(TrainedAvatar, "features", lambda *_: pytest.fail("rendered"))
    one_line(command(*of_model), "out", "cannot be written")


def test_unreadable_pictures_end_with_one_line_and_no_scores(command, folders, tmp_path):
    path = folders / image_name("render", 8, 4)
    path.write_bytes(path.read_bytes()[:100])
    result = command("--truth", folders / "gt", "--render", folders / "render", "device=cpu")
    one_line(result, "cam008_frame00000004.png", "cut short")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["output.json"], "begun, and no scores"
