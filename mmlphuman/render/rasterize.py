"""The rasteriser: posed Gaussians and V cameras to V images. One function, two rasterisers with equal results.

`gsplat` draws on an NVIDIA GPU; `torch` is a self-contained differentiable twin for any device. tests/gpu
compares them, values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmlphuman.backend import PYTORCH, Backend
from mmlphuman.render.gsplat_rasterizer import FindPairs, rasterize_gsplat
from mmlphuman.render.shading import to_bytes, view_colors
from mmlphuman.render.torch_rasterizer import TILE, blend_rows, prepare, rasterize_torch, row_loads
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
    return _over(background, *rasterize_torch(*splats, view_colors(gaussians, cameras), cameras))


def _over(background: Tensor, colors: Tensor, alphas: Tensor) -> Render:
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


class Picture:
    """One camera's picture, which can be drawn in parts from top to bottom; equal to `rasterize`'s. Without gradients.

    It has rows of `row_height` pixels, the last one perhaps lower; a picture of gsplat, which is fast, has one. The
    Gaussians may change once it is made.
    """

    @torch.no_grad()
    def __init__(self, gaussians: PosedGaussians, cameras: Cameras, background: Tensor, backend: Backend):
        """background: (3,)."""
        assert len(cameras) == 1
        self.width = cameras.width
        if backend.rasterizer == "gsplat":
            whole = rasterize(gaussians, cameras, background, backend)
            self.row_height, self.loads = cameras.height, (1,)
            self._draw: Callable[[int, int], Render] = lambda top, bottom: whole
        else:
            splats = (gaussians.xyz, gaussians.covariances, gaussians.opacities)
            prepared = prepare(*splats, view_colors(gaussians, cameras), cameras)
            # Of each row: how much there is to draw, and so about how long it takes.
            self.row_height, self.loads = TILE, tuple(row_loads(prepared).tolist())
            self._draw = lambda top, bottom: _over(background, *blend_rows(prepared, top, bottom))

    @torch.no_grad()
    def draw(self, top: int, bottom: int) -> Render:
        """The rows from `top` on, `bottom` left out: colors (1, H, W, 3), alphas (1, H, W) with an H of their own."""
        return self._draw(top, bottom)
