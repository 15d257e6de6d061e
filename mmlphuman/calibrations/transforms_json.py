"""transforms.json of NeRF programs -> Calibration.

{"fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2", "k3" or "camera_angle_x" (radians), "frames":
[{"file_path", "transform_matrix": 4 x 4, the same fields over those of the file}]}. Camera to world, x right, y up,
looking along -z; pixel centres at +0.5. A camera of a capture is a folder of pictures (or, of pictures side by side,
one picture).
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import numpy as np

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.capture.layout import ROTATION_TOLERANCE, CalibratedCamera, distortion
from mmlphuman.capture.picture_names import find_picture, is_picture
from mmlphuman.json_file import numbers, read_json

FLIP = np.diag([1.0, -1.0, -1.0])  # y up, looking along -z <-> y down, looking along +z
LENS = ("k1", "k2", "p1", "p2", "k3")
SAME_POSE = 1e-6


def read_transforms(path: Path) -> Calibration:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
        raise ValueError(f"{path}: must hold 'frames', a list of cameras with file_path and transform_matrix")
    entries = []
    for position, frame in enumerate(content["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path", ""), str):
            raise ValueError(
                f"{path}: frame {position} must be an object with file_path and transform_matrix"
            )
        entries.append((position, content | frame, PurePosixPath(frame.get("file_path", f"{position:03d}"))))
    each = len({file.parent for _, _, file in entries}) == 1
    found: dict[str, list[tuple[int, dict, PurePosixPath]]] = {}
    for entry in entries:
        file = entry[2]
        found.setdefault(_stem(file) if each else file.parent.name, []).append(entry)
    cameras = []
    for name, of_camera in found.items():
        poses = [_pose(f"{path}: frame {position}", entry) for position, entry, _ in of_camera]
        if any(np.abs(pose - poses[0]).max() > SAME_POSE for pose in poses):
            raise ValueError(
                f"{path}: camera '{name}' has several poses; cameras of a capture stand still: give each a folder of "
                "its own (file_path)"
            )
        position, entry, file = of_camera[0]
        cameras.append(_camera(path, f"{path}: frame {position}", name, entry, file, poses[0]))
    first = entries[0][2]
    folder = first.parent if each else first.parent.parent
    return Calibration(tuple(cameras), path.name, is_metric=False, image_folder=str(folder))


def _stem(file: PurePosixPath) -> str:
    return file.stem if is_picture(file.name) else file.name  # some leave the ending out


def _pose(where: str, entry: dict) -> np.ndarray:
    """(4, 4) world to camera, x right, y down."""
    c2w = numbers(where, entry, "transform_matrix", 16).reshape(4, 4)
    rotation = c2w[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise ValueError(f"{where}: transform_matrix is not rigid: its upper left 3 x 3 must be a rotation")
    w2c = np.eye(4)
    w2c[:3, :3] = FLIP @ rotation.T
    w2c[:3, 3] = -w2c[:3, :3] @ c2w[:3, 3]
    return w2c


def _camera(
    path: Path, where: str, name: str, entry: dict, file: PurePosixPath, w2c: np.ndarray
) -> CalibratedCamera:
    model = entry.get("camera_model", "OPENCV")
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE") or entry.get("is_fisheye"):
        raise ValueError(
            f"{where}: camera_model {model!r} is not known; undistort the pictures to OPENCV or PINHOLE"
        )
    lens = [_optional(where, entry, field, 0.0) for field in LENS]
    if _optional(where, entry, "k4", 0.0):
        raise ValueError(f"{where}: k4 is not 0, which is of a fisheye lens; undistort the pictures")
    width, height = (_optional(where, entry, side, math.nan) for side in ("w", "h"))
    if not (math.isfinite(width) and math.isfinite(height)):
        width, height = _size_of(where, path.parent / file)
    if "fl_x" in entry or "fl_y" in entry:
        fx = float(numbers(where, entry, "fl_x" if "fl_x" in entry else "fl_y", 1)[0])
        fy = _optional(where, entry, "fl_y", fx)
    else:
        angle = float(numbers(where, entry, "camera_angle_x", 1)[0])
        if not 0 < angle < math.pi:
            raise ValueError(f"{where}: camera_angle_x is {angle:g}; radians between 0 and pi are needed")
        fx = fy = width / (2 * math.tan(angle / 2))
    cx, cy = _optional(where, entry, "cx", width / 2), _optional(where, entry, "cy", height / 2)
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    size = int(width), int(height)
    return CalibratedCamera(name, K, w2c[:3, :3], w2c[:3, 3], distortion(lens), size, half_pixel=True)


def _optional(where: str, entry: dict, field: str, default: float) -> float:
    return default if entry.get(field) is None else float(numbers(where, entry, field, 1)[0])


def _size_of(where: str, file: Path) -> tuple[float, float]:
    """Of the picture that is named."""
    found = find_picture(file if is_picture(file.name) else file.with_name(file.name + ".png"))
    if found is None:
        raise ValueError(f"{where}: w and h are missing, and so is the picture {file} that would tell")
    import cv2

    from mmlphuman.capture.images import decode_image

    height, width = decode_image(found, cv2.IMREAD_GRAYSCALE).shape
    return width, height
