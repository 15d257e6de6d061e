"""The same avatar in numbers that few bits hold better: centred and uncorrelated coefficients, unit quaternions.

Data path: TrainedAvatar -> TrainedAvatar that poses alike, to rounding.

What MLPs and bases say is a product z B, and (z - mean) T times T^-1 B says it too, with the mean's part among the
neutral properties. The T of `whiten` gives coefficients of mean 0 and variance 1 over the training poses that know
nothing of each other. Then a basis vector is as large as what it does, the first say most, and an error of one basis
counts as much as of another: one step serves them all, and most of what is small becomes zero.

Shape letters: N Gaussians, P with property bases, Q with degree-1 bases, C control points, A anchors, K and L bases of
properties and positions, F poses.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import COLOR, LOG_SCALE, OPACITY, QUAT, Avatar
from mmlphuman.avatar.offset_bases import add_to_first
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.pruning import MEAN_POSES, spread_poses

# Of the largest variance: directions that training used less are scaled as if it had used them so much.
LEAST_VARIANCE = 1e-4


@torch.no_grad()
def standard_form(trained: TrainedAvatar) -> TrainedAvatar:
    """A copy, without gradients."""
    avatar, active = copy.deepcopy(trained.avatar).requires_grad_(False).eval(), trained.active
    trained = replace(trained, avatar=avatar)
    if active.property_bases or active.position_bases:
        poses = spread_poses(trained.pose_space.training_poses, MEAN_POSES)
        # (F, A, K + L)
        coefficients = torch.stack([_not_none(avatar.coefficients(pose, active)) for pose in poses])
        mean = coefficients.mean(0)
        if offsets := avatar.property_offsets(mean, active):
            avatar.sh0.data = add_to_first(avatar.sh0, offsets.properties[:, COLOR])
            avatar.log_scales.data = add_to_first(avatar.log_scales, offsets.properties[:, LOG_SCALE])
            avatar.quats.data = add_to_first(avatar.quats, offsets.properties[:, QUAT])
            avatar.opacity_logits.data = add_to_first(
                avatar.opacity_logits, offsets.properties[:, OPACITY][:, 0]
            )
            if offsets.sh1 is not None:
                avatar.sh1.data = add_to_first(avatar.sh1, offsets.sh1)
        avatar.control_offsets.data = avatar.offset_control_points(mean, active)
        avatar.bank.biases[-1] -= mean
        count = avatar.num_gsparam_bases
        if active.property_bases:
            _whiten(avatar, coefficients - mean, slice(0, count), (avatar.property_bases, avatar.sh1_bases))
        if active.position_bases:
            _whiten(avatar, coefficients - mean, slice(count, None), (avatar.position_bases,))
    # (q + offset) / |q + offset| does not mind a common factor.
    factor = 1 / torch.linalg.vector_norm(avatar.quats, dim=1).clamp_min(1e-12)
    factor = torch.where(avatar.quats[:, 0] < 0, -factor, factor)
    avatar.quats.mul_(factor[:, None])
    avatar.property_bases[:, :, QUAT] *= factor[: len(avatar.property_bases), None, None]
    return trained


def _whiten(avatar: Avatar, centred: Tensor, part: slice, bases: tuple[Tensor, ...]) -> None:
    """centred: (F, A, K + L) coefficients less their mean; part: those of these bases (., K, D)."""
    weight, bias = avatar.bank.weights[-1], avatar.bank.biases[-1]
    values = centred[:, :, part].flatten(0, 1).double()
    variances, axes = torch.linalg.eigh(values.T @ values / len(values))
    if not variances[-1] > 0:
        return  # no pose changes anything
    deviations = variances.flip(0).clamp_min(LEAST_VARIANCE * variances[-1]).sqrt()
    axes = axes.flip(1)  # largest first
    to_new, of_bases = ((axes / deviations).to(weight), (axes * deviations).to(weight))
    weight[:, part] = torch.einsum("kn,aki->ani", to_new, weight[:, part])
    bias[:, part] = bias[:, part] @ to_new
    for basis in bases:
        basis.copy_(torch.einsum("kn,pkd->pnd", of_bases, basis))


def _not_none(value: Tensor | None) -> Tensor:
    assert value is not None, "bases are switched on"
    return value
