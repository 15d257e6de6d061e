"""The synthetic capture: layout, determinism, and cloth that moves with the pose beyond skinning."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmlphuman.synthetic import remesh
from mmlphuman.synthetic.capture_writer import make_capture, set_stage
from mmlphuman.synthetic.folds import pose_drives
from mmlphuman.synthetic.raycast import photograph, pixel_rays, pose_mesh, project
from mmlphuman.synthetic.studio import full_pose


@pytest.fixture(scope="module")
def stage(synthetic_body):
    return set_stage(synthetic_body, size=(96, 96), num_cameras=2, num_frames=12, num_novel_frames=2)


def photo(stage, frame, camera=0, cloth_frame=None):
    """Image and mask of a frame; the cloth may be that of another frame."""
    pose = full_pose(stage.motion, frame)
    mesh = pose_mesh(stage.subject, stage.cloth, pose, stage.motion["transl"][frame])
    if cloth_frame is not None:
        drives = pose_drives(full_pose(stage.motion, cloth_frame)[3:66])

        class OtherCloth:
            def displace(self, subject, _):
                return stage.cloth.displace(subject, drives)

        mesh = pose_mesh(stage.subject, OtherCloth(), pose, stage.motion["transl"][frame])
    return photograph(mesh, stage.cameras[camera], stage.prints)


def test_layout(tiny_capture):
    calibration = json.loads((tiny_capture / "calibration_full.json").read_text())
    assert len(calibration) == 4
    for name, camera in calibration.items():
        assert [len(camera[key]) for key in ("K", "R", "T", "distCoeff", "imgSize")] == [9, 9, 3, 5, 2]
        rotation = np.array(camera["R"]).reshape(3, 3)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0
        for folder in (tiny_capture / name, tiny_capture / name / "mask" / "pha"):
            assert sorted(p.name for p in folder.glob("*.jpg")) == [f"{i:08d}.jpg" for i in range(28)]
    with np.load(tiny_capture / "smpl_params.npz", allow_pickle=False) as params:
        shapes = {key: params[key].shape for key in params.files}
        assert np.abs(params["betas"]).min() > 0
    widths = {"global_orient": 3, "body_pose": 63, "transl": 3, "jaw_pose": 3, "expression": 10}
    widths |= {"left_hand_pose": 45, "right_hand_pose": 45}
    assert shapes == {"betas": (1, 10), **{key: (28, width) for key, width in widths.items()}}


def test_person_is_whole_and_large_in_every_picture(tiny_capture):
    for path in tiny_capture.glob("*/mask/pha/*.jpg"):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 128
        assert mask.shape == (96, 96)
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()), path
        assert mask.any(1).sum() > 45 and 0.04 < mask.mean() < 0.4


def test_mask_is_anti_aliased_and_fits_the_image(stage):
    image, mask = photo(stage, 0)
    assert set(np.unique(mask)) > {0, 255}
    partial = ((mask > 0) & (mask < 255)).sum()
    assert 50 < partial < 1500
    outside, inside = image[mask == 0].mean(), image[mask == 255].mean()
    assert outside > 220 and inside < 180


def test_same_options_same_bytes(tmp_path, synthetic_body):
    """Also across worker processes and in-process."""
    for name, workers in (("one", 1), ("two", 2)):
        make_capture(
            tmp_path / name,
            synthetic_body,
            size=(48, 64),
            num_cameras=2,
            num_frames=2,
            num_novel_frames=1,
            workers=workers,
        )
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 2 * 3 * 2 + 2
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_cloth_moves_beyond_skinning(stage):
    """With another frame's cloth on the same skinned pose the picture differs, silhouette included."""
    frame = 4
    other = max(
        range(12), key=lambda f: np.abs(stage.motion["body_pose"][f] - stage.motion["body_pose"][frame]).sum()
    )
    image, mask = photo(stage, frame)
    wrong, wrong_mask = photo(stage, frame, cloth_frame=other)
    person = (mask == 255) & (wrong_mask == 255)
    assert np.abs(image[person].astype(float) - wrong[person]).mean() > 5
    changed = np.abs(mask.astype(float) - wrong_mask).sum() / 255
    assert changed > 0.015 * person.sum(), changed


