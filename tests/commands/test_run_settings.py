"""What commands know without being told: a model's settings, a run's capture, whose folder is whose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from mmlphuman.config import load_config
from mmlphuman.model_folder import list_checkpoints, load_model
from mmlphuman.picture_files import laid_on
from tests.commands.runs import ROOT, call_fork, call_here, make_compact, one_error_line, train


@pytest.fixture
def model_copy(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def score(files, model, out_dir, *more):
    """test.py without --config."""
    words = ("--model_dir", model, "--data_dir", files["data"], "--out_dir", out_dir)
    return call_here("test.py", *words, *more)


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_capture_is_scored_as_the_model_s_own_settings_say_and_what_differs_is_told(files, model, tmp_path):
    status, own, err = score(files, model, tmp_path / "own")
    assert status == 0 and "not by" not in own, err
    assert pictures(tmp_path / "own" / "render") == [
        f"cam{camera:03d}_frame{frame:08d}.png" for camera in (1, 3) for frame in (0, 1)
    ]
    # The subject's file names less than was trained with; what it leaves out stays the model's.
    (tmp_path / "subject.yaml").write_text("test: {num_frame: 1}\ninit_num_gs: 9000\n")
    given = ("--config", tmp_path / "subject.yaml", "test.cam_ids=[0]", "background=black")
    status, told, err = score(files, model, tmp_path / "other", *given)
    assert status == 0, err
    (note,) = [line for line in told.splitlines() if "not by" in line]
    assert "test.cam_ids: [0] instead of [3, 1]" in note and "test.num_frame: 1 instead of 2" in note
    assert "background" in note and "init_num_gs" not in note and str(model) in note
    assert pictures(tmp_path / "other" / "render") == ["cam000_frame00000000.png"]
    # The published command line gives the settings that the model was trained with.
    status, same, _ = score(files, model, tmp_path / "same", "--config", files["short"])
    assert status == 0 and "not by" not in same
    numbers = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("own", "same")]
    assert numbers[0] == numbers[1]


def test_a_file_goes_over_the_model_s_way_of_test_mode_and_says_so(files, model, tmp_path):
    (tmp_path / "published.yaml").write_text("novel_poses: pca\n")
    words = ("--test", "--config", tmp_path / "published.yaml")
    status, told, err = score(files, model, tmp_path / "out", *words)
    assert status == 0 and "novel_poses: pca instead of clamp" in told, err


def test_eval_and_compact_score_by_the_model_s_own_settings(files, model, tmp_path):
    given = ("--model_dir", model, "--data_dir", files["data"])
    status, told, err = call_here("script/eval.py", *given, "--out_dir", tmp_path / "scores")
    assert status == 0 and "cameras 1, 3, frames 0-1" in told and "not by" not in told, err
    status, told, err = call_here(
        "script/eval.py", *given, "--out_dir", tmp_path / "scores", "test.num_frame=1"
    )
    assert status == 0 and "frames 0;" in told and "test.num_frame: 1 instead of 2" in told, err
    less = ("--data_dir", files["data"], "test.num_frame=1", "test.cam_ids=[3]")
    avatar, told = make_compact(model, tmp_path / "avatar.safetensors", *less)
    assert "test.cam_ids: [3] instead of [3, 1]" in told
    status, told, err = score(files, avatar, tmp_path / "of_file", "test.num_frame=1")
    assert status == 0 and "test.num_frame: 1 instead of 2" in told, err
    assert len(pictures(tmp_path / "of_file" / "render")) == 2


def test_a_run_goes_on_and_becomes_longer_without_being_told_again(files, model_copy, tmp_path):
    """From another folder, with nothing but the model folder; the finished run of 6 iterations gets 3 more."""
    options = ("--out_dir", model_copy.name, "--resume", "--no_viewer")
    words = (ROOT / "train.py", *options, "iterations=9", "log_every=1")
    status, out, err = call_fork(*words, cwd=model_copy.parent)
    assert status == 0, err
    assert "made longer, from 6 to 9 iterations: learning rates go on as those of a run of 9" in out
    (line,) = [line for line in out.splitlines() if line.startswith("resuming")]
    assert "at iteration 6" in line and f"capture {files['data']}" in line
    assert "iterations: 9 instead of 6" in line and "log_every: 1 instead of 2" in line
    assert list_checkpoints(model_copy)[-1].name == "iteration_00000009"
    remembered = load_config(model_copy / "config.yaml")
    assert (remembered.iterations, remembered.log_every) == (9, 1)
    # Given again, the settings that it began with ask for a shorter run.
    one_error_line(train(files, model_copy, "--resume", run=call_here), "iterations", "not shorter")


def test_what_a_run_is_not_told_and_cannot_know_is_one_line(files, model_copy, tmp_path):
    def resume(folder, *more):
        return call_here("train.py", "--out_dir", folder, "--no_viewer", *more)

    one_error_line(resume(tmp_path / "new", "--resume"), "no checkpoint", "--config and --data_dir")
    one_error_line(resume(tmp_path / "new"), "--config and --data_dir")
    one_error_line(resume(model_copy, "--resume", "color_lr=1"), "color_lr: 0.0005, now it is 1.0")
    one_error_line(resume(model_copy, "--resume", "--init_from", model_copy), "begun without it")
    record = json.loads((model_copy / "run.json").read_text())
    (model_copy / "run.json").write_text(json.dumps(record | {"data_dir": str(tmp_path / "gone")}))
    one_error_line(resume(model_copy, "--resume"), "gone", "give --data_dir")
    (model_copy / "run.json").write_text(json.dumps({}))
    one_error_line(resume(model_copy, "--resume"), "run.json", "give --data_dir")
    assert not (tmp_path / "new").exists()


def test_a_new_run_starts_from_a_trained_avatar_and_goes_on_as_that(files, model, tmp_path):
    new = tmp_path / "new"
    status, out, err = train(files, new, "--init_from", model, "iterations=2")
    assert status == 0, err
    assert f"starting from {model}, iteration 6" in out
    first = load_model(list_checkpoints(new)[0])
    assert first.iteration == 0
    begun, own = load_model(model).avatar.state_dict(), first.avatar.state_dict()
    assert all((begun[name] == own[name]).all() for name in begun)
    config = load_config(new / "config.yaml")
    switches = (config.iteration_dxyz_basis, config.iteration_gsparam_basis, config.iteration_sh_degree)
    assert switches == (0, 0, 0), "on in the avatar: on from the first step"
    meshes = [trimesh.load(folder / "template.ply", process=False) for folder in (model, new)]
    assert np.array_equal(meshes[0].vertices, meshes[1].vertices)
    # The whole command line again, as a job queue has it: files say when parts are switched on.
    status, out, err = train(files, new, "--init_from", model, "iterations=2", "--resume")
    assert status == 0 and "at iteration 2: its settings; capture" in out, err
    misfit = ("--init_from", model, "init_num_gs=500", "hidden_widths=[8,8]")
    one_error_line(
        train(files, tmp_path / "misfit", *misfit, run=call_here),
        "the settings describe another avatar",
        "init_num_gs=400 hidden_widths=[64,64]",
    )
    one_error_line(train(files, tmp_path / "misfit", "--init_from", tmp_path / "none", run=call_here), "none")
    assert not (tmp_path / "misfit").exists()


def test_outputs_of_two_calls_do_not_mix(files, model_copy, tmp_path):
    out = tmp_path / "images"
    assert score(files, model_copy, out)[0] == 0
    (out / "render" / "note.txt").write_text("kept")
    assert score(files, model_copy, out, "test.num_frame=1", "test.cam_ids=[3]")[0] == 0
    assert pictures(out / "render") == ["cam003_frame00000000.png", "note.txt"]
    assert pictures(out / "gt") == pictures(out / "mask") == ["cam003_frame00000000.png"]
    before = sorted(tmp_path.rglob("*"))
    scores = ("script/eval.py", "--truth", out / "gt", "--render", out / "gt", "--out_dir")
    frames = ("--model_dir", model_copy, "--cam_path", "0", "--pose_path", files["data"] / "smpl_params.npz")
    check = ("script/check_capture.py", "--data_dir", files["data"], "--smpl_path", "none.npz", "--out")
    export = ("script/export.py", "--model_dir", model_copy, "--device", "cpu", "--out")
    for refused in (
        score(files, model_copy, model_copy),
        score(files, model_copy, files["data"]),
        call_here(*scores, out),
        call_here("test.py", *frames, "--out_dir", out),
        call_here(*check, model_copy),
        call_here(*export, model_copy),
        train(files, out, run=call_here),
    ):
        one_error_line(refused, "choose another folder" if "not empty" in refused[2] else "name a new folder")
    assert sorted(tmp_path.rglob("*")) == before
    assert call_here(*scores, tmp_path / "scores")[0] == call_here(*scores, tmp_path / "scores")[0] == 0


def read_rgba(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]


def test_transparent_renders_are_the_scored_ones_and_scores_are_the_same(files, model, tmp_path):
    results = []
    for name, flags in (("plain", ()), ("clear", ("--background", "transparent"))):
        status, _, err = score(files, model, tmp_path / name, *flags, "test.num_frame=1")
        assert status == 0, err
        results.append(json.loads((tmp_path / name / "scores.json").read_text()))
    assert results[0] == results[1]
    for file in pictures(tmp_path / "plain" / "render"):
        plain = cv2.imread(str(tmp_path / "plain" / "render" / file))[..., ::-1].astype(int)
        clear = read_rgba(tmp_path / "clear" / "render" / file)
        assert (clear[..., 3] == 0).any() and (clear[..., 3] > 200).any()
        assert np.abs(laid_on(clear, (1, 1, 1)) - plain).max() <= 2
    sheets = [
        cv2.imread(str(tmp_path / name / "contact_sheet.png")).astype(int) for name in ("plain", "clear")
    ]
    assert np.abs(sheets[0] - sheets[1]).mean() < 0.5


def test_a_transparent_animation_has_a_video_on_white_and_says_so(files, model, tmp_path):
    poses = ("--pose_path", files["data"] / "smpl_params.npz", "--count", 2)
    words = ("--model_dir", model, "--cam_path", "0", *poses, "--background", "transparent")
    status, out, err = call_here("test.py", *words, "--out_dir", tmp_path / "out", "--video")
    assert status == 0 and "videos are drawn on white" in out, err
    assert read_rgba(tmp_path / "out" / "render" / "frame00000000.png").shape == (96, 96, 4)
    reader = cv2.VideoCapture(str(tmp_path / "out" / "video.mp4"))
    seen, frame = reader.read()
    assert seen and (frame[:4, :4] > 250).all()
    one_error_line(call_here("test.py", *words, "--test_speed"), "--test_speed", "transparent")
