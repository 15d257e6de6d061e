"""Pose files -> SmplParams: the only reader of them.

Data path: smpl_params.npz -> SmplParams -> Pose of a frame.   Shape letter: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmlphuman.files import read_npz
from mmlphuman.types import BODY_POSE, LEFT_HAND_POSE, POSE_DIM, RIGHT_HAND_POSE, Pose

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
        if not 0 <= frame < len(self):
            raise ValueError(f"frame {frame} does not exist: the pose file holds frames 0 to {len(self) - 1}")
        return Pose(
            joints=torch.from_numpy(self.poses[frame].copy()),
            translation=torch.from_numpy(self.translations[frame].copy()),
            rotation=torch.eye(3),
        )


def read_smpl_params(path: str | Path) -> SmplParams:
    """Read `smpl_params.npz` as the captures ship it; of several shape vectors the first is used.

    Raises FileNotFoundError, or ValueError that names the array and, for numbers that are not finite, the
    first frame.
    """
    columns = {**{key: count for key, count, _ in POSE_PARTS}, "transl": 3}
    arrays = read_npz(path, ("betas", *columns))
    betas = np.atleast_2d(arrays["betas"])[0]
    if betas.ndim != 1 or len(betas) < NUM_BETAS:
        raise ValueError(f"{path}: 'betas' has shape {arrays['betas'].shape}, (1, {NUM_BETAS}) is needed")
    if not np.isfinite(betas).all():
        raise ValueError(f"{path}: 'betas' holds numbers that are not finite")
    frames = len(np.atleast_1d(arrays["transl"]))
    if frames == 0:
        raise ValueError(f"{path}: 'transl' holds no frames")
    for key, count in columns.items():
        array = arrays[key]
        if array.ndim != 2 or array.shape[1] != count:
            raise ValueError(f"{path}: '{key}' has shape {array.shape}, (frames, {count}) is needed")
        if len(array) != frames:
            raise ValueError(f"{path}: '{key}' has {len(array)} frames but 'transl' has {frames}")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise ValueError(f"{path}: '{key}' holds numbers that are not finite, first in frame {bad[0]}")
    poses = np.zeros((frames, POSE_DIM), np.float32)
    for key, _, where in POSE_PARTS:
        poses[:, where] = arrays[key]
    return SmplParams(
        betas=betas[:NUM_BETAS].astype(np.float32),
        poses=poses,
        translations=arrays["transl"].astype(np.float32),
    )
