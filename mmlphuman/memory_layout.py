"""Tensors as they lie in memory: for kernels and exchanges that go through memory, not through dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def in_memory_order(tensor: Tensor) -> Tensor:
    """(numbers,) a view of the tensor's numbers in the order in which they lie. ValueError if there are gaps."""
    outermost_first = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    ordered = tensor.permute(outermost_first)
    if not ordered.is_contiguous():
        raise ValueError(f"a tensor of strides {tensor.stride()} has gaps between its numbers")
    return ordered.view(-1)


def laid_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The same numbers with the strides of `like`; the tensor itself where it has them."""
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like).copy_(tensor)
