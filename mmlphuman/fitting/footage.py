"""Videos or pictures of calibrated cameras -> numbered pictures taken at common times, and the cameras at their size.

Data path: SOURCE/cam01.mp4 ... or SOURCE/cam01/0001.jpg ..., Calibration -> find_footage -> extract_footage ->
OUT/images/CAM/%08d.jpg, OUT/calibration.json, OUT/footage.json -> Footage.

Videos are taken to begin together. Frame f is at f / rate after each one's beginning, rate being that of the slowest
camera; of each video the frame nearest to that time is its picture. Pictures lie upright as players show them, unless
only the stored way of lying has the calibrated size. OUT appears whole or not at all; the source is only read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.capture.calibration import calibration_content, read_json_calibration
from mmlphuman.capture.formats import VIDEO_ENDINGS
from mmlphuman.capture.images import decode_image
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.picture_names import find_picture, is_picture
from mmlphuman.files import atomic_folder, free_folder, link_or_copy
from mmlphuman.json_file import read_json
from mmlphuman.preparation.source_pictures import IMAGE_FOLDERS, frames_of
from mmlphuman.resources import available_cores, in_threads
from mmlphuman.text import cut_ranges, one_line

JPEG_QUALITY = 95
ASPECT_TOLERANCE = 0.01  # of the two axes' scales, between the calibrated size and the pictures'
CODEC_BLOCK = 16  # pixels: codecs fill the last block up, and some programs leave the filling on
UNEVEN = 0.25  # of a frame's time: gaps that differ by more are a rate that varies
BT601, BT709, UNKNOWN_COLOURS = 5, 1, 2  # H.273's numbers as PyAV has them
HIGH_DEFINITION = 720  # lines: from there on videos that do not tell have the colours of BT.709
FEWEST_CAMERAS = 2
FOLDERS = ("videos", ".", *(name for name in IMAGE_FOLDERS if name != "."))


@dataclass(frozen=True)
class Source:
    """One camera's recording."""

    camera: CalibratedCamera
    video: Path | None = None
    pictures: tuple[Path, ...] = ()  # in order, where it is no video

    @property
    def place(self) -> Path:
        return self.video or self.pictures[0].parent


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


def find_footage(root: str | Path, calibration: Calibration) -> tuple[list[Source], list[str]]:
    """The recordings in a folder for the cameras of a calibration, in its order; and notes.

    A video is a camera's if its name (without ending) is the camera's, or holds it; if no name fits and there are as
    many videos as cameras, they are taken in the order of their names. The same for folders of pictures. Cameras
    without a recording are left out, with a note. Raises ValueError where fewer than two are left.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of videos or pictures")
    for name in FOLDERS:
        found = _recordings(root / name)
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
    sources = [_source(camera, by_camera[camera.name]) for camera in cameras if camera.name in by_camera]
    if len(sources) < FEWEST_CAMERAS:
        names = ", ".join(path.name for path in found[:4]) + ", ..." * (len(found) > 4)
        raise ValueError(
            f"{root}: {len(sources)} of the calibration's cameras ({', '.join(c.name for c in cameras[:4])}"
            f"{', ...' * (len(cameras) > 4)}) have a recording ({names}), at least {FEWEST_CAMERAS} are needed; name "
            "videos or folders as their cameras"
        )
    return sources, notes


def _recordings(folder: Path) -> list[Path]:
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


def _source(camera: CalibratedCamera, place: Path) -> Source:
    if place.is_file():
        return Source(camera, video=place)
    found = frames_of(place, camera.name)
    _require_no_gap(place, list(found))
    return Source(camera, pictures=tuple(found.values()))


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


def frame_range(text: str) -> slice:
    """`first:last:step` (each may be left out, last is taken along) or one number. Raises ValueError."""
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = [-1]
    if len(numbers) > 3 or any(number is not None and number < 0 for number in numbers):
        raise ValueError(f"--frames {text}: first:last:step is needed, such as 0:99 or 10:200:2")
    first, last, step = (numbers * 2 if len(numbers) == 1 else numbers + [None])[:2] + [
        numbers[2] if len(numbers) == 3 else None
    ]
    first, step = first or 0, 1 if step is None else step
    if step < 1 or (last is not None and last < first):
        raise ValueError(f"--frames {text}: holds no frame; first:last:step is needed, such as 0:99")
    return slice(first, None if last is None else last + 1, step)


def extract_footage(
    sources: Sequence[Source],
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
    if len({source.video is None for source in sources}) > 1:
        raise ValueError("some cameras have videos and others pictures; give videos or pictures of all")
    all_notes = list(notes)
    if sources[0].video is not None:
        with ThreadPoolExecutor(available_cores()) as pool:
            tracks = list(pool.map(lambda source: _read_track(source.video), sources))
        wanted, rate, time_notes = _common_times(sources, tracks, frames)
        all_notes += time_notes
    else:
        tracks, rate = [None] * len(sources), None
        counts = [len(source.pictures) for source in sources]
        chosen = range(min(counts))[frames]
        if not chosen:
            raise ValueError(
                f"--frames: the pictures are {min(counts)} frames, 0 to {min(counts) - 1}; none is in the range"
            )
        wanted = [np.array(chosen)] * len(sources)
        all_notes += [*_length_note(sources, counts), *_range_note(frames, min(counts), len(chosen))]
    count = len(wanted[0])
    with atomic_folder(out) as folder:
        with tqdm(total=count * len(sources), desc="pictures", unit="picture", mininterval=2) as bar:

            def extract(index: int, check: Callable[[], None]) -> tuple[CalibratedCamera, list[str]]:
                def step() -> None:
                    check()
                    bar.update()

                writer = _Writer(sources[index], folder / "images" / sources[index].camera.name, scale, copy)
                track = tracks[index]
                if track is None:
                    writer.write_pictures(wanted[index], step)
                else:
                    writer.write_video(track, wanted[index], step)
                return writer.camera, writer.notes

            done = in_threads(extract, len(sources))
        for _, camera_notes in done:
            all_notes += [note for note in camera_notes if note not in all_notes]
        cameras = tuple(camera for camera, _ in done)
        about = {"frames": count, "rate": rate, "notes": all_notes}
        files = {"calibration.json": calibration_content(cameras), "footage.json": about}
        for name, content in (files | dict(more_files)).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return Footage(out, cameras, count, rate, tuple(all_notes))


@dataclass(frozen=True)
class _Track:
    """When a video's frames are shown."""

    times: np.ndarray  # (N,) seconds from its first frame on, rising
    stamps: np.ndarray | None  # (N,) the same as the file has it; None where it has none
    promised: int  # frames that its index tells of, 0 where there is none

    @property
    def rate(self) -> float:
        return 1 / float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0


