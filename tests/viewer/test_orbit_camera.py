"""The camera that the mouse moves: properties of a turntable."""

from __future__ import annotations

import numpy as np
import pytest
from viewer_scenes import CENTER, looking_at

from mmlphuman.animation.camera_file import CameraView
from viewer.orbit_camera import MAX_DISTANCE, MAX_ELEVATION, MIN_DISTANCE, OrbitCamera

SIZE = (400, 300)
UPS = [(0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (0.6, 0.0, 0.8), (0.2, -0.9, 0.4)]
PLACES = [(0.2, 1.2, 2.7), (2.0, 3.0, 1.0), (-1.0, -1.5, -2.0), (0.2, 6.0, -0.299)]


def project(view: CameraView, point) -> np.ndarray:
    """(2,) pixels."""
    x, y, z = view.w2c[:3, :3] @ np.asarray(point, float) + view.w2c[:3, 3]
    assert z > 0
    return (view.intrinsics @ [x / z, y / z, 1])[:2]


def random_camera(seed: int, up=(0, 1, 0)) -> OrbitCamera:
    random = np.random.default_rng(seed)
    camera = OrbitCamera(center=random.normal(size=3), up=np.array(up) / np.linalg.norm(up))
    return camera.orbit(*random.uniform(-3, 3, 2)).zoom(random.uniform(0.3, 3))


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("seed", range(4))
def test_a_turntable_camera_looks_at_its_centre_upright(seed, up):
    camera = random_camera(seed, up)
    view = camera.view(*SIZE)
    rotation = view.w2c[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(project(view, camera.center), np.divide(SIZE, 2), atol=1e-9)
    above = project(view, camera.center + 0.01 * camera.up) - np.divide(SIZE, 2)
    assert above[1] < 0 and abs(above[0]) < 1e-9  # up is up on the screen, and not to a side
    assert np.linalg.norm(view.center - camera.center) == pytest.approx(camera.distance)


@pytest.mark.parametrize("roll", [0.0, 0.3, -1.5, np.pi / 2, 3.0])
@pytest.mark.parametrize("place", PLACES)
def test_a_camera_is_taken_over_exactly(place, roll):
    view = looking_at((0.5, 0.8, 0.1), place, 300, 400, 37.0, roll)
    taken = OrbitCamera.from_view(view, CENTER, (0, 1, 0)).view(300, 400)
    np.testing.assert_allclose(taken.w2c, view.w2c, atol=1e-12)
    assert (taken.fovx, taken.width, taken.height) == (view.fovx, view.width, view.height)


@pytest.mark.parametrize("up", UPS)
def test_a_camera_that_looks_straight_along_the_up_axis_is_taken_over(up):
    unit = np.array(up) / np.linalg.norm(up)
    for sign in (1, -1):
        forward = sign * unit
        right = np.cross(forward, [0.3, 0.5, -0.7])
        right /= np.linalg.norm(right)
        w2c = np.eye(4)
        w2c[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        w2c[:3, 3] = 0.1, 0.2, 3.0
        camera = OrbitCamera.from_view(CameraView(w2c, 40, 300, 400), np.zeros(3), up)
        np.testing.assert_allclose(camera.view(300, 400).w2c, w2c, atol=1e-9)
        assert np.isfinite(camera.orbit(0.1, -0.1).view(300, 400).w2c).all()
        assert abs(np.remainder(camera.roll + np.pi, 2 * np.pi) - np.pi) < 1e-6


def test_orbiting_a_taken_camera_keeps_the_centres_place_in_the_picture():
    view = looking_at((0.5, 0.8, 0.1), PLACES[0], 300, 400, 37.0, 0.2)
    camera = OrbitCamera.from_view(view, CENTER, (0, 1, 0))
    moved = camera.orbit(0.4, 0.2)
    assert not np.allclose(moved.view(300, 400).w2c, view.w2c, atol=0.1)
    np.testing.assert_allclose(project(moved.view(300, 400), CENTER), project(view, CENTER), atol=1e-6)


@pytest.mark.parametrize("roll", [0.0, np.pi / 2, np.pi])
def test_the_near_side_of_the_scene_follows_the_mouse(roll):
    camera = OrbitCamera.from_view(looking_at(CENTER, PLACES[0], roll=roll), CENTER, (0, 1, 0))
    view = camera.view(*SIZE)
    near = 0.9 * np.array(CENTER) + 0.1 * view.center
    for drag in ((0.05, 0.0), (0.0, 0.05), (-0.05, 0.0)):
        moved = project(camera.orbit(*drag).view(*SIZE), near) - project(view, near)
        assert moved @ drag > 0.9 * np.linalg.norm(moved) * np.linalg.norm(drag)


def test_it_stops_short_of_the_poles_without_a_flip():
    camera = OrbitCamera()
    for _ in range(50):
        camera = camera.orbit(0.0, 0.2)
        right = camera.rotation[:, 0]
        assert camera.elevation <= MAX_ELEVATION
        np.testing.assert_allclose(right, [1, 0, 0], atol=1e-12)
    assert camera.orbit(0.0, -0.2).elevation == pytest.approx(MAX_ELEVATION - 0.2)


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (884, 300)])
def test_panning_moves_the_centre_with_the_mouse(size):
    camera = random_camera(3)
    moved = camera.pan(20, -7, *size)
    shift = project(moved.view(*size), camera.center) - project(camera.view(*size), camera.center)
    np.testing.assert_allclose(shift, (20, -7), atol=1e-6)
    np.testing.assert_allclose(moved.rotation, camera.rotation)


def test_zooming_multiplies_the_distance_within_limits():
    camera = random_camera(5)
    assert camera.zoom(0.5).distance == pytest.approx(camera.distance / 2)
    assert camera.zoom(0.8).zoom(1.25).distance == pytest.approx(camera.distance)
    assert camera.zoom(1e-9).distance == pytest.approx(MIN_DISTANCE)
    assert camera.zoom(1e9).distance == pytest.approx(MAX_DISTANCE)
    assert camera.zoom(1e-9).zoom(2).distance == pytest.approx(2 * MIN_DISTANCE)


def test_the_whole_of_a_training_cameras_picture_is_seen_in_every_window():
    view = looking_at(CENTER, PLACES[0], 300, 400, 37.0)
    camera = OrbitCamera.from_view(view, CENTER, (0, 1, 0))
    corners = np.array([[0, 0, 1], [300, 400, 1]]) @ np.linalg.inv(view.intrinsics).T  # in camera coordinates
    for width, height in ((800, 400), (200, 500), (300, 400)):
        shown = corners @ camera.view(width, height).intrinsics.T
        assert (shown[:, :2] > -1e-9).all() and (shown[:, 0] < width + 1e-9).all()
        assert (shown[:, 1] < height + 1e-9).all()
        touching = np.abs(shown[:, :2] - [[0, 0], [width, height]]).min()
        assert touching < 1e-9  # and not smaller than it need be


def test_the_field_of_view_is_that_of_the_pictures_width():
    camera = OrbitCamera().with_fovx(55.0, 884, 730)
    assert camera.view(884, 730).fovx == pytest.approx(55)
    assert camera.view(442, 365).fovx == pytest.approx(55)


def test_levelling_takes_the_roll_away_and_nothing_else():
    view = looking_at(CENTER, PLACES[1], roll=0.5)
    levelled = OrbitCamera.from_view(view, CENTER, (0, 1, 0)).levelled()
    level = looking_at(CENTER, PLACES[1])
    np.testing.assert_allclose(levelled.view(300, 400).w2c, level.w2c, atol=1e-9)
