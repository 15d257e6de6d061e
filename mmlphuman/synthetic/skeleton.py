"""The synthetic person's skeleton: the 55 joints of SMPL-X, in the T-pose.

First stage of the synthetic subject: skeleton -> implicit surface -> mesh -> rig -> body file.
Axes: y up, x to the body's left, z forward; metres. Positions are anthropometric figures of a person of
1.70 m, written with the floor at y = 0; `rest_joints` moves the origin to the chest, as in SMPL-X files.
"""

from __future__ import annotations

import numpy as np

from mmlphuman.pose_layout import LEFT_FINGERS, NUM_JOINTS, RIGHT_FINGERS

CHEST_HEIGHT = 1.275  # metres above the floor: the origin of the body file

# The SMPL-X kinematic tree: body 0-21, jaw and eyes 22-24, left hand 25-39, right hand 40-54.
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
    + [20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38]
    + [21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53]
)

PELVIS, L_HIP, R_HIP, SPINE1, L_KNEE, R_KNEE, SPINE2, L_ANKLE, R_ANKLE, SPINE3, L_FOOT, R_FOOT = range(12)
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = range(12, 22)
JAW, L_EYE, R_EYE = 22, 23, 24
FIRST_LEFT_FINGER, FIRST_RIGHT_FINGER = LEFT_FINGERS.start, RIGHT_FINGERS.start

# Left joint -> its right twin; the rest are their own.
MIRROR = {
    **{L_HIP: R_HIP, L_KNEE: R_KNEE, L_ANKLE: R_ANKLE, L_FOOT: R_FOOT, L_COLLAR: R_COLLAR},
    **{L_SHOULDER: R_SHOULDER, L_ELBOW: R_ELBOW, L_WRIST: R_WRIST, L_EYE: R_EYE},
    **{FIRST_LEFT_FINGER + i: FIRST_RIGHT_FINGER + i for i in range(15)},
}

_MIDDLE = {
    PELVIS: (0, 0.935, -0.005),
    SPINE1: (0, 1.035, -0.012),
    SPINE2: (0, 1.150, -0.018),
    SPINE3: (0, 1.215, -0.012),
    NECK: (0, 1.425, -0.015),
    HEAD: (0, 1.520, 0.000),
    JAW: (0, 1.535, 0.010),
}
_LEFT = {
    L_HIP: (0.085, 0.890, -0.004),
    L_KNEE: (0.100, 0.485, 0.004),
    L_ANKLE: (0.094, 0.080, -0.030),
    L_FOOT: (0.104, 0.026, 0.085),
    L_COLLAR: (0.050, 1.365, -0.012),
    L_SHOULDER: (0.178, 1.380, -0.020),
    L_ELBOW: (0.440, 1.370, -0.032),
    L_WRIST: (0.680, 1.370, -0.022),
    L_EYE: (0.031, 1.582, 0.070),
}

# Fingers in the order of SMPL-X: name -> (first knuckle, direction, lengths of the three phalanges).
FINGER_BONES = {
    "index": ((0.775, 1.367, 0.019), (1.0, -0.05, 0.10), (0.042, 0.025, 0.022)),
    "middle": ((0.780, 1.369, -0.003), (1.0, -0.05, 0.00), (0.046, 0.029, 0.024)),
    "pinky": ((0.760, 1.364, -0.045), (1.0, -0.06, -0.22), (0.034, 0.020, 0.019)),
    "ring": ((0.773, 1.367, -0.025), (1.0, -0.05, -0.10), (0.043, 0.027, 0.023)),
    "thumb": ((0.708, 1.360, 0.022), (0.74, -0.24, 0.63), (0.042, 0.034, 0.028)),
}


def finger_points() -> dict[str, np.ndarray]:
    """Left fingers: name -> (4, 3) three joints and the tip, floor at y = 0."""
    points = {}
    for name, (knuckle, direction, lengths) in FINGER_BONES.items():
        unit = np.array(direction) / np.linalg.norm(direction)
        points[name] = np.array(knuckle) + np.concatenate([[0], np.cumsum(lengths)])[:, None] * unit
    return points


def standing_joints() -> np.ndarray:
    """(55, 3) T-pose joints with the floor at y = 0."""
    joints = np.zeros((NUM_JOINTS, 3))
    for joint, position in {**_MIDDLE, **_LEFT}.items():
        joints[joint] = position
    for i, points in enumerate(finger_points().values()):
        joints[FIRST_LEFT_FINGER + 3 * i : FIRST_LEFT_FINGER + 3 * i + 3] = points[:3]
    for left, right in MIRROR.items():
        joints[right] = joints[left] * [-1, 1, 1]
    return joints


def rest_joints() -> np.ndarray:
    """(55, 3) T-pose joints in the body file's axes (origin at the chest)."""
    return standing_joints() - [0, CHEST_HEIGHT, 0]
