"""Posed Gaussians as other people's splats: the numbers that every splatting format holds in its own way.

Data path: PosedGaussians -> Splats: position, colour in world space, opacity, standard deviations, quaternion -> ply,
splat_files, usd.

Captures of photographs, which such files come from, have y down. SuperSplat and its relatives turn every file by half
a turn about z, so our world, y up, is written turned by as much where a format means that (TURNS).

Our view-dependent colour (render.shading): colour = C0 sh0 + w . normalize(M^T (camera - position)), w the degree-1
part and M the 3x3 part of the posing. A viewer's: harmonics of d = normalize(position - camera) in the world, without
M. So the function to write down is f(d) = -(M w) . d / |M^T d|. Where M is a multiple of a rotation, f is of degree 1
and nothing is lost. Skinning also stretches and shears; then f, which is odd in d, keeps a part in degrees 3, 5, ...
which is left out. On the demo avatar that part is 2% of f, 3e-4 in colour.

Shape letters: N Gaussians, Q quadrature directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.export.pruning import spread_poses
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.types import Pose, PosedGaussians, symmetric_matrices, upper_triangles

# Metres; thinner Gaussians, and covariances that rounding made indefinite, are written as this.
MIN_SCALE = 1e-6
MIN_OPACITY = 1e-6  # opacities stay this far from 0 and 1, where the logit is infinite
# The file's axis that points up -> the rotation from our world, y up, into the file's.
TURNS = {
    "-y": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),  # what splatting viewers expect
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
LIT_POSES = 20  # at most, over which a scene's light is averaged
NODES = 12  # Gauss-Legendre nodes in height; exact for polynomials up to degree 2 * 12 - 1
CHUNK = 16384  # Gaussians at a time: bounds the (chunk, Q, 3) intermediate
SMALLEST_STRETCH = 1e-6  # of the largest: below it a direction counts as squashed flat, not as 1 / 0


@dataclass(frozen=True)
class Splats:
    """On the CPU, float32."""

    xyz: Tensor  # (N, 3) metres
    sh: Tensor  # (N, 4, 3) coefficients of 1, -y, z, -x of the direction from the camera; colour is 0.5 + their sum
    opacities: Tensor  # (N,) MIN_OPACITY to 1 - MIN_OPACITY
    scales: Tensor  # (N, 3) metres, at least MIN_SCALE
    quats: Tensor  # (N, 4) unit, w first


def splats_of(gaussians: PosedGaussians, up: str = "y") -> Splats:
    """up: of TURNS. Raises ValueError if the Gaussians are not finite."""
    bad = ~torch.cat([field.flatten(1) for field in _numbers(gaussians)], 1).isfinite().all(1)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(bad)} Gaussians are not finite; is the pose?")
    gaussians = gaussians.to("cpu")  # where it is written from; its batched eigenvalues are safe at any count
    gaussians = turned(gaussians, torch.tensor(TURNS[up], dtype=torch.float32))
    scales, quats = scales_and_quaternions(symmetric_matrices(gaussians.covariances))
    opacities = gaussians.opacities.clamp(MIN_OPACITY, 1 - MIN_OPACITY)
    return Splats(gaussians.xyz, world_sh(gaussians), opacities, scales, quats)


@torch.no_grad()
def average_splats(trained: TrainedAvatar) -> Splats:
    """In the canonical pose, for readers that skin them and know no MLPs: shape and colour of the mean training pose.

    Of a scene's light it has the mean over training poses in the middle of their place, since the canonical pose may
    face where nobody stood.
    """
    avatar, poses = trained.avatar, trained.pose_space.training_poses
    features, upright = poses.mean(0), torch.eye(3)
    pose = Pose(canonical_pose(), torch.zeros(3), upright).to(trained.device)
    average = avatar(pose, trained.active, features).posed
    if avatar.light is not None:
        place = (avatar.light.lowest + avatar.light.highest) / 2
        lit = []
        for joints in spread_poses(poses, LIT_POSES)[:, :POSE_DIM]:
            pose = Pose(joints, place, upright).to(trained.device)
            lit.append(avatar(pose, trained.active, features).posed.sh)
        average = replace(average, sh=torch.stack(lit).mean(0))
    return splats_of(average)


def turned(gaussians: PosedGaussians, rotation: Tensor) -> PosedGaussians:
    """The same in a world where x is rotation (3, 3) x: seen from a camera turned along, the same picture.

    Harmonics stay, since they are functions of M^T direction and M turns along.
    """
    covariances = rotation @ symmetric_matrices(gaussians.covariances) @ rotation.T
    return replace(
        gaussians,
        xyz=gaussians.xyz @ rotation.T,
        covariances=upper_triangles(covariances),
        linear=rotation @ gaussians.linear,
    )


def _numbers(gaussians: PosedGaussians) -> list[Tensor]:
    g = gaussians
    return [g.xyz, g.covariances, g.opacities[:, None], g.sh, g.linear]


def scales_and_quaternions(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, 3) -> standard deviations (N, 3) along the axes, at least MIN_SCALE, and unit quaternions (N, 4)."""
    values, axes = torch.linalg.eigh(covariances.double())
    axes[:, :, 0] *= axes.det().sign()[:, None]  # a rotation, not a reflection
    return values.clamp_min(MIN_SCALE**2).sqrt().to(covariances), rotation_quaternions(axes).to(covariances)


def rotation_quaternions(rotations: Tensor) -> Tensor:
    """(N, 3, 3) rotations -> (N, 4) unit quaternions, w first.

    Each of the four columns of 4 q q^T is a multiple of q; the one with the largest diagonal is far from zero.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotations.unbind(-2))
    outer = torch.stack(
        [
            1 + a + e + i, h - f, c - g, d - b,
            h - f, 1 + a - e - i, b + d, c + g,
            c - g, b + d, 1 - a + e - i, f + h,
            d - b, c + g, f + h, 1 - a - e + i,
        ],
        -1,
    ).unflatten(-1, (4, 4))  # fmt: skip
    best = outer.diagonal(dim1=1, dim2=2).argmax(1)
    return torch.nn.functional.normalize(outer[torch.arange(len(outer)), best], dim=-1)


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