def _open(path: Path) -> Any:
    import av  # here, so that those who have pictures need no decoder
    from av.error import FFmpegError

    try:
        container = av.open(str(path))
    except (FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable video ({one_line(error)}); was it copied whole?") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: holds no video")
    return container


def _read_track(path: Path | None) -> _Track:
    """From the packets, nothing is decoded."""
    assert path is not None
    from av.error import FFmpegError

    with _open(path) as container:
        stream = container.streams.video[0]
        stamps = []
        with suppress(FFmpegError):  # a cut file ends so; what is missing is told by those who need it
            for packet in container.demux(stream):
                stamps += [packet.pts] * bool(packet.size)
        base, rate, promised = stream.time_base, stream.average_rate, stream.frames
    if not stamps:
        raise ValueError(f"{path}: holds no frames; was it copied whole?")
    if any(stamp is None for stamp in stamps) or len(set(stamps)) < len(stamps):  # AVI tells a rate only
        return _Track(np.arange(len(stamps)) / float(rate or 25), None, promised)
    if promised > len(stamps) > 2:
        # Cut short: the last packet may be half there, and of those shown before it some may have come later.
        ordered = np.sort(np.array(stamps[:-1]))
        gaps = np.diff(ordered)
        whole = np.flatnonzero(gaps > 1.5 * np.median(gaps))
        ordered = ordered[: int(whole[0]) + 1] if len(whole) else ordered
    else:
        ordered = np.sort(np.array(stamps))
    return _Track((ordered - ordered[0]) * float(base), ordered, promised)


