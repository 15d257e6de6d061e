"""How exactly a compact file stores each number: levels, and steps chosen by what an error does to a picture.

Data path: Level + Sensitivity (pruning.look) -> Steps -> compact.encode.

Rounding to a step d makes a squared error of d^2 / 12, and of a picture s d^2 / 12, with s the number's sensitivity.
Bits are best spent where every number's share of the picture's error is the same; so d = sqrt(12 E / s), with E the
error that a level allows divided by the count of numbers. A property's step is that of its mean sensitivity; Gaussians
that matter less than the mean get 2 to 16 times as long steps (`shift`). Bases are in standard form (standard_form):
their coefficients have variance 1, so that their errors count as the neutral properties' do. Which whole numbers of
steps stand for a Gaussian's bases is chosen for all of them together (rounding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

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
from mmlphuman.export.rounding import whole_steps
from mmlphuman.export.standard_form import standard_form

MAX_SHIFT = 4  # the longest steps are 2^4 = 16 times the shortest
SHORTEST = 2.0  # times a step of a Gaussian of mean sensitivity, the shortest is 1 / this
MAX_STEP = 0.5  # of a property before its activation, where no picture shows it
LONGER_OF_BASES = 1.4  # steps, than the property's own: the other bases make good what one errs
BIT = 0.2  # times the error that a number may make: what a bit less of a basis may cost


@dataclass(frozen=True)
class Level:
    """dB are of the person in training poses, against the full avatar."""

    pruning_psnr: float  # that leaving out bases leaves
    rounding_psnr: float  # that rounding of properties and bases leaves, as estimated
    metres: float  # step of positions and of their bases; 5e-5 is the least of which 16 bits reach from head to feet
    weights: int  # steps to each side of zero in a row of an MLP
    normals: int  # likewise, of a unit normal's number
    megabytes: float = math.inf  # of a file, at most: dB are given up where it would be larger

    def coarser(self, decibels: float) -> Level:
        """The same with so many dB less of pruning and of rounding."""
        pruning, rounding = self.pruning_psnr - decibels, self.rounding_psnr - decibels
        return replace(self, pruning_psnr=pruning, rounding_psnr=rounding)


LEVELS = {
    "high": Level(75.0, 59.0, 5e-5, 127, 127),
    "small": Level(70.0, 57.0, 5e-5, 127, 63),
    "tiny": Level(60.0, 46.8, 1e-4, 31, 31, megabytes=8),
}


@dataclass(frozen=True)
class WholeBases:
    whole: Tensor  # (P, K, D) steps
    offset: Tensor  # (1, K, D) their zero


@dataclass(frozen=True)
class Steps:
    properties: Tensor  # (11,) of the Gaussians with shift 0
    sh1: Tensor  # (9,)
    shift: Tensor  # (N,) int64, 0 to MAX_SHIFT
    level: Level
    error: float = 0.0  # squared error of a picture that each number may make
    # Chosen already, by the avatar's names of them; others are rounded one by one.
    bases: dict[str, WholeBases] = field(default_factory=dict)

    def of_bases(self, name: str) -> Tensor:
        """(11,) or (9,) of `property_bases` or `sh1_bases`."""
        return LONGER_OF_BASES * (self.properties if name == "property_bases" else self.sh1)


def even_steps(avatar: Avatar, level: Level = LEVELS["high"], step: float = 1 / 2048) -> Steps:
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
    return Steps(steps[:PROPERTIES], steps[PROPERTIES:], shift, level, float(error))


def with_whole_bases(steps: Steps, sensitivity: Sensitivity, covariance: Tensor, avatar: Avatar) -> Steps:
    """sensitivity: of the avatar's Gaussians. covariance: (P, K, K) of the coefficients of those with bases."""
    chosen = {}
    for name, of_numbers in (("property_bases", sensitivity.properties), ("sh1_bases", sensitivity.sh1)):
        bases = getattr(avatar, name).detach()
        step = steps.of_bases(name).to(bases) * 2.0 ** steps.shift[: len(bases), None].to(bases)  # (P, D)
        # Around the mean: training starts with the same bases for all, and an error that all share shows.
        offset = bases.sum(0, keepdim=True) / max(len(bases), 1)
        weight = of_numbers[: len(bases)] * step.square() / steps.error
        values = (bases - offset) / step[:, None]
        whole = whole_steps(values, weight.to(values), covariance[: len(bases)], BIT)
        chosen[name] = WholeBases(whole, offset)
    return replace(steps, bases=chosen)


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
        self.covariance = _covariance(self.trained)

    def compacted(self, level: Level, keep: float | None = None) -> Compacted:
        """keep: see pruning.select."""
        selection = along_curve(select(self.change, keep, level.pruning_psnr), self.trained.avatar)
        pruned = prune(self.trained, selection)
        order = selection.order
        ours = Sensitivity(self.sensitivity.properties[order], self.sensitivity.sh1[order])
        covariance = self.covariance[order[: selection.num_properties]]
        spread = covariance.diagonal(dim1=1, dim2=2).sum(1)
        steps = steps_of(level, ours, spread, pruned.avatar)
        return Compacted(pruned, selection, with_whole_bases(steps, ours, covariance, pruned.avatar))


@torch.no_grad()
def _covariance(trained: TrainedAvatar) -> Tensor:
    """(P, K, K) of each Gaussian with bases its coefficients' mean products over the training poses; their means are
    zero in standard form."""
    avatar, active = trained.avatar, trained.active
    count, bases = len(avatar.property_bases), avatar.num_gsparam_bases
    if not active.property_bases:
        return torch.eye(bases, device=trained.device).expand(count, -1, -1) / bases
    products = torch.zeros(count, bases, bases, device=trained.device)
    poses = spread_poses(trained.pose_space.training_poses, MEAN_POSES)
    for pose in poses:
        coefficients = avatar.coefficients(pose, active)
        assert coefficients is not None, "bases are switched on"
        of_gaussians = avatar.gaussian_to_anchor(coefficients[:, :bases])
        products.addcmul_(of_gaussians[:, :, None], of_gaussians[:, None])
    return products / len(poses)
