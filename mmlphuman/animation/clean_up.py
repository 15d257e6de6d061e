"""The clean-up that the published viewer gives AMASS poses, as one named option. Without torch.

Motion capture of bare bodies moves limbs where a clothed avatar has none: arms closer to the trunk, wrists and necks
that markers hardly see. Lifted arms, straight wrists and a level neck hide that; a moving average takes the jitter.
Shape letters: F frames, J joints (55).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.pose_layout import LEFT_COLLAR, LEFT_WRIST, NECK, NUM_JOINTS, RIGHT_COLLAR, RIGHT_WRIST

# Published: joints 12 and 13 of the 21 after the root, counted from 0. These are the collar bones that carry the
# shoulders, not SMPL-X's "shoulder" joints, which are the tops of the upper arms.
SHOULDER_LIFT = 0.25  # radians about z; +z lifts the left arm, -z the right one
PITCH = 0  # the x number of a joint's axis-angle: nodding


def clean_up_published(poses: np.ndarray, translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cleans (F, 165) poses and (F, 3) translations; returns new arrays.

    Shoulders lifted, wrists straight, neck without pitch, as changes of the axis-angle numbers; then the mean of
    every frame and its two neighbours. The first and last frame have one neighbour only and keep what they are.
    """
    joints = poses.reshape(-1, NUM_JOINTS, 3).copy()
    joints[:, LEFT_COLLAR, 2] += SHOULDER_LIFT
    joints[:, RIGHT_COLLAR, 2] -= SHOULDER_LIFT
    joints[:, [LEFT_WRIST, RIGHT_WRIST]] = 0
    joints[:, NECK, PITCH] = 0
    smooth = translations.copy()
    smooth[1:-1] = (translations[:-2] + translations[1:-1] + translations[2:]) / 3
    return smooth_rotations(joints).reshape(poses.shape), smooth


def smooth_rotations(joints: np.ndarray) -> np.ndarray:
    """(F, J, 3) axis-angle -> the same, inner frames replaced by the mean of three.

    Mean rotations, not mean numbers: a body that turns past half a turn has numbers that jump from +pi to -pi,
    and the mean of those would face the other way. Among the axis-angles of the mean rotation, whole turns
    apart, the one nearest to the frame's own numbers is returned, because the MLPs see the numbers.
    """
    if len(joints) < 3:
        return joints.copy()
    quats = (
        Rotation.from_rotvec(joints.reshape(-1, 3).astype(np.float64)).as_quat().reshape(*joints.shape[:2], 4)
    )
    before, here, after = quats[:-2], quats[1:-1], quats[2:]
    mean = here + _same_side(before, here) + _same_side(after, here)
    vectors = Rotation.from_quat(mean.reshape(-1, 4)).as_rotvec().reshape(here.shape[:2] + (3,))
    smooth = joints.copy()
    smooth[1:-1] = _nearest_turn(vectors, joints[1:-1])
    return smooth


def _same_side(quats: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """q and -q are one rotation: the one of them in `reference`'s half of the sphere."""
    return np.where((quats * reference).sum(-1, keepdims=True) < 0, -quats, quats)


def _nearest_turn(vectors: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`vectors` (..., 3) lengthened or shortened by whole turns, to end nearest to `numbers`."""
    angles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    axes = vectors / np.maximum(angles, np.finfo(np.float64).tiny)
    turns = np.round(((axes * numbers).sum(-1, keepdims=True) - angles) / (2 * np.pi))
    return vectors + 2 * np.pi * turns * axes
