"""One capture written in the three layouts and read back gives the same samples; lens distortion included."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.capture.actorshq import read_csv_calibration
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.synthetic.capture_writer import set_stage
from mmlphuman.synthetic.layouts import LAYOUTS, write_meta, write_photo
from mmlphuman.synthetic.raycast import Camera

LENS = [-0.9, 0.3, 0.01, -0.005, 0.02]
FRAMES = 2


@pytest.fixture(scope="module")
def stage(synthetic_body):
    return set_stage(synthetic_body, size=(72, 96), num_cameras=2, num_frames=FRAMES, num_novel_frames=0)


@pytest.fixture(scope="module")
def photographs(stage):
    """{(frame, camera name): (image, mask)}, each mask either 0 or 255 so that no JPEG can change its sense."""
    return {
        (frame, camera.name): (image, np.where(mask > 128, 255, 0).astype(np.uint8))
        for frame in range(FRAMES)
        for camera, image, mask in stage.photographs(frame)
    }


def write(folder: Path, layout: str, stage, photographs) -> Path:
    folder.mkdir()
    write_meta(LAYOUTS[layout], folder, stage.cameras, stage.motion)
    for (frame, camera), (image, mask) in photographs.items():
        write_photo(LAYOUTS[layout], folder, camera, frame, image, mask)
    return folder


def samples(folder: Path, frames: int = FRAMES) -> list:
    layout = open_capture(folder)
    dataset = CaptureDataset(layout, read_smpl_params(layout.pose_path), range(frames), (0, 1), edge_radius=2)
    assert len(dataset.pairs) == 2 * frames
    return [dataset.sample(frame, (0, 1)) for frame in range(frames)]


@pytest.mark.parametrize("layout", ["thuman4", "actorshq"])
def test_samples_are_those_of_the_avatarrex_layout(tmp_path, stage, photographs, layout):
    expected = samples(write(tmp_path / "avatarrex", "avatarrex", stage, photographs))
    for sample, other in zip(
        samples(write(tmp_path / layout, layout, stage, photographs)), expected, strict=True
    ):
        assert sample.name() == other.name()
        assert torch.equal(sample.pose.joints, other.pose.joints)
        assert torch.equal(sample.pose.translation, other.pose.translation)
        torch.testing.assert_close(sample.cameras.w2c, other.cameras.w2c, atol=1e-6, rtol=0)
        torch.testing.assert_close(sample.cameras.intrinsics, other.cameras.intrinsics, atol=0, rtol=1e-6)
        assert torch.equal(sample.masks, other.masks) and sample.masks.any()
        assert torch.equal(sample.edges, other.edges) and sample.edges.any()
        assert torch.equal(sample.images, other.images), "all layouts keep photographs as JPEG"


def test_jpeg_masks_differ_from_png_masks_only_where_half_covered(tmp_path, stage):
    taken = {(f, camera.name): photo for f in range(FRAMES) for camera, *photo in stage.photographs(f)}
    jpeg = samples(write(tmp_path / "jpeg", "thuman4", stage, taken))
    png = samples(write(tmp_path / "png", "actorshq", stage, taken))
    for frame in range(FRAMES):
        truth = torch.from_numpy(np.stack([taken[frame, camera.name][1] for camera in stage.cameras]))
        assert torch.equal(png[frame].masks, truth > 128)
        assert ((truth[jpeg[frame].masks != png[frame].masks].float() - 128).abs() < 10).all()


@pytest.mark.parametrize("layout", ["avatarrex", "thuman4"])
def test_distortion_is_written_and_undone(tmp_path, stage, layout):
    scale = np.diag([3.0, 3.0, 1.0])  # resampling blurs a tiny picture more than the lens bends it
    straight = [
        replace(camera, intrinsics=scale @ camera.intrinsics, width=216, height=288)
        for camera in stage.cameras
    ]
    bent = [replace(camera, distortion=np.array(LENS)) for camera in straight]
    masks = []
    for name, cameras in ((layout, bent), ("actorshq", straight)):
        studio = replace(stage, cameras=cameras)
        taken = {(0, camera.name): photo for camera, *photo in studio.photographs(0)}
        folder = write(tmp_path / name, name, studio, taken)
        masks.append(samples(folder, frames=1)[0].masks.numpy())
        expected = LENS if cameras is bent else [0.0] * 5
        assert [camera.dist.tolist() for camera in open_capture(folder).cameras] == [expected] * 2
        masks.append(np.stack([taken[0, camera.name][1] > 128 for camera in cameras]))
    undone, untouched, ideal, _ = masks
    assert (undone != ideal).mean() < 0.3 * (untouched != ideal).mean()


def test_layout_without_distortion_refuses_it(tmp_path, stage):
    bent = [replace(camera, distortion=np.array(LENS)) for camera in stage.cameras]
    with pytest.raises(ValueError, match=r"calibration\.csv has no field for lens distortion"):
        write_meta(LAYOUTS["actorshq"], tmp_path, bent, stage.motion)


def test_axis_angle_and_centre_come_back_exactly(tmp_path):
    """Any rotation, half turns and the identity among them, and any intrinsics."""
    rng = np.random.default_rng(0)
    turns = [np.zeros(3), np.array([np.pi, 0, 0]), np.array([0, 0, np.pi]), np.pi * np.array([0.6, 0.8, 0])]
    turns += [np.array([1e-9, 0, 0]), *rng.normal(0, 2, (40, 3))]
    cameras = []
    for index, turn in enumerate(turns):
        fx, fy, cx, cy = rng.uniform([500, 500, 300, 400], [3000, 3000, 400, 600])
        rotation = Rotation.from_rotvec(turn).as_matrix()
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        center = rng.normal(0, 3, 3)
        cameras.append(
            Camera(f"Cam{index:03d}", rotation, -rotation @ center, intrinsics, 747, 1022, np.zeros(5))
        )
    write_meta(LAYOUTS["actorshq"], tmp_path, cameras, {})
    for camera, read in zip(cameras, read_csv_calibration(tmp_path / "calibration.csv"), strict=True):
        assert read.name == camera.name and read.image_size == (747, 1022)
        np.testing.assert_allclose(read.R, camera.rotation, atol=1e-14)
        np.testing.assert_allclose(read.T, camera.translation, atol=1e-13)
        np.testing.assert_allclose(read.center, camera.center, atol=1e-13)
        np.testing.assert_allclose(read.K, camera.intrinsics, rtol=1e-15)
