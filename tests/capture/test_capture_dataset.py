"""CaptureDataset: which pairs exist, what a sample holds, and what is said about selections that do not exist."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch
from small_capture import FRAMES, HEIGHT, WIDTH, image_path, mask_path

from mmlphuman.capture.dataset import CaptureDataset, select_frames
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params


def dataset_of(root, frames=range(FRAMES), camera_ids=(0, 1, 2), **options) -> CaptureDataset:
    layout = open_capture(root)
    return CaptureDataset(layout, read_smpl_params(layout.pose_path), frames, camera_ids, **options)


def test_sample_holds_one_pose_and_its_views(small_capture):
    dataset = dataset_of(small_capture)
    sample = dataset.sample(3, (2, 0))
    assert sample.name() == "frame 3, cameras 2, 0"
    assert sample.images.shape == (2, HEIGHT, WIDTH, 3) and sample.images.dtype == torch.uint8
    assert sample.masks.shape == sample.edges.shape == (2, HEIGHT, WIDTH)
    assert sample.masks.dtype == sample.edges.dtype == torch.bool
    reds = sample.images[:, 30, 24, 0].tolist()
    np.testing.assert_allclose(reds, [30 + 120, 30], atol=6)  # camera 2 first, as asked
    assert torch.equal(sample.pose.joints, dataset.poses.pose(3).joints)
    centers = np.stack([dataset.layout.cameras[i].center for i in (2, 0)])
    np.testing.assert_allclose(sample.cameras.centers.numpy(), centers, atol=1e-6)
    assert (sample.cameras.width, sample.cameras.height) == (WIDTH, HEIGHT)


def test_pairs_need_both_files_and_gaps_are_left_out(small_capture):
    image_path(small_capture, 0, 0).unlink()
    mask_path(small_capture, 1, 4).unlink()
    for camera in range(3):  # a whole frame missing between others
        image_path(small_capture, camera, 2).unlink()
    pairs = dataset_of(small_capture).pairs
    expected = {(f, c) for f in range(FRAMES) for c in range(3)} - {(0, 0), (4, 1), (2, 0), (2, 1), (2, 2)}
    assert set(pairs) == expected and len(pairs) == len(expected)
    # A frame at the end that only the selected camera lacks is a gap as well.
    assert dataset_of(small_capture, camera_ids=(0,)).pairs[0] == (1, 0)


def test_select_frames():
    assert list(select_frames(4, 3, 5)) == [4, 9, 14]
    for wrong in ((-1, 3, 1), (0, 0, 1), (0, 3, 0)):
        with pytest.raises(ValueError, match="begin >= 0"):
            select_frames(*wrong)


def test_scene_scale_uses_camera_centres(small_capture):
    assert dataset_of(small_capture).scene_scale() == pytest.approx(1.1 * 2)
    # Two cameras 120 degrees apart on a circle of 2 m: half their distance from their mean.
    assert dataset_of(small_capture, camera_ids=(0, 1)).scene_scale() == pytest.approx(1.1 * 3**0.5)


def test_cameras_in_one_place_have_the_scale_of_their_distance_to_the_person(small_capture, caplog):
    """On a circle of 2 m about the origin; the person's place is the mean of the translations."""
    dataset = dataset_of(small_capture, camera_ids=(0,))
    person = dataset.poses.translations[list(dataset.frames)].mean(0)
    expected = 1.1 * np.linalg.norm(np.array([0, 0, 2.0]) - person)
    assert dataset.scene_scale() == pytest.approx(expected) and expected > 1
    assert "in one place" in caplog.text and "depth is guessed" in caplog.text
    caplog.clear()
    dataset_of(small_capture, camera_ids=(0, 1)).scene_scale()
    assert not caplog.text


