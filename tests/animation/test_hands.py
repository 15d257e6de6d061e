"""Named hand poses on the synthetic skeleton: they close the hand, both sides alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlphuman.animation.hands import FINGERS, hand_pose
from mmlphuman.body.kinematics import apply_transforms, forward_kinematics
from mmlphuman.synthetic.skeleton import PARENTS, rest_joints

WRISTS, FIRST_FINGER = (20, 21), (25, 40)
MIRROR = torch.tensor([-1.0, 1, 1])


def last_knuckles(name: str | None) -> torch.Tensor:
    """(2, 5, 3) of the left and right hand, seen from the wrist."""
    pose = torch.zeros(165)
    if name:
        pose[75:] = torch.from_numpy(hand_pose(name))
    rest = torch.from_numpy(rest_joints()).float()
    joints = apply_transforms(forward_kinematics(pose, rest, PARENTS.tolist()), rest)
    return torch.stack(
        [joints[f + 2 : f + 15 : 3] - joints[w] for w, f in zip(WRISTS, FIRST_FINGER, strict=True)]
    )


def test_fingers_close_towards_the_palm_and_more_so_in_a_fist():
    flat, relaxed, fist = (last_knuckles(name) for name in (None, "relaxed", "fist"))
    fingers = slice(0, FINGERS.index("thumb"))
    for closer, wider in ((relaxed, flat), (fist, relaxed)):
        assert (closer.norm(dim=2) < wider.norm(dim=2))[:, fingers].all()
    for closed in (relaxed, fist):
        assert (closed[..., 1] < flat[..., 1] - 0.005).all(), "palms look down, the thumb goes under them"


def test_the_thumb_of_a_fist_lies_across_index_and_middle_finger():
    left = last_knuckles("fist")[0]
    thumb, index, middle = (left[FINGERS.index(name)] for name in ("thumb", "index", "middle"))
    assert middle[2] < thumb[2] < index[2], "across, from the front to the back"
    assert (thumb - index).norm() < 0.03 and (thumb - middle).norm() < 0.03


@pytest.mark.parametrize("name", ["relaxed", "fist"])
def test_hands_mirror_each_other(name):
    left, right = last_knuckles(name)
    torch.testing.assert_close(left * MIRROR, right, atol=1e-4, rtol=0)
    assert hand_pose(name).shape == (90,) and hand_pose(name).dtype == np.float32
