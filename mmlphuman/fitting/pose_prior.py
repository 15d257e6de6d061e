"""What is known of a person's joints without any data: how far they bend, and which way not at all.

Data path: axis-angle of the joints after the root -> a penalty for each frame. Angles are SMPL-X's, from the T-pose
(x to the person's left, y up, z forward): the left elbow bends by negative y, knees by positive x.
Figures: usual ranges of motion of anatomy books, taken as standard deviations where both ways are possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmlphuman.pose_layout import NUM_JOINTS
from mmlphuman.types import MovableToDevice

FREE = 1000.0  # degrees: no limit
LIMIT_SLACK = 6.0  # degrees beyond a limit that cost as much as one standard deviation
SPINE = (3, 6, 9)
SPINE_SHARED = 6.0  # degrees by which the spine's joints differ
STILL = (22, 23, 24)  # jaw and eyes, which landmarks do not tell

# Joint, or its left one: standard deviations about x, y, z in degrees; the right one's are the same.
SPREAD = {
    1: (45, 20, 20), 4: (60, 10, 7), 7: (25, 12, 12), 10: (12, 4, 4),  # hip, knee, ankle, toes
    3: (15, 12, 10), 6: (15, 12, 10), 9: (15, 12, 10), 12: (18, 20, 15), 15: (18, 20, 15),  # spine, neck, head
    13: (8, 12, 12), 16: (30, 50, 55), 18: (35, 60, 12), 20: (25, 25, 30),  # collar, shoulder, elbow, wrist
}  # fmt: skip
FINGER_SPREAD, FINGER_BASE_SPREAD, THUMB_SPREAD = (5, 5, 30), (8, 12, 30), (20, 25, 25)
PAIRS = (1, 4, 7, 10, 13, 16, 18, 20)  # left joints whose right twin is one more
# Joint: (axis, lowest, highest) in degrees. Mirrored, y and z change sign.
LIMITS = {4: (0, -3, 155), 18: (1, -155, 3), 10: (0, -50, 40)}
RELAXED = {16: (0, 0, -50)}  # arms hang more often than they are spread
FINGER_CURL, FINGER_LIMITS = -18, (-110, 10)  # degrees about z, left hand: relaxed, and how far it goes


@dataclass(frozen=True)
class PosePrior(MovableToDevice):
    """Radians, of the joints after the root."""

    mean: Tensor  # (J - 1, 3)
    spread: Tensor  # (J - 1, 3)
    lowest: Tensor  # (J - 1, 3)
    highest: Tensor  # (J - 1, 3)

    def penalty(self, pose: Tensor) -> Tensor:
        """(F, J - 1, 3) axis-angle -> (F,), about one for each angle that is one standard deviation off."""
        usual = (((pose - self.mean) / self.spread) ** 2).sum((-1, -2))
        beyond = (pose - self.highest).relu() + (self.lowest - pose).relu()
        limits = ((beyond / np.deg2rad(LIMIT_SLACK)) ** 2).sum((-1, -2))
        spine = pose[:, [joint - 1 for joint in SPINE]]
        shared = ((spine - spine.mean(1, keepdim=True)) / np.deg2rad(SPINE_SHARED)) ** 2
        return usual + limits + shared.sum((-1, -2))


def make_pose_prior() -> PosePrior:
    mirror = np.array([1, -1, -1])
    mean, spread = np.zeros((NUM_JOINTS, 3)), np.full((NUM_JOINTS, 3), 1.0)
    lowest, highest = np.full((NUM_JOINTS, 3), -FREE), np.full((NUM_JOINTS, 3), FREE)

    def set_limit(joint: int, axis: int, low: float, high: float, right: bool) -> None:
        if right and axis:
            low, high = -high, -low
        lowest[joint, axis], highest[joint, axis] = low, high

    for left, values in SPREAD.items():
        for right in range(2 if left in PAIRS else 1):
            spread[left + right] = values
            mean[left + right] = np.array(RELAXED.get(left, (0, 0, 0))) * (mirror if right else 1)
            if left in LIMITS:
                set_limit(left + right, *LIMITS[left], bool(right))
    for right, first in enumerate((25, 40)):
        for finger in range(5):
            for place in range(3):
                joint = first + 3 * finger + place
                if finger == 4:  # the thumb, whose axes lie askew
                    spread[joint] = THUMB_SPREAD
                    continue
                spread[joint] = FINGER_SPREAD if place else FINGER_BASE_SPREAD
                mean[joint, 2] = FINGER_CURL * (-1 if right else 1)
                set_limit(joint, 2, *FINGER_LIMITS, bool(right))
    of_joints = (np.deg2rad(array[1:]) for array in (mean, spread, lowest, highest))
    return PosePrior(*(torch.tensor(array, dtype=torch.float32) for array in of_joints))
