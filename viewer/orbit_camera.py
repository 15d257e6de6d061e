"""The camera that the mouse moves: a turntable about a point. Pure numpy.

Data path: mouse, training camera or camera file -> OrbitCamera -> CameraView -> RenderRequest.

The camera is a direction (azimuth about the up axis, elevation above the horizon, roll about the line of sight) and
the place of the point that it turns about, seen from the camera. Any pinhole camera can be written so, without loss:
taken over from a training camera, the picture is exactly that camera's until the user moves it.

Axes as everywhere: x right, y down, looking along +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from mmlphuman.animation.camera_file import CameraView

MAX_ELEVATION = math.radians(89)  # at the pole itself "up" has no direction on the screen
EXACTLY_VERTICAL = 1e-12  # horizontal part of a unit vector
MIN_DISTANCE, MAX_DISTANCE = 0.05, 1000.0  # metres from the point that the camera turns about
MIN_FOVX, MAX_FOVX = 1.0, 150.0  # degrees
DEFAULT_DISTANCE = 3.5  # metres: a whole person in DEFAULT_FOVX
DEFAULT_FOVX = 40.0


@dataclass(frozen=True)
class OrbitCamera:
    """Moves return a new camera."""

    center: np.ndarray = field(default_factory=lambda: np.zeros(3))  # (3,) world; what the camera turns about
    up: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0, 0.0]))  # (3,) world, unit length
    azimuth: float = 0.0  # radians about up; 0: on the side of +z (of +x, where z is up)
    elevation: float = 0.0  # radians above the horizon through the centre
    roll: float = 0.0  # radians about the line of sight
    # (3,) metres: the centre in camera coordinates. A training camera need not look straight at it.
    target: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, DEFAULT_DISTANCE]))
    # The field of view of a picture whose width is `aspect` times its height; this part of the scene is always seen
    # whole, whatever the shape of the window.
    fovx: float = DEFAULT_FOVX  # degrees, of the width
    aspect: float = 0.75

    @classmethod
    def from_view(cls, view: CameraView, center: np.ndarray, up: np.ndarray) -> OrbitCamera:
        """Takes over `view` exactly; from then on it turns about `center` (3,), with `up` (3,) as its pole."""
        center, up = np.asarray(center, np.float64), _unit(np.asarray(up, np.float64))
        side, front = ground_axes(up)
        rotation = view.w2c[:3, :3].T
        forward = rotation[:, 2]
        level = -forward
        if math.hypot(forward @ side, forward @ front) < EXACTLY_VERTICAL:
            # No direction on the ground is left; the picture's edges have one, and the roll becomes zero.
            level = -np.sign(forward @ up) * rotation[:, 1]
        camera = cls(
            center=center,
            up=up,
            azimuth=math.atan2(level @ side, level @ front),
            elevation=math.atan2(-forward @ up, math.hypot(forward @ side, forward @ front)),
            target=view.w2c[:3, :3] @ center + view.w2c[:3, 3],
            fovx=view.fovx,
            aspect=view.width / view.height,
        )
        rolled = camera._level_rotation().T @ rotation
        return replace(camera, roll=math.atan2(rolled[1, 0], rolled[0, 0]))

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) camera to world; its columns are right, down and forward."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return self._level_rotation() @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    @property
    def distance(self) -> float:
        """Metres from the centre."""
        return float(np.linalg.norm(self.target))

    def view(self, width: int, height: int) -> CameraView:
        """The camera for a picture of this size in pixels."""
        w2c = np.eye(4)
        w2c[:3, :3] = self.rotation.T
        w2c[:3, 3] = self.target - w2c[:3, :3] @ self.center
        return CameraView(w2c=w2c, fovx=self.picture_fovx(width, height), width=width, height=height)

    def picture_fovx(self, width: int, height: int) -> float:
        """Degrees across the width of a picture of this size."""
        wider = width / height / self.aspect
        if wider <= 1:
            return self.fovx
        fovx = 2 * math.degrees(math.atan(math.tan(math.radians(self.fovx) / 2) * wider))
        return min(fovx, MAX_FOVX) if self.fovx <= MAX_FOVX else self.fovx

    def with_fovx(self, fovx: float, width: int, height: int) -> OrbitCamera:
        """`fovx` degrees across the width of a picture of this size; the camera stays where it is."""
        return replace(self, fovx=min(max(fovx, MIN_FOVX), MAX_FOVX), aspect=width / height)

    def orbit(self, right: float, down: float) -> OrbitCamera:
        """Turns the scene under the mouse by these angles, radians; stops short of the poles."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        right, down = cos * right - sin * down, sin * right + cos * down  # with the camera held level
        # A camera taken over beyond the limit is not pushed back by the first touch.
        limit = max(MAX_ELEVATION, abs(self.elevation))
        elevation = min(max(self.elevation + down, -limit), limit)
        return replace(self, azimuth=math.remainder(self.azimuth - right, math.tau), elevation=elevation)

    def pan(self, right: float, down: float, width: int, height: int) -> OrbitCamera:
        """Moves the scene by pixels of a picture of this size; the centre stays under the mouse."""
        focal = width / (2 * math.tan(math.radians(self.picture_fovx(width, height)) / 2))
        scale = max(abs(self.target[2]), MIN_DISTANCE) / focal
        moved = self.rotation[:, :2] @ np.array([right, down], np.float64) * scale
        return replace(self, center=self.center - moved)

    def zoom(self, factor: float) -> OrbitCamera:
        """Multiplies the distance from the centre, within MIN_DISTANCE and MAX_DISTANCE."""
        distance = max(self.distance, MIN_DISTANCE)
        wanted = min(max(distance * factor, MIN_DISTANCE), MAX_DISTANCE)
        return replace(self, target=self.target * (wanted / distance))

    def levelled(self) -> OrbitCamera:
        """Without roll: the up axis points up on the screen."""
        return replace(self, roll=0.0)

    def _level_rotation(self) -> np.ndarray:
        """(3, 3) camera to world, roll left out."""
        side, front = ground_axes(self.up)
        cos, sin = math.cos(self.azimuth), math.sin(self.azimuth)
        outward = sin * side + cos * front  # from the centre to the camera, along the ground
        forward = -math.cos(self.elevation) * outward - math.sin(self.elevation) * self.up
        right = cos * side - sin * front
        return np.stack([right, np.cross(forward, right), forward], axis=1)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.array([0.0, 1.0, 0.0])


def ground_axes(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors at right angles to `up` and to each other: azimuth runs from the second to the first."""
    front = (
        np.array([0.0, 0.0, 1.0]) if abs(up[2]) < math.cos(math.radians(30)) else np.array([1.0, 0.0, 0.0])
    )
    front = _unit(front - (front @ up) * up)
    return np.cross(up, front), front
