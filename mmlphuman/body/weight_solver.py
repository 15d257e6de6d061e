"""Extends values on the body's surface smoothly into a cube: thin-plate splines, coarse to fine.

Data path: surface samples -> fit_field -> spline coefficients -> read_at_nodes -> grid.
Shape letters: S samples, P points beside the surface, F free splines, J fields (joints), C cells a side,
N = C + 2 splines an axis (see bsplines).

Each field f minimises, in the cube mapped to [0, 1]^3 and at level d (C = 2^d cells a side),

    sum over samples  1000 * 2^d (f - value)^2  +  0.05 * 2^d |grad f - gradient|^2   +   integral |Hessian f|^2

    + sum over points beside the surface  100 * 2^d (f - value)^2,

of which the first line is the published tool's energy. The gradients lie in the surface, so the second term also
asks f to stay as it is along the normal. The coarsest level is solved in the whole cube; each finer one starts from
the level above and changes only the splines that data touch. Every system is symmetric and couples a plane x = const
of splines with the two planes on either side, so it is solved directly: Cholesky factors of a block tridiagonal
matrix whose blocks are slabs of two planes.

The energy knows no maximum principle: f overshoots by some hundredths near the surface, and far away, where it
continues linearly, it leaves [0, 1]. But it is linear in the data, and constants cost nothing: the fields sum to
one wherever the samples do.

Departures from the published tool, measured at 128^3 on the synthetic body. Gradients are least squares fits, where
the tool takes a mean that on a regular mesh is half the gradient, and every sample counts by itself, where the tool
averages those of a cell: the mean difference at the vertices falls from 0.111 to 0.073. The points beside the
surface keep the fields of neighbouring fingers apart: the mean difference 2 cm outside falls from 0.146 to 0.077.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cholesky, solve_triangular
from tqdm import tqdm

from mmlphuman.body.bsplines import (
    REACH,
    along_all_axes,
    hessian_rows,
    point_rows,
    refinement_matrix,
    sampling_matrix,
)

VALUE_WEIGHT = 1000.0  # the published tool's settings; times the cells a side
GRADIENT_WEIGHT = 0.05
BESIDE_WEIGHT = 100.0  # times the cells a side; far under the surface's own
FINEST_LEVEL = 7  # 128 cells a side, 15 mm for a body
COARSEST_LEVEL = 3
REFINEMENTS = 2
PROGRESS_DELAY = 1.0  # seconds; faster steps show no bar


@dataclass(frozen=True)
class SurfaceSamples:
    """What is known of the J fields. Positions lie in the unit cube; gradients are with respect to them."""

    points: np.ndarray  # (S, 3)
    values: np.ndarray  # (S, J)
    gradients: np.ndarray  # (S, 3, J)
    beside: np.ndarray  # (P, 3) points off the surface
    beside_values: np.ndarray  # (P, J) at the surface's points nearest to them


def levels_for(resolution: int) -> range:
    """The levels for a grid of `resolution` nodes a side: the finest has about one cell a node; 128 -> 5, 6, 7."""
    finest = min(FINEST_LEVEL, max(COARSEST_LEVEL, int(np.ceil(np.log2(resolution)))))
    return range(max(COARSEST_LEVEL, finest - REFINEMENTS), finest + 1)


def fit_field(samples: SurfaceSamples, levels: range) -> np.ndarray:
    """Coefficients (J, N, N, N) at the last level."""
    num_fields, size = samples.values.shape[1], 2 ** levels[0] + 2
    coefficients = np.zeros((num_fields, size, size, size))
    for level in levels:
        cells = 2**level
        if level > levels[0]:
            refine = refinement_matrix(cells // 2)
            coefficients = np.stack([along_all_axes(refine, field) for field in coefficients])
        data, target = _data_term(samples, cells)
        # Only the free coefficients change; `near` are those that their equations meet, free or not.
        free = np.unique(data.indices) if level > levels[0] else np.arange((cells + 2) ** 3)
        touched = data[:, free].T.tocsr()
        rows = (hessian_rows(free, cells) + touched @ data).tocsr()
        flat = coefficients.reshape(num_fields, -1)
        near = np.unique(rows.indices)
        residual = touched @ target - rows[:, near] @ flat[:, near].T
        slab = free // (cells + 2) ** 2 // REACH
        starts = np.flatnonzero(np.diff(slab, prepend=-1, append=slab[-1] + 1))
        flat[:, free] += _solve_slabs(rows[:, free], residual, starts, f"weights, {cells} cells a side").T
    return coefficients


def read_at_nodes(coefficients: np.ndarray, resolution: int) -> np.ndarray:
    """(J, N, N, N) -> (resolution,) * 3 + (J,) float32; the first and last nodes lie on the cube's faces."""
    read = sampling_matrix(np.linspace(0, 1, resolution), coefficients.shape[1] - 2)
    grid = np.empty((resolution, resolution, resolution, len(coefficients)), np.float32)
    for joint, field in enumerate(coefficients):
        grid[..., joint] = along_all_axes(read, field)
    return grid


def _data_term(samples: SurfaceSamples, cells: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Matrix (4 S + P, N^3) and target (4 S + P, J), weighted: the data's energy is sum |matrix f - target|^2."""
    value, x, y, z = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)
    terms = [
        (VALUE_WEIGHT, point_rows(samples.points, cells, value), samples.values),
        (BESIDE_WEIGHT, point_rows(samples.beside, cells, value), samples.beside_values),
    ]
    for axis, which in enumerate((x, y, z)):
        rows = point_rows(samples.points, cells, which)
        terms.append((GRADIENT_WEIGHT, rows, samples.gradients[:, axis]))
    matrix = sparse.vstack([np.sqrt(weight * cells) * rows for weight, rows, _ in terms], "csr")
    matrix = sparse.csr_array(matrix)  # it is one already; for the type alone
    return matrix, np.concatenate([np.sqrt(weight * cells) * target for weight, _, target in terms])


def _solve_slabs(matrix: sparse.csr_array, right: np.ndarray, starts: np.ndarray, title: str) -> np.ndarray:
    """Solve the symmetric positive definite block tridiagonal system for the right sides (F, J).

    starts: first row of each slab, and F. With A = L L^T, L's blocks are `factors` on the diagonal and the
    transposed `couplings` below it.
    """
    slabs = [slice(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    factors, couplings = [], []
    solution = right.copy()
    for k, slab in enumerate(tqdm(slabs, title, leave=False, delay=PROGRESS_DELAY)):
        block = matrix[slab, slab].toarray()
        if k:
            to_previous = matrix[slabs[k - 1], slab].toarray()
            couplings.append(solve_triangular(factors[-1], to_previous, lower=True))
            block -= couplings[-1].T @ couplings[-1]
            solution[slab] -= couplings[-1].T @ solution[slabs[k - 1]]
        factors.append(cholesky(block, lower=True))
        solution[slab] = solve_triangular(factors[-1], solution[slab], lower=True)
    for k in reversed(range(len(slabs))):
        slab = slabs[k]
        if k + 1 < len(slabs):
            solution[slab] -= couplings[k] @ solution[slabs[k + 1]]
        solution[slab] = solve_triangular(factors[k], solution[slab], lower=True, trans=1)
    return solution
