"""What is compared, in one pass over the pixels: render and photograph painted alike, and their mean difference.

Plain twin: measures.comparison.painted_pair. It takes a dozen passes, most of them to read and write intermediate
pictures. Shape letters: V views, H, W height and width, P = V H W pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.types import Render, Sample

BLOCK = 1024  # numbers a program


@triton.jit
def _pixels(colors, photographs, masks, edges, background, at, inside):
    """Of the numbers `at`: the render's, whether it is compared, painted render, painted photograph."""
    pixel, channel = at // 3, at % 3
    edge = tl.load(edges + pixel, inside, 1) != 0
    person = (tl.load(masks + pixel, inside, 0) != 0) & ~edge
    behind = tl.load(background + channel, inside, 0.0)
    color = tl.load(colors + at, inside, 0.0)
    photograph = tl.load(photographs + at, inside, 0).to(tl.float32) / 255
    image = tl.where(edge, behind, tl.minimum(tl.maximum(color, 0.0), 1.0))
    return color, ~edge, image, tl.where(person, photograph, behind)


@triton.jit
def paint_forward(
    colors, photographs, masks, edges, background,  # (P, 3), (P, 3) uint8, (P), (P) uint8, (3)
    images, truths, partial,  # (P, 3), (P, 3), (programs)
    count, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    _, _, image, truth = _pixels(colors, photographs, masks, edges, background, at, inside)
    tl.store(images + at, image, inside)
    tl.store(truths + at, truth, inside)
    tl.store(partial + tl.program_id(0), tl.sum(tl.where(inside, tl.abs(image - truth), 0.0), 0))


@triton.jit
def paint_backward(
    colors, photographs, masks, edges, background,  # as above
    of_images, of_mean, grad,  # (P, 3), (), (P, 3)
    count, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    color, compared, image, truth = _pixels(colors, photographs, masks, edges, background, at, inside)
    sign = tl.where(image > truth, 1.0, 0.0) - tl.where(image < truth, 1.0, 0.0)
    g = tl.load(of_images + at, inside, 0.0) + tl.load(of_mean) / count * sign
    tl.store(grad + at, tl.where(compared & (color >= 0) & (color <= 1), g, 0.0), inside)


class _Painting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, colors, photographs, masks, edges, background) -> tuple[Tensor, Tensor, Tensor]:
        given = (
            colors.contiguous(), photographs, masks.view(torch.uint8), edges.view(torch.uint8), background.contiguous()
        )  # fmt: skip
        count = colors.numel()
        programs = triton.cdiv(count, BLOCK)
        images, truths = torch.empty_like(given[0]), torch.empty_like(given[0])
        partial = torch.empty(programs, device=colors.device)
        paint_forward[(programs,)](*given, images, truths, partial, count, BLOCK=BLOCK)
        ctx.save_for_backward(*given)
        ctx.mark_non_differentiable(truths)
        return images, truths, partial.sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx, of_images, _, of_mean):
        given = ctx.saved_tensors
        grad = torch.empty_like(given[0])
        count = grad.numel()
        paint_backward[(triton.cdiv(count, BLOCK),)](
            *given, of_images.contiguous(), of_mean.contiguous(), grad, count, BLOCK=BLOCK
        )
        return grad, None, None, None, None


def painted_pair(render: Render, sample: Sample, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As measures.comparison.painted_pair; the truth gets no gradient, nor the background."""
    return _Painting.apply(render.colors, sample.images, sample.masks, sample.edges, background)
