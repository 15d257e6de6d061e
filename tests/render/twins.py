"""The renderer written out by gsplat's rules, one Gaussian after the other, with gsplat 1.5.3's constants spelled.

Slow, differentiable by autograd, and free of the package's own code but for Cameras: what render/ is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.types import Cameras


@dataclass(frozen=True)
class Projected:
    """One Gaussian in one view."""

    center: Tensor  # (2,) pixels
    conic: Tensor  # (3,) xx, xy, yy
    depth: float
    radii: tuple[int, int]  # (0, 0) where not visible


def six(matrices: Tensor) -> Tensor:
    """(N, 3, 3) symmetric matrices -> (N, 6): xx, xy, xz, yy, yz, zz."""
    places = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    return torch.stack([matrices[:, i, j] for i, j in places], 1)


def random_cameras(width: int, height: int) -> Cameras:
    """Two, in double precision: turned every way, focal lengths that differ, optical axes off the middle."""
    w2c = torch.eye(4, dtype=torch.double).repeat(2, 1, 1)
    for view, vector in enumerate(((0.3, -0.5, 0.2), (-0.8, 1.1, 0.4))):
        x, y, z = vector
        cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.double)
        w2c[view, :3, :3] = torch.matrix_exp(cross)
        w2c[view, :3, 3] = torch.tensor([0.1, -0.2, 2.5 + view])
    intrinsics = torch.tensor(
        [[[40.0, 0, 19], [0, 47, 11], [0, 0, 1]], [[52.0, 0, 24], [0, 44, 18], [0, 0, 1]]], dtype=torch.double
    )
    return Cameras(w2c, intrinsics, width, height)


def project_one(xyz: Tensor, covariance: Tensor, opacity: float, cameras: Cameras, view: int) -> Projected:
    """xyz (3,), covariance (3, 3) of one Gaussian."""
    w2c = cameras.w2c[view].to(xyz)
    rotation, translation = w2c[:3, :3], w2c[:3, 3]
    intrinsics = cameras.intrinsics[view]
    fx, fy, cx, cy = (float(intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    at_camera = rotation @ xyz + translation
    depth = at_camera[2].item()
    hidden = Projected(xyz.new_zeros(2), xyz.new_zeros(3), depth, (0, 0))
    if depth <= 0.1 or opacity < 1 / 255:
        return hidden

    def pinhole(point: Tensor) -> Tensor:
        return torch.stack([fx * point[0] / point[2] + cx, fy * point[1] / point[2] + cy])

    # The Jacobian is that of the pinhole, at a point no further out than 0.3 of half the picture beyond its border.
    half_x, half_y = 0.5 * cameras.width / fx, 0.5 * cameras.height / fy
    lowest = (-cx / fx - 0.3 * half_x, -cy / fy - 0.3 * half_y)
    highest = ((cameras.width - cx) / fx + 0.3 * half_x, (cameras.height - cy) / fy + 0.3 * half_y)
    x, y, z = at_camera
    slope_x = torch.clamp(x / z, lowest[0], highest[0])
    slope_y = torch.clamp(y / z, lowest[1], highest[1])
    jacobian = torch.autograd.functional.jacobian(
        pinhole, torch.stack([slope_x * z, slope_y * z, z]), create_graph=True
    )
    spread = jacobian @ rotation @ covariance @ rotation.T @ jacobian.T
    xx, xy, yy = spread[0, 0] + 0.3, spread[0, 1], spread[1, 1] + 0.3
    determinant = xx * yy - xy**2
    center = pinhole(at_camera)

    extent = min(3.33, math.sqrt(2 * math.log(opacity * 255)))
    radii = tuple(math.ceil(extent * math.sqrt(along.item())) for along in (xx, yy))
    for place, radius, size in zip(center.tolist(), radii, (cameras.width, cameras.height), strict=True):
        if place + radius <= 0 or place - radius >= size:
            return hidden
    conic = torch.stack([yy, -xy, xx]) / determinant
    return Projected(center, conic, depth, radii)


def draw(xyz: Tensor, covariances: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras) -> Tensor:
    """xyz (N, 3), covariances (N, 3, 3), opacities (N,), colors (V, N, 3), all in double precision -> (V, H, W, 4)
    premultiplied colours and alpha: front to back over whole pictures, no tiles, no extents."""
    rows = torch.arange(cameras.height, dtype=torch.double)[:, None] + 0.5
    columns = torch.arange(cameras.width, dtype=torch.double)[None] + 0.5
    pictures = []
    for view in range(len(cameras)):
        splats = [
            project_one(*one, cameras, view) for one in zip(xyz, covariances, opacities.tolist(), strict=True)
        ]
        seen = [n for n, splat in enumerate(splats) if splat.radii != (0, 0)]
        left = torch.ones(cameras.height, cameras.width, dtype=torch.double)  # transmittance
        stopped = torch.zeros_like(left, dtype=torch.bool)
        picture = torch.zeros(cameras.height, cameras.width, 3, dtype=torch.double)
        for n in sorted(seen, key=lambda n: splats[n].depth):
            x, y = columns - splats[n].center[0], rows - splats[n].center[1]
            a, b, c = splats[n].conic
            alpha = opacities[n] * torch.exp(-0.5 * (a * x * x + 2 * b * x * y + c * y * y))
            alpha = torch.where(alpha > 0.999, torch.full_like(alpha, 0.999), alpha)
            alpha = torch.where(alpha < 1 / 255, torch.zeros_like(alpha), alpha)
            stopped = stopped | (left * (1 - alpha) <= 1e-4)
            alpha = torch.where(stopped, torch.zeros_like(alpha), alpha)
            picture = picture + (left * alpha)[..., None] * colors[view, n]
            left = left * (1 - alpha)
        pictures.append(torch.cat([picture, 1 - left[..., None]], -1))
    return torch.stack(pictures)
