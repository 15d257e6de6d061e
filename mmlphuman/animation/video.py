"""Writing a video without holding the renderer up: H.264 in an MP4 that any player and browser shows.

Data path: rendered frames (numpy uint8, on the CPU) -> one background thread -> libx264 (through PyAV) -> MP4.
Shape letters: H, W height and width.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from mmlphuman.files import atomic_write

CRF = 16  # x264's quality, 0 lossless to 51; 16 is hardly told from the original and a few Mbit/s at 2K
MAX_FPS = 240
MAX_WAITING = 16  # frames in memory; then `write` waits for the encoder
BT709 = 1  # the number of ITU-T BT.709 among matrices, primaries and transfer curves alike (H.273)
LIMITED_RANGE = 1  # luma 16 to 235, what players take every H.264 video for


def check_fps(fps: float) -> float:
    """Returns `fps`; ValueError for a rate that is no video's."""
    if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
        raise ValueError(f"--video: {fps:g} frames a second is not possible; give 1 to {MAX_FPS}, e.g. 30")
    return fps


class VideoWriter:
    """An MP4 that grows in a background thread; a context manager.

    The file takes its name only when it is complete. 4:2:0 video has even sizes: of an odd picture the last
    row or column is repeated. The first frame gives the size, all others must have it. An error of the encoder
    or the disk is raised, with the file's name, by the next `write` or by `close`; nothing of it remains then.
    Give it arrays that nobody changes afterwards.
    """

    def __init__(self, path: Path | str, fps: float, crf: int = CRF, max_waiting: int = MAX_WAITING):
        """fps: frames a second, 0 < fps <= 240, else ValueError. crf: 0 (lossless) to 51."""
        self.path = Path(path)
        # Rates such as 29.97 are fractions over 1001; a decimal's own fraction would make absurd time bases.
        self._rate = Fraction(check_fps(fps)).limit_denominator(1001)
        self._crf = crf
        self._max_waiting = max_waiting
        self._shape: tuple[int, ...] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="video-writer")
        self._waiting: deque[Future] = deque()
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
        while self._waiting and (len(self._waiting) >= self._max_waiting or self._waiting[0].done()):
            self._finish_oldest()
        self._waiting.append(self._pool.submit(self._encode, image))

    def close(self) -> None:
        """Wait until the file is complete; raises the first error. ValueError if it never got a frame."""
        if self._shape is None:
            self.abandon()
            raise ValueError(f"{self.path}: a video needs at least one frame")
        self._waiting.append(self._pool.submit(self._complete))
        while self._waiting:
            self._finish_oldest()
        self._pool.shutdown()

    def abandon(self) -> None:
        """Stop and leave no file. Harmless after `close`."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._pool.shutdown()
        stop = _Abandoned()
        with suppress(OSError, ValueError):  # of closing what is thrown away; the first error is on its way
            self._open.__exit__(_Abandoned, stop, None)

    def _finish_oldest(self) -> None:
        try:
            self._waiting.popleft().result()
        except Exception as error:  # the encoder's errors are of many types, all of this file
            self.abandon()
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"{self.path}: the video could not be written: {reason}") from error

    def _encode(self, image: np.ndarray) -> None:
        if self._encoder is None:
            file = self._open.enter_context(atomic_write(self.path))
            self._encoder = _Encoder(file.name, self._rate, self._crf, _even(image).shape)
            self._open.enter_context(self._encoder.container)
        self._encoder.add(_even(image))

    def _complete(self) -> None:
        self._encoder.flush()
        self._open.close()  # the container writes its index, then the file is renamed

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        if error is None:
            self.close()
        else:  # the body's own error is the one to see
            self.abandon()


class _Abandoned(Exception):
    """Ends the file's context so that it removes what is unfinished."""


class _Encoder:
    """An open MP4 with one H.264 stream."""

    def __init__(self, path: str, rate: Fraction, crf: int, shape: tuple[int, ...]):
        import av  # here, so that those who write no video need no encoder

        # faststart: the index goes first, so that a browser plays before it has all.
        self.container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self.container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        self._stream.height, self._stream.width, _ = shape
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED_RANGE
        self._convert = av.video.reformatter.VideoReformatter()
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
