"""The training loss (paper sec. 4): image terms on the painted views, regularisers on the avatar.

Data path: Sample + Render + AvatarOutput -> Losses. V views, C control points, N Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import AvatarOutput
from mmlphuman.config import Config
from mmlphuman.measures.comparison import (
    SSIM_RADIUS,
    Square,
    box_square,
    crop_box,
    painted_pair,
    person_crops,
    random_patch,
    ssim_map,
)
from mmlphuman.types import Box, Render, Sample

SSIM_MARGIN = 8  # pixels about the person that the SSIM term still sees


class Places(Protocol):
    """Where the terms look that do not look everywhere. Two ways to know: `Crops`, gpu.device_crops."""

    def perceptual(self, images: Tensor, background: Tensor) -> Tensor:
        """(V, H, W, 3) -> (V, 512, 512, 3), what the perceptual network sees of each view."""
        ...

    def dissimilarity(self, images: Tensor, truth: Tensor, background: Tensor) -> Tensor:
        """() 1 - SSIM of the persons' boxes, mean over views."""
        ...


@dataclass(frozen=True)
class Crops:
    """Plain numbers: cropping needs no answer from the device."""

    squares: tuple[Square, ...]  # one a view, for the perceptual network
    boxes: tuple[Box, ...]  # one a view, for SSIM

    def perceptual(self, images: Tensor, background: Tensor) -> Tensor:
        return person_crops(images, self.squares, background)

    def dissimilarity(self, images: Tensor, truth: Tensor, background: Tensor) -> Tensor:
        """SSIM's window sees what is round the box, and the background outside the picture."""
        scores = []
        for *pair, box in zip(images, truth, self.boxes, strict=True):
            seen = Box(
                box.top - SSIM_RADIUS,
                box.bottom + SSIM_RADIUS,
                box.left - SSIM_RADIUS,
                box.right + SSIM_RADIUS,
            )
            scores.append(ssim_map(*(crop_box(image, seen, background)[None] for image in pair)).mean())
        return 1 - torch.stack(scores).mean()


def choose_crops(sample: Sample, patches: bool, generator: torch.Generator) -> Crops:
    """The persons' bounding squares, or random 512 patches inside them; drawn from `generator` either way."""
    squares = [box_square(person) for person in sample.persons]
    shifted = [random_patch(square, generator=generator) for square in squares]
    height, width = sample.masks.shape[1:]
    boxes = tuple(_ssim_box(person, height, width) for person in sample.persons)
    return Crops(tuple(shifted if patches else squares), boxes)


def _ssim_box(person: Box, height: int, width: int) -> Box:
    """The person's bounding box with a margin, clipped to the image."""
    return Box(
        max(person.top - SSIM_MARGIN, 0),
        min(person.bottom + SSIM_MARGIN, height),
        max(person.left - SSIM_MARGIN, 0),
        min(person.right + SSIM_MARGIN, width),
    )


@dataclass(frozen=True)
class Losses:
    total: Tensor
    terms: dict[str, Tensor]  # unweighted, detached, for the log


class TrainingLoss:
    """Weighs the terms as configured."""

    def __init__(
        self,
        config: Config,
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        painted: Callable[[Render, Sample, Tensor], tuple[Tensor, Tensor, Tensor]] = painted_pair,
    ):
        """lpips: a stateless network, or None where lambda_lpips is 0. painted: as `painted_pair`."""
        self.config, self.lpips, self.painted = config, lpips, painted

    def looks_closely(self, iteration: int) -> bool:
        """Whether the perceptual network takes part."""
        return self.lpips is not None and iteration >= self.config.iteration_lpips

    def __call__(
        self,
        iteration: int,
        sample: Sample,
        render: Render,
        avatar: AvatarOutput,
        neighbours: Tensor,
        background: Tensor,
        places: Places,
    ) -> Losses:
        config = self.config
        image, truth, difference = self.painted(render, sample, background)
        weighted = {
            "l1": (config.lambda_l1, lambda: difference * sample.share),
            "ssim": (config.lambda_ssim, lambda: places.dissimilarity(image, truth, background)),
            "smooth": (config.lambda_dxyz_smooth, lambda: smoothness(avatar.control_offsets, neighbours)),
            "scaling": (
                config.lambda_scaling,
                lambda: oversize(avatar.scales, config.scaling_threshold),
            ),
        }
        lpips = self.lpips
        if lpips is not None and self.looks_closely(iteration):
            weighted["lpips"] = (
                config.lambda_lpips,
                lambda: lpips(places.perceptual(image, background), places.perceptual(truth, background)),
            )
        terms = {name: term() for name, (weight, term) in weighted.items() if weight > 0}
        total = reduce(torch.add, (weighted[name][0] * value for name, value in terms.items()))
        return Losses(
            total, {name: value.detach() for name, value in terms.items()} | {"total": total.detach()}
        )


def smoothness(control_offsets: Tensor, neighbours: Tensor) -> Tensor:
    """Mean distance between the offsets (C, 3) of control points and of their neighbours (C, 7), in metres."""
    around = control_offsets.index_select(0, neighbours.flatten()).unflatten(0, neighbours.shape)
    # The norm of a zero vector (a point and itself) has gradient zero here, not NaN.
    return torch.linalg.vector_norm(control_offsets[:, None] - around, dim=-1).mean()


def oversize(scales: Tensor, threshold: float) -> Tensor:
    """Mean over Gaussians and axes of the scales (N, 3) that exceed `threshold` metres; the others count 0."""
    return torch.where(scales > threshold, scales, torch.zeros_like(scales)).mean()
