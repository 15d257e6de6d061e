"""Reading a model folder: strict, safe, and the newest checkpoint of it."""

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.model_folder import (
    REFINED_POSES,
    load_avatar,
    load_model,
    newest_checkpoint,
    poses_to_score,
    training_frames,
)
from tests.builders import random_pose, save_checkpoint, small_trained


@pytest.fixture(scope="module")
def trained(synthetic_body):
    return small_trained(synthetic_body)


@pytest.fixture
def saved(trained, tmp_path):
    return save_checkpoint(tmp_path, trained, {"any": torch.ones(2)}, keep=2)


def test_round_trip_poses_the_same(trained, saved):
    loaded = load_avatar(saved)
    assert loaded.iteration == 40 and loaded.config == trained.config
    pose = random_pose(3)
    ours, theirs = vars(loaded.avatar(pose).posed), vars(trained.avatar(pose).posed)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    for project in (False, True):
        assert torch.equal(loaded.features(pose, project), trained.features(pose, project))
    joints = pose.joints
    assert torch.equal(loaded.pose_space.project(joints), trained.pose_space.project(joints))


NOT_THERE_YET = (
    "pose_inputs", "hidden_widths", "light", "novel_poses", "light_lr", "face", "refine_poses", "refine_camera_colors",
    "lambda_pose_smooth", "lambda_pose_small", "pose_lr", "camera_color_lr",
)  # fmt: skip


def test_a_checkpoint_of_former_versions_poses_as_it_did(synthetic_body, tmp_path):
    """The published method; neither its settings nor its state nor its pose space say so."""
    trained = small_trained(
        synthetic_body,
        pose_inputs="body",
        hidden_widths=[512, 256, 256, 256],
        light="none",
        novel_poses="pca",
    )
    path = save_checkpoint(tmp_path, trained, {}, keep=2) / "avatar.pt"
    content = torch.load(path, weights_only=True)
    for key in NOT_THERE_YET:
        del content["config"][key]
    for key in ("light", "pose", "camera_color"):
        del content["config"]["lr_decay"][key]
    del content["avatar"]["mlp_inputs"]
    content["pose_space"]["training_poses"] = content["pose_space"]["training_poses"][:, 3:66].clone()
    torch.save(content, path)
    loaded, pose = load_model(tmp_path), random_pose(3, size=2.0)
    assert loaded.config == trained.config
    for project in (False, True):
        assert torch.equal(loaded.features(pose, project), trained.features(pose, project))
        ours, theirs = (vars(each.pose(pose, project)) for each in (loaded, trained))
        for name, value in theirs.items():
            assert ours[name] is value is None or torch.equal(ours[name], value), name
    assert not torch.equal(loaded.features(pose, True), pose.features)


@pytest.mark.parametrize("length", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_line(saved, length):
    path = saved / "avatar.pt"
    content = path.read_bytes()
    path.write_bytes(content[: length if length > 1 else int(len(content) * length)])
    with pytest.raises(ValueError, match="avatar.pt: not a readable checkpoint") as error:
        load_avatar(saved)
    assert "\n" not in str(error.value)


def test_another_version_and_missing_tensors_are_refused(saved):
    path = saved / "avatar.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format_version": 99}, path)
    with pytest.raises(ValueError, match="format version 99, this program reads 2"):
        load_avatar(saved)
    del content["avatar"]["quats"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="quats"):
        load_avatar(saved)


def assert_refused(saved, content, message):
    path = saved / "avatar.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        load_avatar(saved)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert "another checkpoint of the run" in str(error.value)


def test_tensors_are_held_to_what_an_avatar_needs(saved):
    """Each of them: tests/avatar/test_state.py."""
    content = torch.load(saved / "avatar.pt", weights_only=True)
    wrong = content["avatar"]["quats"].clone()
    wrong[3, 1] = torch.nan
    changed = content | {"avatar": content["avatar"] | {"quats": wrong}}
    assert_refused(saved, changed, "tensor quats holds numbers that are not finite")
    changed = content | {"pose_space": content["pose_space"] | {"mean": torch.zeros(3)}}
    assert_refused(saved, changed, "tensor pose_space.mean is .*expected")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "settings are a NoneType"),
        ({"config": {"pca_sigmas": float("nan")}}, "pca_sigmas: nan is not allowed"),
        ({"config": {"vgg_path": "${oc.env:HOME}"}}, "vgg_path: .*stands for a value elsewhere"),
        ({"iteration": -1}, "iteration -1 is no count"),
        ({"iteration": "many"}, "iteration 'many' is no count"),
        ({"avatar": [1, 2]}, "content does not fit"),
        ({"pose_space": 7}, "content does not fit"),
    ],
)
def test_other_contents_of_a_checkpoint_are_one_line(saved, changes, message):
    content = torch.load(saved / "avatar.pt", weights_only=True)
    assert_refused(saved, content | changes, message)
    for key in changes:
        assert_refused(saved, {k: v for k, v in content.items() if k != key}, f"'{key}' is missing")


def test_a_checkpoint_that_is_a_list_is_refused(saved):
    assert_refused(saved, [1, 2], "holds a list, no checkpoint")


