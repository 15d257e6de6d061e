"""Forward kinematics and linear blend skinning of the SMPL-X skeleton.

Data path: Pose -> joint transforms A (J, 4, 4) -> skinning transforms G = A(pose) A(canonical)^-1 -> points.
Pose blend shapes are not used by the method.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmlphuman.pose_layout import POSE_DIM

CANONICAL_LEG_ANGLE = torch.pi * 25 / 180  # the "big" pose: legs apart, so that skinning weights separate


def canonical_pose(dtype: torch.dtype = torch.float32) -> Tensor:
    """(165,) the canonical pose: zero but the hips, turned 25 degrees outwards about z."""
    pose = torch.zeros(POSE_DIM, dtype=dtype)
    pose[5] = CANONICAL_LEG_ANGLE
    pose[8] = -CANONICAL_LEG_ANGLE
    return pose


def rotation_matrices(axis_angles: Tensor) -> Tensor:
    """(..., 3) axis-angle in radians -> (..., 3, 3), differentiable at zero as well (Rodrigues)."""
    squared = (axis_angles * axis_angles).sum(-1)[..., None, None]
    near_zero = squared < 1e-8
    safe = torch.where(near_zero, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(near_zero, 1 - squared / 6, angle.sin() / angle)
    versine = torch.where(near_zero, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    x, y, z = axis_angles.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return (
        torch.eye(3, dtype=axis_angles.dtype, device=axis_angles.device)
        + sine * cross
        + versine * (cross @ cross)
    )


def forward_kinematics(pose: Tensor, joints: Tensor, parents: Sequence[int]) -> Tensor:
    """Transforms that carry each joint's neighbourhood from the T-pose to `pose`.

    pose: (..., J * 3) axis-angle; joints: (J, 3) rest positions in the T-pose; parents: J indices, the
    root's is -1. Returns (..., J, 4, 4).
    """
    return chain_rotations(rotation_matrices(pose.unflatten(-1, (-1, 3))), joints, parents)


def chain_rotations(rotations: Tensor, joints: Tensor, parents: Sequence[int]) -> Tensor:
    """`forward_kinematics` of rotations (..., J, 3, 3) of each joint against its parent."""
    bones = joints.clone()
    bones[1:] = joints[1:] - joints[list(parents[1:])]
    local = torch.zeros(*rotations.shape[:-2], 4, 4, dtype=rotations.dtype, device=rotations.device)
    local[..., :3, :3] = rotations
    local[..., :3, 3] = bones
    local[..., 3, 3] = 1
    world = [local[..., 0, :, :]]
    for joint in range(1, len(parents)):
        world.append(world[parents[joint]] @ local[..., joint, :, :])
    world = torch.stack(world, -3)
    # Relative to the T-pose: the same rotation, moved so that it acts about the joint's rest position.
    moved = (world[..., :3, :3] @ joints[..., None])[..., 0]
    relative = world.clone()
    relative[..., :3, 3] = world[..., :3, 3] - moved
    return relative


def rigid_inverse(transforms: Tensor) -> Tensor:
    """Inverse of (..., 4, 4) rotations with translation, without a general solve."""
    rotation = transforms[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transforms)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transforms[..., :3, 3, None])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def blend_transforms(weights: Tensor, transforms: Tensor) -> Tensor:
    """(P, J) skinning weights and (J, 4, 4) transforms -> (P, 4, 4) blended transforms."""
    return (weights @ transforms.flatten(1)).unflatten(-1, (4, 4))


def apply_transforms(transforms: Tensor, points: Tensor) -> Tensor:
    """(P, 4, 4) affine transforms of (P, 3) points -> (P, 3)."""
    return (transforms[:, :3, :3] @ points[:, :, None])[:, :, 0] + transforms[:, :3, 3]
