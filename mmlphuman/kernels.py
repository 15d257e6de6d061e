"""Whether the GPU kernels can be used. They are in Triton, which PyTorch's CUDA builds for Linux bring along."""

from __future__ import annotations

import importlib.util
import logging

import torch

log = logging.getLogger(__name__)


def have_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def use_kernels(setting: str, device: torch.device) -> bool:
    """setting: `auto`, or `plain` for PyTorch alone. Says so where `auto` finds a GPU but no Triton."""
    if setting == "plain" or device.type != "cuda":
        return False
    if not have_triton():
        log.warning("Triton is not installed: the avatar is posed by plain PyTorch, several times slower")
        return False
    return True
