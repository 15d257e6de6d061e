"""Motions in the forms that people have, for tests of reading them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.pose_layout import LEFT_HAND_POSE, RIGHT_HAND_POSE

FRAMES = 7
RNG = np.random.default_rng(5)
POSES = RNG.normal(0, 0.25, (FRAMES, 165)).astype(np.float32)
POSES[:, 66:75] = 0  # jaw and eyes, as they are read
TRANSL = RNG.normal(0, 0.3, (FRAMES, 3)).astype(np.float32)
ROOT, BODY = POSES[:, :3], POSES[:, 3:66]
LEFT, RIGHT = POSES[:, LEFT_HAND_POSE], POSES[:, RIGHT_HAND_POSE]
SMPL = np.concatenate([POSES[:, :66], RNG.normal(0, 0.2, (FRAMES, 6))], 1)  # two hand joints at the end
NO_HANDS = np.concatenate([POSES[:, :66], np.zeros((FRAMES, 99))], 1)
ZERO3 = np.zeros((FRAMES, 3), np.float32)


def matrices(vectors: np.ndarray) -> np.ndarray:
    """(F, 3J) -> (F, J, 3, 3)."""
    turned = Rotation.from_rotvec(vectors.reshape(-1, 3).astype(np.float64)).as_matrix()
    return turned.reshape(len(vectors), -1, 3, 3)


def quaternions(vectors: np.ndarray, real_first: bool) -> np.ndarray:
    """(F, 3J) -> (F, J, 4)."""
    quats = Rotation.from_rotvec(vectors.reshape(-1, 3).astype(np.float64)).as_quat()  # real part last
    return (np.roll(quats, 1, -1) if real_first else quats).reshape(len(vectors), -1, 4)


PARTS = {"global_orient": ROOT, "body_pose": BODY, "transl": TRANSL}
HANDS = {"left_hand_pose": LEFT, "right_hand_pose": RIGHT}


def saved(folder: Path, arrays: dict) -> Path:
    np.savez(folder / "motion.npz", **{key: np.asarray(array) for key, array in arrays.items()})
    return folder / "motion.npz"


def easymocap(synthetic_body: Path) -> tuple[dict, np.ndarray]:
    """Its arrays, and the (F, 90) hands that its 6 + 6 coefficients mean."""
    rng = np.random.default_rng(11)
    coefficients = rng.normal(0, 0.5, (FRAMES, 12))
    with np.load(synthetic_body) as model:
        left = model["hands_meanl"] + coefficients[:, :6] @ model["hands_componentsl"][:6]
        right = model["hands_meanr"] + coefficients[:, 6:] @ model["hands_componentsr"][:6]
    head = rng.normal(0, 0.1, (FRAMES, 9))
    poses = np.concatenate([ZERO3, BODY, coefficients, head], 1)
    arrays = {"Rh": rng.normal(0, 1, (FRAMES, 3)), "Th": TRANSL, "poses": poses, "shapes": rng.normal(0, 1, (1, 10)),
              "expression": np.zeros((FRAMES, 10))}  # fmt: skip
    return arrays, np.concatenate([left, right], 1)
