"""Calibrations in the forms that people have, told apart by their files' names -> Calibration.

Data path: a file or folder -> read_calibration -> one thin module for each form -> Calibration. Nothing is unpickled,
and no torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.calibrations.colmap import read_colmap
from mmlphuman.calibrations.human_data_sets import read_mvhumannet, read_zju
from mmlphuman.calibrations.motion_capture import read_qualisys, read_toml
from mmlphuman.calibrations.transforms_json import read_transforms
from mmlphuman.capture.actorshq import read_csv_calibration
from mmlphuman.capture.calibration import read_json_calibration
from mmlphuman.capture.formats import READERS
from mmlphuman.capture.layout import check_cameras

KNOWN = (
    "COLMAP (cameras and images, .bin or .txt), EasyMocap (intri.yml, extri.yml), transforms.json, MVHumanNet "
    "(camera_intrinsics.json, camera_extrinsics.json, camera_scale.pkl), ZJU-MoCap (annots.npy), Qualisys (.qca.txt), "
    "TOML of Pose2Sim, caliscope or anipose, and calibration_full.json, calibration.json or calibration.csv"
)


def read_calibration(path: str | Path) -> Calibration:
    """Reads a calibration of any known form: a file of it, or the folder that it lies in.

    Raises FileNotFoundError, or ValueError that names file, camera, field and value.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder of a calibration")
    read = _reader(path.name)
    if read is None:
        raise ValueError(f"{path}: no calibration that is known here; known are {KNOWN}")
    calibration = read(path)
    check_cameras(path, calibration.cameras)
    return calibration


def _file_in(folder: Path) -> Path:
    """The one calibration in a folder, or where COLMAP puts its models below it."""
    for place in (folder, folder / "sparse" / "0", folder / "sparse", folder / "colmap" / "sparse" / "0"):
        found = [file for file in sorted(place.iterdir()) if _is_main_file(file)] if place.is_dir() else []
        if len(found) > 1 and not all(_reader(file.name) is read_colmap for file in found):
            names = ", ".join(file.name for file in found)
            raise ValueError(f"{place}: holds several calibrations, {names}; name the one that is meant")
        if found:
            return found[0]  # of COLMAP's two the binary one, with all digits
    raise ValueError(f"{folder}: no calibration that is known here; known are {KNOWN}")


def _is_main_file(file: Path) -> bool:
    """The one of a form's files that it is told by in a folder."""
    if file.suffix == ".toml":  # projects have others
        return "calib" in file.name.lower() or file.name == "camera_array.toml"
    beside = ("cameras.bin", "cameras.txt", "intri.yml", "camera_intrinsics.json")
    if _reader(file.name) in (_read_json, _read_csv):
        return file.name in READERS
    return file.is_file() and file.name not in beside and _reader(file.name) is not None


def _reader(name: str) -> Callable[[Path], Calibration] | None:
    """By a file's name."""
    if name in ("cameras.bin", "images.bin", "cameras.txt", "images.txt"):
        return read_colmap
    if name in ("intri.yml", "extri.yml"):
        return _read_easymocap
    if name in ("camera_intrinsics.json", "camera_extrinsics.json"):
        return read_mvhumannet
    if name == "annots.npy":
        return read_zju
    if name.startswith("transforms") and name.endswith(".json"):
        return read_transforms
    if name.endswith(".qca.txt"):
        return read_qualisys
    by_ending = {".toml": read_toml, ".json": _read_json, ".csv": _read_csv}
    return by_ending.get(Path(name).suffix)


def _read_easymocap(path: Path) -> Calibration:
    from mmlphuman.calibrations.easymocap import read_easymocap  # a viewer's machine has no YAML

    return read_easymocap(path)


def _read_json(path: Path) -> Calibration:
    return Calibration(read_json_calibration(path), path.name)


def _read_csv(path: Path) -> Calibration:
    return Calibration(read_csv_calibration(path), path.name)
