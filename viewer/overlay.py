"""Floor grid, world axes and the capture's cameras as lines over the picture; page/overlay.js is its twin. Pure numpy.

Data path: Welcome, switches, view of the picture on the screen and its place there -> Lines, which the window draws.

The lines lie over the person, whose depth a viewer does not know: they are thin, and pale where they are many. They
follow the picture's view and not the mouse, so that they stay where they belong however slowly pictures come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.streaming.messages import Welcome
from viewer.orbit_camera import ground_axes

GRID_CELLS = 5  # of a metre, from the middle to each side
GRID_STRENGTH = 0.4  # in the middle
AXIS = 0.5  # metres
NEAR = 0.02  # metres; what is nearer to the camera is not drawn
FRUSTUM, LARGEST = 0.06, 0.4  # its depth: of the camera's distance from the person; metres at most
WITHIN = 1.5  # depths of a frustum from its tip: from there one looks through it
DARK = 110 / 255  # a background below it
LIGHT_GRID, DARK_GRID = (255, 255, 255), (40, 50, 70)  # on a dark background, on a light one
TRAINED, HELD_OUT = (47, 125, 225), (224, 123, 0)
AXIS_COLORS = ((229, 72, 77), (48, 164, 108), (74, 125, 255))
GRID_WIDTH, AXIS_WIDTH, FRUSTUM_WIDTH = 1.0, 2.0, 1.25  # pixels


@dataclass(frozen=True)
class Line:
    start: tuple[float, float]  # pixels of the screen
    end: tuple[float, float]
    color: tuple[int, int, int, int]  # with alpha
    width: float
    name: str = ""  # written at the end


@dataclass(frozen=True)
class Eye:
    """A view whose picture lies on the screen at (x, y), `width` pixels wide."""

    view: CameraView
    x: float
    y: float
    width: float

    def axes(self, point: np.ndarray) -> np.ndarray:
        """(3,) world -> right, down, forward."""
        return self.view.w2c[:3, :3] @ point + self.view.w2c[:3, 3]

    def segment(self, start: np.ndarray, end: np.ndarray) -> tuple | None:
        """Where the line between two points (3,) of the world is on the screen, cut off behind; None: nowhere."""
        ends = [self.axes(start), self.axes(end)]
        if max(ends[0][2], ends[1][2]) <= NEAR:
            return None
        for this, other in ((0, 1), (1, 0)):
            if ends[this][2] < NEAR:
                share = (NEAR - ends[this][2]) / (ends[other][2] - ends[this][2])
                ends[this] = ends[this] + share * (ends[other] - ends[this])
        return self._screen(ends[0]), self._screen(ends[1])

    def _screen(self, seen: np.ndarray) -> tuple[float, float]:
        focal = self.width / (2 * math.tan(math.radians(self.view.fovx) / 2))
        height = self.width * self.view.height / self.view.width
        right, down = focal * seen[:2] / seen[2]
        return float(self.x + self.width / 2 + right), float(self.y + height / 2 + down)


def overlay_lines(
    welcome: Welcome, eye: Eye, background: tuple[float, float, float], grid: bool, axes: bool, cameras: bool
) -> list[Line]:
    """background: of the picture, which decides whether the grid is light or dark."""
    found = []
    if grid:
        color = LIGHT_GRID if max(background) < DARK else DARK_GRID
        for start, end, strength in _grid(welcome):
            found.append((start, end, (*color, round(255 * strength)), GRID_WIDTH, ""))
    if axes:
        for axis, color in enumerate(AXIS_COLORS):
            found.append((np.zeros(3), AXIS * np.eye(3)[axis], (*color, 255), AXIS_WIDTH, "xyz"[axis]))
    if cameras:
        for start, end, color, name in _frusta(welcome, eye):
            found.append((start, end, (*color, 255), FRUSTUM_WIDTH, name))
    lines = []
    for start, end, color, width, name in found:
        segment = eye.segment(start, end)
        if segment is not None:
            lines.append(Line(*segment, color, width, name))
    return lines


def _grid(welcome: Welcome) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Lines a metre apart, at whole metres of the world, on a round floor that fades."""
    center, up = np.array(welcome.center), np.array(welcome.up)
    side, front = ground_axes(up)
    middle = round(center @ side) * side + round(center @ front) * front + welcome.floor * up
    for across in range(-GRID_CELLS, GRID_CELLS + 1):
        for along in range(-GRID_CELLS, GRID_CELLS):
            away = math.hypot(across, along + 0.5) / GRID_CELLS
            if away < 1:
                strength = GRID_STRENGTH * (1 - away**2)
                for one, other in ((side, front), (front, side)):
                    start = middle + across * one + along * other
                    yield start, start + other, strength


def _frusta(welcome: Welcome, eye: Eye) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int, int], str]]:
    """The pyramid of each of the capture's cameras, with a roof over its upper edge, unless one looks through it."""
    for entry in welcome.cameras:
        camera = entry.camera
        tip = camera.center
        depth = min(FRUSTUM * float(np.linalg.norm(tip - welcome.center)), LARGEST)
        right = depth * math.tan(math.radians(camera.fovx) / 2)
        down = right * camera.height / camera.width
        corners = [
            tip + camera.w2c[:3, :3].T @ (x * right, y * down, depth)
            for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (0, -1.5))
        ]
        if np.linalg.norm(eye.axes(tip)) < WITHIN * np.linalg.norm(corners[0] - tip):
            continue
        *corners, roof = corners
        color = TRAINED if entry.trained else HELD_OUT
        for number, corner in enumerate(corners):
            yield tip, corner, color, ""
            yield corner, corners[(number + 1) % 4], color, ""
        yield corners[1], roof, color, ""
        yield corners[0], roof, color, str(entry.id)
