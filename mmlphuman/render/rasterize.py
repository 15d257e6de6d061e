"""The rasteriser: posed Gaussians and V cameras to V images. One function, two rasterisers with equal results.

`gsplat` draws on an NVIDIA GPU; `torch` is a self-contained differentiable twin for any device. tests/gpu
compares them, values and gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmlphuman.backend import PYTORCH, Backend
from mmlphuman.render.gsplat_rasterizer import FindPairs, rasterize_gsplat
from mmlphuman.render.shading import to_bytes, view_colors
from mmlphuman.render.torch_rasterizer import rasterize_torch
from mmlphuman.types import Cameras, PosedGaussians, Render

LEAST_ALPHA = 1e-6


def rasterize(
    gaussians: PosedGaussians,
    cameras: Cameras,
    background: Tensor,
    backend: Backend = PYTORCH,
    find_pairs: FindPairs | None = None,
) -> Render:
    """Draws the Gaussians for every camera.

    background: (3,) one colour for all views or (V, 3). Differentiable in everything but the cameras' size.
    find_pairs: of rasterize_gsplat; the torch rasteriser has its own.
    """
    splats = (gaussians.xyz, gaussians.covariances, gaussians.opacities)
    if backend.rasterizer == "gsplat":
        colors = backend.view_colors(gaussians, cameras)
        backgrounds = background.expand(len(cameras), 3)
        return Render(*rasterize_gsplat(*splats, colors, cameras, backgrounds, find_pairs))
    colors, alphas = rasterize_torch(*splats, view_colors(gaussians, cameras), cameras)
    if background.dim() == 2:
        background = background[:, None, None]
    return Render(colors=colors + (1 - alphas[..., None]) * background, alphas=alphas)


def cut_out(gaussians: PosedGaussians, cameras: Cameras, backend: Backend = PYTORCH) -> Tensor:
    """(V, H, W, 4) uint8 RGBA: the Gaussians alone, to be laid on anything.

    Straight colour, as PNG has it: what is drawn on black, divided by alpha. Black where nothing is.
    """
    render = rasterize(gaussians, cameras, torch.zeros(3, device=gaussians.xyz.device), backend)
    alphas = render.alphas[..., None]
    return to_bytes(torch.cat([render.colors / alphas.clamp_min(LEAST_ALPHA), alphas], -1))
