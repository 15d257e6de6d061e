"""Control points' offsets as a GPU kernel, forward and backward; and the transpose of an interpolation (paper sec. 3).

Plain twins: Avatar.offset_control_points, and autograd's of Interpolation; tests compare values and gradients.
Shape letters: C control points, A anchors, L bases of positions, E entries of an interpolation.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmlphuman.avatar.kernels.interpolation import coefficient, three


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


@triton.jit
def gather_back(
    starts, takers, weights,  # (A + 1), (E), (E): who takes from a point, and how much
    values, value_stride, channel_stride,  # per taker
    out, width, first,  # (A, width), columns from `first`
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of an interpolation: each point sums its takers' values, always in the same order."""
    point = tl.program_id(0)
    begin, end = tl.load(starts + point), tl.load(starts + point + 1)
    d = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D, BLOCK], tl.float32)
    for start in range(begin, end, BLOCK):
        e = start + tl.arange(0, BLOCK)
        taker = tl.load(takers + e, e < end, 0)
        weight = tl.load(weights + e, e < end, 0.0)
        at = values + taker[None, :] * value_stride + d[:, None] * channel_stride
        total += weight[None, :] * tl.load(at, (d < D)[:, None] & (e < end)[None, :], 0.0)
    tl.store(out + point * width + first + d, tl.sum(total, 1), d < D)
