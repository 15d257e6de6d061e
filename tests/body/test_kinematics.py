"""Rotations against scipy, the skeleton against a walk down it, inverses by the product."""

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.body.kinematics import (
    apply_transforms,
    blend_transforms,
    canonical_pose,
    forward_kinematics,
    rigid_inverse,
    rotation_matrices,
)


def test_rotations_are_scipy_s_near_zero_too():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator, dtype=torch.double))
    for angle in (0, 1e-6, 0.9e-4, 1.1e-4, 1e-2, 1.0, 3.0, 7.0):
        vectors = angle * directions
        expected = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
        torch.testing.assert_close(rotation_matrices(vectors), expected, atol=1e-14, rtol=1e-12)


def test_rotations_near_zero_keep_their_second_order():
    """Twice the angle, four times the second order: what the series must hold where sine and cosine lose digits."""
    vector = torch.tensor([0.9e-4, 0, 0], dtype=torch.double)
    turned = rotation_matrices(vector)
    assert abs(turned[1, 1].item() - math.cos(0.9e-4)) < 1e-16
    assert abs(turned[2, 1].item() - math.sin(0.9e-4)) < 1e-17
    gradient = torch.autograd.functional.jacobian(rotation_matrices, torch.zeros(3, dtype=torch.double))
    assert gradient[2, 1, 0] == 1 and gradient[0, 2, 1] == 1 and gradient[1, 0, 2] == 1


def test_the_canonical_pose_turns_each_leg_outwards_by_25_degrees():
    pose = torch.rad2deg(canonical_pose(torch.double))
    expected = torch.zeros(165, dtype=torch.double)
    expected[5], expected[8] = 25, -25
    torch.testing.assert_close(pose, expected, atol=1e-5, rtol=0)


def test_joints_move_as_a_walk_down_the_skeleton_says():
    """A chain with a branch: each joint turns what hangs on it about its own place."""
    parents = (-1, 0, 1, 1, 3)
    generator = torch.Generator().manual_seed(1)
    joints, pose = (torch.randn(5, 3, generator=generator, dtype=torch.double) for _ in range(2))
    transforms = forward_kinematics(pose.flatten(), joints, parents)
    for joint in range(5):
        expected, walker = np.eye(4), joint
        while walker >= 0:
            about = np.eye(4)
            about[:3, :3] = Rotation.from_rotvec(pose[walker].numpy()).as_matrix()
            about[:3, 3] = joints[walker].numpy() - about[:3, :3] @ joints[walker].numpy()
            expected, walker = about @ expected, parents[walker]
        np.testing.assert_allclose(transforms[joint].numpy(), expected, atol=1e-12)
    product = rigid_inverse(transforms) @ transforms
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.double).expand(5, 4, 4))


def test_blending_is_linear_in_the_transforms():
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(6, 5, generator=generator, dtype=torch.double)
    transforms = torch.randn(5, 4, 4, generator=generator, dtype=torch.double)
    points = torch.randn(6, 3, generator=generator, dtype=torch.double)
    moved = apply_transforms(blend_transforms(weights, transforms), points)
    for n in range(6):
        one = torch.cat([points[n], torch.ones(1, dtype=torch.double)])
        expected = sum(weights[n, j] * (transforms[j] @ one)[:3] for j in range(5))
        torch.testing.assert_close(moved[n], expected)
