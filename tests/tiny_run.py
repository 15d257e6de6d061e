"""The tiny capture and the settings of runs on it, which fixtures and developers' tools share."""

from __future__ import annotations

from pathlib import Path

from mmlphuman.config import Config, default_config
from mmlphuman.synthetic.capture_writer import make_capture

CAMERAS, FRAMES, NOVEL_FRAMES, SIZE = 4, 24, 4, 96


def make_tiny_capture(
    folder: Path, body: Path, frames: int = FRAMES, novel_frames: int = NOVEL_FRAMES
) -> Path:
    """AvatarReX, pictures of 96 x 96 pixels. body: a file of write_body."""
    make_capture(
        folder,
        body,
        size=(SIZE, SIZE),
        num_cameras=CAMERAS,
        num_frames=frames,
        num_novel_frames=novel_frames,
    )
    return folder


def tiny_settings(body: Path, **others) -> Config:
    """Of a run on the CPU, whose steps take milliseconds: cameras 0 to 2 train, camera 3 tests. others: instead of or
    besides these."""
    settings = {
        "smpl_pkl_path": str(body),
        "device": "cpu",
        "train_cam_ids": [0, 1, 2],
        "num_train_frame": FRAMES,
        "num_workers": 1,
        "edge_radius": 1,
        "test": dict(cam_ids=[3], num_frame=2),
        "weight_volume_resolution": 16,
        "init_num_gs": 400,
        "num_verts": 60,
        "num_features": 8,
        "pca_components": 5,
        "log_every": 2,
        "lambda_lpips": 0,
    }
    return default_config(**settings | others)
