"""Recognising a capture, its calibration and its poses, and what is said about unusable ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_capture import CAMERAS, FRAMES, HEIGHT, WIDTH, camera_pose, image_path, mask_path, pose_arrays

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


@pytest.mark.parametrize(("layout", "radius"), [("avatarrex", 5), ("thuman4", 3), ("actorshq", 4)])
def test_layouts_hold_the_same_capture(capture_of, layout, radius):
    """The very cameras, files and samples of the AvatarReX layout; only the edge's width is the format's own."""
    root = capture_of(layout)
    read, expected = (
        open_capture(root),
        open_capture(capture_of("avatarrex") if layout != "avatarrex" else root),
    )
    assert read.edge_radius == radius
    for index, (camera, other) in enumerate(zip(read.cameras, expected.cameras, strict=True)):
        assert camera.name == other.name and camera.image_size == other.image_size
        assert read.image_path(index, 4) == image_path(root, index, 4, layout)
        assert read.mask_path(index, 4) == mask_path(root, index, 4, layout)
        np.testing.assert_allclose(camera.w2c, other.w2c, atol=1e-12)
        np.testing.assert_allclose(camera.K, other.K, rtol=1e-14)
        np.testing.assert_allclose(camera.center, camera_pose(index)[1], atol=1e-12)
        assert not camera.dist.any()


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


def test_jaw_and_expression_are_read_where_the_face_is_asked_for(small_capture):
    path = open_capture(small_capture).pose_path
    arrays, without, params = pose_arrays(), read_smpl_params(path), read_smpl_params(path, face=True)
    np.testing.assert_array_equal(params.poses[:, 66:69], arrays["jaw_pose"])
    params.poses[:, 66:69] = 0
    np.testing.assert_array_equal(params.poses, without.poses)
    np.testing.assert_array_equal(params.pose(4).expression, arrays["expression"][4])
    np.testing.assert_array_equal(params.expressions_of([5, 1]), arrays["expression"][[5, 1]])
    assert without.expressions is None and not without.pose(4).expression.any()
    assert without.expressions_of([1, 2, 3]).shape == (3, 10)


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
