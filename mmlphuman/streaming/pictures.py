"""A drawn picture -> the bytes of its Frame. Runs in the server's encoding threads; OpenCV lets others work meanwhile.

Shapes: H, W pixels.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from mmlphuman.streaming.messages import Frame, RenderRequest
from mmlphuman.streaming.protocol import encode_frame

PNG_COMPRESSION = 1  # of 9: who asks for exactness still looks at it live
ENCODERS = 2  # threads


def compress(image: np.ndarray, encoding: str, quality: int) -> bytes:
    """RGB (H, W, 3) uint8 as "jpeg" (quality 1 to 100), "png" or "raw" (RGB, row by row). ValueError if it fails."""
    if encoding == "raw":
        return image.tobytes()
    suffix, options = {
        "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]),
        "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]),
    }[encoding]
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise ValueError(f"OpenCV could not write a picture of {image.shape} as {encoding}")
    return data.tobytes()


def encode_picture(
    request: RenderRequest,
    image: np.ndarray,
    iteration: int,
    gaussians: int,
    distance: float,
    render_ms: float,
) -> bytes:
    """The binary frame that answers `request` with `image`, RGB (H, W, 3) uint8, and what is known about it."""
    began = time.perf_counter()
    picture = compress(image, request.encoding, request.quality)
    return encode_frame(
        Frame(
            id=request.id,
            width=image.shape[1],
            height=image.shape[0],
            encoding=request.encoding,
            picture=picture,
            iteration=int(iteration),
            gaussians=int(gaussians),
            distance=float(distance),
            render_ms=float(render_ms),
            encode_ms=(time.perf_counter() - began) * 1000,
        )
    )
