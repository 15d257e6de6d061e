"""The GPU kernels behind autograd functions: each has a plain twin in Avatar, named at its class.

Large parameters get no gradient (fused.py says where theirs come from).

Shape letters: N Gaussians, the first P with property bases, the first Q of these with bases of degree-1 colour,
K bases, C control points, A anchors, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.avatar.fused_tables import BLOCK, MAX_JOINTS, WARPS, FusedTables
from mmlphuman.avatar.kernels.blending import blend_backward, blend_forward
from mmlphuman.avatar.kernels.kinematics import kinematics
from mmlphuman.avatar.kernels.layers import layer_backward, layer_forward
from mmlphuman.avatar.kernels.posing import pose_backward, pose_forward
from mmlphuman.types import Pose

MAX_DEPTH = 16  # steps from any joint to the root, at most (SMPL-X: 11)


@torch.no_grad()
def world_transforms(joints: Tensor, tables: FusedTables, pose: Pose) -> Tensor:
    """(J, 12) rows of each joint's skinning transform followed by the pose's world transform."""
    world = torch.cat([pose.rotation, pose.translation[:, None]], 1)
    out, scratch = (torch.empty(len(joints), 12, device=joints.device) for _ in range(2))
    kinematics[(1,)](
        pose.joints.contiguous(), world, joints, tables.parents, tables.canonical_inverse, scratch, out, len(joints),
        DEPTH=MAX_DEPTH, BLOCK=MAX_JOINTS, num_warps=2,
    )  # fmt: skip
    return out


def bank_forward(features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
    """Activations of every layer, the features first; weights may be of half precision."""
    activations, stride = [features.contiguous()], 0
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        anchors, outputs, inputs = weight.shape
        out = torch.empty(anchors, outputs, device=weight.device)
        layer_forward[(anchors, triton.cdiv(outputs, 16))](
            weight, bias, activations[-1], stride, out, inputs, outputs,
            RELU=layer < len(weights) - 1, BLOCK_O=16, BLOCK_I=min(256, triton.next_power_of_2(inputs)), num_warps=2,
        )  # fmt: skip
        activations.append(out)
        stride = outputs
    return activations


class BankFunction(torch.autograd.Function):
    """MLPBank.forward; returns the hidden layers' outputs as well, after the bank's own."""

    @staticmethod
    def forward(ctx, features: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        layers = len(parameters) // 2
        _, *hidden, coefficients = bank_forward(features, parameters[:layers], parameters[layers:])
        ctx.save_for_backward(*parameters[1:layers], *hidden)
        ctx.mark_non_differentiable(*hidden)
        return coefficients, *hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_: Tensor):
        behind_hidden = len(ctx.saved_tensors) // 2  # layers
        d_biases = [grad.contiguous()]
        for layer in reversed(range(behind_hidden)):
            weights, hidden = ctx.saved_tensors[layer], ctx.saved_tensors[behind_hidden + layer]
            anchors, outputs, inputs = weights.shape
            d_hidden = torch.empty_like(hidden)
            layer_backward[(anchors, triton.cdiv(inputs, 64))](
                weights, hidden, d_biases[0], d_hidden, inputs, outputs, BLOCK_O=64, BLOCK_I=64, num_warps=4,
            )  # fmt: skip
            d_biases.insert(0, d_hidden)
        return None, *(None for _ in d_biases), *d_biases


def blend_controls(
    coefficients: Tensor, bases: Tensor, neutral: Tensor, tables: FusedTables, first: int
) -> Tensor:
    """(C, 3) offsets of the control points; their coefficients begin at column `first`."""
    out, count = torch.empty_like(neutral), len(neutral)
    blend_forward[(triton.cdiv(count, BLOCK),)](
        coefficients, coefficients.shape[1], first, tables.control_anchor_index, tables.control_anchor_weight,
        bases, neutral, out, count, *bases.stride(), L=bases.shape[1], BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return out


class ControlFunction(torch.autograd.Function):
    """Avatar.offset_control_points."""

    @staticmethod
    def forward(ctx, coefficients, bases, neutral, tables: FusedTables, first: int) -> Tensor:
        ctx.save_for_backward(coefficients, bases)
        ctx.tables, ctx.first = tables, first
        return blend_controls(coefficients, bases, neutral, tables, first)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        coefficients, bases = ctx.saved_tensors
        tables, count, blended = ctx.tables, bases.shape[0], bases.shape[1]
        grad = grad.contiguous()
        each = torch.empty(blended, count, device=grad.device)
        blend_backward[(triton.cdiv(count, BLOCK),)](
            bases, grad, each, count, *bases.stride(), L=blended, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        d_coefficients = torch.zeros_like(coefficients)
        tables.control_anchor_takers.sum_back(each, 1, count, d_coefficients, ctx.first, blended)
        return d_coefficients, None, grad, None, None


@dataclass(frozen=True)
class GaussianParameters:
    """What the posing kernel reads of every Gaussian; bases in any layout and precision."""

    bases: Tensor  # (P, K, 11)
    sh1_bases: Tensor  # (Q, K, 9)
    sh0: Tensor  # (N, 3)
    sh1: Tensor  # (N, 3, 3)
    log_scales: Tensor  # (N, 3)
    quats: Tensor  # (N, 4)
    opacity_logits: Tensor  # (N,)
    xyz_offsets: Tensor  # (N, 3)
    rest: Tensor  # (N, 3)
    offset_range: float  # metres


def pose_gaussians(
    coefficients: Tensor | None,
    control_offsets: Tensor,
    given: GaussianParameters,
    transforms: Tensor,
    tables: FusedTables,
    active: ActiveParts,
) -> list[Tensor]:
    """xyz (N, 3), covariances (N, 6), opacities (N,), sh (N, 4, 3), linear (N, 3, 3), scales (N, 3), and quaternions
    (N, 4) before they are normalised."""
    count, bases, sh1_bases = len(given.rest), given.bases, given.sh1_bases
    shapes = ((3,), (6,), (), (4, 3), (3, 3), (3,), (4,))
    out = [torch.empty(count, *shape, device=given.rest.device) for shape in shapes]
    pose_forward[(triton.cdiv(count, BLOCK),)](
        coefficients, coefficients.shape[1] if coefficients is not None else 0,
        tables.anchor_index, tables.anchor_weight, bases, sh1_bases,
        given.sh0, given.sh1, given.log_scales, given.quats, given.opacity_logits, given.xyz_offsets, given.rest,
        control_offsets, tables.control_index, tables.control_weight,
        tables.lbs_joints, tables.lbs_weights, tables.lbs_counts, transforms, *out,
        count, len(bases), len(sh1_bases), *bases.stride(), *sh1_bases.stride(), given.offset_range,
        K=bases.shape[1], WITH_BASES=active.property_bases, WITH_SH1=active.sh1, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return out


class PosingFunction(torch.autograd.Function):
    """Avatar.canonical_gaussians and Avatar.pose_gaussians; the pose itself gets no gradient."""

    @staticmethod
    def forward(
        ctx, coefficients, control_offsets, bases, sh1_bases, sh0, sh1, log_scales, quats, opacity_logits, xyz_offsets,
        rest, transforms, tables: FusedTables, offset_range: float, active: ActiveParts,
    ):  # fmt: skip
        given = GaussianParameters(
            bases, sh1_bases, sh0, sh1, log_scales, quats, opacity_logits, xyz_offsets, rest, offset_range
        )
        out = pose_gaussians(coefficients, control_offsets, given, transforms, tables, active)
        xyz, covariances, opacities, sh, linear, scales, raw_quats = out
        ctx.save_for_backward(
            coefficients, bases, sh1_bases, xyz_offsets, linear, scales, raw_quats, opacities
        )
        ctx.tables, ctx.offset_range, ctx.active = tables, offset_range, active
        ctx.controls = len(control_offsets)
        ctx.mark_non_differentiable(linear)
        return xyz, covariances, opacities, sh, linear, scales

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        coefficients, bases, sh1_bases, xyz_offsets, linear, scales, quats, opacities = ctx.saved_tensors
        tables, active, count, bases_each = ctx.tables, ctx.active, len(xyz_offsets), bases.shape[1]
        assert len(bases) == len(sh1_bases) == count, "a compact avatar is not trained"
        grad_xyz, grad_covariance, grad_opacity, grad_sh, _, grad_scales = (
            grad.contiguous() for grad in grads
        )

        def like(*shape: int) -> Tensor:
            return torch.empty(count, *shape, device=xyz_offsets.device)

        each = torch.empty(bases_each, count, device=bases.device) if active.property_bases else bases
        d_sh0, d_sh1, d_log_scales, d_quats = like(3), like(3, 3), like(3), like(4)
        d_opacity, d_xyz_offsets, d_position = like(), like(3), like(3)
        pose_backward[(triton.cdiv(count, BLOCK),)](
            bases, sh1_bases, xyz_offsets, linear, scales, quats, opacities,
            grad_xyz, grad_covariance, grad_opacity, grad_sh, grad_scales,
            each, d_sh0, d_sh1, d_log_scales, d_quats, d_opacity, d_xyz_offsets, d_position,
            count, *bases.stride(), *sh1_bases.stride(), ctx.offset_range,
            K=bases_each, WITH_BASES=active.property_bases, WITH_SH1=active.sh1, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        d_coefficients = None
        if active.property_bases:
            d_coefficients = torch.zeros_like(coefficients)
            tables.anchor_takers.sum_back(each, 1, count, d_coefficients, 0, bases_each)
        d_controls = torch.empty(ctx.controls, 3, device=bases.device)
        tables.control_takers.sum_back(d_position, 3, 1, d_controls, 0, 3)
        given = (
            d_coefficients, d_controls, None, None,
            d_sh0, d_sh1 if active.sh1 else None, d_log_scales, d_quats, d_opacity, d_xyz_offsets,
        )  # fmt: skip
        return *given, None, None, None, None, None
