"""COLMAP's models, binary and text -> Calibration.

cameras: id, model, width, height, parameters of the lens; images: id, rotation (quaternion, w first) and translation
world to camera, id of the lens, name of the picture. Principal points are for pixel centres at +0.5, as here; lengths
have no unit. A camera of a capture is a folder of pictures (or, of pictures side by side, one picture).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.capture.layout import CalibratedCamera, distortion

# COLMAP's model id, name and parameters; after focal lengths and principal point those of the lens in OpenCV's order.
MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    6: ("FULL_OPENCV", 12),
}
PARAMETERS = dict(MODELS.values())
ONE_FOCAL_LENGTH = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"}
OTHER_MODELS = {5: "OPENCV_FISHEYE", 7: "FOV", 8: "SIMPLE_RADIAL_FISHEYE", 9: "RADIAL_FISHEYE",
                10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE"}  # fmt: skip
MAX_BYTES = 2_000_000_000  # images.bin holds every point of every picture
SAME_POSE = 1e-3  # of rotation entries, of distance and focal length as a share: a camera that stands still


@dataclass(frozen=True)
class Lens:
    size: tuple[int, int]
    K: np.ndarray  # (3, 3)
    dist: np.ndarray


@dataclass(frozen=True)
class Picture:
    R: np.ndarray  # (3, 3) world to camera
    T: np.ndarray  # (3,)
    lens: int
    name: str


def read_colmap(path: Path) -> Calibration:
    """path: cameras or images, .bin or .txt; the other one lies beside it."""
    ending = path.suffix
    files = [path.with_name(name + ending) for name in ("cameras", "images")]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: no such file; a model of COLMAP has cameras{ending} and images{ending}"
            )
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(
                f"{file}: has {file.stat().st_size:,} bytes, too many for a model of a capture's cameras"
            )
    read_lenses, read_pictures = (
        (_binary_lenses, _binary_pictures) if ending == ".bin" else (_text_lenses, _text_pictures)
    )
    try:
        lenses = dict(read_lenses(files[0]))
    except struct.error as error:
        raise ValueError(f"{files[0]}: ends too early; is it cut short?") from error
    try:
        pictures = list(read_pictures(files[1]))
    except struct.error as error:
        raise ValueError(f"{files[1]}: ends too early; is it cut short?") from error
    if not pictures:
        raise ValueError(f"{files[1]}: holds no picture")
    cameras = []
    for name, of_camera in sorted(_by_camera(pictures).items()):
        first = of_camera[0]
        where = f"{files[1]}: picture '{first.name}'"
        if first.lens not in lenses:
            raise ValueError(f"{where} is of camera {first.lens}, which {files[0].name} lacks")
        _check_standing(files[1], name, of_camera, lenses)
        lens = lenses[first.lens]
        cameras.append(
            CalibratedCamera(name, lens.K, first.R, first.T, lens.dist, lens.size, half_pixel=True)
        )
    return Calibration(tuple(cameras), f"COLMAP ({ending[1:]})", is_metric=False)


def _by_camera(pictures: list[Picture]) -> dict[str, list[Picture]]:
    """Pictures in folders are a camera's each; side by side in one folder each is a camera."""
    folders = {PurePosixPath(picture.name).parent for picture in pictures}
    each = len(folders) == 1
    found: dict[str, list[Picture]] = {}
    for picture in pictures:
        path = PurePosixPath(picture.name.replace("\\", "/"))
        name = path.stem if each else "_".join(path.parent.parts) or path.stem
        found.setdefault(name, []).append(picture)
    return found


def _check_standing(path: Path, name: str, pictures: list[Picture], lenses: dict[int, Lens]) -> None:
    first = pictures[0]
    for other in pictures[1:]:
        turned = np.abs(other.R - first.R).max()
        moved = np.linalg.norm(other.T - first.T) / max(np.linalg.norm(first.T), 1e-12)
        lens = lenses.get(other.lens, lenses[first.lens])  # COLMAP may give each picture its own
        zoomed = np.abs(lens.K - lenses[first.lens].K).max() / lenses[first.lens].K[0, 0]
        if max(turned, moved, zoomed) > SAME_POSE:
            raise ValueError(
                f"{path}: camera '{name}' has several poses ('{first.name}' and '{other.name}' differ); cameras of a "
                "capture stand still: keep one picture of each, or give each a folder of its own"
            )


