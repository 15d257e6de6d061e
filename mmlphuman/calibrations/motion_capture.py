"""Calibrations of motion capture: Qualisys (.qca.txt), and TOML as Pose2Sim, caliscope and anipose write it.

Qualisys: XML. r11 ... r33 row by row is world to camera of a camera with y up that looks along -z, x y z its centre in
millimetres; focal length and centre in 64ths of a pixel; the picture's part of the sensor in fov_video.
TOML: a table for each camera with size, matrix, distortions, rotation (a vector) and translation, world to camera,
metres. Both have pixel centres at whole numbers.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.calibrations.calibration import MILLIMETRES, Calibration, opencv_camera
from mmlphuman.capture.layout import DISTORTION_COUNTS, CalibratedCamera
from mmlphuman.json_file import numbers

MAX_BYTES = 5_000_000
SUBPIXELS = 64  # of Qualisys
HALF_TURN = np.diag([1.0, -1.0, -1.0])  # about x: y up, looking along -z -> y down, looking along +z
# Qualisys' names, in OpenCV's order; "tangental" is theirs.
LENS = (
    "radialDistortion1",
    "radialDistortion2",
    "tangentalDistortion1",
    "tangentalDistortion2",
    "radialDistortion3",
)


def read_qualisys(path: Path) -> Calibration:
    text = _text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path}: defines entities, which no calibration of Qualisys does")
    try:
        root = ElementTree.fromstring(text.encode())
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as XML ({error})") from error
    entries = [entry for entry in root.findall("cameras/camera") if _films(entry)]
    if not entries:
        raise ValueError(f"{path}: holds no video camera")
    return Calibration(tuple(_qualisys_camera(path, entry) for entry in entries), "Qualisys")


def _films(camera: ElementTree.Element) -> bool:
    """Marker cameras of the same system make no pictures."""
    model = camera.get("model", "none").lower()
    return camera.get("active", "1") != "0" and ("video" in model or model in ("", "none"))


def _qualisys_camera(path: Path, camera: ElementTree.Element) -> CalibratedCamera:
    name = camera.get("serial", "")
    where = f"{path}: camera '{name}'"
    parts = {}
    for part in ("transform", "intrinsic", "fov_video"):
        found = camera.find(part)
        if found is None:
            raise ValueError(f"{where}: {part} is missing")
        parts[part] = {key: _number(value) for key, value in found.attrib.items()}

    def values(part: str, *fields: str) -> np.ndarray:
        return np.array([numbers(f"{where}: {part}", parts[part], field, 1)[0] for field in fields])

    R = HALF_TURN @ values("transform", *(f"r{row}{column}" for row in "123" for column in "123")).reshape(
        3, 3
    )
    T = -R @ (MILLIMETRES * values("transform", "x", "y", "z"))
    left, top, right, bottom = values("fov_video", "left", "top", "right", "bottom")
    fx, fy, cx, cy = (
        values("intrinsic", "focalLengthU", "focalLengthV", "centerPointU", "centerPointV") / SUBPIXELS
    )
    K = np.array([[fx, 0, cx - left], [0, fy, cy - top], [0, 0, 1]])
    size = int(right - left) + 1, int(bottom - top) + 1
    return opencv_camera(name, K, R, T, values("intrinsic", *LENS), size)


def read_toml(path: Path) -> Calibration:
    try:
        content = tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as TOML ({error})") from error
    tables = content.get("cameras") if isinstance(content.get("cameras"), dict) else content
    assert isinstance(tables, dict)
    entries = {key: table for key, table in tables.items() if isinstance(table, dict) and "matrix" in table}
    if not entries:
        raise ValueError(
            f"{path}: holds no camera: a table with matrix, distortions, rotation, translation and size"
        )
    cameras = []
    for key, entry in entries.items():
        where = f"{path}: camera '{key}'"
        if entry.get("ignore") is True:
            continue
        if entry.get("fisheye") is True:
            raise ValueError(f"{where} is a fisheye; undistort its pictures")
        if entry.get("rotation_count", 0) not in (0, 4, -4):
            raise ValueError(
                f"{where}: rotation_count is {entry['rotation_count']}: its pictures are turned by quarters, and the "
                "matrix is of the unturned ones; import pictures as the camera gave them, and set it to 0"
            )
        rotation = numbers(where, entry, "rotation", (3, 9))
        R = Rotation.from_rotvec(rotation).as_matrix() if len(rotation) == 3 else rotation.reshape(3, 3)
        width, height = numbers(where, entry, "size", 2)
        dist = numbers(where, entry, "distortions", DISTORTION_COUNTS) if "distortions" in entry else ()
        K, T = numbers(where, entry, "matrix", 9).reshape(3, 3), numbers(where, entry, "translation", 3)
        name = str(entry.get("name", key))
        cameras.append(opencv_camera(name, K, R, T, dist, (int(width), int(height))))
    return Calibration(tuple(cameras), "TOML (Pose2Sim, caliscope, anipose)")


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, too many for a file of cameras")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text") from error


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
