"""Which camera sees which pose: held cameras, a turntable, a path. Without torch.

Data path: saved cameras + PoseSequence -> Shots (one CameraView for every pose) -> render_sequence.
Shape letter: F poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import camera_path, held, turntable
from mmlphuman.animation.pose_file import PoseSequence

MOTIONS = ("held", "turntable", "path")


@dataclass(frozen=True)
class Shot:
    """A whole sequence seen from a camera that stands or moves."""

    name: str  # "cam000", by the camera's place on the command line; empty if there is one shot only
    views: list[CameraView]  # F of one image size

    def picture(self, frame: int) -> Path:
        """`render/frame00000012.png`, with several shots `render/cam001_frame00000012.png`."""
        return Path("render") / (f"{self.name}_" * bool(self.name) + f"frame{frame:08d}.png")

    @property
    def video(self) -> str:
        """`video.mp4`, with several shots `cam001.mp4`."""
        return f"{self.name or 'video'}.mp4"


def make_shots(
    cameras: Sequence[CameraView], sequence: PoseSequence, pelvis: np.ndarray, motion: str = "held"
) -> list[Shot]:
    """The shots of a sequence.

    pelvis: (3,) the root joint in the T-pose, which a turntable circles.
    motion: `held` gives one shot for every camera; `turntable` one that circles the person once, starting at
    the one camera; `path` one that moves smoothly through all cameras. ValueError for too few or too many.
    """
    count = len(sequence.frames)
    if motion == "held":
        several = len(cameras) > 1
        return [
            Shot(f"cam{number:03d}" if several else "", held(view, count))
            for number, view in enumerate(cameras)
        ]
    if motion == "turntable":
        if len(cameras) != 1:
            raise ValueError(
                f"--turntable starts at one camera, but --cam_path names {len(cameras)}; give one"
            )
        up = nearest_axis(camera_up(cameras[0]))
        return [Shot("", turntable(cameras[0], mean_pelvis(sequence, pelvis), up, count))]
    assert motion == "path", f"{motion} is none of {MOTIONS}"
    if len(cameras) < 2:
        raise ValueError("--camera_path moves between cameras: give two or more files to --cam_path")
    return [Shot("", camera_path(cameras, count))]


def mean_pelvis(sequence: PoseSequence, pelvis: np.ndarray) -> np.ndarray:
    """(3,) where the root joint is in the world on average; the root's own rotation leaves it in place."""
    return sequence.rotation @ (pelvis + sequence.translations.mean(0))


def camera_up(view: CameraView) -> np.ndarray:
    """(3,) the world direction that is up in the camera's picture (y of a camera points down)."""
    return -view.w2c[1, :3]


def nearest_axis(direction: np.ndarray) -> np.ndarray:
    """(3,) the signed world axis nearest to a direction, such as (0, 1, 0)."""
    axis = np.zeros(3)
    largest = np.abs(direction).argmax()
    axis[largest] = 1.0 if direction[largest] > 0 else -1.0
    return axis
