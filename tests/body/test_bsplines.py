"""Quadratic B-splines: what they reproduce, their derivatives, their Hessian's integral."""

from __future__ import annotations

import numpy as np
import pytest

from mmlphuman.body.bsplines import (
    along_all_axes,
    hessian_rows,
    point_rows,
    refinement_matrix,
    sampling_matrix,
    spline_values,
)

CELLS = 8
SIZE = CELLS + 2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def coefficients_of(function) -> np.ndarray:
    """(SIZE^3,) of a field that the splines hold exactly, from its values at scattered points."""
    points = np.random.default_rng(1).random((3 * SIZE**3, 3))
    rows = point_rows(points, CELLS, (0, 0, 0)).toarray()
    return np.linalg.lstsq(rows, function(*points.T), rcond=None)[0]


def test_constants_and_lines_are_read_exactly_up_to_both_ends():
    position = np.array([0, 1e-9, 0.1, 0.125, 0.77, 1 - 1e-9, 1])
    centres = (np.arange(SIZE) - 0.5) / CELLS
    read = sampling_matrix(position, CELLS)
    np.testing.assert_allclose(read @ np.ones(SIZE), 1)
    np.testing.assert_allclose(read @ centres, position, atol=1e-12)


@pytest.mark.parametrize("derivative", [1, 2])
def test_derivatives_are_the_differences_of_values(derivative):
    position, step = np.array([0.03, 0.2, 0.51, 0.98]), 1e-5
    first, values = spline_values(position, CELLS, derivative)
    above, below = (spline_values(position + s, CELLS, derivative - 1) for s in (step, -step))
    assert (above[0] == first).all() and (below[0] == first).all()
    np.testing.assert_allclose(values, (above[1] - below[1]) / (2 * step), atol=1e-5)


def test_refinement_changes_no_value(rng):
    coarse = rng.normal(size=(SIZE, SIZE, SIZE))
    fine = along_all_axes(refinement_matrix(CELLS), coarse)
    points = np.concatenate([rng.random((50, 3)), np.zeros((1, 3)), np.ones((1, 3))])
    before = point_rows(points, CELLS, (0, 0, 0)) @ coarse.ravel()
    np.testing.assert_allclose(point_rows(points, 2 * CELLS, (0, 0, 0)) @ fine.ravel(), before)


def test_grid_and_scattered_reading_agree(rng):
    field = rng.normal(size=(SIZE, SIZE, SIZE))
    nodes = np.linspace(0, 1, 5)
    grid = along_all_axes(sampling_matrix(nodes, CELLS), field)
    points = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(point_rows(points, CELLS, (0, 0, 0)) @ field.ravel(), grid.ravel())


def test_partial_derivatives_of_a_known_field(rng):
    field = coefficients_of(lambda x, y, z: x * y + 3 * z**2)
    x, y, z = points = rng.random((3, 20))
    for axis, expected in enumerate((y, x, 6 * z)):
        which = tuple(int(axis == i) for i in range(3))
        np.testing.assert_allclose(point_rows(points.T, CELLS, which) @ field, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "energy"),
    [
        (lambda x, y, z: 1 + 2 * x - y + 5 * z, 0),
        (lambda x, y, z: x**2 + y**2 / 2, 4 + 1),
        (lambda x, y, z: x * y + y * z, 2 + 2),  # mixed derivatives count twice
        (lambda x, y, z: x * z**2, 2 * 4 / 3 + 4 / 3),
    ],
)
def test_hessian_energy_of_known_fields(function, energy):
    field = coefficients_of(function)
    matrix = hessian_rows(np.arange(SIZE**3), CELLS)
    assert field @ (matrix @ field) == pytest.approx(energy, abs=1e-8)


def test_some_hessian_rows_are_those_of_all():
    chosen = np.array([0, 7, 123, 555, SIZE**3 - 1])
    every = hessian_rows(np.arange(SIZE**3), CELLS).toarray()
    np.testing.assert_allclose(every, every.T)
    np.testing.assert_allclose(hessian_rows(chosen, CELLS).toarray(), every[chosen])
