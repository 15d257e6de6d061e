"""A compact file in the place of MODEL, in every command; where it cannot serve, one line says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from mmlphuman.backend import PYTORCH
from mmlphuman.model_folder import REFINED_POSES, load_model, training_frames
from mmlphuman.streaming.live_scene import scene_of_model
from tests.commands.runs import call_here, make_compact, one_error_line, render

HELD_OUT = 3


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


@pytest.mark.parametrize("camera", [1, HELD_OUT])
def test_cameras_are_known_by_their_ids(camera, compact, model, files, tmp_path):
    for name, path in (("compact", compact), ("folder", model)):
        words = ("--model_dir", path, "--out_dir", tmp_path / name, "--cam_path", camera)
        poses = ("--pose_path", files["data"] / "smpl_params.npz", "--begin", 3, "--count", 1)
        status, _, err = call_here("test.py", *words, *poses)
        assert status == 0, err
    ours, theirs = (
        picture(next((tmp_path / name / "render").rglob("*.png"))) for name in ("compact", "folder")
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 8 and (theirs != theirs[0, 0]).any()


def test_a_capture_is_rendered_and_scored(compact, files, tmp_path):
    status, out, err = render(files, compact, tmp_path / "images", run=call_here)
    assert status == 0 and "PSNR" in out, err
    words = ("--config", files["short"], "--model_dir", compact, "--data_dir", files["data"])
    status, out, err = call_here("script/eval.py", *words, "--out_dir", tmp_path / "scores")
    assert status == 0, err


def test_a_rigged_mesh_is_the_folder_s(compact, model, files, tmp_path):
    for name, path in (("compact", compact), ("folder", model)):
        poses = ("--pose_path", files["data"] / "smpl_params.npz", "--count", 2)
        words = ("--model_dir", path, "--format", "glb", "--out", tmp_path / f"{name}.glb", "--device", "cpu")
        status, _, err = call_here("script/export.py", *words, *poses)
        assert status == 0, err
    ours, theirs = (
        trimesh_of(tmp_path / f"{name}.glb") for name in ("compact", "folder")
    )  # but for rounding of the avatar, which colours and moves the mesh
    assert np.array_equal(ours.faces, theirs.faces)
    np.testing.assert_allclose(ours.vertices, theirs.vertices, atol=2e-3)


def trimesh_of(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh", process=False)


def test_speed_and_benchmark_take_it(compact, files, tmp_path):
    words = ("--cam_path", 0, "--pose_path", files["data"] / "smpl_params.npz", "--count", 3)
    status, out, err = call_here(
        "test.py", "--model_dir", compact, *words, "--test_speed", "--speed_frames", 2
    )
    assert status == 0 and "test_speed" in out, err
    words = ("--only", "render", "--size", 64, 64, "--frames", 10, "--out", tmp_path / "speed.json")
    status, _, err = call_here("script/benchmark.py", "--model_dir", compact, *words, "--device", "cpu")
    assert status == 0 and json.loads((tmp_path / "speed.json").read_text()), err


def test_viewers_find_the_folder_s_frames_and_cameras(compact, model):
    ours, theirs = (scene_of_model(path, load_model(path), PYTORCH) for path in (compact, model))
    here, there = ours.welcome(training=False), theirs.welcome(training=False)
    assert here.frames == there.frames and here.up == there.up
    np.testing.assert_allclose(here.center, there.center, atol=1e-5)
    assert [(entry.id, entry.trained) for entry in here.cameras] == [
        (0, True),
        (1, True),
        (2, True),
        (HELD_OUT, False),
    ]
    for one, other in zip(here.cameras, there.cameras, strict=True):
        np.testing.assert_allclose(one.camera.w2c, other.camera.w2c, atol=1e-9)
    step = 2**-13  # of a compact file, radians or metres
    np.testing.assert_allclose(ours.poses, theirs.poses, atol=0.51 * step)
    np.testing.assert_allclose(ours.translations, theirs.translations, atol=0.51 * step)


def test_what_it_cannot_do_is_one_line(compact, tmp_path):
    out = tmp_path / "plot.png"
    one_error_line(call_here("script/plot_runs.py", compact, "--out", out), compact.name, "model folders")
    words = ("--model_dir", compact, "--out", tmp_path / "again.safetensors")
    one_error_line(call_here("script/compact.py", *words), "compact model already")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def refined(model, files, tmp_path_factory) -> Path:
    """A model folder that says that it refined poses: frame 2 moved by 5 cm and its left elbow turned."""
    folder = tmp_path_factory.mktemp("refined") / "model"
    shutil.copytree(model, folder)
    with np.load(files["data"] / "smpl_params.npz") as file:
        arrays = dict(file)
    arrays["transl"][2] += np.float32([0.05, 0, 0])
    arrays["body_pose"][2, 51:54] += np.float32([0.0, 0.05, 0])
    np.savez(folder / REFINED_POSES, **arrays)
    for checkpoint in (folder / "checkpoints").iterdir():
        content = torch.load(checkpoint / "avatar.pt", weights_only=True)
        content["config"]["refine_poses"] = True
        content["pose_space"]["training_poses"][2, 54:57] += torch.tensor([0.0, 0.05, 0])
        torch.save(content, checkpoint / "avatar.pt")
    return folder


def test_refined_poses_are_shown_carried_and_scored(refined, model, files, tmp_path):
    compact, _ = make_compact(refined, tmp_path / "avatar.safetensors", "--keep", 1)
    config = load_model(refined).config
    capture = training_frames(refined, replace(config, refine_poses=False))
    for path in (refined, next((refined / "checkpoints").iterdir()), compact):
        frames = training_frames(path, config)
        moved = np.abs(frames.translations - capture.translations).max(1) > 1e-3
        turned = np.abs(frames.poses - capture.poses).max(1) > 1e-3
        assert np.flatnonzero(moved).tolist() == np.flatnonzero(turned).tolist() == [2]
        scene = scene_of_model(path, load_model(path), PYTORCH)
        assert np.array_equal(scene.translations, frames.translations)
        np.testing.assert_allclose(scene.poses, frames.poses, atol=1e-6)
    notes = []
    for name, path in (("folder", refined), ("compact", compact)):
        words = ("test.num_frame=3", "test.begin_ith_frame=0", "test.frame_interval=1")
        status, out, err = render(files, path, tmp_path / name, *words, run=call_here)
        assert status == 0, err
        notes += [line for line in out.splitlines() if line.startswith("note: frames")]
    assert len(notes) == 2 and all(
        "frames 2 are drawn in the poses that training refined" in note for note in notes
    )
