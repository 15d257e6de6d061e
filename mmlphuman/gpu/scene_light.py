"""The scene's light as a GPU kernel forward and one backward: shade a Gaussian's harmonics by its normal and place.

Data path: posed Gaussians + rest normals + translation -> the same Gaussians with lit harmonics.
Plain twin: avatar.light.SceneLight; tests compare values and gradients.   Shape letters: N Gaussians, K functions.

The coefficients' gradient is summed block by block and then over blocks, in a fixed order.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.avatar.light import DARKEST, GREY, OF_PLACE_TOO, SceneLight
from mmlphuman.types import PosedGaussians

BLOCK = 128  # Gaussians a program
KERNEL_DARKEST, KERNEL_GREY = tl.constexpr(DARKEST), tl.constexpr(GREY)


@triton.jit
def _normal_and_place(normals, linear, xyz, place, n, mask):
    """World normal, and the place less the scene's middle."""
    a = tl.load(normals + 3 * n, mask, 0.0).to(tl.float32)
    b = tl.load(normals + 3 * n + 1, mask, 0.0).to(tl.float32)
    c = tl.load(normals + 3 * n + 2, mask, 0.0).to(tl.float32)
    at = linear + 9 * n
    x = a * tl.load(at, mask, 0.0) + b * tl.load(at + 1, mask, 0.0) + c * tl.load(at + 2, mask, 0.0)
    y = a * tl.load(at + 3, mask, 0.0) + b * tl.load(at + 4, mask, 0.0) + c * tl.load(at + 5, mask, 0.0)
    z = a * tl.load(at + 6, mask, 0.0) + b * tl.load(at + 7, mask, 0.0) + c * tl.load(at + 8, mask, 0.0)
    norm = tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-12)
    p = tl.load(xyz + 3 * n, mask, 0.0) + tl.load(place)
    q = tl.load(xyz + 3 * n + 1, mask, 0.0) + tl.load(place + 1)
    r = tl.load(xyz + 3 * n + 2, mask, 0.0) + tl.load(place + 2)
    return x / norm, y / norm, z / norm, p, q, r


@triton.jit
def _function(k: tl.constexpr, x, y, z, p, q, r):
    """SceneLight.functions, the k-th."""
    if k == 0:
        f = x
    elif k == 1:
        f = y
    elif k == 2:
        f = z
    elif k == 3:
        f = x * y
    elif k == 4:
        f = y * z
    elif k == 5:
        f = z * x
    elif k == 6:
        f = x * x - y * y
    elif k == 7:
        f = 3 * z * z - 1
    else:
        f = p if k < 12 else (q if k < 16 else r)
        if k % 4 == 1:
            f = f * x
        elif k % 4 == 2:
            f = f * y
        elif k % 4 == 3:
            f = f * z
    return f


@triton.jit
def light_forward(
    normals, linear, xyz, place, coefficients, sh, out,  # (N, 3), (N, 9), (N, 3), (3), (K, 3), (N, 12), (N, 12)
    N, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    x, y, z, p, q, r = _normal_and_place(normals, linear, xyz, place, n, mask)
    for channel in tl.static_range(3):
        shade = tl.zeros([BLOCK], tl.float32) + 1.0
        for k in tl.static_range(K):
            shade += tl.load(coefficients + 3 * k + channel) * _function(k, x, y, z, p, q, r)
        shade = tl.maximum(shade, KERNEL_DARKEST)
        at = 12 * n + channel
        tl.store(out + at, tl.load(sh + at, mask, 0.0) * shade + (shade - 1.0) * KERNEL_GREY, mask)
        for other in tl.static_range(1, 4):
            tl.store(out + at + 3 * other, tl.load(sh + at + 3 * other, mask, 0.0) * shade, mask)


@triton.jit
def light_backward(
    normals, linear, xyz, place, coefficients, sh, grad,  # as above; grad (N, 12) of out
    d_sh, d_coefficients,  # (N, 12), (programs, K, 3) of each block
    N, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    x, y, z, p, q, r = _normal_and_place(normals, linear, xyz, place, n, mask)
    for channel in tl.static_range(3):
        shade = tl.zeros([BLOCK], tl.float32) + 1.0
        for k in tl.static_range(K):
            shade += tl.load(coefficients + 3 * k + channel) * _function(k, x, y, z, p, q, r)
        within = shade >= KERNEL_DARKEST  # below, clamping stops the gradient
        shade = tl.maximum(shade, KERNEL_DARKEST)
        at = 12 * n + channel
        g = tl.load(grad + at, mask, 0.0)
        d_shade = g * (tl.load(sh + at, mask, 0.0) + KERNEL_GREY)
        tl.store(d_sh + at, g * shade, mask)
        for other in tl.static_range(1, 4):
            g = tl.load(grad + at + 3 * other, mask, 0.0)
            d_shade += g * tl.load(sh + at + 3 * other, mask, 0.0)
            tl.store(d_sh + at + 3 * other, g * shade, mask)
        d_shade = tl.where(within & mask, d_shade, 0.0)
        for k in tl.static_range(K):
            total = tl.sum(d_shade * _function(k, x, y, z, p, q, r), 0)
            tl.store(d_coefficients + (tl.program_id(0) * K + k) * 3 + channel, total)


class LightFunction(torch.autograd.Function):
    """SceneLight.forward of contiguous float32 arrays -> (N, 4, 3) lit harmonics."""

    @staticmethod
    def forward(ctx, coefficients, sh, normals, linear, xyz, place):
        given = (
            normals,
            linear.contiguous(),
            xyz.contiguous(),
            place,
            coefficients.contiguous(),
            sh.contiguous(),
        )
        out = torch.empty_like(given[-1])
        light_forward[(triton.cdiv(len(xyz), BLOCK),)](
            *given, out, len(xyz), K=len(coefficients), BLOCK=BLOCK, num_warps=4
        )
        ctx.save_for_backward(*given)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        given = ctx.saved_tensors
        coefficients, sh = given[4], given[5]
        count, functions = len(sh), len(coefficients)
        programs = triton.cdiv(count, BLOCK)
        d_sh, each = torch.empty_like(sh), torch.empty(programs, functions, 3, device=sh.device)
        light_backward[(programs,)](
            *given, grad.contiguous(), d_sh, each, count, K=functions, BLOCK=BLOCK, num_warps=4
        )
        return each.sum(0), d_sh, None, None, None, None


def lit(posed: PosedGaussians, light: SceneLight, normals: Tensor, translation: Tensor) -> PosedGaussians:
    """SceneLight.forward."""
    middle = (light.lowest + light.highest) / 2
    place = torch.clamp(translation, light.lowest, light.highest) - translation - middle
    if len(light.coefficients) != OF_PLACE_TOO:
        place = torch.zeros_like(place)
    sh = LightFunction.apply(
        light.coefficients, posed.sh, normals, posed.linear.detach(), posed.xyz.detach(), place
    )
    return replace(posed, sh=sh, unlit=posed.sh)
