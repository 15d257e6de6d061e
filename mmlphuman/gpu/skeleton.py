"""The skeleton's forward kinematics as one GPU kernel: 55 joints in one program, in place of some hundred launches.

Data path: pose -> skinning transforms, the pose's own rotation and translation included; where training corrects the
pose, gradients of these transforms -> of its joints and translation, a dozen launches whatever the depth.
Plain twin: Avatar.skinning_transforms.   Shape letter: J joints.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.body.kinematics import rigid_inverse
from mmlphuman.gpu.tables import MAX_JOINTS, FusedTables
from mmlphuman.types import Pose

MAX_DEPTH = 16  # steps from any joint to the root, at most (SMPL-X: 11)


@triton.jit
def _rodrigues(x, y, z):
    """Axis-angle -> rotation, rows."""
    squared = x * x + y * y + z * z
    near_zero = squared < 1e-8
    safe = tl.where(near_zero, 1.0, squared)
    angle = tl.sqrt(safe)
    sine = tl.where(near_zero, 1 - squared / 6, tl.sin(angle) / angle)
    versine = tl.where(near_zero, 0.5 - squared / 24, (1 - tl.cos(angle)) / safe)
    return (
        1 - versine * (y * y + z * z), versine * x * y - sine * z, versine * x * z + sine * y,
        versine * x * y + sine * z, 1 - versine * (x * x + z * z), versine * y * z - sine * x,
        versine * x * z - sine * y, versine * y * z + sine * x, 1 - versine * (x * x + y * y),
    )  # fmt: skip


@triton.jit
def _compose(
    a0, a1, a2, a3, a4, a5, a6, a7, a8, at0, at1, at2, b0, b1, b2, b3, b4, b5, b6, b7, b8, bt0, bt1, bt2
):
    """[A | at] [B | bt], 3 x 4 rigid transforms as nine numbers and three."""
    return (
        a0 * b0 + a1 * b3 + a2 * b6, a0 * b1 + a1 * b4 + a2 * b7, a0 * b2 + a1 * b5 + a2 * b8,
        a3 * b0 + a4 * b3 + a5 * b6, a3 * b1 + a4 * b4 + a5 * b7, a3 * b2 + a4 * b5 + a5 * b8,
        a6 * b0 + a7 * b3 + a8 * b6, a6 * b1 + a7 * b4 + a8 * b7, a6 * b2 + a7 * b5 + a8 * b8,
        a0 * bt0 + a1 * bt1 + a2 * bt2 + at0,
        a3 * bt0 + a4 * bt1 + a5 * bt2 + at1,
        a6 * bt0 + a7 * bt1 + a8 * bt2 + at2,
    )  # fmt: skip


@triton.jit
def _load12(pointer, mask):
    """A row of a (., 12) table of 3 x 4 transforms, rotation first in the result."""
    return (
        tl.load(pointer, mask, 1.0), tl.load(pointer + 1, mask, 0.0), tl.load(pointer + 2, mask, 0.0),
        tl.load(pointer + 4, mask, 0.0), tl.load(pointer + 5, mask, 1.0), tl.load(pointer + 6, mask, 0.0),
        tl.load(pointer + 8, mask, 0.0), tl.load(pointer + 9, mask, 0.0), tl.load(pointer + 10, mask, 1.0),
        tl.load(pointer + 3, mask, 0.0), tl.load(pointer + 7, mask, 0.0), tl.load(pointer + 11, mask, 0.0),
    )  # fmt: skip


@triton.jit
def _store12(pointer, r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2, mask):
    tl.store(pointer, r0, mask)
    tl.store(pointer + 1, r1, mask)
    tl.store(pointer + 2, r2, mask)
    tl.store(pointer + 3, t0, mask)
    tl.store(pointer + 4, r3, mask)
    tl.store(pointer + 5, r4, mask)
    tl.store(pointer + 6, r5, mask)
    tl.store(pointer + 7, t1, mask)
    tl.store(pointer + 8, r6, mask)
    tl.store(pointer + 9, r7, mask)
    tl.store(pointer + 10, r8, mask)
    tl.store(pointer + 11, t2, mask)


@triton.jit
def kinematics(
    pose, world, joints, parents,  # (J * 3), (12): rows of Rh | Th, (J, 3), (J)
    canonical_inverse, scratch, out,  # (J, 12), (J, 12), (J, 12): rows of 3 x 4 transforms
    J, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Plain twin: Avatar.skinning_transforms with the world transform in front. One program, a lane a joint.

    Every lane walks from its joint up to the root, at most DEPTH steps.
    """
    j = tl.arange(0, BLOCK)
    mask = j < J
    r0, r1, r2, r3, r4, r5, r6, r7, r8 = _rodrigues(
        tl.load(pose + 3 * j, mask, 0.0),
        tl.load(pose + 3 * j + 1, mask, 0.0),
        tl.load(pose + 3 * j + 2, mask, 0.0),
    )
    parent = tl.load(parents + j, mask, -1)
    child = parent >= 0
    j0 = tl.load(joints + 3 * j, mask, 0.0)
    j1 = tl.load(joints + 3 * j + 1, mask, 0.0)
    j2 = tl.load(joints + 3 * j + 2, mask, 0.0)
    t0 = j0 - tl.load(joints + 3 * parent, child, 0.0)
    t1 = j1 - tl.load(joints + 3 * parent + 1, child, 0.0)
    t2 = j2 - tl.load(joints + 3 * parent + 2, child, 0.0)
    _store12(scratch + 12 * j, r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2, mask)
    tl.debug_barrier()
    for _ in range(DEPTH):
        a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2 = _load12(scratch + 12 * parent, parent >= 0)
        r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2 = _compose(
            a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2, r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2
        )
        parent = tl.load(parents + parent, parent >= 0, -1)
    t0 -= r0 * j0 + r1 * j1 + r2 * j2  # about the joint's rest position
    t1 -= r3 * j0 + r4 * j1 + r5 * j2
    t2 -= r6 * j0 + r7 * j1 + r8 * j2
    a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2 = _load12(canonical_inverse + 12 * j, mask)
    r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2 = _compose(
        r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2, a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2
    )
    a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2 = _load12(world + 0 * j, mask)  # the same for every lane
    r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2 = _compose(
        a0, a1, a2, a3, a4, a5, a6, a7, a8, u0, u1, u2, r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2
    )
    _store12(out + 12 * j, r0, r1, r2, r3, r4, r5, r6, r7, r8, t0, t1, t2, mask)


