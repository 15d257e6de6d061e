"""The thin-plate fit: fields whose answer is known, sums, refinement, the block solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from mmlphuman.body.bsplines import along_all_axes, hessian_rows, point_rows, refinement_matrix
from mmlphuman.body.weight_solver import (
    SurfaceSamples,
    _solve_slabs,
    fit_field,
    levels_for,
    read_at_nodes,
)

SLOPES = np.array([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.6]])  # of two fields, per unit of x, y, z


def sphere_samples(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Points (S, 3) on a sphere in the unit cube, and their normals."""
    normals = np.random.default_rng(0).normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return 0.5 + 0.2 * normals, normals


def wavy_samples(count: int = 400) -> SurfaceSamples:
    """Three fields that sum to one."""
    points, normals = sphere_samples(count)
    values = np.stack([np.sin(9 * points[:, 0]), np.cos(7 * points[:, 1])], 1)
    values = np.concatenate([values, 1 - values.sum(1, keepdims=True)], 1)
    gradients = np.zeros((count, 3, 2))
    gradients[:, 0, 0], gradients[:, 1, 1] = 9 * np.cos(9 * points[:, 0]), -7 * np.sin(7 * points[:, 1])
    gradients -= normals[:, :, None] * (normals[:, :, None] * gradients).sum(1, keepdims=True)
    gradients = np.concatenate([gradients, -gradients.sum(2, keepdims=True)], 2)
    return SurfaceSamples(points, values, gradients, *nothing_beside(3))


def nothing_beside(fields: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 3)), np.zeros((0, fields))


def test_linear_fields_are_continued_exactly_into_the_far_corners():
    points, _ = sphere_samples()
    beside = points[:50] + 0.1
    gradients = np.broadcast_to(SLOPES, (len(points), 3, 2))
    samples = SurfaceSamples(points, 0.3 + points @ SLOPES, gradients, beside, 0.3 + beside @ SLOPES)
    grid = read_at_nodes(fit_field(samples, range(3, 6)), 20)
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 1, 20)] * 3, indexing="ij"), -1)
    np.testing.assert_allclose(grid, 0.3 + nodes @ SLOPES, atol=1e-5)


def test_fields_sum_to_one_wherever_the_samples_do():
    grid = read_at_nodes(fit_field(wavy_samples(), range(3, 6)), 20)
    assert np.ptp(grid) > 1  # it is not just flat
    np.testing.assert_allclose(grid.sum(-1), 1, atol=1e-5)


def test_gradients_are_followed():
    """The gradients lie in the surface, so the field hardly changes along the normal; unless it is told to."""
    samples = wavy_samples()
    points, normals = sphere_samples()
    tilted = replace(samples, gradients=samples.gradients + 5 * normals[:, :, None])

    def slope_along_normal(given: SurfaceSamples) -> float:
        coefficients, step = fit_field(given, range(3, 6)), 1e-3
        ahead, behind = (_read(coefficients, points + sign * step * normals) for sign in (1, -1))
        return ((ahead - behind) / (2 * step)).mean()

    assert abs(slope_along_normal(samples)) < 0.5
    assert slope_along_normal(tilted) > 3


def test_points_beside_the_surface_are_followed_but_give_way_to_it():
    samples = wavy_samples()
    points, normals = sphere_samples()
    beside = points + 0.08 * normals
    guided = replace(samples, beside=beside, beside_values=samples.values)
    plain, told = fit_field(samples, range(3, 6)), fit_field(guided, range(3, 6))
    errors = [np.abs(_read(field, beside) - samples.values).mean() for field in (plain, told)]
    assert errors[1] < 0.5 * errors[0]
    clashing = replace(samples, beside=points, beside_values=samples.values + 1)
    assert np.abs(_read(fit_field(clashing, range(3, 6)), points) - samples.values).mean() < 0.25


def _read(coefficients: np.ndarray, points: np.ndarray) -> np.ndarray:
    cells = coefficients.shape[1] - 2
    return point_rows(points, cells, (0, 0, 0)) @ coefficients.reshape(len(coefficients), -1).T


def test_refinement_comes_closer_at_the_samples_and_leaves_the_rest():
    samples = wavy_samples()
    coarse, fine = fit_field(samples, range(3, 4)), fit_field(samples, range(3, 5))
    errors = [np.abs(_read(field, samples.points) - samples.values).mean() for field in (coarse, fine)]
    assert errors[1] < 0.5 * errors[0]
    refined = np.stack([along_all_axes(refinement_matrix(8), field) for field in coarse])
    changed = np.abs(fine - refined).max(0) > 1e-12
    assert changed.any()
    centres = (np.stack(np.nonzero(changed), 1) - 0.5) / 16
    assert np.abs(np.linalg.norm(centres - 0.5, axis=1) - 0.2).max() < 3 / 16  # splines are three cells wide


def test_block_solver_agrees_with_a_dense_one():
    size = 10
    matrix = (hessian_rows(np.arange(size**3), 8) + sparse.eye_array(size**3)).tocsr()
    right = np.random.default_rng(0).normal(size=(size**3, 2))
    starts = np.arange(0, size**3 + 1, 2 * size**2)
    np.testing.assert_allclose(
        _solve_slabs(matrix, right, starts, "test"), np.linalg.solve(matrix.toarray(), right), atol=1e-9
    )


@pytest.mark.parametrize(
    ("resolution", "levels"), [(8, [3]), (16, [3, 4]), (40, [4, 5, 6]), (128, [5, 6, 7]), (256, [5, 6, 7])]
)
def test_levels(resolution, levels):
    assert list(levels_for(resolution)) == levels