@pytest.mark.parametrize("name", ["avatar.pt"])
def test_a_pipe_in_the_place_of_a_checkpoint_is_not_waited_for(saved, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    for read in (load_avatar, load_model):
        with pytest.raises(ValueError, match="not a plain file|not a readable checkpoint"):
            read(saved)


def test_a_pickle_is_not_run(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (saved / "avatar.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_avatar(saved)
    assert not (tmp_path / "owned").exists()


def test_missing_folder_and_missing_checkpoint_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        newest_checkpoint(tmp_path / "nowhere")
    (tmp_path / "avatar.txt").touch()
    with pytest.raises(
        ValueError, match="avatar.txt is a file; give the model folder, one checkpoint's folder"
    ):
        load_model(tmp_path / "avatar.txt")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        newest_checkpoint(tmp_path)


def test_a_model_is_loaded_from_its_folder_or_from_one_checkpoint(trained, saved, tmp_path):
    later = TrainedAvatar(trained.avatar, trained.pose_space, trained.config, 80)
    save_checkpoint(tmp_path, later, {}, keep=2)
    assert load_model(tmp_path).iteration == 80
    assert load_model(saved).iteration == 40
    torch.testing.assert_close(load_model(saved).pose_space.training_poses, trained.pose_space.training_poses)


def test_a_model_that_refined_poses_is_scored_in_them_on_its_own_capture_alone(tiny_capture, tmp_path):
    path, refining = tiny_capture / "smpl_params.npz", default_config(refine_poses=True)
    capture = read_smpl_params(path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["transl"] = arrays["transl"] + np.float32([[0.05, 0, 0]]) * (np.arange(len(capture)) < 3)[:, None]
    model = tmp_path / "model"
    checkpoint = model / "checkpoints" / "iteration_00000040"
    checkpoint.mkdir(parents=True)
    poses, (line,) = poses_to_score(model, refining, capture)
    assert poses is capture and "model has no smpl_params.npz of refined poses" in line
    np.savez(model / REFINED_POSES, **arrays)
    for named in (model, checkpoint):
        poses, (line,) = poses_to_score(named, refining, capture)
        assert np.array_equal(poses.translations, arrays["transl"])
        assert (
            line.startswith("frames 0-2 are drawn in the poses that training refined")
            and "--capture_poses" in line
        )
    assert poses_to_score(model, default_config(), capture) == (capture, [])
    assert poses_to_score(model, refining, poses) == (poses, []), "nothing was moved"
    shifted = replace(capture, translations=capture.translations + np.float32(0.2))
    turned = replace(capture, poses=capture.poses[::-1].copy())
    other_shape = replace(capture, betas=capture.betas + 1)
    shorter = replace(capture, poses=capture.poses[:5], translations=capture.translations[:5])
    for other in (shifted, turned, other_shape, shorter):
        poses, (line,) = poses_to_score(model, refining, other)
        assert poses is other and "is of another capture" in line


def test_a_compact_file_brings_its_refined_poses_to_its_own_capture_alone(
    trained, tiny_capture, tmp_path, monkeypatch
):
    config, path = replace(trained.config, refine_poses=True), tmp_path / "model.safetensors"
    capture = read_smpl_params(tiny_capture / "smpl_params.npz")
    rows = np.array([4, 7])
    frames = replace(
        read_pose_file(tiny_capture / "smpl_params.npz", PoseOptions(units="m")),
        poses=capture.poses[rows] + np.float32(0.01),
        translations=capture.translations[rows] + np.float32(0.02),
        frames=rows,
    )
    monkeypatch.setattr("mmlphuman.model_folder.training_frames", lambda path, config: frames)
    poses, (line,) = poses_to_score(path, config, capture)
    assert line.startswith("frames 4, 7 are drawn in the poses that training refined") and str(path) in line
    others = np.setdiff1d(np.arange(len(capture)), rows)
    assert np.array_equal(poses.poses[rows], frames.poses)
    assert np.array_equal(poses.translations[rows], frames.translations)
    assert np.array_equal(poses.poses[others], capture.poses[others])
    assert np.array_equal(poses.translations[others], capture.translations[others])
    shorter = replace(capture, poses=capture.poses[:5], translations=capture.translations[:5])
    turned = replace(capture, poses=capture.poses[::-1].copy())
    for other in (shorter, turned):
        poses, (line,) = poses_to_score(path, config, other)
        assert poses is other and "is of another capture" in line
    monkeypatch.setattr("mmlphuman.model_folder.training_frames", lambda path, config: None)
    poses, (line,) = poses_to_score(path, config, capture)
    assert poses is capture and "of refined poses" in line


def test_training_frames_are_where_they_were_however_far(trained, tmp_path):
    """Farther than a pose file's metres may be without a word, which a capture's are."""
    poses = np.stack([random_pose(seed).joints.numpy() for seed in range(3)])
    translations = np.float32([[30, 0, 0], [31, 0, 0], [32, 0, 0]])
    np.savez(tmp_path / "poses.npz", frames=[4, 6, 9], poses=poses, translations=translations)
    frames = training_frames(tmp_path, trained.config)
    assert np.array_equal(frames.translations, translations) and frames.frames.tolist() == [4, 6, 9]
    assert training_frames(tmp_path / "checkpoints" / "iteration_00000040", trained.config) is not None
    assert training_frames(tmp_path / "elsewhere", trained.config) is None


def test_refined_poses_that_are_too_few_are_one_line(tmp_path, tiny_capture, trained):
    config = replace(trained.config, refine_poses=True)
    np.savez(tmp_path / "poses.npz", frames=[40], poses=np.zeros((1, 165)), translations=np.zeros((1, 3)))
    shutil.copy(tiny_capture / "smpl_params.npz", tmp_path / REFINED_POSES)
    with pytest.raises(ValueError, match=r"smpl_params.npz: has 28 poses, but training saw frame 40"):
        training_frames(tmp_path, config)
    assert len(training_frames(tmp_path, trained.config)) == 1