def _lens(where: str, model: str, size: tuple[int, int], parameters: np.ndarray) -> Lens:
    if model not in PARAMETERS:
        raise ValueError(
            f"{where}: model {model} is not of OpenCV's; undistort the pictures with COLMAP's image_undistorter and "
            f"import its model, or calibrate with one of {', '.join(PARAMETERS)}"
        )
    if len(parameters) != PARAMETERS[model]:
        raise ValueError(f"{where}: model {model} has {PARAMETERS[model]} parameters, got {len(parameters)}")
    if not np.isfinite(parameters).all():
        raise ValueError(f"{where}: a parameter is not finite")
    focal = 1 if model in ONE_FOCAL_LENGTH else 2
    fx, fy, cx, cy = parameters[0], parameters[focal - 1], parameters[focal], parameters[focal + 1]
    rest = parameters[focal + 2 :]
    if len(rest) in (1, 2):  # k1 [k2]
        rest = np.concatenate([rest, np.zeros(4 - len(rest))])
    return Lens(size, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion(rest))


def _picture(where: str, quat: np.ndarray, T: np.ndarray, lens: int, name: str) -> Picture:
    if not (np.isfinite(quat).all() and np.isfinite(T).all() and np.linalg.norm(quat) > 0.5):
        raise ValueError(
            f"{where}: '{name}': rotation {quat.tolist()} and translation {T.tolist()} are no pose"
        )
    return Picture(Rotation.from_quat(np.roll(quat, -1)).as_matrix(), T, lens, name)


def _binary_lenses(path: Path) -> Iterator[tuple[int, Lens]]:
    data = path.read_bytes()
    (count,), place = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", data, place)
        where = f"{path}: camera {number}"
        if model not in MODELS:
            _lens(where, OTHER_MODELS.get(model, f"number {model}"), (0, 0), np.zeros(0))
        name, parameters = MODELS[model]
        numbers = np.array(struct.unpack_from(f"<{parameters}d", data, place + 24))
        place += 24 + 8 * parameters
        yield number, _lens(where, name, (width, height), numbers)


def _binary_pictures(path: Path) -> Iterator[Picture]:
    data = path.read_bytes()
    (count,), place = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, *pose, lens = struct.unpack_from("<i7di", data, place)
        place += 64
        end = data.find(b"\0", place)
        if end < 0:
            raise struct.error
        name = data[place:end].decode(errors="replace")
        (points,) = struct.unpack_from("<Q", data, end + 1)
        place = end + 9 + 24 * points
        if place > len(data):
            raise struct.error
        yield _picture(f"{path}: image {number}", np.array(pose[:4]), np.array(pose[4:]), lens, name)


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) without comments; empty lines stay, since a picture may have no points."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if not line.startswith("#")]


def _text_lenses(path: Path) -> Iterator[tuple[int, Lens]]:
    for line, text in _lines(path):
        words = text.split()
        if not words:
            continue
        where = f"{path}: line {line}"
        if len(words) < 5:
            raise ValueError(f"{where} needs CAMERA_ID MODEL WIDTH HEIGHT PARAMS, got '{text[:40]}'")
        try:
            number, width, height = int(words[0]), int(words[2]), int(words[3])
            parameters = np.array([float(word) for word in words[4:]])
        except ValueError:
            raise ValueError(f"{where}: '{text[:60]}' holds something that is no number") from None
        yield number, _lens(where, words[1], (width, height), parameters)


def _text_pictures(path: Path) -> Iterator[Picture]:
    lines = _lines(path)
    while lines and not lines[0][1].strip():
        lines.pop(0)
    for line, text in lines[::2]:  # a picture's points are in the line below it
        words = text.split(maxsplit=9)
        if not words:
            continue
        where = f"{path}: line {line}"
        if len(words) < 10:
            raise ValueError(
                f"{where} needs IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got '{text[:40]}'; a line of points "
                "(perhaps empty) follows each"
            )
        try:
            pose, lens = np.array([float(word) for word in words[1:8]]), int(words[8])
        except ValueError:
            raise ValueError(f"{where}: '{text[:60]}' holds something that is no number") from None
        yield _picture(where, pose[:4], pose[4:], lens, words[9].strip())
