"""Pictures and videos written in the background, so that nobody who draws them is held up.

Data path: rendered frames (numpy uint8, on the CPU) -> background threads -> PNG files; -> one thread -> libx264
(through PyAV) -> H.264 in an MP4 that any player and browser shows.
Shape letters: H, W height and width.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from mmlphuman.files import atomic_write

IMAGE_KINDS = ("gt", "render", "mask")
PNG_COMPRESSION = 3  # of 9: half the time of the library's highest levels for a few percent more bytes

CRF = 16  # x264's quality, 0 lossless to 51; 16 is hardly told from the original and a few Mbit/s at 2K
MAX_FPS = 240
MAX_WAITING = 16  # pictures in memory; then `write` waits for a thread
BT709 = 1  # the number of ITU-T BT.709 among matrices, primaries and transfer curves alike (H.273)
LIMITED_RANGE = 1  # luma 16 to 235, what players take every H.264 video for


def image_name(kind: str, camera: int, frame: int) -> Path:
    """`render/cam007_frame00000120.png`: a folder for each kind, equal names in each, cameras kept apart."""
    assert kind in IMAGE_KINDS, f"{kind} is none of {IMAGE_KINDS}"
    return Path(kind) / f"cam{camera:03d}_frame{frame:08d}.png"


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) or RGBA (H, W, 4) uint8, grey (H, W) uint8 or a bool mask (H, W), whole or not at all.

    The picture takes its name only when it is complete, so a killed run leaves no half picture under it.
    """
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] not in (3, 4))
    ):
        raise ValueError(
            f"{path}: a PNG is written from uint8 RGB, RGBA or grey, not {image.dtype} {image.shape}"
        )
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]  # OpenCV keeps blue first
    encoded, data = cv2.imencode(
        ".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]
    )
    if not encoded:
        raise ValueError(f"{path}: OpenCV could not encode a picture of {image.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data.data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def laid_on(picture: np.ndarray, background: Sequence[float]) -> np.ndarray:
    """(H, W, 3) uint8 of a picture (H, W, 4) uint8 with straight colour; one without alpha is returned as it is.

    background: RGB in [0, 1].
    """
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.float32) / 255
    below = np.array(background, np.float32) * 255
    return (picture[..., :3] * alpha + below * (1 - alpha)).round().astype(np.uint8)


class BackgroundWriter:
    """Writes files in background threads; a context manager, which closes at its end.

    A bounded number of tasks waits in memory; then queuing waits for a thread. The first task that fails stops the
    work: what still waits is dropped, and its error, with the file's name, is raised where the next is queued or by
    `close`. Leaving the context with an error drops what waits: the body's own error is the one to see.
    """

    def __init__(self, threads: int, max_waiting: int):
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=type(self).__name__)
        self._waiting: deque[tuple[Path, Future]] = deque()

    def close(self) -> None:
        """Wait until everything is written; raises the first error. Closing twice is harmless."""
        try:
            while self._waiting:
                self._finish_oldest()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def abandon(self) -> None:
        """Drop what waits and end the threads. Harmless after `close`."""
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)

    def _queue(self, path: Path, work: Callable, *arguments: object) -> None:
        """path: for an error's message."""
        while self._waiting and (len(self._waiting) >= self._max_waiting or self._waiting[0][1].done()):
            self._finish_oldest()
        self._waiting.append((path, self._pool.submit(work, *arguments)))

    def _finish_oldest(self) -> None:
        path, future = self._waiting.popleft()
        try:
            future.result()
        except Exception as error:
            self.abandon()
            explained = self._explained(path, error)
            if explained is error:
                raise
            raise explained from error

    def _explained(self, path: Path, error: Exception) -> Exception:
        """What to raise for a task's error."""
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


