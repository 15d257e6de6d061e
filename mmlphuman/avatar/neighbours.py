"""Nearest neighbours and position-based interpolation (paper sec. 3: weights proportional to 1/distance)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.spatial import KDTree
from torch import Tensor, nn

MIN_DISTANCE = 1e-8  # metres; a point exactly on its neighbour takes that neighbour's value, not NaN


def nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of `points` (P, 3) to each of `queries` (Q, 3).

    Returns distances (Q, k), ascending, and indices (Q, k). Uses PyTorch3D's search for CUDA tensors where it
    is installed, scipy's tree otherwise; both are exact.
    """
    if len(points) < k:
        raise ValueError(f"{k} nearest neighbours were asked of only {len(points)} points")
    if queries.is_cuda:
        try:
            from pytorch3d.ops import knn_points
        except ImportError:
            pass  # the tree below gives the same result, a little later
        else:
            squared, index, _ = knn_points(queries[None], points[None], K=k)
            return squared[0].sqrt(), index[0]
    # The size of its leaves decides which of equally near points come first.
    tree = KDTree(points.cpu().numpy(), leafsize=16)
    distance, index = tree.query(queries.cpu().numpy(), k=k, workers=-1)
    shape = len(queries), k  # the tree leaves out the axis of a single neighbour
    return (
        torch.as_tensor(distance, dtype=queries.dtype, device=queries.device).reshape(shape),
        torch.as_tensor(index, dtype=torch.long, device=queries.device).reshape(shape),
    )


@dataclass(frozen=True)
class Interpolation:
    """How Q points take the weighted mean of values that live at P others."""

    index: Tensor  # (Q, k)
    weight: Tensor  # (Q, k), rows sum to one

    def __call__(self, values: Tensor) -> Tensor:
        """(P, D) values -> (Q, D)."""
        gathered = values.index_select(0, self.index.flatten()).unflatten(0, self.index.shape)
        return (self.weight[:, None] @ gathered)[:, 0]


def interpolation(queries: Tensor, points: Tensor, k: int = 3) -> Interpolation:
    distance, index = nearest(queries, points, k)
    inverse = 1 / distance.clamp_min(MIN_DISTANCE)
    return Interpolation(index, inverse / inverse.sum(1, keepdim=True))


class InterpolationTable(nn.Module):
    """An Interpolation that is saved with the module it belongs to."""

    index: Tensor
    weight: Tensor

    def __init__(self, table: Interpolation):
        super().__init__()
        self.register_buffer("index", table.index)
        self.register_buffer("weight", table.weight)

    def forward(self, values: Tensor) -> Tensor:
        return Interpolation(self.index, self.weight)(values)


def places_of(table: InterpolationTable, points: Tensor, count: int) -> Tensor:
    """(count, 3) where the values of a table live: the mean of the points (P, 3) that take from each, by their weights.

    Points take from their 3 nearest, so that this is the middle of a place's surroundings. One that nobody takes from
    lies in the middle of all.
    """
    weights, sums = points.new_zeros(count), points.new_zeros(count, 3)
    for index, weight in zip(table.index.T, table.weight.T, strict=True):
        weights.index_add_(0, index, weight)
        sums.index_add_(0, index, weight[:, None] * points)
    found = sums / weights[:, None].clamp_min(1e-12)
    return torch.where((weights > 0)[:, None], found, points.mean(0))
