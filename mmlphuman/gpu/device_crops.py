"""Where the losses look, as numbers on the device: a recorded step is then the same whatever the sample.

Plain twin: training.losses.Crops, with equal results. Shape letters: V views, H, W height and width, S a crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.measures.comparison import PERCEPTUAL_SIZE, SSIM_RADIUS, Square, ssim_map
from mmlphuman.types import Box

NUMBERS = 7  # of a view: a square's and a box's
BLOCK = 1024  # numbers a program


def crop_numbers(squares: Sequence[Square], boxes: Sequence[Box]) -> list[list[float]]:
    """V rows of NUMBERS, as `DeviceCrops` reads them."""
    return [
        [square.top, square.left, square.size, box.top, box.bottom, box.left, box.right]
        for square, box in zip(squares, boxes, strict=True)
    ]


@dataclass(frozen=True)
class DeviceCrops:
    """numbers: (V, NUMBERS) on the device. exact: all squares have the perceptual network's size."""

    numbers: Tensor
    exact: bool

    def perceptual(self, images: Tensor, background: Tensor) -> Tensor:
        if self.exact:
            return Window.apply(images, self.numbers[:, :2], background, PERCEPTUAL_SIZE)
        top, left, size = self.numbers[:, :3].unbind(1)
        height, width = images.shape[1:3]
        painted = images - background  # 0 is then what lies outside
        down = resampling(top, size, height, PERCEPTUAL_SIZE) @ painted.flatten(2)
        across = down.unflatten(2, (width, 3)).permute(0, 1, 3, 2).flatten(1, 2)
        across = across @ resampling(left, size, width, PERCEPTUAL_SIZE).transpose(1, 2)
        return across.unflatten(1, (PERCEPTUAL_SIZE, 3)).permute(0, 1, 3, 2) + background

    def dissimilarity(self, images: Tensor, truth: Tensor, background: Tensor) -> Tensor:
        _, height, width, _ = images.shape
        device = images.device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        top, bottom, left, right = self.numbers[:, 3:, None].unbind(1)
        down = ((rows >= top) & (rows < bottom)) / (bottom - top)
        across = ((columns >= left) & (columns < right)) / (right - left)
        framed = (_framed(each, background) for each in (images, truth))
        scores = torch.einsum("vchw,vh,vw->v", ssim_map(*framed), down, across) / images.shape[-1]
        return 1 - scores.mean()


def _framed(images: Tensor, background: Tensor) -> Tensor:
    """(V, H, W, 3) -> (V, H + 10, W + 10, 3): with background about it, as far as SSIM's window sees."""
    views, height, width, _ = images.shape
    canvas = background.expand(views, height + 2 * SSIM_RADIUS, width + 2 * SSIM_RADIUS, 3).clone()
    canvas[:, SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS] = images
    return canvas


def resampling(first: Tensor, size: Tensor, extent: int, wanted: int) -> Tensor:
    """(V, wanted, extent) weights of an image's pixels in a resized crop's: measures.comparison.resize_square's, along
    one axis. first, size (V): where the crop begins, and how long it is. Pixels outside the image are left out."""
    device = first.device
    scale = (size / wanted)[:, None, None]
    support = scale.clamp_min(1)  # widens where the crop shrinks
    center = (torch.arange(wanted, device=device) + 0.5)[:, None] * scale
    pixel = torch.arange(extent, device=device) - first[:, None, None]  # (V, 1, extent), counted in the crop
    weights = (1 - (pixel + 0.5 - center).abs() / support).clamp_min(0)
    weights = torch.where((pixel >= 0) & (pixel < size[:, None, None]), weights, 0)
    return weights / _whole(center, support, size[:, None, None])


def _whole(center: Tensor, support: Tensor, size: Tensor) -> Tensor:
    """Sum of the weights of all pixels of the crop, inside the image or not: of a triangle sampled at every pixel that
    the crop has. Its tips that reach over the crop's ends are cut off."""
    low = (center - support - 0.5).ceil().clamp_min(0)
    high = torch.minimum((center + support - 0.5).floor(), size - 1)

    def rising(n: Tensor) -> Tensor:  # sum of 0 .. n
        return n * (n + 1) / 2

    # Pixels up to `split` rise towards the centre, the others fall.
    split = torch.minimum((center - 0.5).floor(), size - 1)
    below, above = split - low + 1, high - split
    rise = below - ((center - 0.5) * below - (rising(split) - rising(low - 1))) / support
    fall = above - ((rising(high) - rising(split)) - (center - 0.5) * above) / support
    return rise + fall


@triton.jit
def cut_windows(
    images, corners, background, windows,  # (V, H, W, 3), (V, 2) top and left, (3), (V, S, S, 3)
    H, W, S, count, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = at < count
    channel, column, row, view = at % 3, at // 3 % S, at // 3 // S % S, at // 3 // S // S
    row += tl.load(corners + 2 * view, own, 0.0).to(tl.int64)
    column += tl.load(corners + 2 * view + 1, own, 0.0).to(tl.int64)
    inside = own & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    found = tl.load(images + ((view * H + row) * W + column) * 3 + channel, inside, 0.0)
    tl.store(windows + at, tl.where(inside, found, tl.load(background + channel, own, 0.0)), own)


@triton.jit
def paste_windows(
    windows, corners, images,  # as above; every pixel is written, 0 outside the window
    H, W, S, count, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = at < count
    channel, column, row, view = at % 3, at // 3 % W, at // 3 // W % H, at // 3 // W // H
    row -= tl.load(corners + 2 * view, own, 0.0).to(tl.int64)
    column -= tl.load(corners + 2 * view + 1, own, 0.0).to(tl.int64)
    inside = own & (row >= 0) & (row < S) & (column >= 0) & (column < S)
    tl.store(images + at, tl.load(windows + ((view * S + row) * S + column) * 3 + channel, inside, 0.0), own)


class Window(torch.autograd.Function):
    """(V, H, W, 3) -> (V, S, S, 3) at places on the device (V, 2), background outside the image."""

    @staticmethod
    def forward(ctx, images: Tensor, corners: Tensor, background: Tensor, size: int) -> Tensor:
        views, height, width, _ = images.shape
        windows = images.new_empty(views, size, size, 3)
        count, corners = windows.numel(), corners.contiguous()
        cut_windows[(triton.cdiv(count, BLOCK),)](
            images.contiguous(),
            corners,
            background.contiguous(),
            windows,
            height,
            width,
            size,
            count,
            BLOCK=BLOCK,
        )
        ctx.save_for_backward(corners)
        ctx.shape = images.shape
        return windows

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (corners,), (_, height, width, _) = ctx.saved_tensors, ctx.shape
        images = grad.new_empty(ctx.shape)
        count = images.numel()
        paste_windows[(triton.cdiv(count, BLOCK),)](
            grad.contiguous(), corners, images, height, width, grad.shape[1], count, BLOCK=BLOCK
        )
        return images, None, None, None
