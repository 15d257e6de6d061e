"""GPU kernels of LPIPS: the distance between feature maps.

Plain twin: LPIPS.forward's arithmetic between features; tests/gpu compares values and gradients.
Shape letters: P pixels of all views, F feature channels.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _unit(features, eps):
    """(P, F) -> the same with each pixel's vector made unit length, and the lengths."""
    length = tl.sqrt(tl.sum(features * features, 1) + eps)[:, None]
    return features / length, length


@triton.jit
def feature_forward(
    ours, theirs, head, partial, P, eps, F: tl.constexpr, BLOCK: tl.constexpr
):  # (P, F) of any precision twice, (F), (programs)
    """Sum over a block of pixels of the weighted squared differences of unit features."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    f = tl.arange(0, F)
    inside = (p < P)[:, None]
    at = p.to(tl.int64)[:, None] * F + f[None, :]
    a, _ = _unit(tl.load(ours + at, inside, 0.0).to(tl.float32), eps)
    b, _ = _unit(tl.load(theirs + at, inside, 0.0).to(tl.float32), eps)
    difference = a - b
    each = tl.sum(difference * difference * tl.load(head + f)[None, :], 1)
    tl.store(partial + tl.program_id(0), tl.sum(tl.where(p < P, each, 0.0), 0))


@triton.jit
def feature_backward(
    ours, theirs, head, grad, d_ours, P, eps, F: tl.constexpr, BLOCK: tl.constexpr
):  # grad (): of the mean over pixels
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    f = tl.arange(0, F)
    inside = (p < P)[:, None]
    at = p.to(tl.int64)[:, None] * F + f[None, :]
    a, length = _unit(tl.load(ours + at, inside, 0.0).to(tl.float32), eps)
    b, _ = _unit(tl.load(theirs + at, inside, 0.0).to(tl.float32), eps)
    d = 2 * tl.load(grad) / P * (a - b) * tl.load(head + f)[None, :]
    d = (d - a * tl.sum(a * d, 1)[:, None]) / length
    tl.store(d_ours + at, d.to(d_ours.dtype.element_ty), inside)
