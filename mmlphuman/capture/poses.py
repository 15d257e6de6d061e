"""A capture's pose file -> SmplParams. (poses.motion_file reads it, and tells what forms it may have.)

Data path: smpl_params.npz -> Motion -> SmplParams -> Pose of a frame.   Shape letter: F frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.files import read_npz
from mmlphuman.pose_layout import BODY_POSE, EXPRESSION_DIM, JAW_POSE, LEFT_HAND_POSE, RIGHT_HAND_POSE
from mmlphuman.poses.motion_file import Motion, about_pelvis, read_motion

if TYPE_CHECKING:
    from mmlphuman.types import Pose

log = logging.getLogger(__name__)

NUM_BETAS = 10
MAX_BETA = 100.0  # of a coefficient, whose unit is a standard deviation; beyond lies damage
# The arrays of smpl_params.npz as captures ship it, their columns, and where they go among the 165 numbers.
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
    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order, eyes zero
    translations: np.ndarray  # (F, 3) float32 metres
    expressions: np.ndarray | None = None  # (F, 10) float32; None: no frame has any
    told: str = ""  # one line: what the file was taken for

    def __len__(self) -> int:
        return len(self.poses)

    def pose(self, frame: int) -> Pose:
        """The pose of one frame; ValueError if the sequence does not have it."""
        import torch  # here, so that reading poses needs none

        from mmlphuman.types import Pose

        self.check_frames([frame])
        return Pose(
            joints=torch.from_numpy(self.poses[frame].copy()),
            translation=torch.from_numpy(self.translations[frame].copy()),
            rotation=torch.eye(3),
            expression=torch.from_numpy(self.expressions_of([frame])[0]),
        )

    def expressions_of(self, frames: Sequence[int]) -> np.ndarray:
        """(len(frames), 10), a copy."""
        if self.expressions is None:
            return np.zeros((len(frames), EXPRESSION_DIM), np.float32)
        return self.expressions[list(frames)]

    def features(self, frames: Sequence[int]) -> np.ndarray:
        """(len(frames), 175) as Pose.features."""
        return np.concatenate([self.poses[list(frames)], self.expressions_of(frames)], 1)

    def check_frames(self, frames: Iterable[int]) -> None:
        """ValueError for the first of `frames` that the sequence does not have."""
        for frame in frames:
            if not 0 <= frame < len(self):
                raise ValueError(
                    f"frame {frame} does not exist: smpl_params.npz holds frames 0 to {len(self) - 1}; "
                    "lower num_train_frame, or test.num_frame"
                )


def read_smpl_params(
    path: str | Path, face: bool = False, model_file: str | Path | None = None
) -> SmplParams:
    """Read a capture's poses and shape.

    face: jaw and expression too, where the file has them. Of an expression the first 10 numbers are used; more are
    said to be left out.
    Of the shape the method uses the first 10 numbers of the first row. More numbers, as body fits with 300 have
    them, are of finer detail in the same order; they and rows that differ are left out with a warning.
    model_file: the SMPL-X model; EasyMocap's parameters and hands in PCA coefficients need it.
    Raises FileNotFoundError, or ValueError that names the array and, for numbers that are not finite, the
    first frame.
    """
    motion = read_motion(path, model_file, face=face)
    betas = betas_of_capture(path, motion)
    poses, translations = motion.poses, motion.translations
    if motion.turns is not None:
        turns = Rotation.from_rotvec(motion.turns).as_matrix()
        poses, translations = about_pelvis(poses, translations, turns, _pelvis(path, model_file, betas))
    return SmplParams(betas, poses, translations, motion.expressions, motion.told)


def betas_of_capture(path: str | Path, motion: Motion) -> np.ndarray:
    """(10,) the shape. ValueError where a motion lacks what captures need: it, and a pose of every frame from 0 on."""
    if motion.betas is None:
        raise ValueError(
            f"{path}: array 'betas' is missing, the subject's shape; zeros (1, {NUM_BETAS}) are the mean body"
        )
    gap = np.flatnonzero(motion.frames != np.arange(len(motion)))
    if len(gap):
        raise ValueError(
            f"{path}: frame {gap[0]} is missing; a capture's poses are numbered as its pictures, from 0 without gaps"
        )
    return _first_betas(path, motion.betas)


def smpl_params_arrays(params: SmplParams) -> dict[str, np.ndarray]:
    """What smpl_params.npz holds of a capture's poses, whatever form they came in."""
    arrays = {key: params.poses[:, where] for key, _, where in POSE_PARTS}
    arrays |= {"betas": params.betas[None], "transl": params.translations}
    if params.expressions is not None or params.poses[:, JAW_POSE].any():
        arrays |= {
            "jaw_pose": params.poses[:, JAW_POSE],
            "expression": params.expressions_of(range(len(params))),
        }
    return arrays


def _pelvis(path: str | Path, model_file: str | Path | None, betas: np.ndarray) -> np.ndarray:
    """(3,) the shaped body's root joint in the T-pose. ValueError without a model file that tells."""
    needs = f"{path}: EasyMocap turns the body about the origin, captures about the pelvis, whose place the model tells"
    if model_file is None:
        raise ValueError(f"{needs}; give its file")
    try:
        model = read_npz(model_file, ("J_regressor", "v_template", "shapedirs"))
        shaped = model["v_template"] + model["shapedirs"][:, :, :NUM_BETAS] @ betas
        return model["J_regressor"][0] @ shaped
    except (ValueError, OSError, IndexError) as error:
        raise ValueError(f"{needs}: {error}") from error


def _first_betas(path: str | Path, betas: np.ndarray) -> np.ndarray:
    """(10,) of a (10 or more,) or (rows, 10 or more) array."""
    rows = np.atleast_2d(betas)
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] < NUM_BETAS:
        raise ValueError(f"{path}: 'betas' has shape {betas.shape}, (1, {NUM_BETAS}) is needed")
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: 'betas' holds numbers that are not finite")
    if (largest := np.abs(rows).max()) > MAX_BETA:
        raise ValueError(
            f"{path}: 'betas' reaches {largest:.4g}, a shape that nobody has; coefficients of at most {MAX_BETA:g} are "
            "needed"
        )
    if rows.shape[1] > NUM_BETAS:
        log.warning("%s: 'betas' has %d numbers, the first %d are used", path, rows.shape[1], NUM_BETAS)
    if (rows[:, :NUM_BETAS] != rows[0, :NUM_BETAS]).any():
        log.warning("%s: 'betas' differs between its %d rows, the first is used", path, len(rows))
    return rows[0, :NUM_BETAS].copy()
