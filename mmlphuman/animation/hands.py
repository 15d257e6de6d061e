"""Hand poses by name, for motion files whose hands are still or missing. Without torch.

Data path: name -> the 90 hand numbers of a pose.

In SMPL-X's rest pose the palms look down and the fingers point sideways, the left hand's along +x, the thumbs
forwards and outwards: a finger bends about z; the thumb goes under the palm about x, and across it about y and,
once it is turned under, z. The tables hold the left hand; the right hand is its mirror image in x.
"""

from __future__ import annotations

import numpy as np

FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # SMPL-X's order, three joints each from the palm out

# Bends of the left hand's joints, radians. Fingers: towards the palm. Thumb: axis-angle vectors.
FINGER_BENDS = {
    "relaxed": {
        "index": (0.25, 0.35, 0.20),
        "middle": (0.35, 0.40, 0.25),
        "pinky": (0.45, 0.45, 0.30),
        "ring": (0.40, 0.45, 0.30),
    },
    "fist": {
        "index": (1.25, 1.65, 0.95),
        "middle": (1.30, 1.70, 0.95),
        "pinky": (1.35, 1.65, 0.95),
        "ring": (1.30, 1.70, 0.95),
    },
}
THUMB_BENDS = {
    "relaxed": ((0.20, 0.10, 0.0), (0.0, 0.15, 0.0), (0.0, 0.20, 0.0)),
    "fist": ((0.85, 0.20, 0.0), (0.0, 0.50, -0.30), (0.0, 0.70, -0.40)),
}
HAND_POSES = tuple(FINGER_BENDS)


def hand_pose(name: str) -> np.ndarray:
    """(90,) float32 axis-angle of both hands, left then right; `name` is one of HAND_POSES."""
    left = np.zeros((len(FINGERS), 3, 3), np.float32)
    for finger, bends in FINGER_BENDS[name].items():
        left[FINGERS.index(finger), :, 2] = np.negative(bends)  # about z, +x turns towards -y
    left[FINGERS.index("thumb")] = THUMB_BENDS[name]
    right = left * np.array([1, -1, -1], np.float32)  # an axis of rotation, seen in a mirror across x
    return np.concatenate([left.ravel(), right.ravel()])
