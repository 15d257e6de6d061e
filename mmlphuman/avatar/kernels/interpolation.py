"""What kernels share: reading an interpolation's three points, and a basis's coefficient between them.

Plain twin: neighbours.Interpolation.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
