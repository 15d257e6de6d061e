"""What differs between machines, decided once.

Data path: settings, device, whether Triton is installed -> `choose_backend` -> a Backend, which training and everybody
who draws asks. Nobody but `choose_backend` knows of GpuBackend.
"""

from __future__ import annotations

import importlib.util
import logging

import torch

from mmlphuman.plain_backend import Backend

__all__ = ["PYTORCH", "RASTERIZERS", "Backend", "choose_backend"]

RASTERIZERS = ("gsplat", "torch")

log = logging.getLogger(__name__)

PYTORCH = Backend("torch")  # runs anywhere


def choose_backend(rasterizer: str, kernels: str, device: torch.device | str) -> Backend:
    """The only place that looks at the settings `rasterizer` and `kernels`, the device and whether Triton is there.

    rasterizer: `auto` is gsplat on a GPU and torch elsewhere; anything else is taken by name.
    kernels: `auto`, or `plain` for PyTorch alone. Says so where `auto` finds a GPU but no Triton.
    Raises ValueError for unknown rasterisers and for gsplat without a GPU.
    """
    on_gpu = torch.device(device).type == "cuda"
    if rasterizer == "auto":
        rasterizer = "gsplat" if on_gpu else "torch"
    if rasterizer not in RASTERIZERS:
        raise ValueError(f"rasterizer: '{rasterizer}' is none of auto, {', '.join(RASTERIZERS)}")
    if rasterizer == "gsplat" and not on_gpu:
        raise ValueError("rasterizer: gsplat needs an NVIDIA GPU; use rasterizer: torch (or auto) on a CPU")
    if kernels == "plain" or not on_gpu:
        return Backend(rasterizer)
    if importlib.util.find_spec("triton") is None:  # PyTorch's CUDA builds for Linux bring it along
        log.warning("Triton is not installed: the avatar is posed by plain PyTorch, several times slower")
        return Backend(rasterizer)
    from mmlphuman.gpu.backend import GpuBackend

    return GpuBackend(rasterizer)
