"""The JSON calibration that AvatarReX and THuman4.0 share -> CalibratedCamera.

{name: {"K": 9 numbers, "R": 9, "T": 3, "distCoeff": 5 (optional), "imgSize": [w, h] (optional)}}
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import DISTORTION_COEFFICIENTS, CalibratedCamera, check_cameras


def read_json_calibration(path: Path) -> tuple[CalibratedCamera, ...]:
    """Cameras in the order of the file. Raises ValueError naming file, camera and field."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # no JSON, no text, a name twice, brackets without end
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: must hold an object with one entry per camera")
    return check_cameras(path, [_camera(path, name, entry) for name, entry in entries.items()])


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    """The object of `pairs`; Python's reader would keep the last of two equal names and shift camera ids."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} appears twice in one object")
    return entries


def _camera(path: Path, name: str, entry: object) -> CalibratedCamera:
    where = f"{path}: camera '{name}'"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object with K, R and T")
    size = None
    if entry.get("imgSize") is not None:
        width, height = _numbers(where, entry, "imgSize", 2).tolist()
        if not (width.is_integer() and height.is_integer()):
            raise ValueError(f"{where}: imgSize must be two whole numbers, got {width:g}, {height:g}")
        size = (int(width), int(height))
    dist = np.zeros(DISTORTION_COEFFICIENTS)
    if entry.get("distCoeff") is not None:
        dist = _numbers(where, entry, "distCoeff", DISTORTION_COEFFICIENTS)
    return CalibratedCamera(
        name=name,
        K=_numbers(where, entry, "K", 9).reshape(3, 3),
        R=_numbers(where, entry, "R", 9).reshape(3, 3),
        T=_numbers(where, entry, "T", 3),
        dist=dist,
        image_size=size,
    )


def _numbers(where: str, entry: dict, field: str, count: int) -> np.ndarray:
    """(count,) float64; nested lists are read row by row."""
    if field not in entry:
        raise ValueError(f"{where}: {field} is missing")
    values = _flatten(entry[field])
    # JSON's true and "3.0" would become numbers, silently.
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{where}: {field} must be {count} numbers, got {reprlib.repr(entry[field])}")
    if len(values) != count:
        raise ValueError(f"{where}: {field} must be {count} numbers, got {len(values)}")
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        numbers = np.full(count, np.inf)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: {field} holds numbers that are not finite")
    return numbers


def _flatten(value: object) -> list:
    return [number for item in value for number in _flatten(item)] if isinstance(value, list) else [value]
