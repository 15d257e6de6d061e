"""Control points' offsets as a GPU kernel, forward and backward.

Data path: coefficients at anchors + position bases -> offsets of the control points.
Plain twin: Avatar.offset_control_points (paper sec. 3); tests compare values and gradients.
Shape letters: C control points, A anchors, L bases of positions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.gpu.interpolation import WARPS, coefficient, three
from mmlphuman.gpu.tables import BLOCK, FusedTables


@triton.jit
def blend_forward(
    coefficients, width, first,  # (A, width): control points' coefficients begin at column `first`
    index, weight, bases, neutral, out,  # (3, C), (3, C), (C, L, 3) with the strides below, (C, 3), (C, 3)
    C, basis_c, basis_l, basis_d, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Control points' offsets: neutral + blended bases."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    i0, i1, i2 = three(index + c, C, mask)
    i0, i1, i2 = i0 * width + first, i1 * width + first, i2 * width + first
    w0, w1, w2 = three(weight + c, C, mask)
    x = tl.load(neutral + 3 * c, mask, 0.0)
    y = tl.load(neutral + 3 * c + 1, mask, 0.0)
    z = tl.load(neutral + 3 * c + 2, mask, 0.0)
    for k in range(L):
        a = coefficient(coefficients, i0, i1, i2, w0, w1, w2, k, mask)
        basis = bases + c * basis_c + k * basis_l
        x += a * tl.load(basis, mask, 0.0).to(tl.float32)
        y += a * tl.load(basis + basis_d, mask, 0.0).to(tl.float32)
        z += a * tl.load(basis + 2 * basis_d, mask, 0.0).to(tl.float32)
    tl.store(out + 3 * c, x, mask)
    tl.store(out + 3 * c + 1, y, mask)
    tl.store(out + 3 * c + 2, z, mask)


@triton.jit
def blend_backward(
    bases, grad,  # as above; (C, 3)
    d_coefficients,  # (L, C) of each control point
    C, basis_c, basis_l, basis_d, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    x = tl.load(grad + 3 * c, mask, 0.0)
    y = tl.load(grad + 3 * c + 1, mask, 0.0)
    z = tl.load(grad + 3 * c + 2, mask, 0.0)
    for k in range(L):
        place = c * basis_c + k * basis_l
        d = x * tl.load(bases + place, mask, 0.0)
        d += y * tl.load(bases + place + basis_d, mask, 0.0)
        d += z * tl.load(bases + place + 2 * basis_d, mask, 0.0)
        tl.store(d_coefficients + k * C + c, d, mask)


class ControlFunction(torch.autograd.Function):
    """Avatar.offset_control_points; their coefficients begin at column `first`. The bases get no gradient."""

    @staticmethod
    def forward(ctx, coefficients, bases, neutral, tables: FusedTables, first: int) -> Tensor:
        out, count = torch.empty_like(neutral), len(neutral)
        blend_forward[(triton.cdiv(count, BLOCK),)](
            coefficients, coefficients.shape[1], first, tables.control_anchor_index, tables.control_anchor_weight,
            bases, neutral, out, count, *bases.stride(), L=bases.shape[1], BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        ctx.save_for_backward(coefficients, bases)
        ctx.tables, ctx.first = tables, first
        return out

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
        tables.control_anchor_transpose.sum_back(each, 1, count, d_coefficients, ctx.first, blended)
        return d_coefficients, None, grad, None, None
