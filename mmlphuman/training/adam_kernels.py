"""Adam as GPU kernels that put each parameter's gradient together from the poses' rows while they step it.

Plain twins: torch.optim, and the outer products in tests/outer_products.py; tests/gpu compares both.

Shape letters: B poses of the step, each a row of F numbers; T tensors of a launch; A anchors, I and O a layer's inputs
and outputs; N Gaussians or control points, K bases of each, D numbers of a basis.
numbers (T, 4): rate, weight decay, and the corrections 1 - beta1^step and the root of 1 - beta2^step.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmlphuman.avatar.kernels.interpolation import coefficient, three


@triton.jit
def _step(parameter, average, square, at, inside, g, numbers, beta1, beta2, eps):
    """torch.optim.AdamW (Adam for decay 0) of the numbers at `at`, whose gradient is g."""
    rate, decay = tl.load(numbers), tl.load(numbers + 1)
    correction1, correction2_root = tl.load(numbers + 2), tl.load(numbers + 3)
    m = tl.load(average + at, inside, 0.0)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * tl.load(square + at, inside, 0.0) + (1 - beta2) * g * g
    tl.store(average + at, m, inside)
    tl.store(square + at, v, inside)
    p = tl.load(parameter + at, inside, 0.0) * (1 - rate * decay)
    tl.store(parameter + at, p - rate / correction1 * m / (tl.sqrt(v) / correction2_root + eps), inside)


@triton.jit
def _pointer(table, entry):
    return tl.load(table + entry).to(tl.pointer_type(tl.float32))


@triton.jit
def adam_of_vectors(
    table, numbers, tensor_of_block, first_block,  # (T, 5), (T, 4), (blocks), (T)
    rows, F, B,  # (B, F)
    not_finite,  # () set to 1 if any gradient is not finite
    beta1, beta2, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    """Parameters whose gradient is in the rows.

    table: addresses of parameter, average and average square; how many numbers; where in a row their gradient begins.
    """
    block = tl.program_id(0)
    tensor = tl.load(tensor_of_block + block)
    entry = 5 * tensor
    at = (block - tl.load(first_block + tensor)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.load(table + entry + 3)
    of_row = rows + tl.load(table + entry + 4) + at
    g = tl.zeros([BLOCK], tl.float32)
    for _ in range(B):
        g += tl.load(of_row, inside, 0.0)
        of_row += F
    if tl.sum(((g - g) != 0).to(tl.int32), 0) > 0:
        tl.store(not_finite, 1.0)
    _step(
        _pointer(table, entry), _pointer(table, entry + 1), _pointer(table, entry + 2), at, inside, g,
        numbers + 4 * tensor, beta1, beta2, eps,
    )  # fmt: skip


@triton.jit
def adam_of_layer(
    parameter, average, square, numbers,  # (A, O, I) thrice; (4)
    inputs, own_inputs, biases,  # where in a row they begin; the inputs that are each anchor's own: I, or 0 if shared
    rows, F, B, not_finite,  # as above
    ins, outs, beta1, beta2, eps, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """A layer's weights in the MLP bank: for each pose what went into the layer times its biases' gradient."""
    anchor = tl.program_id(0)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    own = o < outs
    for start in range(0, ins, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        inside = own[:, None] & (i < ins)[None, :]
        g = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
        for b in range(B):
            x = tl.load(rows + b * F + inputs + anchor * own_inputs + i, i < ins, 0.0)
            d = tl.load(rows + b * F + biases + anchor * outs + o, own, 0.0)
            g += d[:, None] * x[None, :]
        if tl.sum(tl.sum(((g - g) != 0).to(tl.int32), 1), 0) > 0:
            tl.store(not_finite, 1.0)
        first = anchor.to(tl.int64) * outs * ins
        at = (o * ins)[:, None] + i[None, :]
        _step(
            parameter + first, average + first, square + first, at, inside, g, numbers, beta1, beta2, eps
        )  # fmt: skip


@triton.jit
def adam_of_bases(
    parameter, average, square, numbers,  # (N, K, D) with the strides below, thrice; (4)
    index, weight, coefficients, width,  # (3, N), (3, N): of anchors; where in a row those of (A, width) begin
    channels,  # (2, D): where in a row the gradient of each of the D numbers begins, and its step from n to n + 1
    rows, F, B, not_finite,
    N, basis_n, basis_k, basis_d, beta1, beta2, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bases: for each pose their coefficient times the gradient of what they are added to. A program takes basis k of
    some n; those of the same n follow each other, for they read the same gradients."""
    k = tl.program_id(0)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    own, known = n < N, d < D
    inside = known[:, None] & own[None, :]
    i0, i1, i2 = three(index + n, N, own)
    i0, i1, i2 = i0 * width, i1 * width, i2 * width
    w0, w1, w2 = three(weight + n, N, own)
    at_row = (
        tl.load(channels + d, known, 0)[:, None] + tl.load(channels + D + d, known, 0)[:, None] * n[None, :]
    )
    g = tl.zeros([BLOCK_D, BLOCK], tl.float32)
    for b in range(B):
        a = coefficient(rows + b * F + coefficients, i0, i1, i2, w0, w1, w2, k, own)
        g += a[None, :] * tl.load(rows + b * F + at_row, inside, 0.0)
    if tl.sum(tl.sum(((g - g) != 0).to(tl.int32), 1), 0) > 0:
        tl.store(not_finite, 1.0)
    at = (n * basis_n)[None, :] + (d * basis_d)[:, None] + k * basis_k
    _step(parameter, average, square, at, inside, g, numbers, beta1, beta2, eps)