class ImageWriter(BackgroundWriter):
    """Writes PNGs under `folder`. Give it arrays that nobody changes afterwards."""

    def __init__(self, folder: Path | str, threads: int = 2, max_waiting: int = MAX_WAITING):
        super().__init__(threads, max_waiting)
        self.folder = Path(folder)

    def write(self, name: Path | str, image: np.ndarray) -> Path:
        """Queue one picture (see `write_png`) under `folder / name`; returns where it will be."""
        path = self.folder / name
        self._queue(path, write_png, path, image)
        return path

    def _explained(self, path: Path, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return OSError(error.errno, f"could not be written: {error.strerror or error}", str(path))
        return error  # a ValueError of write_png names the file


def check_fps(fps: float) -> float:
    """Returns `fps`; ValueError for a rate that is no video's."""
    if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
        raise ValueError(f"--video: {fps:g} frames a second is not possible; give 1 to {MAX_FPS}, e.g. 30")
    return fps


class VideoWriter(BackgroundWriter):
    """An MP4 that grows in a background thread.

    The file takes its name only when it is complete; after an error nothing of it remains. 4:2:0 video has even
    sizes: of an odd picture the last row or column is repeated. The first frame gives the size, all others must have
    it. Give it arrays that nobody changes afterwards.
    """

    def __init__(self, path: Path | str, fps: float, crf: int = CRF, max_waiting: int = MAX_WAITING):
        """fps: frames a second, 0 < fps <= 240, else ValueError. crf: 0 (lossless) to 51."""
        # Rates such as 29.97 are fractions over 1001; a decimal's own fraction would make absurd time bases.
        self._rate = Fraction(check_fps(fps)).limit_denominator(1001)
        super().__init__(threads=1, max_waiting=max_waiting)
        self.path = Path(path)
        self._crf = crf
        self._shape: tuple[int, ...] | None = None
        self._open = ExitStack()  # the file and, within it, the container: used by the thread only
        self._encoder: _Encoder | None = None

    def write(self, image: np.ndarray) -> None:
        """Queue one frame, RGB (H, W, 3) uint8."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self.path}: a video is written from uint8 RGB, not {image.dtype} {image.shape}"
            )
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise ValueError(
                f"{self.path}: frames of one video have one size, but {image.shape} follows {self._shape}"
            )
        self._queue(self.path, self._encode, image)

    def close(self) -> None:
        """Wait until the file is complete; raises the first error. ValueError if it never got a frame."""
        if self._shape is None:
            self.abandon()
            raise ValueError(f"{self.path}: a video needs at least one frame")
        self._queue(self.path, self._complete)
        super().close()

    def abandon(self) -> None:
        """Stop and leave no file. Harmless after `close`."""
        super().abandon()
        with suppress(OSError, ValueError):  # of closing what is thrown away; the first error is on its way
            self._open.__exit__(_Abandoned, _Abandoned(), None)

    def _explained(self, path: Path, error: Exception) -> Exception:
        """The encoder's errors are of many types."""
        reason = getattr(error, "strerror", None) or error
        return OSError(f"{path}: the video could not be written: {reason}")

    def _encode(self, image: np.ndarray) -> None:
        if self._encoder is None:
            file = self._open.enter_context(atomic_write(self.path))
            self._encoder = _Encoder(file.name, self._rate, self._crf, _even(image).shape)
            self._open.enter_context(self._encoder.container)
        self._encoder.add(_even(image))

    def _complete(self) -> None:
        assert self._encoder is not None, "`close` asks for a frame first"
        self._encoder.flush()
        self._open.close()  # the container writes its index, then the file is renamed


class _Abandoned(Exception):
    """Ends the file's context so that it removes what is unfinished."""


class _Encoder:
    """An open MP4 with one H.264 stream."""

    def __init__(self, path: str, rate: Fraction, crf: int, shape: tuple[int, ...]):
        # Here, so that those who write no video need no encoder.
        import av
        from av.video.reformatter import VideoReformatter

        # faststart: the index goes first, so that a browser plays before it has all.
        self.container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self.container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        self._stream.height, self._stream.width, _ = shape
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED_RANGE
        self._convert = VideoReformatter()
        self._frames = 0

    def add(self, image: np.ndarray) -> None:
        frame = _to_yuv(self._convert, image)
        frame.pts = self._frames
        self.container.mux(self._stream.encode(frame))
        self._frames += 1

    def flush(self) -> None:
        self.container.mux(self._stream.encode())


def _even(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(image)


def _to_yuv(convert, image: np.ndarray):
    """RGB as rendered -> an av.VideoFrame as the stream's flags say: BT.709, limited range, 4:2:0."""
    from av.video.frame import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    return convert.reformat(
        VideoFrame.from_ndarray(image, format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
    )
