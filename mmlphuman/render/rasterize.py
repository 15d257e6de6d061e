"""The rasteriser: posed Gaussians and V cameras to V images. One function, two backends with equal results.

`gsplat` draws on an NVIDIA GPU; `torch` is a self-contained differentiable twin for any device. tests/gpu
compares them, values and gradients.
"""

from __future__ import annotations

from torch import Tensor

from mmlphuman.kernels import have_triton
from mmlphuman.render.gsplat_rasterizer import FindPairs, rasterize_gsplat
from mmlphuman.render.shading import kernel_colors, view_colors
from mmlphuman.render.torch_rasterizer import rasterize_torch
from mmlphuman.types import Cameras, PosedGaussians, Render

BACKENDS = ("gsplat", "torch")


def choose_backend(name: str, device_type: str) -> str:
    """`auto` is gsplat on a GPU and torch elsewhere; anything else is taken by name.

    Raises ValueError for unknown names and for gsplat without a GPU.
    """
    if name == "auto":
        return "gsplat" if device_type == "cuda" else "torch"
    if name not in BACKENDS:
        raise ValueError(f"rasterizer: '{name}' is none of auto, {', '.join(BACKENDS)}")
    if name == "gsplat" and device_type != "cuda":
        raise ValueError("rasterizer: gsplat needs an NVIDIA GPU; use rasterizer: torch (or auto) on a CPU")
    return name


def rasterize(
    gaussians: PosedGaussians,
    cameras: Cameras,
    background: Tensor,
    backend: str = "auto",
    find_pairs: FindPairs | None = None,
) -> Render:
    """Draws the Gaussians for every camera.

    background: (3,) one colour for all views or (V, 3). Differentiable in everything but the cameras' size.
    find_pairs: of rasterize_gsplat; the torch backend has its own.
    """
    backend = choose_backend(backend, gaussians.xyz.device.type)
    splats = (gaussians.xyz, gaussians.covariances, gaussians.opacities)
    if backend == "gsplat":
        colors = kernel_colors(gaussians, cameras) if have_triton() else view_colors(gaussians, cameras)
        colors, alphas = rasterize_gsplat(
            *splats, colors, cameras, background.expand(len(cameras), 3), find_pairs
        )
        return Render(colors, alphas)
    colors, alphas = rasterize_torch(*splats, view_colors(gaussians, cameras), cameras)
    if background.dim() == 2:
        background = background[:, None, None]
    return Render(colors=colors + (1 - alphas[..., None]) * background, alphas=alphas)
