"""Signed distance to the unclothed body on a regular grid about it: where to carve, and what to fall back on.

Data path: Body -> Grid -> BodyDistance -> carving (which nodes), template (hands, checks).
Shape letters: X, Y, Z grid nodes along the axes, S surface samples, M nodes of the band.
Distances are positive inside, as those to a mask's contour are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree

from mmlphuman.body.smplx_model import Body

SAMPLES_PER_NODE_AREA = 4  # of the body's surface, so that the nearest sample is nearer than half a spacing
MAX_SAMPLES = 600_000
CARVED_DEPTH = 0.06  # metres inside the body; what is deeper is the person, whatever the masks say


@dataclass(frozen=True)
class Grid:
    """A regular grid of canonical space; node (0, 0, 0) lies at `origin`."""

    origin: np.ndarray  # (3,) metres
    spacing: float  # metres
    shape: tuple[int, int, int]

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) flat node numbers -> (M, 3) float32 metres."""
        return (self.origin + self.spacing * np.stack(np.unravel_index(nodes, self.shape), 1)).astype(
            np.float32
        )

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """(P, 3) metres -> (3, P) in nodes, as scipy.ndimage wants them."""
        return ((points - self.origin) / self.spacing).T


@dataclass(frozen=True)
class BodyDistance:
    """The body's surface as seen from the grid."""

    grid: Grid
    values: np.ndarray  # (X, Y, Z) float32 metres, positive inside; +-reach beyond the band
    band: np.ndarray  # (M,) numbers of the nodes to carve: up to reach outside and CARVED_DEPTH inside


def grid_around(body: Body, spacing: float, reach: float) -> Grid:
    """A grid over the canonical body and `reach` metres around it."""
    vertices = body.canonical_vertices.numpy().astype(np.float64)
    margin = reach + 2 * spacing
    low, high = vertices.min(0) - margin, vertices.max(0) + margin
    return Grid(low, spacing, tuple(math.ceil(length / spacing) + 1 for length in high - low))


def body_distance(body: Body, grid: Grid, reach: float) -> BodyDistance:
    """Distance from nodes to the canonical body's surface, exact to a fraction of the spacing within `reach`."""
    mesh = trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)
    count = min(int(SAMPLES_PER_NODE_AREA * mesh.area / grid.spacing**2), MAX_SAMPLES)
    samples, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    normals = mesh.face_normals[faces]
    touched = np.zeros(grid.shape, bool)
    touched[tuple(grid.coordinates(samples).round().astype(int))] = True
    rough = ndimage.distance_transform_edt(~touched) * grid.spacing
    band = np.flatnonzero(rough.ravel() < reach)
    points = grid.positions(band)
    distance, nearest = cKDTree(samples).query(points, workers=-1)
    along_normal = -((points - samples[nearest]) * normals[nearest]).sum(1)
    # The surface's nearest point lies up to a sample's spacing beside the nearest sample.
    beside = np.minimum(distance**2 - along_normal**2, mesh.area / count)
    signed = np.copysign(np.sqrt(np.maximum(distance**2 - beside, 0)), along_normal)
    values = np.full(grid.shape, -reach, np.float32)
    values.ravel()[band] = signed
    _fill_inside(values, reach)
    band = band[signed < CARVED_DEPTH]
    return BodyDistance(grid, values, band)


def _fill_inside(values: np.ndarray, reach: float) -> None:
    """Nodes farther inside than the band, which begin as outside, become inside."""
    outside, _ = ndimage.label(values < 0)
    open_air = outside[0, 0, 0]  # the grid's corner lies outside the band
    values[(outside != open_air) & (values <= -reach)] = reach
