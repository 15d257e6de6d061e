"""MVHumanNet's and ZJU-MoCap's cameras -> Calibration.

MVHumanNet: camera_intrinsics.json {"intrinsics": 3 x 3, "dist": []} of all cameras, camera_extrinsics.json
{"1_NAME.png": {"rotation": 3 x 3, "translation": 3}}, world to camera, millimetres, and camera_scale.pkl, a number that
brings them to the size of the body fits. The intrinsics are those of the full picture, whose middle is the principal
point; the pictures handed out are smaller.
ZJU-MoCap: annots.npy, a pickle of {"cams": {"K", "D", "R", "T"}, a list each, "ims": [{"ims": [a file a camera]}, ...
a frame]}; world to camera, millimetres. Both are OpenCV's: pixel centres at whole numbers.
"""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from mmlphuman.calibrations.calibration import MILLIMETRES, Calibration, opencv_camera
from mmlphuman.calibrations.plain_pickle import read_plain_pickle
from mmlphuman.capture.layout import DISTORTION_COUNTS
from mmlphuman.json_file import numbers, read_json

SCALES = (0.1, 10.0)  # of camera_scale.pkl; the published ones are 100 / 65 and 120 / 65


def read_mvhumannet(path: Path) -> Calibration:
    """path: either of the JSON files; the other one and camera_scale.pkl lie beside it."""
    intrinsics_path, extrinsics_path = (
        path.with_name(f"camera_{kind}.json") for kind in ("intrinsics", "extrinsics")
    )
    intrinsics, extrinsics = read_json(intrinsics_path), read_json(extrinsics_path)
    if not isinstance(intrinsics, dict):
        raise ValueError(f"{intrinsics_path}: must hold an object with intrinsics")
    if not isinstance(extrinsics, dict) or not extrinsics:
        raise ValueError(f"{extrinsics_path}: must hold an object with an entry for each camera")
    scale_path = path.with_name("camera_scale.pkl")
    scale = read_plain_pickle(scale_path)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not SCALES[0] <= scale <= SCALES[1]:
        raise ValueError(f"{scale_path}: must hold a number from {SCALES[0]:g} to {SCALES[1]:g}")
    K = numbers(str(intrinsics_path), intrinsics, "intrinsics", 9).reshape(3, 3)
    dist = (
        numbers(str(intrinsics_path), intrinsics, "dist", DISTORTION_COUNTS) if intrinsics.get("dist") else ()
    )
    width, height = (round(2 * (center + 0.5)) for center in K[:2, 2])
    cameras = []
    for key, entry in extrinsics.items():
        where = f"{extrinsics_path}: camera '{key}'"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} must be an object with rotation and translation")
        R = numbers(where, entry, "rotation", 9).reshape(3, 3)
        T = scale * MILLIMETRES * numbers(where, entry, "translation", 3)
        name = PurePath(key).name.split(".")[0].split("_")[-1]
        cameras.append(opencv_camera(name, K, R, T, dist, (width, height)))
    return Calibration(tuple(cameras), "MVHumanNet")


def read_zju(path: Path) -> Calibration:
    """Raises ValueError for a pickle of anything but plain data, with the lines that convert what is trusted."""
    try:
        content = read_plain_pickle(path)
    except ValueError as error:
        raise ValueError(
            f"{error}. If you trust the file, write its cameras as calibration.json with the lines in docs/cameras.md"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("cams"), dict):
        raise ValueError(f"{path}: must hold an object with 'cams'")
    cams = content["cams"]
    columns = {}
    for field, least in (("K", 9), ("R", 9), ("T", 3), ("D", 0)):
        values = cams.get(field, [] if field == "D" else None)
        if not isinstance(values, list | np.ndarray) or (least and len(values) == 0):
            raise ValueError(f"{path}: cams: {field} is missing")
        columns[field] = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    files = _files(path, content.get("ims", []), len(columns["K"]))
    cameras = []
    for camera in range(len(columns["K"])):
        where = f"{path}: camera {camera}"
        entry = {field: values[camera] for field, values in columns.items() if camera < len(values)}
        K, R = (numbers(where, entry, field, 9).reshape(3, 3) for field in "KR")
        dist = numbers(where, entry, "D", DISTORTION_COUNTS) if "D" in entry else ()
        name = _folder(files[camera]) or f"{camera:02d}"
        cameras.append(opencv_camera(name, K, R, MILLIMETRES * numbers(where, entry, "T", 3), dist, None))
    return Calibration(tuple(cameras), "ZJU-MoCap", pictures=tuple(files) if any(files) else ())


def _files(path: Path, frames: object, cameras: int) -> list[tuple[str, ...]]:
    """For each camera its file in each frame; empty where none are listed."""
    if not isinstance(frames, list):
        raise ValueError(f"{path}: 'ims' must be a list of frames")
    listed: list[list[str]] = [[] for _ in range(cameras)]
    for number, frame in enumerate(frames):
        of_frame = frame.get("ims") if isinstance(frame, dict) else None
        of_frame = of_frame.tolist() if isinstance(of_frame, np.ndarray) else of_frame
        if (
            not isinstance(of_frame, list)
            or len(of_frame) != cameras
            or not all(isinstance(f, str) for f in of_frame)
        ):
            raise ValueError(
                f"{path}: frame {number} of 'ims' must name a file for each of {cameras} cameras"
            )
        for files, file in zip(listed, of_frame, strict=True):
            files.append(file)
    return [tuple(files) for files in listed]


def _folder(files: tuple[str, ...]) -> str:
    folder = PurePosixPath(files[0]).parent.name if files else ""
    return folder if folder not in ("", ".") else ""
