"""The rasteriser: posed Gaussians and V cameras to V images. One function, two rasterisers with equal results.

`gsplat` draws on an NVIDIA GPU; `torch` is a self-contained differentiable twin for any device. tests/gpu
compares them, values and gradients.
"""

from __future__ import annotations

from torch import Tensor

from mmlphuman.backend import PYTORCH, Backend
from mmlphuman.render.gsplat_rasterizer import FindPairs, rasterize_gsplat
from mmlphuman.render.shading import view_colors
from mmlphuman.render.torch_rasterizer import rasterize_torch
from mmlphuman.types import Cameras, PosedGaussians, Render


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
