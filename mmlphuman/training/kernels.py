"""GPU kernels of a training step: the distance between feature maps, and Adam.

Plain twins: LPIPS.forward's arithmetic between features, and torch.optim; tests/gpu compares values and gradients.
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


@triton.jit
def adam_step(
    addresses, counts, numbers, tensor_of_block, first_block,  # (T, 4), (T), (T, 4), (blocks), (T)
    not_finite,  # () set to 1 if any gradient is not finite
    beta1, beta2, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    """torch.optim.AdamW (Adam for decay 0) of T tensors in one launch.

    addresses: of parameter, gradient, average and average square. numbers: rate, decay, and the corrections
    1 - beta1^step and the root of 1 - beta2^step.
    """
    block = tl.program_id(0)
    tensor = tl.load(tensor_of_block + block)
    start = (block - tl.load(first_block + tensor)).to(tl.int64) * BLOCK
    at = start + tl.arange(0, BLOCK)
    inside = at < tl.load(counts + tensor)
    parameter = tl.load(addresses + 4 * tensor).to(tl.pointer_type(tl.float32))
    grad = tl.load(addresses + 4 * tensor + 1).to(tl.pointer_type(tl.float32))
    average = tl.load(addresses + 4 * tensor + 2).to(tl.pointer_type(tl.float32))
    square = tl.load(addresses + 4 * tensor + 3).to(tl.pointer_type(tl.float32))
    rate = tl.load(numbers + 4 * tensor)
    decay = tl.load(numbers + 4 * tensor + 1)
    correction1 = tl.load(numbers + 4 * tensor + 2)
    correction2_root = tl.load(numbers + 4 * tensor + 3)
    g = tl.load(grad + at, inside, 0.0)
    broken = tl.sum(((g - g) != 0).to(tl.int32), 0)
    if broken > 0:
        tl.store(not_finite, 1.0)
    m = tl.load(average + at, inside, 0.0)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * tl.load(square + at, inside, 0.0) + (1 - beta2) * g * g
    tl.store(average + at, m, inside)
    tl.store(square + at, v, inside)
    p = tl.load(parameter + at, inside, 0.0) * (1 - rate * decay)
    tl.store(parameter + at, p - rate / correction1 * m / (tl.sqrt(v) / correction2_root + eps), inside)