def _common_times(
    sources: Sequence[Source], tracks: Sequence[_Track], frames: slice
) -> tuple[list[np.ndarray], float, list[str]]:
    """For each camera which of its frames is the picture of each common time; the rate; notes."""
    for source, track in zip(sources, tracks, strict=True):
        if len(track.times) < 2:
            raise ValueError(
                f"{source.video}: has one frame only; a video is needed, or pictures of all cameras"
            )
    rates = np.array([track.rate for track in tracks])
    rate, notes = float(rates.min()), []
    # The last frame lasts as long as the others.
    lasts = [max(len(track.times), track.promised) for track in tracks]
    durations = [track.times[-1] + (promised - len(track.times) + 1) / track.rate
                 for track, promised in zip(tracks, lasts, strict=True)]  # fmt: skip
    if rates.max() / rates.min() > 1.01:
        each = ", ".join(
            f"{source.camera.name} {one:.4g}" for source, one in zip(sources, rates, strict=True)
        )
        notes.append(f"frames a second differ ({each}): pictures are taken at {rate:.4g} a second")
    count = max(1, round(min(durations) * rate))
    if any(abs(duration * rate - count) >= 0.5 for duration in durations):
        notes += _length_note(sources, [round(duration * rate) for duration in durations])
    chosen = range(count)[frames]
    if not chosen:
        raise ValueError(
            f"--frames: the videos have {count} common frames, 0 to {count - 1}; none is in the range"
        )
    notes += _range_note(frames, count, len(chosen))
    times = np.array(chosen) / rate
    wanted = []
    for source, track in zip(sources, tracks, strict=True):
        if times[-1] > track.times[-1] + 0.75 / track.rate:
            last = _last_whole(source.video, track)
            raise ValueError(
                f"{source.video}: is cut short after frame {last} of {track.promised}; copy it again, or use what is "
                f"there: --frames 0:{int((track.times[last] + 0.5 / track.rate) * rate)}"
            )
        after = np.clip(np.searchsorted(track.times, times), 1, len(track.times) - 1)
        nearer = times - track.times[after - 1] <= track.times[after] - times
        nearest = after - nearer
        wanted.append(nearest)
        gaps = np.diff(track.times)
        if np.abs(gaps * track.rate - 1).max() > UNEVEN:
            off = np.abs(track.times[nearest] - times)
            notes.append(
                f"{source.video}: its rate varies (frames last {1e3 * gaps.min():.0f} to {1e3 * gaps.max():.0f} ms); "
                f"the nearest frames are taken, up to {1e3 * off.max():.0f} ms off; set the camera to a constant rate"
            )
        if (repeated := int((np.diff(nearest) == 0).sum())) > 0:
            notes.append(
                f"{source.video}: {repeated} of its frames stand for two times, it has dropped frames"
            )
    return wanted, rate, notes


def _length_note(sources: Sequence[Source], counts: Sequence[int]) -> list[str]:
    if len(set(counts)) == 1:
        return []
    each = ", ".join(f"{source.camera.name} {count}" for source, count in zip(sources, counts, strict=True))
    return [
        f"lengths differ ({each} frames): the first {min(counts)} are used; do all recordings begin together?"
    ]


def _range_note(asked: slice, count: int, taken: int) -> list[str]:
    if asked.stop is None or asked.stop <= count:
        return []
    return [f"--frames asks for frames up to {asked.stop - 1}, there are 0 to {count - 1}: {taken} are taken"]


class _Writer:
    """Writes one camera's pictures; knows after the first one how they must be turned and scaled."""

    def __init__(self, source: Source, folder: Path, scale: float, copy: bool):
        self.camera, self.notes = source.camera, []
        self._source, self._folder, self._scale, self._copy = source, folder, scale, copy
        self._turned: bool | None = None
        folder.mkdir(parents=True)

    def write_video(self, track: _Track, wanted: np.ndarray, step: Callable[[], None]) -> None:
        numbers: dict[int, list[int]] = {}
        for frame, number in enumerate(wanted.tolist()):
            numbers.setdefault(number, []).append(frame)
        assert self._source.video is not None
        for number, decoded in _decoded(self._source.video, track, max(numbers)):
            for frame in numbers.get(number, ()):
                stored = _rgb(decoded)
                shown = np.rot90(stored, decoded.rotation // 90) if decoded.rotation else stored
                self._write(frame, stored, shown)
                step()

    def write_pictures(self, wanted: np.ndarray, step: Callable[[], None]) -> None:
        for frame, number in enumerate(wanted.tolist()):
            path = self._source.pictures[number]
            if frame == 0:
                stored, shown = _stored_and_shown(path)
                self._fit(stored, shown, path)
            if self._turned or self.camera.image_size != self._full_size:
                self._write(frame, *_stored_and_shown(path))
            else:
                self._link(path, frame)
            step()

    def _link(self, path: Path, frame: int) -> None:
        # Told here rather than in the middle of training.
        pixels = decode_image(path, cv2.IMREAD_GRAYSCALE)
        if pixels.shape[::-1] != self._full_size:
            raise ValueError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, the first picture of camera '{self.camera.name}' is "
                f"{self._full_size[0]}x{self._full_size[1]}"
            )
        target = self._folder / f"{frame:08d}{path.suffix.lower()}"
        link_or_copy(path, target, self._copy)

    def _write(self, frame: int, stored: np.ndarray, shown: np.ndarray) -> None:
        if self._turned is None:
            self._fit(stored, shown, self._source.place)
        pixels = shown if self._turned else stored
        if pixels.shape[1::-1] != self._full_size:
            raise ValueError(
                f"{self._source.place}: frame {frame} is {pixels.shape[1]}x{pixels.shape[0]}, the first one is "
                f"{self._full_size[0]}x{self._full_size[1]}"
            )
        if self.camera.image_size != self._full_size:
            pixels = cv2.resize(pixels, self.camera.image_size, interpolation=cv2.INTER_AREA)
        encoded, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        assert encoded, pixels.shape
        (self._folder / f"{frame:08d}.jpg").write_bytes(data.data)

    def _fit(self, stored: np.ndarray, shown: np.ndarray, place: Path) -> None:
        """Decides once for all pictures of this camera."""
        turnable = stored is not shown
        # What players show, unless only the pixels as they are stored have the calibrated size: OpenCV's calibration
        # of pictures, for one, may or may not have heeded the mark.
        use_shown = turnable and (
            self.camera.image_size is None
            or _scale_to(self.camera.image_size, shown) is not None
            or _scale_to(self.camera.image_size, stored) is None
        )
        self._turned = use_shown
        pixels = shown if use_shown else stored
        if turnable:
            how = (
                "are turned as it says"
                if use_shown
                else "are left as stored, which is how they were calibrated"
            )
            self.notes.append(f"{place}: carries a mark to be turned; its pictures {how}")
        height, width = pixels.shape[:2]
        told = self.camera.image_size or (width, height)
        ratio = _scale_to(told, pixels)
        if ratio is None:
            hint = "are they turned?" if (height, width) == told else "are they cut, or of another camera?"
            raise ValueError(
                f"{place}: pictures are {width}x{height}, but camera '{self.camera.name}' was calibrated at "
                f"{told[0]}x{told[1]}; {hint}"
            )
        if ratio != (1.0, 1.0):
            self.notes.append(
                f"intrinsics are scaled from {told[0]}x{told[1]} to {width}x{height}, the pictures' size"
            )
        elif told != (width, height):
            self.notes.append(
                f"{place}: {width}x{height}, calibrated at {told[0]}x{told[1]}: taken to be cut at the right or "
                "bottom, as codecs fill up to a multiple of 16"
            )
        self._full_size = (width, height)
        size = tuple(max(1, round(length * self._scale)) for length in (width, height))
        factors = np.array([ratio[0] * size[0] / width, ratio[1] * size[1] / height, 1.0])
        K = factors[:, None] * self.camera.K
        self.camera = replace(self.camera, K=K, image_size=(size[0], size[1]))


