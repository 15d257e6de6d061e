"""Runs that can be repeated bit for bit, for debugging: what PyTorch needs for it, and what has to do without."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from mmlphuman.config import Config

CUBLAS_WORKSPACE = ":4096:8"  # one of the two that cuBLAS documents as reproducible


def apply_determinism(config: Config) -> Config:
    """The settings of a run that is repeatable if `deterministic` asks for it: plain kernels and the PyTorch rasteriser
    in the place of `auto`. To be called before the GPU is used.

    ValueError for a rasteriser that cannot: gsplat adds gradients in the order in which they happen to come.
    """
    if not config.deterministic:
        return config
    if config.rasterizer == "gsplat":
        raise ValueError(
            "deterministic: gsplat is not, it adds in no fixed order; use rasterizer: torch (or auto), or "
            "deterministic: false"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    return replace(config, kernels="plain", rasterizer="torch")
