"""Videos or pictures of calibrated cameras -> numbered pictures taken at common times, and the cameras at their size.

Data path: Recording of each camera (recordings.py) -> CommonTimes (common_times.py) -> PictureWriter
(picture_writer.py), cameras side by side -> OUT/images/CAM/%08d.jpg, OUT/calibration.json, OUT/footage.json -> Footage.

OUT appears whole or not at all; the recordings are only read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from mmlphuman.capture.calibration import calibration_content, read_json_calibration
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.picture_names import find_picture
from mmlphuman.files import atomic_folder, free_folder
from mmlphuman.fitting.common_times import times_of_pictures, times_of_videos
from mmlphuman.fitting.picture_size import PictureSize
from mmlphuman.fitting.picture_writer import PictureWriter
from mmlphuman.fitting.recordings import Recording
from mmlphuman.fitting.video import read_track
from mmlphuman.json_file import read_json
from mmlphuman.resources import available_cores, in_threads


@dataclass(frozen=True)
class Footage:
    """What has been extracted: the pictures of frame f are images/CAM/{f:08d}.jpg (or .png) below `folder`."""

    folder: Path
    cameras: tuple[CalibratedCamera, ...]  # V, with image_size, at the pictures' scale
    frames: int
    rate: float | None  # frames a second; None for pictures
    notes: tuple[str, ...]

    def image(self, camera: int, frame: int) -> Path:
        expected = self.folder / "images" / self.cameras[camera].name / f"{frame:08d}.jpg"
        return find_picture(expected) or expected


def read_footage(folder: str | Path) -> Footage:
    """What `extract_footage` has left in `folder`. Raises FileNotFoundError or ValueError."""
    folder = Path(folder)
    about = read_json(folder / "footage.json")
    cameras = read_json_calibration(folder / "calibration.json")
    if not isinstance(about, dict) or not isinstance(about.get("frames"), int) or about["frames"] < 1:
        raise ValueError(f"{folder / 'footage.json'}: 'frames' must be a positive number")
    rate = about.get("rate")
    return Footage(
        folder,
        cameras,
        about["frames"],
        float(rate) if isinstance(rate, int | float) else None,
        tuple(str(note) for note in about.get("notes") or ()),
    )


def extract_footage(
    recordings: Sequence[Recording],
    out: str | Path,
    frames: slice = slice(None),  # noqa: B008  slices do not change
    scale: float = 1.0,
    notes: Sequence[str] = (),
    copy: bool = False,
    more_files: Mapping[str, object] = MappingProxyType({}),
) -> Footage:
    """Writes the new folder `out`. frames: which of the common times; scale: of the pictures, at most 1; more_files:
    what else is to be in it, name -> JSON.

    Pictures that exist are linked where nothing has to be changed (copy: copied). Raises ValueError for what cannot be
    used: sizes that are not the calibrated ones, damaged videos, a range without frames.
    """
    out = free_folder(out, "--out")
    if not 0 < scale <= 1:
        raise ValueError(f"scale {scale:g}: above 0 and at most 1 is possible")
    names = [recording.camera.name for recording in recordings]
    videos = [recording.video for recording in recordings if recording.video is not None]
    if videos and len(videos) < len(recordings):
        raise ValueError("some cameras have videos and others pictures; give videos or pictures of all")
    tracks = []
    if videos:
        with ThreadPoolExecutor(available_cores()) as pool:
            tracks = list(pool.map(read_track, videos))
        times = times_of_videos(names, tracks, frames)
    else:
        times = times_of_pictures(names, [len(recording.pictures) for recording in recordings], frames)
    count = len(times.numbers[0])
    with atomic_folder(out) as folder:
        with tqdm(total=count * len(recordings), desc="pictures", unit="picture", mininterval=2) as bar:

            def extract(index: int, check: Callable[[], None]) -> PictureSize:
                def step() -> None:
                    check()
                    bar.update()

                target = folder / "images" / names[index]
                target.mkdir(parents=True)
                writer = PictureWriter(recordings[index], target, scale, copy)
                if tracks:
                    return writer.write_video(tracks[index], times.numbers[index], step)
                return writer.write_pictures(times.numbers[index], step)

            sizes = in_threads(extract, len(recordings))
        cameras = tuple(size.camera for size in sizes)
        all_notes = [*notes, *times.notes]
        for size in sizes:  # what holds for several cameras is said once
            all_notes += [note for note in size.notes if note not in all_notes]
        about = {"frames": count, "rate": times.rate, "notes": all_notes}
        files = {"calibration.json": calibration_content(cameras), "footage.json": about}
        for name, content in (files | dict(more_files)).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return Footage(out, cameras, count, times.rate, tuple(all_notes))
