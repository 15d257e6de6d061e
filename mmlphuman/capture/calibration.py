"""The JSON calibration that AvatarReX and THuman4.0 share -> CalibratedCamera.

{name: {"K": 9 numbers, "R": 9, "T": 3, "distCoeff": OpenCV's 0, 4, 5, 8 or 12 (optional), "imgSize": [w, h] (optional),
"pixelCenter": 0.5 (optional: K is for pixel centres at +0.5, as an import writes it; else it is taken as it is)}}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmlphuman.capture.layout import (
    DISTORTION_COUNTS,
    HALF_PIXEL,
    CalibratedCamera,
    check_cameras,
    distortion,
)
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
    dist = ()
    if entry.get("distCoeff") is not None:
        dist = numbers(where, entry, "distCoeff", DISTORTION_COUNTS)
    half_pixel = False
    if entry.get("pixelCenter") is not None:
        center = float(numbers(where, entry, "pixelCenter", 1)[0])
        if center not in (0, HALF_PIXEL):
            raise ValueError(f"{where}: pixelCenter is {center:g}; 0 or 0.5 is possible")
        half_pixel = center == HALF_PIXEL
    return CalibratedCamera(
        name=name,
        K=numbers(where, entry, "K", 9).reshape(3, 3),
        R=numbers(where, entry, "R", 9).reshape(3, 3),
        T=numbers(where, entry, "T", 3),
        dist=distortion(dist),
        image_size=size,
        half_pixel=half_pixel,
    )


def calibration_content(cameras: Sequence[CalibratedCamera]) -> dict[str, dict]:
    """The content of such a file."""
    return {
        camera.name: {
            "K": camera.K.ravel().tolist(),
            "R": camera.R.ravel().tolist(),
            "T": camera.T.tolist(),
            "distCoeff": camera.dist.tolist(),
        }
        | ({"imgSize": list(camera.image_size)} if camera.image_size is not None else {})
        | ({"pixelCenter": HALF_PIXEL} if camera.half_pixel else {})
        for camera in cameras
    }
