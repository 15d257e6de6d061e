"""Skinning weights in the space around the canonical body, on a regular grid (method: body and pose).

Data path: Body -> WeightVolume -> query at the rest positions of the Gaussians -> weights w_n, once.
Shape letters: X, Y, Z grid nodes along the axes, J joints, P points, S surface samples, M nodes there.

The nodes at both ends lie on the box (trilinear, align-corners); outside, the border's values hold.
Building has two steps. Nodes of the cells the surface runs through are fitted so that trilinear reading
gives the body's own weights at the surface; all other nodes continue them harmonically (no maximum or minimum
of a weight away from the surface), coarse to fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmlphuman.body.smplx_model import Body
from mmlphuman.files import atomic_write, read_npz
from mmlphuman.types import NUM_JOINTS, MovableToDevice

CUBE_MARGIN = 1.1  # side of the volume over the canonical body's largest extent, as published
FIT_ITERATIONS = 10  # ten times as many lower the mean error at the surface by 2 %
SMOOTHING_PASSES = 10  # per level of the pyramid; enough to remove the blocks of the level above
JOINTS_AT_ONCE = 8  # bounds the memory of the continuation
EMPTY_WEIGHT = 1e-3  # weights that sum to less are no weights


@dataclass(frozen=True)
class WeightVolume(MovableToDevice):
    """Skinning weights of the canonical space."""

    grid: Tensor  # (X, Y, Z, J)
    bbox_min: Tensor  # (3,) position of node (0, 0, 0), metres
    bbox_max: Tensor  # (3,) position of node (X-1, Y-1, Z-1)

    def query(self, points: Tensor) -> Tensor:
        """Weights at (P, 3) canonical points -> (P, J), each row non-negative with sum one.

        Points outside the box get the weights of the nearest point of its border.
        Raises ValueError where the volume holds no weights.
        """
        dims = torch.tensor(self.grid.shape[:3], device=points.device)
        lower, fraction = _cells(points, self.bbox_min, self.bbox_max, dims)
        nodes = self.grid.flatten(0, 2)
        weights = points.new_zeros(len(points), nodes.shape[1])
        for node, share in _corners(lower, fraction, dims):
            weights += share[:, None] * nodes[node]
        sums = weights.sum(1, keepdim=True)
        empty = int((sums < EMPTY_WEIGHT).sum())
        if empty:
            raise ValueError(
                f"{empty} of {len(points)} points lie where the weight volume is empty; build it again"
            )
        return weights / sums

    def save(self, path: str | Path) -> None:
        """Write the npz that `load` and the published tools read."""
        dims = self.grid.shape[:3]
        with atomic_write(path) as file:
            np.savez(
                file,
                grid=self.grid.cpu().numpy().astype(np.float32),
                bbox_min=self.bbox_min.cpu().numpy(),
                bbox_max=self.bbox_max.cpu().numpy(),
                grid_dims=np.array(dims, np.int64),
                grid_resolution=np.int64(max(dims)),
            )

    @classmethod
    def load(cls, path: str | Path) -> WeightVolume:
        """Read `lbs_weights_grid.npz`, ours or the published tool's. ValueError if it is not usable."""
        arrays = read_npz(path, ("grid", "bbox_min", "bbox_max"), optional=("grid_dims",))
        grid, low, high = (arrays[key] for key in ("grid", "bbox_min", "bbox_max"))
        if grid.ndim != 4 or min(grid.shape[:3]) < 2 or grid.shape[3] != NUM_JOINTS:
            raise ValueError(f"{path}: 'grid' has shape {grid.shape}, (X, Y, Z, {NUM_JOINTS}) is needed")
        if "grid_dims" in arrays and tuple(arrays["grid_dims"].ravel()) != grid.shape[:3]:
            raise ValueError(
                f"{path}: 'grid_dims' {arrays['grid_dims'].tolist()} is not 'grid' {grid.shape[:3]}"
            )
        for key, array in (("bbox_min", low), ("bbox_max", high)):
            if array.size != 3:
                raise ValueError(f"{path}: '{key}' has shape {array.shape}, (3,) is needed")
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{path}: '{key}' holds numbers that are not finite; build the file again")
        if (high.ravel() <= low.ravel()).any():
            raise ValueError(f"{path}: bbox_max {high.tolist()} must exceed bbox_min {low.tolist()}")
        as_tensor = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in (grid, low, high)]
        return cls(as_tensor[0], as_tensor[1].flatten(), as_tensor[2].flatten())


def build_weight_volume(body: Body, resolution: int = 128) -> WeightVolume:
    """Spread the body's skinning weights over a cube of `resolution`^3 nodes about the canonical body."""
    if resolution < 8:
        raise ValueError(f"weight volume resolution must be at least 8, got {resolution}")
    vertices = body.canonical_vertices
    low, high = vertices.amin(0), vertices.amax(0)
    half_side = CUBE_MARGIN * (high - low).max() / 2
    bbox_min, bbox_max = (low + high) / 2 - half_side, (low + high) / 2 + half_side
    dims = torch.full((3,), resolution)
    samples, sample_weights = _surface_samples(body)
    known, values = _fit_nodes_at_surface(samples, sample_weights, bbox_min, bbox_max, dims)
    grid = np.zeros((resolution**3, values.shape[1]), np.float32)
    grid[known] = values
    grid = grid.reshape(resolution, resolution, resolution, -1)
    is_known = np.zeros(resolution**3, bool)
    is_known[known] = True
    is_known = is_known.reshape(grid.shape[:3])
    for start in range(0, grid.shape[-1], JOINTS_AT_ONCE):
        joints = slice(start, start + JOINTS_AT_ONCE)
        grid[..., joints] = _continue_harmonically(grid[..., joints], is_known)
    grid /= grid.sum(-1, keepdims=True)
    return WeightVolume(torch.from_numpy(grid), bbox_min, bbox_max)


