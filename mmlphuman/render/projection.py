"""Projection of 3D Gaussians to the image plane: centres, conics and extents (EWA splatting).

Data path: world centres and covariances + Cameras -> Splats, one per view and Gaussian, still differentiable.
The rules (frustum clamp of the Jacobian, blur, extent) are gsplat's, so that both backends draw the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.types import Cameras, symmetric_matrices

NEAR_PLANE = 0.1  # metres
BLUR = 0.3  # pixels^2 added to the projected covariance: no splat is thinner than a pixel
MIN_ALPHA = 1 / 255  # contributions below are skipped
MAX_EXTENT = 3.33  # standard deviations; opacity 1 falls to MIN_ALPHA there
FRUSTUM_MARGIN = 0.3  # of the half field of view: the Jacobian is not evaluated further outside


@dataclass(frozen=True)
class Splats:
    """Projected Gaussians of V views."""

    centers: Tensor  # (V, N, 2) pixels
    conics: Tensor  # (V, N, 3) inverse 2D covariance: xx, xy, yy
    depths: Tensor  # (V, N) along the optical axis, metres
    radii: Tensor  # (V, N, 2) whole pixels reached in x and y; 0 where not visible


def project(xyz: Tensor, covariances: Tensor, opacities: Tensor, cameras: Cameras) -> Splats:
    """xyz (N, 3), covariances (N, 6), opacities (N,) -> Splats. No gradient flows through the extents."""
    rotation, translation = cameras.w2c[:, :3, :3], cameras.w2c[:, :3, 3]
    camera_xyz = xyz @ rotation.transpose(1, 2) + translation[:, None]  # (V, N, 3)
    x, y, depth = camera_xyz.unbind(-1)
    in_front = depth > NEAR_PLANE
    z = torch.where(in_front, depth, torch.ones_like(depth))  # the rest is discarded; keep it finite

    k = cameras.intrinsics[:, :, :, None]
    fx, fy, cx, cy = k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]  # (V, 1) each
    clamped_x = z * _clamp_to_frustum(x / z, fx, cx, cameras.width)
    clamped_y = z * _clamp_to_frustum(y / z, fy, cy, cameras.height)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * clamped_x / z**2, zero, fy / z, -fy * clamped_y / z**2], -1)
    to_image = jacobian.unflatten(-1, (2, 3)) @ rotation[:, None]  # (V, N, 2, 3)
    covariance = to_image @ symmetric_matrices(covariances) @ to_image.transpose(-1, -2)
    xx, xy, yy = covariance[..., 0, 0] + BLUR, covariance[..., 0, 1], covariance[..., 1, 1] + BLUR
    determinant = xx * yy - xy * xy
    visible = in_front & (determinant > 0)
    safe = torch.where(visible, determinant, torch.ones_like(determinant))

    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([yy, -xy, xx], -1) / safe[..., None]
    with torch.no_grad():
        radii = _extents(centers, xx, yy, safe, opacities, visible, cameras)
    return Splats(centers, conics, depth, radii)


def _clamp_to_frustum(slope: Tensor, focal: Tensor, center: Tensor, size: int) -> Tensor:
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    return slope.clamp(min=-center / focal - margin, max=(size - center) / focal + margin)


def _extents(centers, xx, yy, determinant, opacities, visible, cameras) -> Tensor:
    """(V, N, 2) half sizes in whole pixels of the box outside which a splat's alpha is below MIN_ALPHA."""
    reach = (2 * torch.log((opacities / MIN_ALPHA).clamp_min(1))).sqrt().clamp_max(MAX_EXTENT)
    middle = 0.5 * (xx + yy)
    longest = reach * (middle + (middle * middle - determinant).clamp_min(0.01).sqrt()).sqrt()
    radius_x = torch.minimum(reach * xx.sqrt(), longest).ceil()
    radius_y = torch.minimum(reach * yy.sqrt(), longest).ceil()
    u, v = centers.unbind(-1)
    on_screen = (u + radius_x > 0) & (u - radius_x < cameras.width)
    on_screen &= (v + radius_y > 0) & (v - radius_y < cameras.height)
    drawn = visible & on_screen & (opacities >= MIN_ALPHA)
    return torch.stack([radius_x, radius_y], -1) * drawn[..., None]
