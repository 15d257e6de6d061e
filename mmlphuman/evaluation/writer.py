"""Writing pictures without holding the renderer up.

Data path: rendered frames (numpy, on the CPU) -> background threads -> PNG files.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

IMAGE_KINDS = ("gt", "render", "mask")
PNG_COMPRESSION = 3  # of 9: half the time of the library's highest levels for a few percent more bytes


def image_name(kind: str, camera: int, frame: int) -> Path:
    """`render/cam007_frame00000120.png`: a folder for each kind, equal names in each, cameras kept apart."""
    assert kind in IMAGE_KINDS, f"{kind} is none of {IMAGE_KINDS}"
    return Path(kind) / f"cam{camera:03d}_frame{frame:08d}.png"


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8, grey (H, W) uint8 or a bool mask (H, W), whole or not at all.

    The picture takes its name only when it is complete, so a killed run leaves no half picture under it.
    """
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{path}: a PNG is written from uint8 RGB or grey, not {image.dtype} {image.shape}")
    if image.ndim == 3:
        image = image[..., ::-1]  # OpenCV keeps blue first
    encoded, data = cv2.imencode(
        ".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]
    )
    if not encoded:
        raise ValueError(f"{path}: OpenCV could not encode a picture of {image.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class ImageWriter:
    """Writes PNGs under `folder` in background threads; a context manager.

    The first picture that cannot be written stops the work: its error, with the file's name, is raised by the
    next `write` or by `close`. A bounded number of pictures waits in memory; then `write` waits for a thread.
    Give it arrays that nobody changes afterwards.
    """

    def __init__(self, folder: Path | str, threads: int = 2, max_waiting: int = 16):
        self.folder = Path(folder)
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image-writer")
        self._waiting: deque[tuple[Path, Future]] = deque()

    def write(self, name: Path | str, image: np.ndarray) -> Path:
        """Queue one picture (see `write_png`) under `folder / name`; returns where it will be."""
        path = self.folder / name
        while self._waiting and (len(self._waiting) >= self._max_waiting or self._waiting[0][1].done()):
            self._finish_oldest()
        self._waiting.append((path, self._pool.submit(write_png, path, image)))
        return path

    def close(self) -> None:
        """Wait until everything is written; raises the first error. Closing twice is harmless."""
        try:
            while self._waiting:
                self._finish_oldest()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _finish_oldest(self) -> None:
        path, future = self._waiting.popleft()
        try:
            future.result()
        except OSError as error:
            self._abandon()
            raise OSError(
                error.errno, f"could not be written: {error.strerror or error}", str(path)
            ) from error
        except ValueError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        if error is None:
            self.close()
        else:  # the body's own error is the one to see
            self._abandon()
            self._pool.shutdown(cancel_futures=True)