def _cells(points: Tensor, bbox_min: Tensor, bbox_max: Tensor, dims: Tensor) -> tuple[Tensor, Tensor]:
    """The lower node (P, 3) int64 of each point's cell and the position (P, 3) in [0, 1] inside the cell."""
    position = (points - bbox_min) / (bbox_max - bbox_min) * (dims - 1)
    position = position.clamp(min=torch.zeros_like(dims), max=dims - 1)
    lower = position.floor().long().minimum(dims - 2)
    return lower, position - lower


def _corners(lower: Tensor, fraction: Tensor, dims: Tensor):
    """Yield, for the 8 corners of the cells, the flat node numbers (P,) and the trilinear shares (P,)."""
    for corner in range(8):
        offset = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=lower.device)
        x, y, z = (lower + offset).unbind(1)
        share = torch.where(offset.bool(), fraction, 1 - fraction).prod(1)
        yield (x * dims[1] + y) * dims[2] + z, share


def _surface_samples(body: Body) -> tuple[Tensor, Tensor]:
    """Vertices, edge midpoints and face centres of the canonical surface (S, 3) with their weights (S, J)."""
    faces = body.faces
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values.unique(dim=0)

    def spread(attribute: Tensor) -> Tensor:
        return torch.cat([attribute, attribute[edges].mean(1), attribute[faces].mean(1)])

    return spread(body.canonical_vertices), spread(body.lbs_weights)


def _fit_nodes_at_surface(
    samples: Tensor, sample_weights: Tensor, bbox_min: Tensor, bbox_max: Tensor, dims: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Node numbers (M,) touched by the surface and their weights (M, J).

    Non-negative least squares of trilinear reading against the samples' weights, by simultaneous iterative
    reconstruction: every node adds the mean of its samples' residuals.
    """
    lower, fraction = _cells(samples, bbox_min, bbox_max, dims)
    nodes, shares = (
        torch.stack(column, 1).numpy() for column in zip(*_corners(lower, fraction, dims), strict=True)
    )
    known, columns = np.unique(nodes, return_inverse=True)
    rows = np.arange(len(samples)).repeat(8)
    read = sparse.csr_matrix((shares.ravel(), (rows, columns.ravel())), (len(samples), len(known)))
    mass = np.asarray(read.sum(0)).ravel()
    touched = mass > 1e-6
    known, read = known[touched], read[:, touched]
    mean_over_samples = sparse.diags_array(1 / mass[touched]) @ read.T.tocsr()
    target = sample_weights.numpy()
    values = mean_over_samples @ target
    for _ in range(FIT_ITERATIONS):
        values += mean_over_samples @ (target - read @ values)
        np.maximum(values, 0, out=values)
        values /= values.sum(1, keepdims=True)
    return known, values.astype(np.float32)


def _continue_harmonically(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the nodes of (X, Y, Z, K) that are not `known` (X, Y, Z) so that each is its neighbours' mean.

    Recursion over a pyramid: the half-size problem gives the start, then passes of averaging smooth it.
    """
    if known.all():
        return values
    if max(known.shape) <= 2:
        mean = values[known].mean(0)
        return np.where(known[..., None], values, mean)
    coarse = _continue_harmonically(*_half_size(values, known))
    for axis in range(3):
        coarse = coarse.repeat(2, axis)
    result = coarse[tuple(slice(size) for size in known.shape)]
    result[known] = values[known]
    for _ in range(SMOOTHING_PASSES):
        result = _neighbour_mean(result)
        result[known] = values[known]
    return result


def _half_size(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the known nodes over blocks of 2 x 2 x 2, and which blocks have any."""
    odd = [(0, size % 2) for size in known.shape]
    count = np.pad(known, odd).astype(np.float32)[..., None]
    total = np.pad(values * known[..., None], [*odd, (0, 0)])
    for axis in range(3):
        even_part, odd_part = (
            (slice(None),) * axis + (slice(0, None, 2),),
            (slice(None),) * axis + (slice(1, None, 2),),
        )
        count = count[even_part] + count[odd_part]
        total = total[even_part] + total[odd_part]
    return total / np.maximum(count, 1), count[..., 0] > 0


def _neighbour_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each node and its six neighbours; at the border the node stands for the missing ones."""
    total = values.copy()
    for axis in range(3):
        ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        first, last = (slice(None),) * axis + (slice(0, 1),), (slice(None),) * axis + (slice(-1, None),)
        total[behind] += values[ahead]
        total[ahead] += values[behind]
        total[first] += values[first]
        total[last] += values[last]
    return total / 7
