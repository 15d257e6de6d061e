"""Our view-dependent colour in the terms of 3D Gaussian splatting viewers: spherical harmonics in world space.

Data path: PosedGaussians -> world-space coefficients -> ply.

Ours (render.shading): colour = C0 sh0 + w . normalize(M^T (camera - position)), w the degree-1 part and M the 3x3
part of the posing. A viewer's: harmonics of d = normalize(position - camera), without M. So the function to write
down is f(d) = -(M w) . d / |M^T d|. Where M is a multiple of a rotation, f is of degree 1 and nothing is lost.
Skinning also stretches and shears; then f, which is odd in d, keeps a part in degrees 3, 5, ... which is left out.
On the demo avatar that part is 2% of f, 3e-4 in colour; degree 3 would cost 36 numbers a Gaussian for it.

Shape letters: N Gaussians, Q quadrature directions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mmlphuman.types import PosedGaussians

NODES = 12  # Gauss-Legendre nodes in height; exact for polynomials up to degree 2 * 12 - 1
CHUNK = 16384  # Gaussians at a time: bounds the (chunk, Q, 3) intermediate
SMALLEST_STRETCH = 1e-6  # of the largest: below it a direction counts as squashed flat, not as 1 / 0


def direction_vectors(sh: Tensor) -> Tensor:
    """(N, 4, 3) -> (N, 3, 3): the vector (x, y, z) of each colour, in columns, whose dot product with a direction
    is that colour's degree-1 part over its constant. The basis functions are -y, z, -x."""
    return torch.stack([-sh[:, 3], -sh[:, 1], sh[:, 2]], 1)


def degree_1_coefficients(vectors: Tensor) -> Tensor:
    """(N, 3, 3) vectors in columns -> (N, 3, 3) coefficients of -y, z, -x: undoes `direction_vectors`."""
    return torch.stack([-vectors[:, 1], vectors[:, 2], -vectors[:, 0]], 1)


def world_sh(gaussians: PosedGaussians) -> Tensor:
    """(N, 4, 3) coefficients for direction = position - camera in the world: f's least-squares fit over the sphere.

    Degree 0 is untouched: an odd function has no mean. A posing that flattens space gives finite coefficients.
    """
    directions, share = (tensor.to(gaussians.sh) for tensor in sphere_quadrature())
    products = (share[:, None, None] * directions[:, :, None] * directions[:, None]).flatten(1)  # (Q, 9)
    fitted = []
    for linear, sh in zip(gaussians.linear.split(CHUNK), gaussians.sh.split(CHUNK), strict=True):
        squared = (directions @ linear).square().sum(-1)  # (n, Q) |M^T d|^2
        floor = SMALLEST_STRETCH**2 * squared.amax(1, keepdim=True) + torch.finfo(squared.dtype).tiny
        # A linear function's fit is 3 E[d f(d)], and f's d comes out of it: 3 E[d d^T / |M^T d|] (-M w).
        mean = (squared.maximum(floor).rsqrt() @ products).unflatten(1, (3, 3))
        fitted.append(degree_1_coefficients(-3 * mean @ (linear @ direction_vectors(sh))))
    return torch.cat([gaussians.sh[:, :1], torch.cat(fitted)], 1)


def sphere_quadrature() -> tuple[Tensor, Tensor]:
    """Directions (Q, 3) and weights (Q,) that sum to one, float64: half the sphere, for even functions."""
    heights, weights = np.polynomial.legendre.leggauss(NODES)
    upper = heights > 0
    angles = (np.arange(2 * NODES) + 0.5) * (math.pi / NODES)
    z, angle = (grid.ravel() for grid in np.meshgrid(heights[upper], angles, indexing="ij"))
    radius = np.sqrt(1 - z * z)
    directions = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)
    share = np.repeat(weights[upper], 2 * NODES)
    return torch.from_numpy(directions), torch.from_numpy(share / share.sum())
