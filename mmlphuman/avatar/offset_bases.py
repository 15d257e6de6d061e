"""Small pieces of the avatar's arithmetic: blending offset bases, covariances from rotation and scale."""

from __future__ import annotations

import torch
from torch import Tensor


def blend_bases(coefficients: Tensor, bases: Tensor) -> Tensor:
    """(P, K) coefficients of (P, K, D) basis vectors -> (P, D)."""
    return (coefficients[:, None] @ bases)[:, 0]


def add_to_first(values: Tensor, offsets: Tensor) -> Tensor:
    """(N, ...) values with (P, ...) offsets added to the first P rows."""
    if len(offsets) == len(values):  # of every avatar in training
        return values + offsets
    return torch.cat([values[: len(offsets)] + offsets, values[len(offsets) :]])


def quaternion_matrices(quats: Tensor) -> Tensor:
    """(P, 4) unit quaternions, w first -> (P, 3, 3) rotations."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def covariance_factors(quats: Tensor, scales: Tensor) -> Tensor:
    """(P, 3, 3) M = R S, so that a Gaussian's covariance is M M^T."""
    return quaternion_matrices(quats) * scales[:, None]
