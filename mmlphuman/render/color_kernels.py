"""Colours by view and the conversion to bytes as GPU kernels.

Plain twins: shading.view_colors, to_bytes; tests compare values and gradients.   Shape letters: N Gaussians, V views.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 128  # Gaussians a program
BYTES_BLOCK = 4096  # colours a program
# As in shading.py. Behind what they multiply: a constant in front of a block is no block to Triton's interpreter.
SH_DEGREE_0 = tl.constexpr(0.28209479177387814)
SH_DEGREE_1 = tl.constexpr(0.4886025119029199)


@triton.jit
def _to_camera(w2c, view, px, py, pz):
    """From the points to the centre of a camera: -R^T t less the point."""
    at = w2c + 16 * view
    tx, ty, tz = tl.load(at + 3), tl.load(at + 7), tl.load(at + 11)
    x = -(tl.load(at) * tx + tl.load(at + 4) * ty + tl.load(at + 8) * tz) - px
    y = -(tl.load(at + 1) * tx + tl.load(at + 5) * ty + tl.load(at + 9) * tz) - py
    z = -(tl.load(at + 2) * tx + tl.load(at + 6) * ty + tl.load(at + 10) * tz) - pz
    return x, y, z


@triton.jit
def colors_forward(xyz, linear, sh, w2c, colors, N, BLOCK: tl.constexpr):
    """Plain twin: render.shading.view_colors. (N, 3), (N, 9), (N, 12), (V, 16) -> (V, N, 3)."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    view = tl.program_id(1)
    mask = n < N
    px = tl.load(xyz + 3 * n, mask, 0.0)
    py = tl.load(xyz + 3 * n + 1, mask, 0.0)
    pz = tl.load(xyz + 3 * n + 2, mask, 0.0)
    x, y, z = _to_camera(w2c, view, px, py, pz)
    at = linear + 9 * n
    a = x * tl.load(at, mask, 0.0) + y * tl.load(at + 3, mask, 0.0) + z * tl.load(at + 6, mask, 0.0)
    b = x * tl.load(at + 1, mask, 0.0) + y * tl.load(at + 4, mask, 0.0) + z * tl.load(at + 7, mask, 0.0)
    c = x * tl.load(at + 2, mask, 0.0) + y * tl.load(at + 5, mask, 0.0) + z * tl.load(at + 8, mask, 0.0)
    norm = tl.maximum(tl.sqrt(a * a + b * b + c * c), 1e-12)
    a, b, c = a / norm, b / norm, c / norm
    at = sh + 12 * n
    out = colors + (view * N + n) * 3
    for channel in tl.static_range(3):
        value = tl.load(at + channel, mask, 0.0) * SH_DEGREE_0
        value += (
            -b * tl.load(at + 3 + channel, mask, 0.0)
            + c * tl.load(at + 6 + channel, mask, 0.0)
            - a * tl.load(at + 9 + channel, mask, 0.0)
        ) * SH_DEGREE_1
        tl.store(out + channel, tl.maximum(value + 0.5, 0.0), mask)


@triton.jit
def colors_backward(xyz, linear, sh, w2c, colors, grad, d_xyz, d_sh, N, V, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    px = tl.load(xyz + 3 * n, mask, 0.0)
    py = tl.load(xyz + 3 * n + 1, mask, 0.0)
    pz = tl.load(xyz + 3 * n + 2, mask, 0.0)
    at = linear + 9 * n
    m0 = tl.load(at, mask, 0.0)
    m1 = tl.load(at + 1, mask, 0.0)
    m2 = tl.load(at + 2, mask, 0.0)
    m3 = tl.load(at + 3, mask, 0.0)
    m4 = tl.load(at + 4, mask, 0.0)
    m5 = tl.load(at + 5, mask, 0.0)
    m6 = tl.load(at + 6, mask, 0.0)
    m7 = tl.load(at + 7, mask, 0.0)
    m8 = tl.load(at + 8, mask, 0.0)
    zero = tl.zeros([BLOCK], tl.float32)
    sx, sy, sz = zero, zero, zero
    for channel in tl.static_range(3):
        at = sh + 12 * n + channel
        hy = tl.load(at + 3, mask, 0.0)
        hz = tl.load(at + 6, mask, 0.0)
        hx = tl.load(at + 9, mask, 0.0)
        g0, gy, gz, gx = zero, zero, zero, zero
        for view in range(V):
            where = (view * N + n) * 3 + channel
            g = tl.load(grad + where, mask, 0.0)
            g = tl.where(tl.load(colors + where, mask, 0.0) > 0, g, 0.0)
            g0 += g
            x, y, z = _to_camera(w2c, view, px, py, pz)
            a, b, c = x * m0 + y * m3 + z * m6, x * m1 + y * m4 + z * m7, x * m2 + y * m5 + z * m8
            norm = tl.maximum(tl.sqrt(a * a + b * b + c * c), 1e-12)
            a, b, c = a / norm, b / norm, c / norm
            gy -= g * b
            gz += g * c
            gx -= g * a
            # Of the direction, across itself only; then back through the posing's 3 x 3 part.
            da, db, dc = -g * hx, -g * hy, g * hz
            along = da * a + db * b + dc * c
            da, db, dc = (da - along * a) / norm, (db - along * b) / norm, (dc - along * c) / norm
            sx -= m0 * da + m1 * db + m2 * dc
            sy -= m3 * da + m4 * db + m5 * dc
            sz -= m6 * da + m7 * db + m8 * dc
        out = d_sh + 12 * n + channel
        tl.store(out, g0 * SH_DEGREE_0, mask)
        tl.store(out + 3, gy * SH_DEGREE_1, mask)
        tl.store(out + 6, gz * SH_DEGREE_1, mask)
        tl.store(out + 9, gx * SH_DEGREE_1, mask)
    tl.store(d_xyz + 3 * n, sx * SH_DEGREE_1, mask)
    tl.store(d_xyz + 3 * n + 1, sy * SH_DEGREE_1, mask)
    tl.store(d_xyz + 3 * n + 2, sz * SH_DEGREE_1, mask)


@triton.jit
def to_bytes(image, out, count, BLOCK: tl.constexpr):
    """Colours in [0, 1] -> uint8, clamped and rounded."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(image + at, at < count, 0.0)
    value = tl.minimum(tl.maximum(value, 0.0), 1.0) * 255 + 0.5
    tl.store(out + at, value.to(tl.uint8), at < count)


def bytes_of(image: torch.Tensor) -> torch.Tensor:
    """Any shape, on a GPU."""
    image = image.contiguous()
    out = torch.empty_like(image, dtype=torch.uint8)
    count = image.numel()
    to_bytes[(triton.cdiv(count, BYTES_BLOCK),)](image, out, count, BLOCK=BYTES_BLOCK, num_warps=8)
    return out
