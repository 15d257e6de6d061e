"""ActorsHQ: its CSV calibration, and where its captures keep images and masks.

One row a camera: name | w, h pixels | r, camera-to-world rotation as axis-angle in radians | t, camera centre in
metres | fx, px fractions of w; fy, py of h. The lenses are free of distortion.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.capture.layout import CalibratedCamera, CaptureLayout, check_cameras, distortion

CALIBRATION_FILE = "calibration.csv"
EDGE_RADIUS = 4  # pixels, as published
NUMBER_COLUMNS = ("w", "h", "rx", "ry", "rz", "tx", "ty", "tz", "fx", "fy", "px", "py")
COLUMNS = ("name", *NUMBER_COLUMNS)
FULL_TURN = 2 * math.pi * (1 + 1e-6)  # radians; a longer axis-angle is one in degrees


def read_actorshq(root: Path) -> CaptureLayout:
    """The layout of an ActorsHQ capture folder. Raises ValueError for an unusable calibration."""
    return CaptureLayout(
        root=root,
        cameras=read_csv_calibration(root / CALIBRATION_FILE),
        image_pattern="rgbs/{camera}/{camera}_rgb{frame:06d}.jpg",
        mask_pattern="masks/{camera}/{camera}_mask{frame:06d}.png",
        edge_radius=EDGE_RADIUS,
    )


def read_csv_calibration(path: Path) -> tuple[CalibratedCamera, ...]:
    """Cameras in the order of the file. Raises ValueError naming file, line and column."""
    (_, header), *rows = _lines(path)
    header = [cell.strip() for cell in header]
    for column in COLUMNS:
        if header.count(column) != 1:
            found = "is missing" if column not in header else "appears twice"
            raise ValueError(f"{path}: column '{column}' {found}; needed are {','.join(COLUMNS)}")
    if not rows:
        raise ValueError(f"{path}: holds no camera below its header")
    cameras = []
    for line, cells in rows:
        if not "".join(cells).strip():
            raise ValueError(
                f"{path}: line {line} is empty; a camera id is a position in this file: remove it"
            )
        if len(cells) != len(header):
            raise ValueError(f"{path}: line {line} has {len(cells)} cells but the header has {len(header)}")
        cameras.append(_camera(f"{path}: line {line}", dict(zip(header, cells, strict=True))))
    return check_cameras(path, cameras)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells), blank lines at the end left out, as editors and spreadsheets add them."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as CSV ({error})") from error
    while lines and not "".join(lines[-1][1]).strip():
        lines.pop()
    if not lines:
        raise ValueError(
            f"{path}: is empty; needed is a header {','.join(COLUMNS)} and a row for each camera"
        )
    return lines


def _camera(where: str, row: dict[str, str]) -> CalibratedCamera:
    name = row["name"].strip()
    where = f"{where}, camera '{name}'"
    values = {column: _number(where, column, row[column]) for column in NUMBER_COLUMNS}
    for column in ("w", "h"):
        if not values[column].is_integer():
            raise ValueError(f"{where}: {column} is {values[column]}; a whole number of pixels is needed")
    width, height = int(values["w"]), int(values["h"])
    axis_angle = np.array([values["rx"], values["ry"], values["rz"]])
    center = np.array([values["tx"], values["ty"], values["tz"]])
    if np.linalg.norm(axis_angle) > FULL_TURN:
        raise ValueError(f"{where}: rx, ry, rz turn by more than a full turn; they are needed in radians")
    rotation = Rotation.from_rotvec(axis_angle).as_matrix().T
    return CalibratedCamera(
        name=name,
        K=np.array(
            [
                [values["fx"] * width, 0, values["px"] * width],
                [0, values["fy"] * height, values["py"] * height],
                [0, 0, 1],
            ]
        ),
        R=rotation,
        T=-rotation @ center,
        dist=distortion(),
        image_size=(width, height),
    )


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} must be a number, got {text[:40]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: {column} is {text.strip()}, a finite number is needed")
    return value
