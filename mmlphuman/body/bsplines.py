"""Uniform quadratic B-splines on the unit cube: rows of linear systems, integrals, refinement.

Data path: used by weight_solver only.
Shape letters: C cells a side, N = C + 2 splines an axis, P points, F coefficients that a system solves for.
Spline i covers the cells i-2, i-1, i of its axis; the outermost ones reach beyond the cube (a free boundary).
A field's coefficients are an (N, N, N) array; `flat` numbers count through it in C order.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Row k: coefficients of 1, t, t^2 of the k-th of the three splines over a cell, t in [0, 1] along the cell.
PIECES = np.array([[0.5, -1.0, 0.5], [0.5, 1.0, -1.0], [0.0, 0.0, 0.5]])
REACH = 2  # splines whose numbers differ by more do not overlap
# The squared Hessian as products of derivatives along x, y, z, with how often each occurs.
HESSIAN_TERMS = (
    *(((2, 0, 0), 1), ((0, 2, 0), 1), ((0, 0, 2), 1)),
    *(((1, 1, 0), 2), ((1, 0, 1), 2), ((0, 1, 1), 2)),
)


def spline_values(position: np.ndarray, cells: int, derivative: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The first (P,) of the three splines at (P,) positions in [0, 1] and their values (P, 3).

    derivative: 0, 1 or 2, with respect to the position.
    """
    cell = np.clip(np.floor(position * cells).astype(np.int64), 0, cells - 1)
    t = position * cells - cell
    zero, one = np.zeros_like(t), np.ones_like(t)
    powers = ((one, t, t**2), (zero, one, 2 * t), (zero, zero, 2 * one))[derivative]
    return cell, np.stack(powers, 1) @ PIECES.T * float(cells) ** derivative


def sampling_matrix(position: np.ndarray, cells: int) -> np.ndarray:
    """(P, N) that reads a one-dimensional field at (P,) positions in [0, 1]."""
    first, values = spline_values(position, cells)
    matrix = np.zeros((len(position), cells + 2))
    np.put_along_axis(matrix, first[:, None] + np.arange(3), values, 1)
    return matrix


def refinement_matrix(cells: int) -> np.ndarray:
    """(2 C + 2, N) that writes a one-dimensional field of C cells in the splines of 2 C cells, exactly."""
    fine = np.arange(2 * cells + 2)
    matrix = np.zeros((len(fine), cells + 2))
    near, far = np.where(fine % 2, (fine + 1) // 2, fine // 2), np.where(fine % 2, fine // 2, fine // 2 + 1)
    matrix[fine, near], matrix[fine, far] = 0.75, 0.25
    return matrix


def along_all_axes(matrix: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Apply (M, N) to the three axes of (N, N, N) -> (M, M, M)."""
    for _ in range(3):
        field = np.tensordot(field, matrix, (0, 1))  # takes the first axis off and puts its image last
    return field


def point_rows(points: np.ndarray, cells: int, derivatives: tuple[int, int, int]) -> sparse.csr_array:
    """(P, N^3): reads the field, or a partial derivative of it, at (P, 3) points of the unit cube."""
    size = cells + 2
    columns, values = np.zeros((len(points), 1), np.int64), np.ones((len(points), 1))
    for axis, derivative in enumerate(derivatives):
        first, along = spline_values(points[:, axis], cells, derivative)
        splines, shape = first[:, None] + np.arange(3), (len(points), 3 ** (axis + 1))
        columns = (columns[:, :, None] * size + splines[:, None]).reshape(shape)
        values = (values[:, :, None] * along[:, None]).reshape(shape)
    starts = np.arange(len(points) + 1) * 27
    return sparse.csr_array((values.ravel(), columns.ravel(), starts), (len(points), size**3))


def hessian_rows(flat: np.ndarray, cells: int) -> sparse.csr_array:
    """Rows (F, N^3) of the matrix of the squared Hessian's integral over the cube, of the splines `flat` (F,)."""
    size = cells + 2
    index = np.stack(np.unravel_index(flat, (size, size, size)))  # (3, F)
    bands = [_overlaps(cells, derivative) for derivative in range(3)]
    width = 2 * REACH + 1
    values = np.zeros((len(flat), width, width, width))
    for derivatives, times in HESSIAN_TERMS:
        along = (bands[d][index[axis]] for axis, d in enumerate(derivatives))
        values += times * np.einsum("fi,fj,fk->fijk", *along)
    neighbours = index[:, :, None] + np.arange(-REACH, REACH + 1)  # (3, F, 5), partly beyond the array
    exists = (neighbours >= 0) & (neighbours < size)
    x, y, z = (
        neighbours[0][:, :, None, None],
        neighbours[1][:, None, :, None],
        neighbours[2][:, None, None, :],
    )
    exists = exists[0][:, :, None, None] & exists[1][:, None, :, None] & exists[2][:, None, None, :]
    columns = ((x * size + y) * size + z)[exists]
    starts = np.concatenate([[0], exists.reshape(len(flat), -1).sum(1).cumsum()])
    return sparse.csr_array((values[exists], columns, starts), (len(flat), size**3))


def _overlaps(cells: int, derivative: int) -> np.ndarray:
    """(N, 5): integral over [0, 1] of spline i's derivative times that of spline i-2 ... i+2."""
    nodes, weights = np.polynomial.legendre.leggauss(3)  # exact: the products are of degree 4
    _, values = spline_values((nodes + 1) / 2 / cells, cells, derivative)
    one_cell = np.einsum("q,qi,qj->ij", weights / 2 / cells, values, values)
    bands = np.zeros((cells + 2, 2 * REACH + 1))
    for i in range(3):
        for j in range(3):
            bands[i : i + cells, j - i + REACH] += one_cell[i, j]
    return bands
