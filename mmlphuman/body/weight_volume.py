"""Skinning weights in the space around the canonical body, on a regular grid.

Data path: Body -> WeightVolume -> query at the rest positions of the Gaussians -> weights w_n, once.
Shape letters: X, Y, Z grid nodes along the axes, J joints, P points, S surface samples.

The nodes at both ends lie on the box (trilinear, align-corners); outside, the border's values hold.
How the weights are continued off the surface: see weight_solver.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmlphuman.body.canonical_surface import (
    nearest_surface_weights,
    surface_samples,
    vertex_normals,
    weight_gradients,
)
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_solver import SurfaceSamples, fit_field, levels_for, read_at_nodes
from mmlphuman.config import RANGES
from mmlphuman.files import atomic_write, read_npz
from mmlphuman.pose_layout import NUM_JOINTS
from mmlphuman.types import MovableToDevice

CUBE_MARGIN = 1.1  # side of the volume over the canonical body's largest extent, as published
TOUCHED = 1e-6  # sum of the shares by which samples read a node
EMPTY_WEIGHT = 1e-3  # weights that sum to less are no weights
SUM_TOLERANCE = 0.01  # of the raw weights' sum over joints, which an exact solution makes one
BESIDE = 0.02  # metres off the surface, where the weights should still be those of the nearest surface point
CORRECTIONS = 5  # of the nodes next to the surface; twice as many lower the mean error there by 4 %
# Of a volume that another program made.
MOST = 0.9  # of the body lies in its box
LARGEST_BOX = 10.0  # times the body; published: 1.1
LARGEST_DIFFERENCE = 0.5  # of its weights at the body's surface, summed over joints; ours: 0.01
SOLVER_VERSION = 1  # raise it when the same body gives another volume: captures then remake theirs
SAME_VERTEX = 1e-4  # metres; machines differ in the last digits of a canonical body
ORIGIN_KEYS = ("made_from", "made_from_vertices")  # in the files written here, beside the published arrays


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

    def save(self, path: str | Path, origin: dict[str, np.ndarray] | None = None) -> None:
        """Write the npz that `load` reads: the published arrays, `grid` in half precision. origin: see `origin_of`."""
        dims = self.grid.shape[:3]
        with atomic_write(path) as file:
            np.savez(
                file,
                grid=self.grid.cpu().numpy().astype(np.float16),
                bbox_min=self.bbox_min.cpu().numpy(),
                bbox_max=self.bbox_max.cpu().numpy(),
                grid_dims=np.array(dims, np.int64),
                grid_resolution=np.int64(max(dims)),
                allow_pickle=False,
                **(origin or {}),
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


def build_weight_volume(body: Body, resolution: int = 128, say=None) -> WeightVolume:
    """Continue the body's skinning weights into a cube of `resolution`^3 nodes about the canonical body.

    Rounded to half precision, by at most 2.5e-4, which halves the file.
    say: called with one line about the solution's quality. Raises ValueError for a resolution under 8 and for a
    body whose weights do not sum to one.
    """
    allowed = RANGES["weight_volume_resolution"]
    if not allowed.holds(resolution):
        raise ValueError(f"weight volume resolution must be {allowed}, got {resolution}")
    vertices = body.canonical_vertices
    low, high = vertices.amin(0), vertices.amax(0)
    half_side = CUBE_MARGIN * (high - low).max() / 2
    bbox_min, bbox_max = (low + high) / 2 - half_side, (low + high) / 2 + half_side
    beside = torch.cat([vertices + offset * vertex_normals(body) for offset in (BESIDE, -BESIDE)])
    samples = SurfaceSamples(
        points=((vertices - bbox_min) / (2 * half_side)).double().numpy(),
        values=body.lbs_weights.double().numpy(),
        gradients=(weight_gradients(body) * 2 * half_side).numpy(),
        beside=((beside - bbox_min) / (2 * half_side)).clamp(0, 1).double().numpy(),
        beside_values=nearest_surface_weights(body, beside).double().numpy(),
    )
    grid = read_at_nodes(fit_field(samples, levels_for(resolution)), resolution)
    sums = grid.sum(-1)
    if say:
        say(f"raw weights sum to {sums.min():.5f}..{sums.max():.5f} over the joints")
    if not np.abs(sums - 1).max() <= SUM_TOLERANCE:
        raise ValueError(
            f"weight volume: raw weights sum to {sums.min():.3f}..{sums.max():.3f}, not to 1; "
            "the model file's 'weights' must sum to 1 at every vertex"
        )
    _make_weights(grid)
    _correct_reading(grid, *surface_samples(body), bbox_min, bbox_max)
    for (
        slab
    ) in grid:  # as the file keeps it, so that the run that makes it and those that read it have the same
        slab[...] = slab.astype(np.float16)
    return WeightVolume(torch.from_numpy(grid), bbox_min, bbox_max)


def _make_weights(values: np.ndarray) -> None:
    """Make (..., J) values non-negative with sum one, in place."""
    np.maximum(values, 0, out=values)
    values /= values.sum(-1, keepdims=True)


def _correct_reading(
    grid: np.ndarray, points: Tensor, weights: Tensor, bbox_min: Tensor, bbox_max: Tensor
) -> None:
    """Change the nodes of the cells that the surface runs through so that trilinear reading gives its weights.

    The spline passes through them, but reading blurs it over a voxel, about a finger's width. Simultaneous
    iterative reconstruction: every node adds the mean of its samples' residuals. points, weights: samples
    (S, 3), (S, J) of the surface. grid is changed in place.
    """
    dims = torch.tensor(grid.shape[:3])
    lower, fraction = _cells(points, bbox_min, bbox_max, dims)
    corners = zip(*_corners(lower, fraction, dims), strict=True)
    nodes, shares = (torch.stack(column, 1).numpy() for column in corners)
    near, columns = np.unique(nodes, return_inverse=True)
    starts = np.arange(len(nodes) + 1) * 8
    read = sparse.csr_array((shares.ravel(), columns.ravel(), starts), (len(nodes), len(near)))
    total = np.maximum(read.sum(0), TOUCHED)  # a node that no sample touches keeps its value
    mean_over_samples = sparse.diags_array(1 / total) @ read.T.tocsr()
    flat = grid.reshape(-1, grid.shape[3])
    values, target = flat[near], weights.numpy()
    for _ in range(CORRECTIONS):
        values += mean_over_samples @ (target - read @ values)
        _make_weights(values)
    flat[near] = values


def find_or_make_weight_volume(path: Path, body: Body, resolution: int = 128, say=print) -> WeightVolume:
    """The volume of this body in the file `path`, made first if it is missing or was made of something else.

    A file that this program did not make (published tool, or the user's own) is used as it is.
    """
    origin = origin_of(body, resolution)
    if path.is_file():
        stored = read_npz(path, (), optional=ORIGIN_KEYS)
        if not stored:
            say(f"using the skinning weight volume {path} as it is: it was not made by this program")
            volume = WeightVolume.load(path)
            if problem := misfit(volume, body):
                raise ValueError(
                    f"{path}: not a weight volume of this body: {problem}; remove it, and it is made anew"
                )
            return volume
        if _same_origin(stored, origin):
            return WeightVolume.load(path)
        say(f"remaking the skinning weight volume {path}: body, resolution or solver changed")
    else:
        say(f"making the skinning weight volume {path} ({resolution} nodes a side)")
    volume = build_weight_volume(body, resolution, say)
    try:
        volume.save(path, origin)
    except OSError as error:
        say(f"it cannot be kept there ({error.strerror or error}), and is made again by the next run")
    return volume


def misfit(volume: WeightVolume, body: Body) -> str:
    """Why a volume from elsewhere cannot be one of this body; "" if it can."""
    points = body.canonical_vertices
    inside = ((points >= volume.bbox_min) & (points <= volume.bbox_max)).all(1).float().mean()
    if inside < MOST:
        return f"its box holds {100 * inside:.0f} % of the body, in metres and in the canonical pose"
    extent = (points.amax(0) - points.amin(0)).max()
    if (larger := float((volume.bbox_max - volume.bbox_min).max() / extent)) > LARGEST_BOX:
        return f"its box is {larger:.3g} times as large as the body"
    if float(volume.grid.min()) < -SUM_TOLERANCE:
        return f"it holds negative weights, down to {float(volume.grid.min()):.3g}"
    difference = float((volume.query(points) - body.lbs_weights).abs().sum(1).mean())
    if difference > LARGEST_DIFFERENCE:
        return (
            f"at the body's surface it differs from the body's own weights by {difference:.2f}, of at most 2"
        )
    return ""


def origin_of(body: Body, resolution: int) -> dict[str, np.ndarray]:
    """Arrays by which a file is known to be made of this body: a SHA-256 of what is exact, and the vertices."""
    digest = hashlib.sha256(np.array([SOLVER_VERSION, resolution], "<i8").tobytes())
    digest.update(body.faces.numpy().astype("<i8").tobytes())
    digest.update(body.lbs_weights.numpy().astype("<f4").tobytes())
    values = np.frombuffer(digest.digest(), np.uint8), body.canonical_vertices.numpy()
    return dict(zip(ORIGIN_KEYS, values, strict=True))


def _same_origin(stored: dict[str, np.ndarray], origin: dict[str, np.ndarray]) -> bool:
    exact, vertices = (stored.get(key) for key in ORIGIN_KEYS)
    return (
        exact is not None
        and vertices is not None
        and np.array_equal(exact, origin["made_from"])
        and vertices.shape == origin["made_from_vertices"].shape
        and bool(np.abs(vertices - origin["made_from_vertices"]).max() <= SAME_VERTEX)
    )


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