def _scale_to(told: tuple[int, int], pixels: np.ndarray) -> tuple[float, float] | None:
    """Of the intrinsics from the calibrated size (width, height) to the pixels'; None if they do not fit."""
    height, width = pixels.shape[:2]
    filled = [
        one == other or (abs(one - other) < CODEC_BLOCK and max(one, other) % CODEC_BLOCK == 0)
        for one, other in zip(told, (width, height), strict=True)
    ]
    if all(filled):
        return 1.0, 1.0
    scale = width / told[0], height / told[1]
    return scale if abs(scale[0] / scale[1] - 1) <= ASPECT_TOLERANCE else None


def _decoded(path: Path, track: _Track, last: int) -> Iterator[tuple[int, Any]]:
    """(number, frame) in the order in which they are shown, up to number `last`. ValueError where one is missing or
    damaged."""
    from av.error import FFmpegError

    number, reason = -1, ""
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                expected, number = number + 1, number + 1
                if track.stamps is not None:
                    number = int(np.searchsorted(track.stamps, frame.pts))
                if number != expected:
                    number = expected - 1
                    break
                if frame.is_corrupt:
                    raise ValueError(
                        f"{path}: frame {number} is damaged; copy it again, or leave it out by --frames"
                    )
                yield number, frame
                if number == last:
                    return
        except FFmpegError as error:
            reason = f" ({one_line(error)})"
    raise ValueError(
        f"{path}: cannot be decoded after frame {number} of {len(track.times)}{reason}; copy it again, or use what is "
        f"there: --frames 0:{max(number, 0)}"
    )


def _last_whole(path: Path | None, track: _Track) -> int:
    """The number of the last frame that can be decoded, 0 at least."""
    assert path is not None
    last = 0
    with suppress(ValueError):
        for number, _ in _decoded(path, track, len(track.times) - 1):
            last = number
    return last


def _rgb(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 of an av.VideoFrame."""
    colours = frame.colorspace
    if colours == UNKNOWN_COLOURS:
        colours = BT709 if min(frame.width, frame.height) >= HIGH_DEFINITION else BT601
    return frame.reformat(format="rgb24", src_colorspace=colours).to_ndarray()


def _stored_and_shown(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """RGB pixels as they are stored, and as their mark (EXIF's orientation) says; one array if there is none."""
    stored = decode_image(path, cv2.IMREAD_COLOR_RGB)
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if shown is None or (shown.shape == stored.shape and np.array_equal(shown, stored)):
        return stored, stored
    return stored, shown
