"""Recognising a capture, its calibration and its poses, and what is said about unusable ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_capture import CAMERAS, FRAMES, HEIGHT, WIDTH, image_path, mask_path, pose_arrays

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params


def test_avatarrex_layout(small_capture):
    layout = open_capture(small_capture)
    assert tuple(camera.name for camera in layout.cameras) == CAMERAS  # ids are positions in the file
    assert layout.edge_radius == 5
    assert layout.image_path(1, 3) == image_path(small_capture, 1, 3)
    assert layout.mask_path(2, 0) == mask_path(small_capture, 2, 0)
    camera = layout.cameras[1]
    assert camera.image_size == (WIDTH, HEIGHT)
    assert camera.K.tolist() == [[80, 0, WIDTH / 2], [0, 80, HEIGHT / 2], [0, 0, 1]]
    np.testing.assert_allclose(np.linalg.norm(camera.center), 2)
    np.testing.assert_allclose(camera.w2c @ [*camera.center, 1], [0, 0, 0, 1], atol=1e-12)


def test_optional_calibration_fields(small_capture):
    edit_camera(small_capture, 0, lambda entry: [entry.pop(field) for field in ("distCoeff", "imgSize")])
    camera = open_capture(small_capture).cameras[0]
    assert camera.image_size is None and camera.dist.tolist() == [0] * 5


def test_missing_or_unknown_capture(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist.*--data_dir"):
        open_capture(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no capture of a known format.*calibration_full\.json"):
        open_capture(tmp_path)


def edit_camera(root, index, change) -> None:
    path = root / "calibration_full.json"
    calibration = json.loads(path.read_text())
    change(calibration[CAMERAS[index]])
    path.write_text(json.dumps(calibration))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.pop("K"), "K is missing"),
        (lambda entry: entry.pop("R"), "R is missing"),
        (lambda entry: entry.pop("T"), "T is missing"),
        (lambda entry: entry.update(T=[0, 0]), "T must be 3 numbers, got 2"),
        (lambda entry: entry.update(K="wide"), "K must be 9 numbers, got 'wide'"),
        (lambda entry: entry.update(T=[0, float("nan"), 1]), "T holds numbers that are not finite"),
        (lambda entry: entry["K"].__setitem__(0, 0.0), "focal lengths 0, 80; they must be positive"),
        (lambda entry: entry["K"].__setitem__(8, 2.0), "K must be upper triangular"),
        (lambda entry: entry.update(R=[2, 0, 0, 0, 1, 0, 0, 0, 1]), "R is not a rotation"),
        (lambda entry: entry.update(R=[-1, 0, 0, 0, 1, 0, 0, 0, 1]), "R mirrors"),
        (lambda entry: entry.update(distCoeff=[0.1]), "distCoeff must be 5 numbers, got 1"),
        (lambda entry: entry.update(imgSize=[0, 5]), "image size"),
    ],
)
def test_unusable_calibration_names_file_camera_and_field(small_capture, change, message):
    edit_camera(small_capture, 1, change)
    with pytest.raises(ValueError, match=message) as caught:
        open_capture(small_capture)
    text = str(caught.value)
    assert "calibration_full.json" in text and CAMERAS[1] in text and "\n" not in text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a": 3}'])
def test_unreadable_calibration(small_capture, content):
    (small_capture / "calibration_full.json").write_text(content)
    with pytest.raises(ValueError, match=r"calibration_full\.json"):
        open_capture(small_capture)


def test_poses_in_smplx_order_with_jaw_and_eyes_zero(small_capture):
    params = read_smpl_params(open_capture(small_capture).pose_path)
    arrays = pose_arrays()
    assert len(params) == FRAMES and params.poses.shape == (FRAMES, 165) and params.betas.shape == (10,)
    face = np.zeros((FRAMES, 9))
    parts = [
        arrays["global_orient"],
        arrays["body_pose"],
        face,
        arrays["left_hand_pose"],
        arrays["right_hand_pose"],
    ]
    np.testing.assert_array_equal(params.poses, np.concatenate(parts, 1))
    pose = params.pose(4)
    np.testing.assert_array_equal(pose.body.numpy(), arrays["body_pose"][4])
    np.testing.assert_array_equal(pose.translation.numpy(), arrays["transl"][4])
    assert torch.equal(pose.rotation, torch.eye(3))
    with pytest.raises(ValueError, match="frame 6 does not exist.*0 to 5"):
        params.pose(6)


def with_nan(array: np.ndarray, frame: int) -> np.ndarray:
    array = array.copy()
    array[frame:, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("transl", None, "'transl' is missing"),
        ("betas", None, "'betas' is missing"),
        (
            "body_pose",
            lambda a: with_nan(a, 3),
            "'body_pose' holds numbers that are not finite, first in frame 3",
        ),
        ("transl", lambda a: with_nan(a, 0), "'transl' holds numbers that are not finite, first in frame 0"),
        ("betas", lambda a: a * np.inf, "'betas' holds numbers that are not finite"),
        ("betas", lambda a: a[:, :5], r"'betas' has shape \(1, 5\)"),
        ("left_hand_pose", lambda a: a[:, :6], r"'left_hand_pose' has shape \(6, 6\).*\(frames, 45\)"),
        ("right_hand_pose", lambda a: a[:4], "'right_hand_pose' has 4 frames but 'transl' has 6"),
        ("transl", lambda a: a[:0], "'transl' holds no frames"),
        ("global_orient", lambda a: np.array([None]), "'global_orient' cannot be read.*pickled"),
        ("global_orient", lambda a: np.full(a.shape, "x"), "'global_orient' is not numeric"),
    ],
)
def test_unusable_poses_name_file_and_array(tmp_path, key, change, message):
    arrays = pose_arrays()
    original = arrays.pop(key)
    if change is not None:
        arrays[key] = change(original)
    np.savez(tmp_path / "smpl_params.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_smpl_params(tmp_path / "smpl_params.npz")
    assert "smpl_params.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_or_missing_pose_file(tmp_path):
    path = tmp_path / "smpl_params.npz"
    with pytest.raises(FileNotFoundError, match=r"smpl_params\.npz: no such file"):
        read_smpl_params(path)
    np.savez(path, **pose_arrays())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"smpl_params\.npz: not a readable npz"):
        read_smpl_params(path)
