"""How exactly a compact file stores each number: levels, and steps chosen by what an error does to a picture.

Data path: Level + Sensitivity (pruning.look) -> Steps -> compact.encode.

Rounding to a step d makes a squared error of d^2 / 12, and of a picture s d^2 / 12, with s the number's sensitivity.
Bits are best spent where every number's share of the picture's error is the same; so d = sqrt(12 E / s), with E the
error that a level allows divided by the count of numbers. A property's step is that of its mean sensitivity; Gaussians
that matter less than the mean get 2, 4 or 8 times as long steps (`shift`). Bases are in standard form (standard_form):
their coefficients have variance 1, so that their errors count as the neutral properties' do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.state import PROPERTIES
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.pruning import (
    MEAN_POSES,
    PROBES,
    Selection,
    Sensitivity,
    along_curve,
    in_curve_order,
    look,
    prune,
    select,
    spread_poses,
)
from mmlphuman.export.standard_form import standard_form

MAX_SHIFT = 4  # the longest steps are 2^4 = 16 times the shortest
SHORTEST = 2.0  # times a step of a Gaussian of mean sensitivity, the shortest is 1 / this
MAX_STEP = 0.5  # of a property before its activation, where no picture shows it
# Most bases are so small that few steps are left of them, and then neighbours, which learnt from the same pixels, err
# alike. With steps half as long a file of the same size shows 0.5 dB more.
SHORTER_OF_BASES = 2.0


@dataclass(frozen=True)
class Level:
    """dB are of the person in training poses, against the full avatar."""

    pruning_psnr: float  # that leaving out bases leaves
    rounding_psnr: float  # that rounding of properties and bases leaves, as estimated
    metres: float  # step of positions and of their bases
    weights: int  # steps to each side of zero in a row of an MLP
    normals: int  # likewise, of a unit normal's number


LEVELS = {
    "high": Level(60.0, 58.0, 5e-5, 127, 127),
    "small": Level(57.0, 55.0, 1e-4, 127, 63),
    "tiny": Level(48.5, 45.5, 2e-4, 15, 31),
}


@dataclass(frozen=True)
class Steps:
    properties: Tensor  # (11,) of the Gaussians with shift 0
    sh1: Tensor  # (9,)
    shift: Tensor  # (N,) int64, 0 to MAX_SHIFT
    level: Level


def even_steps(avatar: Avatar, level: Level = LEVELS["high"], step: float = 1 / 512) -> Steps:
    """The same for all, where nothing is known of pictures."""
    shift = torch.zeros(len(avatar.xyz), dtype=torch.long)
    return Steps(torch.full((PROPERTIES,), step), torch.full((9,), step), shift, level)


def steps_of(level: Level, sensitivity: Sensitivity, spread: Tensor, avatar: Avatar) -> Steps:
    """sensitivity: of the avatar's Gaussians, in their order. spread: (P,) the sum over the K bases of their
    coefficients' mean squares."""
    of_all = torch.cat([sensitivity.properties, sensitivity.sh1], 1).double().cpu()
    # The picture's error for squared errors of 1 in the neutral number and in each of its bases.
    effect, numbers = of_all.clone(), torch.ones_like(of_all)
    for bases, columns in (
        (avatar.property_bases, slice(PROPERTIES)),
        (avatar.sh1_bases, slice(PROPERTIES, None)),
    ):
        effect[: len(bases), columns] *= 1 + spread[: len(bases), None].double().cpu()
        numbers[: len(bases), columns] += bases.shape[1]
    share = (effect / effect.mean(0).clamp_min(1e-30)).mean(1)  # (N,) of a Gaussian, 1 for the mean one
    share = share / numbers.mean(1) * numbers.mean()
    shift = (0.5 * torch.log2(SHORTEST**2 / share.clamp_min(1e-9))).round().clamp(0, MAX_SHIFT).long()
    error = 10 ** (-level.rounding_psnr / 10) / numbers.sum()
    longer = (effect * 4.0 ** shift[:, None]).sum(0)
    steps = (12 * error * numbers.sum(0) / longer.clamp_min(1e-30)).sqrt().clamp_max(MAX_STEP).float()
    return Steps(steps[:PROPERTIES], steps[PROPERTIES:], shift, level)


@dataclass(frozen=True)
class Compacted:
    trained: TrainedAvatar
    selection: Selection  # of the full avatar's Gaussians
    steps: Steps


class Looked:
    """An avatar in standard form, looked at once, for any number of levels."""

    def __init__(self, full: TrainedAvatar, count: int = PROBES, quiet: bool = False):
        """count: of pictures."""
        self.trained = in_curve_order(standard_form(full))
        self.change, self.sensitivity = look(self.trained, count, quiet)
        self.spread = _spread(self.trained)

    def compacted(self, level: Level, keep: float | None = None) -> Compacted:
        """keep: see pruning.select."""
        selection = along_curve(select(self.change, keep, level.pruning_psnr), self.trained.avatar)
        pruned = prune(self.trained, selection)
        order = selection.order
        ours = Sensitivity(self.sensitivity.properties[order], self.sensitivity.sh1[order])
        spread = self.spread[order[: selection.num_properties]]
        return Compacted(pruned, selection, steps_of(level, ours, spread, pruned.avatar))


@torch.no_grad()
def _spread(trained: TrainedAvatar) -> Tensor:
    """(P,) of each Gaussian with bases the sum of its coefficients' mean squares over the training poses, as its
    anchors have them."""
    avatar, active = trained.avatar, trained.active
    if not active.property_bases:
        return avatar.xyz.new_ones(len(avatar.property_bases))
    squares = torch.zeros((), device=trained.device)
    poses = spread_poses(trained.pose_space.training_poses, MEAN_POSES)
    for pose in poses:
        coefficients = avatar.coefficients(pose, active)
        assert coefficients is not None, "bases are switched on"
        squares = squares + coefficients[:, : avatar.num_gsparam_bases].square().sum(1, keepdim=True)
    return avatar.gaussian_to_anchor(squares / len(poses))[:, 0]
