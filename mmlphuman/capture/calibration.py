"""The JSON calibration that AvatarReX and THuman4.0 share -> CalibratedCamera.

{name: {"K": 9 numbers, "R": 9, "T": 3, "distCoeff": 5 (optional), "imgSize": [w, h] (optional)}}
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import DISTORTION_COEFFICIENTS, CalibratedCamera, check_camera


def read_json_calibration(path: Path) -> tuple[CalibratedCamera, ...]:
    """Cameras in the order of the file. Raises ValueError naming file, camera and field."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: must hold an object with one entry per camera")
    return tuple(_camera(path, name, entry) for name, entry in entries.items())


def _camera(path: Path, name: str, entry: object) -> CalibratedCamera:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: camera '{name}' must be an object with K, R and T")
    size = None
    if entry.get("imgSize") is not None:
        width, height = _numbers(path, name, entry, "imgSize", 2)
        size = (int(width), int(height))
    dist = np.zeros(DISTORTION_COEFFICIENTS)
    if entry.get("distCoeff") is not None:
        dist = _numbers(path, name, entry, "distCoeff", DISTORTION_COEFFICIENTS)
    camera = CalibratedCamera(
        name=name,
        K=_numbers(path, name, entry, "K", 9).reshape(3, 3),
        R=_numbers(path, name, entry, "R", 9).reshape(3, 3),
        T=_numbers(path, name, entry, "T", 3),
        dist=dist,
        image_size=size,
    )
    return check_camera(path, camera)


def _numbers(path: Path, name: str, entry: dict, field: str, count: int) -> np.ndarray:
    """(count,) float64; nested lists are read row by row."""
    where = f"{path}: camera '{name}'"
    if field not in entry:
        raise ValueError(f"{where}: {field} is missing")
    try:
        values = np.asarray(entry[field], np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {field} must be {count} numbers, got {entry[field]!r}") from error
    if len(values) != count:
        raise ValueError(f"{where}: {field} must be {count} numbers, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {field} holds numbers that are not finite")
    return values
