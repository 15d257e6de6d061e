"""Which video, or which folder of pictures, is a calibrated camera's.

Data path: SOURCE/cam01.mp4 ... or SOURCE/cam01/0001.jpg ..., Calibration -> find_recordings -> a Recording of each
camera. The source is only read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.capture.formats import VIDEO_ENDINGS
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.picture_names import is_picture
from mmlphuman.preparation.source_pictures import IMAGE_FOLDERS, frames_of
from mmlphuman.text import cut_ranges

FEWEST_CAMERAS = 2
FOLDERS = ("videos", ".", *(name for name in IMAGE_FOLDERS if name != "."))


@dataclass(frozen=True)
class Recording:
    """What one camera has recorded."""

    camera: CalibratedCamera
    video: Path | None = None
    pictures: tuple[Path, ...] = ()  # in order, where it is no video

    @property
    def place(self) -> Path:
        return self.video or self.pictures[0].parent


def find_recordings(root: str | Path, calibration: Calibration) -> tuple[list[Recording], list[str]]:
    """The recordings in a folder for the cameras of a calibration, in its order; and notes.

    A video is a camera's if its name (without ending) is the camera's, or holds it; if no name fits and there are as
    many videos as cameras, they are taken in the order of their names. The same for folders of pictures. Cameras
    without a recording are left out, with a note. Raises FileNotFoundError without the folder, ValueError where fewer
    than two cameras are left.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of videos or pictures")
    for name in FOLDERS:
        found = _videos_or_folders(root / name)
        if found:
            break
    else:
        raise ValueError(
            f"{root}: holds no video ({', '.join(VIDEO_ENDINGS[:4])}, ...) and no folder of pictures for each camera"
        )
    cameras = calibration.cameras
    by_camera, notes = _match([camera.name for camera in cameras], found)
    missing = [camera.name for camera in cameras if camera.name not in by_camera]
    if missing and by_camera:
        notes.append(
            f"no recording of {', '.join(missing)} in {root}: left out; files are named as their cameras"
        )
    recordings = [
        _recording(camera, by_camera[camera.name]) for camera in cameras if camera.name in by_camera
    ]
    if len(recordings) < FEWEST_CAMERAS:
        names = ", ".join(path.name for path in found[:4]) + ", ..." * (len(found) > 4)
        raise ValueError(
            f"{root}: {len(recordings)} of the calibration's cameras ({', '.join(c.name for c in cameras[:4])}"
            f"{', ...' * (len(cameras) > 4)}) have a recording ({names}), at least {FEWEST_CAMERAS} are needed; name "
            "videos or folders as their cameras"
        )
    return recordings, notes


def _videos_or_folders(folder: Path) -> list[Path]:
    """Videos of a folder; if there is none, its folders that hold pictures. In the order of their names."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir(), key=lambda path: _natural(path.name))
    videos = [path for path in entries if path.is_file() and path.suffix.lower() in VIDEO_ENDINGS]
    return videos or [
        path for path in entries if path.is_dir() and any(is_picture(child.name) for child in path.iterdir())
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """So that cam2 comes before cam10."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _match(names: Sequence[str], found: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    exact = {path.stem if path.is_file() else path.name: path for path in found}
    matched = {name: exact[name] for name in names if name in exact}
    if not matched:  # GX010012_cam1.mp4: each holds one camera's name, and each name is in one
        holding = {name: [path for path in found if name.lower() in path.stem.lower()] for name in names}
        unique = [paths[0] for paths in holding.values() if len(paths) == 1]
        if len(unique) == len(set(unique)) and len(unique) == len(found):
            matched = {name: paths[0] for name, paths in holding.items() if len(paths) == 1}
    if matched:
        unused = [path.name for path in found if path not in matched.values()]
        return matched, [f"{', '.join(unused)}: of no calibrated camera, not used"] if unused else []
    if len(found) != len(names):
        return {}, []
    pairs = ", ".join(f"{path.name} is {name}" for name, path in zip(names, found, strict=True))
    return dict(zip(names, found, strict=True)), [
        f"no name is a camera's, they are taken in order: {pairs}; right?"
    ]


def _recording(camera: CalibratedCamera, place: Path) -> Recording:
    if place.is_file():
        return Recording(camera, video=place)
    found = frames_of(place, camera.name)
    _require_no_gap(place, list(found))
    return Recording(camera, pictures=tuple(found.values()))


def _require_no_gap(place: Path, numbers: Sequence[int]) -> None:
    """Pictures are taken in order: one that is missing would set all later ones of this camera a frame too early.

    Numbers may go up in equal steps; where most steps are unequal they are times, not frames."""
    steps = np.diff(numbers)
    if not len(steps):
        return
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[counts.argmax()])
    wide = np.flatnonzero((steps > usual) & (steps % usual == 0)).tolist()
    if wide and 2 * counts.max() > len(steps):
        lost = [n for gap in wide for n in range(numbers[gap] + usual, numbers[gap + 1], usual)]
        raise ValueError(
            f"{place}: no pictures of frames {cut_ranges(lost)}, later ones would count as frames too early; put a "
            "neighbour in their place, or take those numbers out of all cameras' folders and number anew"
        )
