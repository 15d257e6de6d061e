"""Interpolation by position between three points, as kernels read it, and its transpose for their backward pass.

Plain twins: neighbours.Interpolation, and autograd's of it (paper sec. 3); tests compare values and gradients.

In the backward pass every anchor and control point sums what those that take from it pass back, in a fixed order, so
that gradients do not depend on the order of atomic additions.
Shape letters: A points that values live at, E entries of an interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 4


@triton.jit
def three(at, step, mask):
    """Indices or weights of the three points that an interpolation takes from: entries of a (3, ...) table."""
    return tl.load(at, mask, 0), tl.load(at + step, mask, 0), tl.load(at + 2 * step, mask, 0)


@triton.jit
def coefficient(table, i0, i1, i2, w0, w1, w2, k, mask):
    """Basis k's coefficient, interpolated from the three anchors' rows (offsets i0, i1, i2 into the table)."""
    c0 = tl.load(table + i0 + k, mask, 0.0)
    c1 = tl.load(table + i1 + k, mask, 0.0)
    c2 = tl.load(table + i2 + k, mask, 0.0)
    return w0 * c0 + w1 * c1 + w2 * c2


@triton.jit
def gather_back(
    starts, queries, weights,  # (A + 1), (E), (E): who takes from a point, and how much
    values, value_stride, channel_stride,  # per query
    out, width, first,  # (A, width), columns from `first`
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of an interpolation: each point sums its queries' values, always in the same order."""
    point = tl.program_id(0)
    begin, end = tl.load(starts + point), tl.load(starts + point + 1)
    d = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D, BLOCK], tl.float32)
    for start in range(begin, end, BLOCK):
        e = start + tl.arange(0, BLOCK)
        query = tl.load(queries + e, e < end, 0)
        weight = tl.load(weights + e, e < end, 0.0)
        at = values + query[None, :] * value_stride + d[:, None] * channel_stride
        total += weight[None, :] * tl.load(at, (d < D)[:, None] & (e < end)[None, :], 0.0)
    tl.store(out + point * width + first + d, tl.sum(total, 1), d < D)


@dataclass(frozen=True)
class TransposedInterpolation:
    """The transpose of an interpolation as a sparse matrix, a row a point: which queries take from it, how much."""

    starts: Tensor  # (A + 1,) int32, where a point's entries begin
    queries: Tensor  # (E,) int32
    weights: Tensor  # (E,)

    @classmethod
    def of(cls, index: Tensor, weight: Tensor, points: int) -> TransposedInterpolation:
        flat = index.flatten()
        order = flat.argsort(stable=True)
        starts = flat.new_zeros(points + 1, dtype=torch.int32)
        starts[1:] = torch.bincount(flat, minlength=points).cumsum(0)
        return cls(starts, (order // index.shape[1]).int(), weight.flatten()[order].contiguous())

    def sum_back(
        self, values: Tensor, query_stride: int, channel_stride: int, out: Tensor, first: int, channels: int
    ) -> None:
        """Adds up the queries' values into columns `first`... of `out` (A, width)."""
        gather_back[(len(out),)](
            self.starts, self.queries, self.weights, values, query_stride, channel_stride, out, out.shape[1], first,
            D=channels, BLOCK_D=triton.next_power_of_2(channels), BLOCK=128 if channels > 4 else 64, num_warps=WARPS,
        )  # fmt: skip
