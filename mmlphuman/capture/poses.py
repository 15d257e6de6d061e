"""Pose files -> SmplParams: the only reader of them.

Data path: smpl_params.npz -> SmplParams -> Pose of a frame.   Shape letter: F frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmlphuman.files import read_npz
from mmlphuman.types import BODY_POSE, LEFT_HAND_POSE, POSE_DIM, RIGHT_HAND_POSE, Pose

log = logging.getLogger(__name__)

NUM_BETAS = 10
# Array of the file, its columns, and where they go among the 165 numbers. Jaw and eyes stay zero: the
# method does not use the jaw_pose and expression that the file also holds.
POSE_PARTS = (
    ("global_orient", 3, slice(0, 3)),
    ("body_pose", 63, BODY_POSE),
    ("left_hand_pose", 45, LEFT_HAND_POSE),
    ("right_hand_pose", 45, RIGHT_HAND_POSE),
)


@dataclass(frozen=True)
class SmplParams:
    """The poses of a sequence and the shape of its subject."""

    betas: np.ndarray  # (10,) float32
    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order, jaw and eyes zero
    translations: np.ndarray  # (F, 3) float32 metres

    def __len__(self) -> int:
        return len(self.poses)

    def pose(self, frame: int) -> Pose:
        """The pose of one frame; ValueError if the sequence does not have it."""
        self.check_frames([frame])
        return Pose(
            joints=torch.from_numpy(self.poses[frame].copy()),
            translation=torch.from_numpy(self.translations[frame].copy()),
            rotation=torch.eye(3),
        )

    def check_frames(self, frames: Iterable[int]) -> None:
        """ValueError for the first of `frames` that the sequence does not have."""
        for frame in frames:
            if not 0 <= frame < len(self):
                raise ValueError(
                    f"frame {frame} does not exist: smpl_params.npz holds frames 0 to {len(self) - 1}; "
                    "change the frame range"
                )


def read_smpl_params(path: str | Path) -> SmplParams:
    """Read `smpl_params.npz` as the captures ship it.

    Of the shape the method uses the first 10 numbers of the first row. More numbers, as body fits with 300 have
    them, are of finer detail in the same order; they and rows that differ are left out with a warning.
    Raises FileNotFoundError, or ValueError that names the array and, for numbers that are not finite, the
    first frame.
    """
    columns = {**{key: count for key, count, _ in POSE_PARTS}, "transl": 3}
    arrays = read_npz(path, ("betas", *columns))
    for key, array in arrays.items():
        if array.dtype == bool:
            raise ValueError(f"{path}: '{key}' holds true and false, numbers are needed")
        with np.errstate(over="ignore"):  # too large for single precision: infinite, and said so below
            arrays[key] = array.astype(np.float32)
    betas = _first_betas(path, arrays["betas"])
    for key, count in columns.items():
        if arrays[key].ndim != 2 or arrays[key].shape[1] != count:
            raise ValueError(f"{path}: '{key}' has shape {arrays[key].shape}, (frames, {count}) is needed")
    frames = len(arrays["transl"])
    if frames == 0:
        raise ValueError(f"{path}: 'transl' holds no frames")
    for key in columns:
        array = arrays[key]
        if len(array) != frames:
            raise ValueError(f"{path}: '{key}' has {len(array)} frames but 'transl' has {frames}")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise ValueError(f"{path}: '{key}' holds numbers that are not finite, first in frame {bad[0]}")
    poses = np.zeros((frames, POSE_DIM), np.float32)
    for key, _, where in POSE_PARTS:
        poses[:, where] = arrays[key]
    return SmplParams(betas=betas, poses=poses, translations=arrays["transl"])


def _first_betas(path: str | Path, betas: np.ndarray) -> np.ndarray:
    """(10,) of a (10 or more,) or (rows, 10 or more) array."""
    rows = np.atleast_2d(betas)
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] < NUM_BETAS:
        raise ValueError(f"{path}: 'betas' has shape {betas.shape}, (1, {NUM_BETAS}) is needed")
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: 'betas' holds numbers that are not finite")
    if rows.shape[1] > NUM_BETAS:
        log.warning("%s: 'betas' has %d numbers, the first %d are used", path, rows.shape[1], NUM_BETAS)
    if (rows[:, :NUM_BETAS] != rows[0, :NUM_BETAS]).any():
        log.warning("%s: 'betas' differs between its %d rows, the first is used", path, len(rows))
    return rows[0, :NUM_BETAS].copy()
