"""Lines over the picture lie where a pinhole camera sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_orbit_camera import project
from viewer_scenes import CENTER, a_welcome, looking_at

from viewer.overlay import DARK_GRID, HELD_OUT, LIGHT_GRID, TRAINED, Eye, overlay_lines

PLACE = (30.0, 40.0)  # of the picture on the screen
GREY = (0.8, 0.8, 0.8)


def eye_of(view, scale: float = 0.5) -> Eye:
    return Eye(view, *PLACE, scale * view.width)


def lines(view, grid=False, axes=False, cameras=False, background=GREY, welcome=None):
    return overlay_lines(welcome or a_welcome(), eye_of(view), background, grid, axes, cameras)


def on_screen(view, point, scale: float = 0.5) -> np.ndarray:
    return np.array(PLACE) + scale * project(view, np.asarray(point, float))


def test_axes_are_half_a_metre_of_the_world():
    view = looking_at((0, 0, 0), (1.0, 1.5, 2.0), roll=0.2)
    found = lines(view, axes=True)
    assert [line.name for line in found] == ["x", "y", "z"]
    for axis, line in enumerate(found):
        np.testing.assert_allclose(line.start, on_screen(view, (0, 0, 0)), atol=1e-9)
        np.testing.assert_allclose(line.end, on_screen(view, 0.5 * np.eye(3)[axis]), atol=1e-9)


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)])
def test_the_grid_lies_under_the_person_level_at_whole_metres(up):
    welcome = a_welcome(up=up, floor=float(np.dot(CENTER, up)) - 0.9)
    view = looking_at(CENTER, (3.0, 2.0, 2.5), 400, 400, 90.0)
    found = lines(view, grid=True, welcome=welcome)
    inverse = np.linalg.inv(view.w2c)
    for line in found:
        ends, cut_off = [], False
        for place in (line.start, line.end):  # back to the floor
            ray = inverse[:3, :3] @ np.linalg.solve(view.intrinsics, (*(np.subtract(place, PLACE) / 0.5), 1))
            reach = (welcome.floor - inverse[:3, 3] @ up) / (ray @ np.array(up))
            ends.append(inverse[:3, 3] + reach * ray)
            cut_off |= reach < 0.03
        level = np.delete(np.array(ends), np.abs(up).argmax(), axis=1)
        if not cut_off:
            np.testing.assert_allclose(level, level.round(), atol=1e-6)
            assert np.abs(level[1] - level[0]).sum() == pytest.approx(1)
    assert len(found) > 60
    strengths = [line.color[3] for line in found]
    assert max(strengths) <= 0.4 * 255 and min(strengths) < 0.1 * 255


def test_the_grid_is_seen_on_any_background():
    view = looking_at(CENTER, (0.2, 2.0, 3.0))
    assert {line.color[:3] for line in lines(view, grid=True)} == {DARK_GRID}
    assert {line.color[:3] for line in lines(view, grid=True, background=(0.1, 0, 0))} == {LIGHT_GRID}


def test_frusta_are_the_cameras_pyramids():
    welcome, view = a_welcome(), looking_at(CENTER, (1.0, 6.0, 7.0), 500, 500, 60.0)
    found = lines(view, cameras=True)
    assert len(found) == 10 * len(welcome.cameras)
    assert [line.name for line in found if line.name] == [str(entry.id) for entry in welcome.cameras]
    for number, entry in enumerate(welcome.cameras):
        camera, of_camera = entry.camera, found[10 * number : 10 * number + 8]
        depth = 0.06 * np.linalg.norm(camera.center - CENTER)
        # Where the rays through the corners of the camera's picture are at that depth.
        corners = [(0, 0), (camera.width, 0), (camera.width, camera.height), (0, camera.height)]
        rays = [np.linalg.solve(camera.intrinsics, (*corner, 1)) for corner in corners]
        expected = [camera.center + camera.w2c[:3, :3].T @ (depth * ray) for ray in rays]
        for i, (spoke, edge) in enumerate(zip(of_camera[::2], of_camera[1::2], strict=True)):
            np.testing.assert_allclose(spoke.start, on_screen(view, camera.center), atol=1e-9)
            np.testing.assert_allclose(spoke.end, on_screen(view, expected[i]), atol=1e-9)
            np.testing.assert_allclose(edge.start, on_screen(view, expected[i]), atol=1e-9)
            np.testing.assert_allclose(edge.end, on_screen(view, expected[(i + 1) % 4]), atol=1e-9)


def test_held_out_cameras_have_a_colour_of_their_own():
    *trained, last = a_welcome().cameras
    welcome = a_welcome(cameras=(*trained, replace(last, trained=False)))
    found = lines(looking_at(CENTER, (1.0, 6.0, 7.0), 500, 500, 60.0), cameras=True, welcome=welcome)
    names = {line.name: line.color[:3] for line in found if line.name}
    assert names == {str(entry.id): TRAINED for entry in trained} | {str(last.id): HELD_OUT}


def test_who_looks_through_a_camera_does_not_see_its_frustum():
    welcome = a_welcome()
    found = lines(welcome.cameras[1].camera, cameras=True)
    assert {line.name for line in found if line.name} <= {"10", "12"}


def test_what_lies_behind_is_cut_off():
    view = looking_at((0, 0, 1.0), (0.0, 0.1, 0.2))  # in front of the z axis's beginning
    eye = eye_of(view)
    start, end = np.array([0.05, 0, -1.0]), np.array([0.05, 0, 3.0])
    near, far = eye.segment(start, end)
    np.testing.assert_allclose(far, on_screen(view, end), atol=1e-9)
    direction = np.subtract(on_screen(view, (0.05, 0, 2.0)), far)
    across = np.subtract(near, far)
    assert abs(direction[0] * across[1] - direction[1] * across[0]) < 1e-6 * np.linalg.norm(across)
    assert np.isfinite(near).all() and eye.segment(start, start - (0, 0, 1)) is None


def test_lines_keep_to_the_picture_at_any_size():
    view = looking_at(CENTER, (1.0, 2.0, 3.0))
    small = replace(view, width=view.width // 4, height=view.height // 4)
    for one, other in zip(
        overlay_lines(a_welcome(), Eye(view, 0, 0, 600), GREY, True, True, True),
        overlay_lines(a_welcome(), Eye(small, 0, 0, 600), GREY, True, True, True),
        strict=True,
    ):
        np.testing.assert_allclose((one.start, one.end), (other.start, other.end), atol=1e-6)
