"""The JSON calibration that AvatarReX and THuman4.0 share -> CalibratedCamera.

{name: {"K": 9 numbers, "R": 9, "T": 3, "distCoeff": 5 (optional), "imgSize": [w, h] (optional)}}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import DISTORTION_COEFFICIENTS, CalibratedCamera, check_cameras
from mmlphuman.json_file import numbers, read_json


def read_json_calibration(path: Path) -> tuple[CalibratedCamera, ...]:
    """Cameras in the order of the file. Raises ValueError naming file, camera and field."""
    entries = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: must hold an object with one entry per camera")
    return check_cameras(path, [_camera(path, name, entry) for name, entry in entries.items()])


def _camera(path: Path, name: str, entry: object) -> CalibratedCamera:
    where = f"{path}: camera '{name}'"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object with K, R and T")
    size = None
    if entry.get("imgSize") is not None:
        width, height = numbers(where, entry, "imgSize", 2).tolist()
        if not (width.is_integer() and height.is_integer()):
            raise ValueError(f"{where}: imgSize must be two whole numbers, got {width:g}, {height:g}")
        size = (int(width), int(height))
    dist = np.zeros(DISTORTION_COEFFICIENTS)
    if entry.get("distCoeff") is not None:
        dist = numbers(where, entry, "distCoeff", DISTORTION_COEFFICIENTS)
    return CalibratedCamera(
        name=name,
        K=numbers(where, entry, "K", 9).reshape(3, 3),
        R=numbers(where, entry, "R", 9).reshape(3, 3),
        T=numbers(where, entry, "T", 3),
        dist=dist,
        image_size=size,
    )
