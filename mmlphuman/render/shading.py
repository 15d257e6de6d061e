"""View-dependent colour of posed Gaussians: degree-1 spherical harmonics in canonical space (paper sec. 3).

Data path: PosedGaussians + Cameras -> colours (V, N, 3), which the rasteriser blends; its picture -> uint8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmlphuman.types import SH_DEGREE_0, SH_DEGREE_1, Cameras, PosedGaussians


def view_colors(gaussians: PosedGaussians, cameras: Cameras) -> Tensor:
    """(V, N, 3) colours, non-negative.

    The direction to the camera is turned back into canonical space by the transpose of the posing's 3x3 part,
    so that a highlight learnt on an arm follows the arm.
    """
    to_camera = cameras.centers[:, None] - gaussians.xyz[None]  # (V, N, 3)
    # A row vector times M is M^T times the column.
    canonical = (to_camera[..., None, :] @ gaussians.linear)[..., 0, :]
    x, y, z = torch.nn.functional.normalize(canonical, dim=-1).unsqueeze(-2).unbind(-1)  # (V, N, 1) each
    sh = gaussians.sh
    color = SH_DEGREE_0 * sh[:, 0] + SH_DEGREE_1 * (-y * sh[:, 1] + z * sh[:, 2] - x * sh[:, 3])
    return (color + 0.5).clamp_min(0)


def to_bytes(image: Tensor) -> Tensor:
    """Colours in [0, 1] (what is outside is cut off) -> uint8, on the same device."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
