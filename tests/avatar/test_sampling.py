"""Surface samples: exact number, on the surface, evenly spread, reproducible."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from mmlphuman.avatar.sampling import poisson_disk_samples


@pytest.mark.parametrize("count", [8, 300, 4000])
def test_exact_count_on_the_surface_and_reproducible(count):
    mesh = trimesh.creation.box((1.0, 2.0, 0.5))
    points = poisson_disk_samples(mesh, count, seed=3).points
    assert points.shape == (count, 3)
    on_a_face = np.isclose(np.abs(points), np.array([0.5, 1.0, 0.25])).any(1)
    assert on_a_face.all() and (np.abs(points) <= np.array([0.5, 1.0, 0.25]) + 1e-9).all()
    assert (points == poisson_disk_samples(mesh, count, seed=3).points).all()
    assert not (points == poisson_disk_samples(mesh, count, seed=4).points).all()


def test_spread_is_blue_noise():
    """No two samples close, no hole: unlike uniform random points, by a wide margin."""
    mesh = trimesh.creation.icosphere(4)
    points = poisson_disk_samples(mesh, 2000, seed=0).points
    to_nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    hole = cKDTree(points).query(mesh.vertices)[0].max()
    ideal = np.sqrt(2 * mesh.area / 2000 / np.sqrt(3))  # spacing of a hexagonal grid of that density
    assert to_nearest.min() > 0.6 * ideal
    assert hole < 1.1 * ideal


def test_samples_know_where_on_their_triangle_they_lie():
    mesh = trimesh.creation.icosphere(1)
    samples = poisson_disk_samples(mesh, 500, seed=0)
    assert {tuple(corners) for corners in samples.corners} <= {tuple(face) for face in mesh.faces}
    assert (samples.shares >= 0).all()
    np.testing.assert_allclose(samples.shares.sum(1), 1)
    np.testing.assert_allclose(samples.interpolate(mesh.vertices), samples.points, atol=1e-12)


def test_a_mesh_without_area_is_refused():
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(ValueError, match="no area"):
        poisson_disk_samples(flat, 10, seed=0)