def world_transforms(joints: Tensor, tables: FusedTables, pose: Pose) -> Tensor:
    """(J, 12) rows of each joint's skinning transform followed by the pose's world transform.

    With a gradient to the pose's joints and translation, not to its rotation, if they ask for one.
    """
    return SkeletonFunction.apply(pose.joints, pose.translation, pose.rotation, joints, tables)


class SkeletonFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pose, translation, rotation, joints, tables: FusedTables):
        world = torch.cat([rotation, translation[:, None]], 1)
        out, scratch = (torch.empty(len(joints), 12, device=joints.device) for _ in range(2))
        kinematics[(1,)](
            pose.contiguous(), world, joints, tables.parents, tables.canonical_inverse, scratch, out, len(joints),
            DEPTH=MAX_DEPTH, BLOCK=MAX_JOINTS, num_warps=2,
        )  # fmt: skip
        ctx.save_for_backward(pose, rotation, joints, out)
        ctx.tables = tables
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        """A joint that turns by a small w about its place p in the world moves the transforms B of all that it carries
        by [w] (B - p e4^T): the gradient to w is the axial part of sum (B - p e4^T) grad^T. What the joint's own
        numbers make of w: the parent's rotation times the left Jacobian of SO(3)."""
        pose, rotation, joints, out = ctx.saved_tensors
        tables = ctx.tables
        grad, transforms = grad.view(-1, 3, 4), out.view(-1, 3, 4)
        # Sums in full precision, whatever matrix products have: moments about the world's origin cancel below.
        own = torch.cat([(transforms[:, :, None] * grad[:, None]).sum(-1).flatten(1), grad[:, :, 3]], 1)
        moments, forces = (tables.carried[:, :, None] * own).sum(1).split((9, 3), 1)
        to_world = transforms @ rigid_inverse(_square(tables.canonical_inverse))  # from the T-pose
        places = (to_world[:, :, :3] @ joints[:, :, None])[..., 0] + to_world[:, :, 3]
        m = moments.view(-1, 3, 3) - places[:, :, None] * forces[:, None]
        turns = torch.stack([m[:, 1, 2] - m[:, 2, 1], m[:, 2, 0] - m[:, 0, 2], m[:, 0, 1] - m[:, 1, 0]], 1)
        parents = tables.parents.long()
        frames = to_world[:, :, :3].index_select(0, parents.clamp_min(0))
        frames = torch.where((parents < 0)[:, None, None], rotation, frames)
        of_numbers = frames @ left_jacobian(pose.view(-1, 3))
        return (turns[:, None] @ of_numbers).flatten(), grad[:, :, 3].sum(0), None, None, None


def left_jacobian(axis_angles: Tensor) -> Tensor:
    """(J, 3) -> (J, 3, 3): what a change of axis-angle numbers turns by, about the axes that they are written in."""
    squared = (axis_angles * axis_angles).sum(-1)[:, None, None]
    near_zero = squared < 1e-4
    safe = torch.where(near_zero, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    versine = torch.where(near_zero, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    rest = torch.where(near_zero, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    x, y, z = axis_angles.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    identity = torch.diag_embed(torch.ones_like(axis_angles))
    return identity + versine * cross + rest * (cross @ cross)


def _square(rows: Tensor) -> Tensor:
    """(J, 12) -> (J, 4, 4); the last row is the rigid transforms' own."""
    last = torch.zeros_like(rows[:, :4])
    last[:, 3] = 1
    return torch.cat([rows, last], 1).unflatten(1, (4, 4))
