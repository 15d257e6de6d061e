"""The training loss (paper sec. 4): image terms on the painted views, regularisers on the avatar.

Data path: Sample + Render + AvatarOutput -> Losses. V views, C control points, N Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import AvatarOutput
from mmlphuman.config import Config
from mmlphuman.measures.comparison import Square, box_square, paint, person_crops, random_patch, ssim
from mmlphuman.types import Box, Render, Sample

SSIM_MARGIN = 8  # pixels about the person that the SSIM term still sees


@dataclass(frozen=True)
class Crops:
    """Where the perceptual terms look, plain numbers: cropping needs no answer from the device."""

    squares: tuple[Square, ...]  # one a view, for the perceptual network
    boxes: tuple[tuple[slice, slice], ...]  # one a view, for SSIM


def choose_crops(sample: Sample, patches: bool, generator: torch.Generator) -> Crops:
    """The persons' bounding squares, or random 512 patches inside them; drawn from `generator` either way."""
    squares = [box_square(person) for person in sample.persons]
    shifted = [random_patch(square, generator=generator) for square in squares]
    return Crops(tuple(shifted if patches else squares), tuple(map(_ssim_window, sample.persons)))


def _ssim_window(person: Box) -> tuple[slice, slice]:
    """The person's bounding box with a margin, clipped to the image; rows and columns."""
    rows = slice(max(person.top - SSIM_MARGIN, 0), person.bottom + SSIM_MARGIN)
    return rows, slice(max(person.left - SSIM_MARGIN, 0), person.right + SSIM_MARGIN)


@dataclass(frozen=True)
class Losses:
    total: Tensor
    terms: dict[str, Tensor]  # unweighted, detached, for the log


class TrainingLoss:
    """Weighs the terms as configured; `lpips` is a stateless network or None where lambda_lpips is 0."""

    def __init__(self, config: Config, lpips: Callable[[Tensor, Tensor], Tensor] | None):
        self.config = config
        self.lpips = lpips

    def __call__(
        self,
        iteration: int,
        sample: Sample,
        render: Render,
        avatar: AvatarOutput,
        neighbours: Tensor,
        background: Tensor,
        crops: Crops,
    ) -> Losses:
        config = self.config
        truth = paint(sample.images.float() / 255, sample.masks & ~sample.edges, background)
        image = paint(render.colors.clamp(0, 1), ~sample.edges, background)
        weighted = {
            "l1": (config.lambda_l1, lambda: (image - truth).abs().mean() * sample.share),
            "ssim": (config.lambda_ssim, lambda: _dissimilarity(image, truth, crops)),
            "smooth": (config.lambda_dxyz_smooth, lambda: smoothness(avatar.control_offsets, neighbours)),
            "scaling": (
                config.lambda_scaling,
                lambda: oversize(avatar.scales, config.scaling_threshold),
            ),
        }
        lpips = self.lpips
        if lpips is not None and iteration >= config.iteration_lpips:
            weighted["lpips"] = (
                config.lambda_lpips,
                lambda: lpips(
                    person_crops(image, crops.squares, background),
                    person_crops(truth, crops.squares, background),
                ),
            )
        terms = {name: term() for name, (weight, term) in weighted.items() if weight > 0}
        total = reduce(torch.add, (weighted[name][0] * value for name, value in terms.items()))
        return Losses(
            total, {name: value.detach() for name, value in terms.items()} | {"total": total.detach()}
        )


def _dissimilarity(image: Tensor, truth: Tensor, crops: Crops) -> Tensor:
    """1 - SSIM of the person's bounding box, mean over views."""
    scores = [
        ssim(image[view : view + 1, rows, columns], truth[view : view + 1, rows, columns])
        for view, (rows, columns) in enumerate(crops.boxes)
    ]
    return 1 - torch.stack(scores).mean()


def smoothness(control_offsets: Tensor, neighbours: Tensor) -> Tensor:
    """Mean distance between the offsets (C, 3) of control points and of their neighbours (C, 7), in metres."""
    around = control_offsets.index_select(0, neighbours.flatten()).unflatten(0, neighbours.shape)
    # The norm of a zero vector (a point and itself) has gradient zero here, not NaN.
    return torch.linalg.vector_norm(control_offsets[:, None] - around, dim=-1).mean()


def oversize(scales: Tensor, threshold: float) -> Tensor:
    """Mean over Gaussians and axes of the scales (N, 3) that exceed `threshold` metres; the others count 0."""
    return torch.where(scales > threshold, scales, torch.zeros_like(scales)).mean()
