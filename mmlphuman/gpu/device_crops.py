"""Where the losses look, as numbers on the device: a recorded step is then the same whatever the sample.

Plain twin: training.losses.Crops, with equal results. Shape letters: V views, H, W height and width, S a crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.measures.comparison import PERCEPTUAL_SIZE, SSIM_RADIUS, Square, ssim_map
from mmlphuman.types import Box

NUMBERS = 7  # of a view: a square's and a box's


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
        top, left, size = self.numbers[:, :3].unbind(1)
        painted = images - background  # 0 is then what lies outside
        if self.exact:
            crops = Window.apply(painted, top.long(), left.long(), PERCEPTUAL_SIZE)
        else:
            height, width = images.shape[1:3]
            down = resampling(top, size, height, PERCEPTUAL_SIZE) @ painted.flatten(2)
            across = down.unflatten(2, (width, 3)).permute(0, 1, 3, 2).flatten(1, 2)
            across = across @ resampling(left, size, width, PERCEPTUAL_SIZE).transpose(1, 2)
            crops = across.unflatten(1, (PERCEPTUAL_SIZE, 3)).permute(0, 1, 3, 2)
        return crops + background

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


class Window(torch.autograd.Function):
    """(V, H, W, C) -> (V, S, S, C) at places on the device, 0 outside the image. Gradients are gathered as well: no
    pixel is read twice."""

    @staticmethod
    def forward(ctx, images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(top, left)
        ctx.size = images.shape[1:3]
        return _gathered(images, top, left, (size, size))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        top, left = ctx.saved_tensors
        return _gathered(grad, -top, -left, ctx.size), None, None, None


def _gathered(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    views, height, width, _ = images.shape
    rows = top[:, None] + torch.arange(size[0], device=images.device)
    columns = left[:, None] + torch.arange(size[1], device=images.device)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    view = torch.arange(views, device=images.device)[:, None, None]
    found = images[view, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
    return torch.where(inside[..., None], found, 0)
