"""smpl_params.npz -> SmplParams: the poses of a capture. (Animations: animation.pose_file, which reads through here.)

Data path: smpl_params.npz -> SmplParams -> Pose of a frame.   Shape letter: F frames.

Numpy only: the viewer reads poses on machines without torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlphuman.files import read_npz
from mmlphuman.pose_layout import (
    BODY_POSE,
    EXPRESSION_DIM,
    JAW_POSE,
    LEFT_HAND_POSE,
    POSE_DIM,
    RIGHT_HAND_POSE,
)

if TYPE_CHECKING:
    from mmlphuman.types import Pose

log = logging.getLogger(__name__)

NUM_BETAS = 10
# Array of the file, its columns, and where they go among the 165 numbers. Eyes stay zero, as does the jaw where the
# face is not asked for: the published method uses neither jaw_pose nor expression, which the file may also hold.
POSE_PARTS = (
    ("global_orient", 3, slice(0, 3)),
    ("body_pose", 63, BODY_POSE),
    ("left_hand_pose", 45, LEFT_HAND_POSE),
    ("right_hand_pose", 45, RIGHT_HAND_POSE),
)
JAW_KEY, EXPRESSION_KEY = "jaw_pose", "expression"


@dataclass(frozen=True)
class SmplParams:
    """The poses of a sequence and the shape of its subject."""

    betas: np.ndarray  # (10,) float32
    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order, eyes zero
    translations: np.ndarray  # (F, 3) float32 metres
    expressions: np.ndarray | None = None  # (F, 10) float32; None: no frame has any

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
                    "change the frame range"
                )


def read_smpl_params(path: str | Path, face: bool = False) -> SmplParams:
    """Read `smpl_params.npz` as the captures ship it.

    face: jaw and expression too, where the file has them. Of an expression the first 10 numbers are used; more are
    said to be left out.
    Of the shape the method uses the first 10 numbers of the first row. More numbers, as body fits with 300 have
    them, are of finer detail in the same order; they and rows that differ are left out with a warning.
    Raises FileNotFoundError, or ValueError that names the array and, for numbers that are not finite, the
    first frame.
    """
    poses, translations, expressions = read_smpl_motion(path, face)
    betas = as_numbers(path, "betas", read_npz(path, ["betas"])["betas"])
    return SmplParams(_first_betas(path, betas), poses, translations, expressions)


def read_smpl_motion(
    path: str | Path, face: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Poses (F, 165), translations (F, 3) and expressions (F, 10) or None of `smpl_params.npz`, whose shape is not
    looked at.

    Raises as `read_smpl_params`.
    """
    parts = (*POSE_PARTS, (JAW_KEY, 3, JAW_POSE)) if face else POSE_PARTS
    needed = (*(key for key, _, _ in POSE_PARTS), "transl")
    found = read_npz(path, needed, (JAW_KEY, EXPRESSION_KEY) if face else ())
    arrays = {key: as_numbers(path, key, array) for key, array in found.items()}
    columns = {key: count for key, count, _ in parts if key in arrays} | take_expressions(path, arrays)
    check_frame_arrays(path, arrays, {**columns, "transl": 3})
    poses = np.zeros((len(arrays["transl"]), POSE_DIM), np.float32)
    for key, _, where in parts:
        if key in arrays:
            poses[:, where] = arrays[key]
    return poses, arrays["transl"], arrays.get(EXPRESSION_KEY)


def take_expressions(path: str | Path, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Leaves of the expressions among `arrays`, if there are any, the first 10 numbers -> what `check_frame_arrays` is
    to know of them. More numbers are of finer detail in the same order, as those of betas are."""
    if EXPRESSION_KEY not in arrays:
        return {}
    given = arrays[EXPRESSION_KEY]
    if given.ndim == 2 and given.shape[1] > EXPRESSION_DIM:
        log.warning(
            "%s: '%s' has %d numbers a frame, the first %d are used",
            path, EXPRESSION_KEY, given.shape[1], EXPRESSION_DIM,
        )  # fmt: skip
        arrays[EXPRESSION_KEY] = given[:, :EXPRESSION_DIM].copy()
    return {EXPRESSION_KEY: EXPRESSION_DIM}


def as_numbers(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """`array` in single precision; what is too large for it becomes infinite."""
    if array.dtype == bool:
        raise ValueError(f"{path}: '{key}' holds true and false, numbers are needed")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def check_frame_arrays(path: str | Path, arrays: dict[str, np.ndarray], columns: dict[str, int]) -> None:
    """ValueError that names the first of `columns` (array -> its numbers a frame) that is not (F, numbers) and
    finite. The last one gives F."""
    for key, count in columns.items():
        if arrays[key].ndim != 2 or arrays[key].shape[1] != count:
            raise ValueError(f"{path}: '{key}' has shape {arrays[key].shape}, (frames, {count}) is needed")
    last = list(columns)[-1]
    frames = len(arrays[last])
    if frames == 0:
        raise ValueError(f"{path}: '{last}' holds no frames")
    for key in columns:
        array = arrays[key]
        if len(array) != frames:
            raise ValueError(f"{path}: '{key}' has {len(array)} frames but '{last}' has {frames}")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise ValueError(f"{path}: '{key}' holds numbers that are not finite, first in frame {bad[0]}")


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
