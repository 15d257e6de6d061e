"""Pictures from the server, and what the graphics card wants of them. Numpy and OpenCV only.

Data path: Frame -> image (H, W, 3) uint8 RGB -> texture buffer (H, W, C) float32 in [0, 1].   C: 3, or 4 on macOS.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from mmlphuman.streaming.messages import Frame

TO_UNIT = np.float32(1 / 255)
STEP = 256  # pixels; textures grow by so much


def decode_picture(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises ValueError if the picture is damaged or not of the size that its frame tells."""
    if frame.encoding == "raw":
        return np.frombuffer(frame.picture, np.uint8).reshape(frame.height, frame.width, 3)
    data = np.frombuffer(frame.picture, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # empty, or larger than OpenCV reads
        raise ValueError(f"a {frame.encoding} picture of {len(data)} bytes cannot be read") from error
    if image is None or image.shape != (frame.height, frame.width, 3):
        raise ValueError(
            f"a {frame.encoding} picture of {len(data)} bytes is damaged or not {frame.width} x {frame.height}"
        )
    return image


def png_bytes(frame: Frame, image: np.ndarray) -> bytes:
    """The picture as a PNG file; one that came as PNG is handed on untouched."""
    if frame.encoding == "png":
        return frame.picture
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def make_buffer(width: int, height: int, channels: int) -> np.ndarray:
    """(H, W, C) float32, black and opaque: a texture's memory, filled again for every picture."""
    buffer = np.zeros((height, width, channels), np.float32)
    buffer[..., 3:] = 1
    return buffer


def grown(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Width and height of a texture that also holds this picture and the line beside it: `size`, if that is enough."""
    return tuple(
        max(old, STEP * math.ceil((new + 1) / STEP)) for old, new in zip(size, (width, height), strict=True)
    )


def fill_buffer(buffer: np.ndarray, image: np.ndarray) -> None:
    """image (H, W, 3) uint8 -> the upper left corner of buffer, in place.

    The line beside it gets the colours of the edge: the graphics card mixes them in where it enlarges the picture.
    """
    height, width = image.shape[:2]
    np.multiply(image, TO_UNIT, out=buffer[:height, :width, :3])
    buffer[height : height + 1, :width] = buffer[height - 1, :width]
    buffer[: height + 1, width : width + 1] = buffer[: height + 1, width - 1 : width]


def fit(width: int, height: int, image_width: int, image_height: int) -> tuple[int, int, int, int]:
    """Where a picture lies in a panel of `width` x `height`, whole and in its own shape -> (x, y, width, height)."""
    scale = min(width / image_width, height / image_height)
    shown = max(round(image_width * scale), 1), max(round(image_height * scale), 1)
    return (width - shown[0]) // 2, (height - shown[1]) // 2, *shown
