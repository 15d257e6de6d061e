"""EasyMocap's intri.yml and extri.yml -> Calibration.

OpenCV's YAML: `names`, a list; for each name K_NAME (3, 3), dist_NAME, perhaps H_NAME and W_NAME in intri.yml; R_NAME,
a rotation vector, or Rot_NAME (3, 3), and T_NAME in extri.yml. World to camera, metres, pixel centres at whole numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from mmlphuman.calibrations.calibration import Calibration, opencv_camera
from mmlphuman.capture.layout import DISTORTION_COUNTS
from mmlphuman.json_file import numbers

MAX_BYTES = 2_000_000


def read_easymocap(path: Path) -> Calibration:
    """path: either of the two files."""
    intri, extri = (_read(path.with_name(name)) for name in ("intri.yml", "extri.yml"))
    files = [path.with_name(name) for name in ("intri.yml", "extri.yml")]
    names = intri.get("names", extri.get("names"))
    if not isinstance(names, list) or not names:
        raise ValueError(f"{files[0]}: 'names', the list of cameras, is missing")
    cameras = []
    for name in map(str, names):
        dist_name = f"dist_{name}" if f"dist_{name}" in intri else f"D_{name}"
        dist = _matrix(files[0], intri, dist_name, DISTORTION_COUNTS) if dist_name in intri else ()
        size = None
        if f"W_{name}" in intri and f"H_{name}" in intri:
            sides = [_number(intri[f"{side}_{name}"]) for side in "WH"]
            width, height = numbers(str(files[0]), {f"W_{name}, H_{name}": sides}, f"W_{name}, H_{name}", 2)
            size = (int(width), int(height)) if min(width, height) > 0 else None
        if f"Rot_{name}" in extri:
            R = _matrix(files[1], extri, f"Rot_{name}", 9).reshape(3, 3)
        else:
            R = Rotation.from_rotvec(_matrix(files[1], extri, f"R_{name}", 3)).as_matrix()
        K, T = (
            _matrix(files[0], intri, f"K_{name}", 9).reshape(3, 3),
            _matrix(files[1], extri, f"T_{name}", 3),
        )
        cameras.append(opencv_camera(name, K, R, T, dist, size))
    return Calibration(tuple(cameras), "EasyMocap")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; EasyMocap's cameras are in intri.yml and extri.yml")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, too many for a file of cameras")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        # OpenCV's first line, %YAML:1.0, is not YAML's own.
        text = "\n".join(line for line in lines if not line.startswith("%YAML"))
        content = yaml.load(text, yaml.BaseLoader)  # every value stays the text that it is: "01" no number
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as OpenCV's YAML ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold 'names' and the cameras' matrices")
    return content


def _matrix(path: Path, content: dict, name: str, count) -> np.ndarray:
    """The numbers of a matrix."""
    if name not in content:
        raise ValueError(f"{path}: {name} is missing")
    matrix = content[name]
    if not isinstance(matrix, dict) or not isinstance(matrix.get("data"), list):
        raise ValueError(f"{path}: {name} must be a matrix (rows, cols, dt, data)")
    data = [_number(value) for value in matrix["data"][:100]]
    return numbers(str(path), {name: data}, name, count)


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else "no number"
    except ValueError:
        return value
