"""One camera's pictures -> FOLDER/%08d.jpg, all lying and as large as the first one says (picture_size.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.capture.images import decode_image
from mmlphuman.files import link_or_copy
from mmlphuman.fitting.picture_size import PictureSize, match_calibration
from mmlphuman.fitting.recordings import Recording
from mmlphuman.fitting.video import Track, decoded_frames, pixels_of

JPEG_QUALITY = 95


@dataclass(frozen=True)
class PictureWriter:
    """Both ways of writing take numbers, (F,) whose picture frame f is, counted from the camera's first; call `step`
    after each picture; and raise ValueError for damaged pictures and those of another size."""

    recording: Recording
    folder: Path  # is there, and empty
    scale: float  # of the pictures
    copy: bool  # pictures that need no change are copied, not linked

    def write_video(self, track: Track, numbers: np.ndarray, step: Callable[[], None]) -> PictureSize:
        """track: of the recording's video."""
        frames_of: dict[int, list[int]] = {}
        for frame, number in enumerate(numbers.tolist()):
            frames_of.setdefault(number, []).append(frame)
        size = None
        for number, decoded in decoded_frames(track, max(frames_of)):
            for frame in frames_of.get(number, ()):
                stored, shown = pixels_of(decoded)
                if size is None:
                    size = match_calibration(self.recording.camera, stored, shown, self.scale, track.path)
                self._write(frame, stored, shown, size)
                step()
        assert size is not None, "there is one frame at least"
        return size

    def write_pictures(self, numbers: np.ndarray, step: Callable[[], None]) -> PictureSize:
        paths = [self.recording.pictures[number] for number in numbers.tolist()]
        size = match_calibration(self.recording.camera, *_stored_and_shown(paths[0]), self.scale, paths[0])
        for frame, path in enumerate(paths):
            if size.turned or size.camera.image_size != size.full:
                self._write(frame, *_stored_and_shown(path), size)
            else:
                self._link(frame, path, size)
            step()
        return size

    def _link(self, frame: int, path: Path, size: PictureSize) -> None:
        # Told here rather than in the middle of training.
        pixels = decode_image(path, cv2.IMREAD_GRAYSCALE)
        if pixels.shape[::-1] != size.full:
            raise ValueError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, the first picture of camera "
                f"'{size.camera.name}' is {size.full[0]}x{size.full[1]}"
            )
        link_or_copy(path, self.folder / f"{frame:08d}{path.suffix.lower()}", self.copy)

    def _write(self, frame: int, stored: np.ndarray, shown: np.ndarray, size: PictureSize) -> None:
        pixels = shown if size.turned else stored
        if pixels.shape[1::-1] != size.full:
            raise ValueError(
                f"{self.recording.place}: frame {frame} is {pixels.shape[1]}x{pixels.shape[0]}, the first one is "
                f"{size.full[0]}x{size.full[1]}"
            )
        assert size.camera.image_size is not None
        if size.camera.image_size != size.full:
            pixels = cv2.resize(pixels, size.camera.image_size, interpolation=cv2.INTER_AREA)
        encoded, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        assert encoded, pixels.shape
        (self.folder / f"{frame:08d}.jpg").write_bytes(data.data)


def _stored_and_shown(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 RGB as it is stored, and as its mark (EXIF's orientation) says; one array if there is none."""
    stored = decode_image(path, cv2.IMREAD_COLOR_RGB)
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if shown is None or (shown.shape == stored.shape and np.array_equal(shown, stored)):
        return stored, stored
    return stored, shown
