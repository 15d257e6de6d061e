"""One pose's part in a training step, up to its gradients: pose, draw, compare, backward.

Data path: Sample + where the losses look -> gradients of the avatar's parameters, loss terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.backend import Backend
from mmlphuman.render.gsplat_rasterizer import FindPairs
from mmlphuman.render.rasterize import rasterize
from mmlphuman.training.losses import Places, TrainingLoss
from mmlphuman.training.refinement import Refinement
from mmlphuman.types import Sample


@dataclass
class PoseStep:
    """All that it needs besides the sample."""

    avatar: Avatar
    pose_avatar: Callable[..., AvatarOutput]  # called like the avatar
    backend: Backend
    find_pairs: FindPairs | None  # of `rasterize`
    loss: TrainingLoss
    refinement: Refinement
    share_of_mean: Tensor  # () that a pose's loss has in the step's

    def __call__(
        self, iteration: int, sample: Sample, places: Places, background: Tensor, active: ActiveParts
    ) -> tuple[AvatarOutput, dict[str, Tensor]]:
        """Adds this pose's gradients to the parameters'; returns what the avatar gave and the loss terms.

        sample, background (3,): on the device.
        """
        output = self.pose_avatar(self.refinement.pose(sample), active)
        render = rasterize(output.posed, sample.cameras, background, self.backend, self.find_pairs)
        render = self.refinement.seen_by(sample.camera_ids, render, background)
        neighbours = self.avatar.control_neighbours
        losses = self.loss(iteration, sample, render, output, neighbours, background, places)
        self.refinement.with_penalty(losses.total, sample.frame).backward(self.share_of_mean)
        return output, losses.terms