def test_cameras_need_no_images_and_scale(small_capture):
    dataset = dataset_of(small_capture, image_scaling=0.5)
    for path in small_capture.rglob("*.jpg"):
        path.unlink()
    cameras = dataset.cameras([1])
    assert (cameras.width, cameras.height) == (WIDTH // 2, HEIGHT // 2)
    torch.testing.assert_close(cameras.intrinsics[0, :2, :2], 40 * torch.eye(2))


def test_size_comes_from_the_images_where_calibration_does_not_tell(small_capture):
    path = small_capture / "calibration_full.json"
    path.write_text(path.read_text().replace("imgSize", "unused"))
    cameras = dataset_of(small_capture).cameras([0, 1, 2])
    assert (cameras.width, cameras.height) == (WIDTH, HEIGHT)


def test_in_memory_gives_the_same_without_the_files(small_capture):
    on_disk = dataset_of(small_capture, image_scaling=0.5)
    samples = [on_disk.sample(frame, (0, 2)) for frame in range(FRAMES)]
    in_memory = dataset_of(small_capture, image_scaling=0.5, in_memory=True)
    for path in small_capture.rglob("*.jpg"):
        path.unlink()
    for expected in samples:
        got = in_memory.sample(expected.frame, (0, 2))
        assert torch.equal(got.images, expected.images)
        assert torch.equal(got.masks, expected.masks) and torch.equal(got.edges, expected.edges)


def test_reading_writes_nothing(small_capture):
    before = {path: path.stat().st_mtime_ns for path in small_capture.rglob("*")}
    dataset_of(small_capture, in_memory=True).sample(0, (0,))
    assert before == {path: path.stat().st_mtime_ns for path in small_capture.rglob("*")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera_ids": (0, 3)}, "camera 3 does not exist.*cameras 0 to 2"),
        ({"camera_ids": (-1,)}, "camera -1 does not exist"),
        ({"camera_ids": (1, 1)}, "camera ids repeat"),
        ({"camera_ids": ()}, "select at least one camera"),
        ({"frames": range(FRAMES + 1)}, "frame 6 does not exist.*frames 0 to 5"),
        ({"image_scaling": 0}, "image_scaling must be"),
        ({"image_scaling": 0.001}, "image_scaling: 0.001 makes pictures of 1x1 pixels"),
    ],
)
def test_selection_that_does_not_exist(small_capture, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        dataset_of(small_capture, **options)
    assert "\n" not in str(caught.value)


def test_frames_with_poses_but_without_images(small_capture):
    for camera in range(3):
        for frame in (4, 5):
            image_path(small_capture, camera, frame).unlink()
    with pytest.raises(ValueError, match=r"frame 4 has no image and mask in any camera \(2 such frames"):
        dataset_of(small_capture)


def test_gaps_are_said(small_capture, caplog):
    dataset_of(small_capture)
    assert not caplog.text
    mask_path(small_capture, 1, 2).unlink()
    dataset_of(small_capture)
    assert "1 of 18 images left out, their image or mask is missing (0 frames have none)" in caplog.text


def test_camera_or_selection_without_any_image(small_capture):
    for frame in range(FRAMES):
        mask_path(small_capture, 1, frame).unlink()
    with pytest.raises(ValueError, match="camera 1 has no image with a mask"):
        dataset_of(small_capture)
    with pytest.raises(ValueError, match="no frame has both image and mask"):
        dataset_of(small_capture, camera_ids=(1,))


def test_unreadable_image_names_frame_camera_and_file(small_capture):
    dataset = dataset_of(small_capture)
    image_path(small_capture, 1, 2).write_bytes(b"damaged")
    mask_path(small_capture, 2, 2).unlink()
    with pytest.raises(ValueError, match=r"frame 2, camera 1: .*00000002\.jpg: not a readable image"):
        dataset.sample(2, (0, 1))
    with pytest.raises(ValueError, match=r"frame 2, camera 2: .*00000002\.jpg"):
        dataset.sample(2, (2,))


def test_cameras_of_different_sizes_are_drawn_together(small_capture):
    path = small_capture / "calibration_full.json"
    path.write_text(path.read_text().replace(f'"imgSize": [{WIDTH}, {HEIGHT}]', '"imgSize": [20, 90]', 1))
    for file in (image_path(small_capture, 0, 1), mask_path(small_capture, 0, 1)):
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), cv2.resize(picture, (20, 90), interpolation=cv2.INTER_NEAREST))
    dataset = dataset_of(small_capture)
    alone, together = dataset.sample(1, (0,)), dataset.sample(1, (1, 0))
    assert (together.cameras.width, together.cameras.height) == (WIDTH, 90)
    assert torch.equal(together.cameras.intrinsics[1], alone.cameras.intrinsics[0])
    for name, beyond in (("images", 0), ("masks", False), ("edges", True)):
        whole = getattr(together, name)[1]
        assert torch.equal(whole[:, :20], getattr(alone, name)[0]), name
        assert (whole[:, 20:] == beyond).all(), name
    # The other one is higher by the rows that were added.
    assert together.edges[0, HEIGHT:].all() and not together.masks[0, HEIGHT:].any()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(small_capture):
    dataset = dataset_of(small_capture)
    image_path(small_capture, 0, 0).chmod(0)
    with pytest.raises(ValueError, match="frame 0, camera 0: .*Permission denied"):
        dataset.sample(0, (0,))


def test_synthetic_capture_projects_the_body_onto_its_masks(tiny_capture, synthetic_body):
    """Cameras, poses, body and masks agree: nearly all posed vertices fall inside the mask."""
    from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
    from mmlphuman.body.smplx_model import load_body

    layout = open_capture(tiny_capture)
    poses = read_smpl_params(layout.pose_path)
    body = load_body(synthetic_body, poses.betas)
    dataset = CaptureDataset(layout, poses, [0, 1], [0, 1])
    for frame, camera_id in dataset.pairs:
        sample = dataset.sample(frame, (camera_id,))
        transforms = forward_kinematics(sample.pose.joints, body.joints, body.parents)
        posed = apply_transforms(blend_transforms(body.lbs_weights, transforms), body.vertices)
        world = posed @ sample.pose.rotation.T + sample.pose.translation
        camera = world @ sample.cameras.w2c[0, :3, :3].T + sample.cameras.w2c[0, :3, 3]
        pixels = camera @ sample.cameras.intrinsics[0].T
        column, row = (pixels[:, :2] / pixels[:, 2:]).long().unbind(1)
        seen = (column >= 0) & (column < sample.cameras.width) & (row >= 0) & (row < sample.cameras.height)
        grown = cv2.dilate(sample.masks[0].numpy().astype(np.uint8), np.ones((3, 3), np.uint8))
        inside = grown[row[seen].numpy(), column[seen].numpy()].mean()
        assert seen.float().mean() > 0.9 and inside > 0.95, f"{sample.name()}: {inside:.3f}"
