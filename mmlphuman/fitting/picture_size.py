"""How a camera's pictures lie and how large they are, compared with what was calibrated -> the camera at their size.

Pictures lie upright as players show them, unless only the stored way of lying has the calibrated size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import CalibratedCamera

ASPECT_TOLERANCE = 0.01  # of the two axes' scales, between the calibrated size and the pictures'
CODEC_BLOCK = 16  # pixels: codecs fill the last block up, and some programs leave the filling on


@dataclass(frozen=True)
class PictureSize:
    """What is decided once for all pictures of a camera."""

    turned: bool  # they are taken as their mark says, not as they are stored
    full: tuple[int, int]  # their width and height, pixels, turned but not scaled
    camera: CalibratedCamera  # at the size to which they are scaled, which is its image_size
    notes: tuple[str, ...]


def match_calibration(
    camera: CalibratedCamera, stored: np.ndarray, shown: np.ndarray, scale: float, place: Path
) -> PictureSize:
    """stored, shown: (H, W, 3) a picture as it is stored and as its mark says, the same array if it has none; scale: of
    the pictures; place: of the picture, for messages. Raises ValueError where it has not the calibrated aspect."""
    marked, notes = stored is not shown, []
    # What players show, unless only the pixels as they are stored have the calibrated size: OpenCV's calibration
    # of pictures, for one, may or may not have heeded the mark.
    turned = marked and (
        camera.image_size is None
        or _scale_to(camera.image_size, shown) is not None
        or _scale_to(camera.image_size, stored) is None
    )
    pixels = shown if turned else stored
    if marked:
        how = "are turned as it says" if turned else "are left as stored, which is how they were calibrated"
        notes.append(f"{place}: carries a mark to be turned; its pictures {how}")
    height, width = pixels.shape[:2]
    told = camera.image_size or (width, height)
    ratio = _scale_to(told, pixels)
    if ratio is None:
        hint = "are they turned?" if (height, width) == told else "are they cut, or of another camera?"
        raise ValueError(
            f"{place}: pictures are {width}x{height}, but camera '{camera.name}' was calibrated at "
            f"{told[0]}x{told[1]}; {hint}"
        )
    if ratio != (1.0, 1.0):
        notes.append(
            f"intrinsics are scaled from {told[0]}x{told[1]} to {width}x{height}, the pictures' size"
        )
    elif told != (width, height):
        notes.append(
            f"{place}: {width}x{height}, calibrated at {told[0]}x{told[1]}: taken to be cut at the right or "
            "bottom, as codecs fill up to a multiple of 16"
        )
    size = max(1, round(width * scale)), max(1, round(height * scale))
    factors = np.array([ratio[0] * size[0] / width, ratio[1] * size[1] / height, 1.0])
    scaled = replace(camera, K=factors[:, None] * camera.K, image_size=size)
    return PictureSize(turned, (width, height), scaled, tuple(notes))


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
