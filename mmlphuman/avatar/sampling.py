"""Blue-noise samples of a surface: exactly n points, evenly spread (Poisson disk), reproducible by seed.

Parallel dart throwing: many uniform candidates get a random rank; a candidate is kept when no kept one of
lower rank lies within the radius. All undecided candidates whose rank is the lowest in their neighbourhood
decide at once, so a few vectorised rounds settle a million candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import KDTree

CANDIDATES_PER_SAMPLE = 8
DENSITY = 0.549  # n r^2 / area, a little more than so many candidates reach; of all there could be, 0.7
RADIUS_STEP = 0.97  # the radius shrinks until at least n points fit; what is over is dropped at random


@dataclass(frozen=True)
class MeshSamples:
    """Points on a mesh, and where on it they lie. All (n, 3)."""

    points: np.ndarray  # float64
    corners: np.ndarray  # vertices of the triangle
    shares: np.ndarray  # float64, barycentric coordinates: of each corner in the point

    def at(self, index: np.ndarray) -> MeshSamples:
        return MeshSamples(self.points[index], self.corners[index], self.shares[index])

    def interpolate(self, values: np.ndarray) -> np.ndarray:
        """Values of the mesh's vertices (V, D) -> (n, D), linear within each triangle."""
        return np.einsum("nc,ncd->nd", self.shares, values[self.corners])


def poisson_disk_samples(mesh: trimesh.Trimesh, count: int, seed: int) -> MeshSamples:
    """`count` samples of the surface of `mesh`."""
    if not mesh.area > 0:
        raise ValueError("the template mesh has no area; it cannot be sampled")
    rng = np.random.default_rng(seed)
    candidates = _uniform_samples(mesh, CANDIDATES_PER_SAMPLE * count, rng)
    radius = np.sqrt(DENSITY * mesh.area / count)
    pairs = KDTree(candidates.points).query_pairs(radius, output_type="ndarray")
    low, high = np.ascontiguousarray(pairs.T)  # the tree's pairs name the lower index first
    apart = candidates.points[low]
    apart -= candidates.points[high]
    distance = np.einsum("pc,pc->p", apart, apart)  # squared
    while True:
        kept = np.flatnonzero(_lowest_rank_first(len(candidates.points), low, high))
        if len(kept) >= count:
            return candidates.at(np.sort(rng.choice(kept, count, replace=False)))
        radius *= RADIUS_STEP
        near = distance < radius**2
        low, high, distance = low[near], high[near], distance[near]


def _uniform_samples(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> MeshSamples:
    """Uniform by area; the order of the candidates is random, so an index doubles as a rank."""
    triangles = mesh.triangles
    face = rng.choice(len(triangles), count, p=mesh.area_faces / mesh.area_faces.sum())
    u, v = rng.random((2, count, 1))
    outside = u + v > 1  # fold the unit square onto the triangle
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = triangles[face].transpose(1, 0, 2)
    points = a + u * (b - a) + v * (c - a)
    return MeshSamples(points, mesh.faces[face], np.concatenate([1 - u - v, u, v], 1))


def _lowest_rank_first(count: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(count,) bool: the greedy maximal independent set in order of index; low < high: ends of the graph's edges."""
    undecided = np.ones(count, bool)
    kept = np.zeros(count, bool)
    while undecided.any():
        blocked = np.zeros(count, bool)
        blocked[high] = True  # some undecided neighbour of lower index comes first
        winners = undecided & ~blocked
        kept |= winners
        undecided &= ~winners
        undecided[high[winners[low]]] = False
        undecided[low[winners[high]]] = False
        open_pair = undecided[low] & undecided[high]
        low, high = low[open_pair], high[open_pair]
    return kept
