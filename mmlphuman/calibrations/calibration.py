"""What every form of calibration is brought into: the cameras of this project.

Data path: forms.read_calibration -> a form's module -> Calibration -> an imported capture, test.py --cam_path.

Conventions are those of mmlphuman.types: world to camera, x right, y down, z forward, metres, pixel centres at +0.5.
Forms of OpenCV have pixel centres at whole numbers: their principal points get half a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmlphuman.capture.layout import HALF_PIXEL, CalibratedCamera, distortion

MILLIMETRES = 1e-3


@dataclass(frozen=True)
class Calibration:
    cameras: tuple[CalibratedCamera, ...]  # all `half_pixel`, but for those of a published layout
    form: str  # for people
    is_metric: bool = True  # False: lengths are in a unit of the file's own
    # Where the form tells, relative to the file's folder: for each camera its picture of every frame,
    pictures: tuple[tuple[str, ...], ...] = ()
    image_folder: str = ""  # or the folder that holds the cameras' folders or pictures.


def opencv_camera(
    name: str,
    K: np.ndarray,
    R: np.ndarray,
    T: np.ndarray,
    dist: Sequence[float] | np.ndarray,
    size: tuple[int, int] | None,
) -> CalibratedCamera:
    """A camera of OpenCV's conventions: its principal point gets half a pixel."""
    shift = HALF_PIXEL * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    return CalibratedCamera(name, K + shift, R, T, distortion(dist), size, half_pixel=True)


def with_scale(cameras: Sequence[CalibratedCamera], factor: float) -> tuple[CalibratedCamera, ...]:
    """The cameras in a world whose lengths are `factor` times as large."""
    return tuple(replace(camera, T=factor * camera.T) for camera in cameras)