def test_folds_depend_non_linearly_on_the_pose(stage):
    """Half an elbow's bend does not give half of its folds."""

    def folds(angle):
        pose = np.zeros((21, 3))
        pose[17, 1] = -angle
        points, _ = stage.cloth.displace(stage.subject, pose_drives(pose.ravel()))
        return points

    rest, half, full = folds(0.0), folds(0.8) - folds(0.0), folds(1.6) - folds(0.0)
    assert np.abs(full).max() > 0.01, "metres"
    assert np.abs(half - full / 2).max() > 0.3 * np.abs(full).max()
    assert np.isfinite(rest).all()


def test_folds_ignore_the_root(stage):
    drives = pose_drives(full_pose(stage.motion, 3)[3:66])
    assert drives == pose_drives(stage.motion["body_pose"][3])


def test_undistorting_a_distorted_photo_gives_the_ideal_one(stage):
    small = stage.cameras[0]
    scale = np.diag([4.0, 4.0, 1.0])  # resampling blurs a tiny picture more than the lens bends it
    camera = replace(small, intrinsics=scale @ small.intrinsics, width=384, height=384)
    bent = replace(camera, distortion=np.array([-0.9, 0.3, 0.01, -0.005, 0.0]))
    mesh = pose_mesh(stage.subject, stage.cloth, full_pose(stage.motion, 0), stage.motion["transl"][0])
    ideal, ideal_mask = photograph(mesh, camera, stage.prints)
    photo_bent, mask_bent = photograph(mesh, bent, stage.prints)
    undone = cv2.undistort(photo_bent, bent.intrinsics, bent.distortion)
    mask_undone = cv2.undistort(mask_bent, bent.intrinsics, bent.distortion)
    person = cv2.erode(ideal_mask, np.ones((3, 3))) == 255
    before = np.abs(photo_bent[person].astype(float) - ideal[person]).mean()
    after = np.abs(undone[person].astype(float) - ideal[person]).mean()
    assert after < 0.4 * before
    wrong = np.abs(mask_undone.astype(float) - ideal_mask)
    assert wrong.mean() < 0.3 * np.abs(mask_bent.astype(float) - ideal_mask).mean()


def test_rays_of_distorted_pixels_follow_opencv(stage):
    camera = replace(stage.cameras[1], distortion=np.array([-0.3, 0.1, 0.01, -0.005, 0.02]))
    columns, rows = np.array([3.5, 50.0, 90.25]), np.array([10.0, 77.5, 20.0])
    local = pixel_rays(camera, columns, rows) @ camera.rotation.T
    # OpenCV numbers the first pixel's centre 0; move the ideal point into its numbers before distorting.
    local = local / local[:, 2:] - [*(0.5 / camera.intrinsics[[0, 1], [0, 1]]), 0]
    seen, _ = cv2.projectPoints(local, np.zeros(3), np.zeros(3), camera.intrinsics, camera.distortion)
    np.testing.assert_allclose(seen[:, 0] + 0.5, np.stack([columns, rows], 1), atol=1e-3)


def test_rays_go_through_their_pixels(stage):
    camera = stage.cameras[1]
    columns, rows = np.array([3.5, 50.0, 90.25]), np.array([10.0, 77.5, 20.0])
    points = camera.center + 2.5 * pixel_rays(camera, columns, rows)
    np.testing.assert_allclose(project(camera, points), np.stack([columns, rows], 1), atol=1e-9)


def test_loop_subdivision_keeps_constants_and_smooths_a_cube():
    faces = np.array([[0, 2, 1], [0, 3, 2], [0, 1, 3], [1, 2, 3]])
    matrix, finer = remesh.subdivide(faces, 4, 2)
    np.testing.assert_allclose(matrix @ np.ones(4), 1)
    assert len(finer) == 16 * len(faces) and finer.max() == matrix.shape[0] - 1


def test_clip_cuts_on_the_line():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    keep, finer = remesh.clip(faces, 0.3 - points[:, 0])
    cut = keep @ points
    assert abs(cut[:, 0].max() - 0.3) < 1e-12
    a, b, c = (cut[finer[:, i]] for i in range(3))
    u, v = b - a, c - a
    assert abs(0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() - 0.3) < 1e-12
