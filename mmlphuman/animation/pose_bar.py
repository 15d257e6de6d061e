"""A strip under a video's picture that shows how far each pose is from all training poses.

Data path: rendered frame (numpy uint8) and its distance in degrees -> the frame with the strip below it.
The strip is added, so it covers nothing of the picture. Numpy and OpenCV only.
Shape letters: H, W height and width of the frame, S height of the strip.
"""

from __future__ import annotations

import cv2
import numpy as np

from mmlphuman.drawing import put_text, text_width

# Degrees, root mean square over the joints; a pose as far off has little to do with training.
FULL_SCALE = 40.0
TICK = 10.0  # degrees between the scale's marks
# Distance in degrees and its colour (RGB): calm blue and green, then yellow, then red.
COLOURS = ((0.0, (58, 122, 196)), (7.5, (90, 176, 120)), (15.0, (250, 200, 60)), (30.0, (214, 40, 40)))
PAPER, TRACK, INK = (24, 24, 24), (62, 62, 62), (235, 235, 235)

STRIP_SHARE = 1 / 11  # of the picture's width
MIN_STRIP, MAX_STRIP = 24, 128  # pixels
FONT_HEIGHT = 21.0  # pixels of a capital at font scale 1


def strip_height(width: int) -> int:
    """S for a picture of this width; even, so that an even video stays even."""
    return round(min(max(width * STRIP_SHARE, MIN_STRIP), MAX_STRIP) / 2) * 2


def bar_colour(degrees: float) -> tuple[int, int, int]:
    """RGB of a distance, linear between COLOURS."""
    at, channels = [at for at, _ in COLOURS], zip(*(colour for _, colour in COLOURS), strict=True)
    red, green, blue = (round(float(np.interp(degrees, at, channel))) for channel in channels)
    return red, green, blue


def add_pose_bar(image: np.ndarray, degrees: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H + S, W, 3): number at the left, gauge from 0 to FULL_SCALE degrees at the right.

    degrees: `PoseSpace.distance`. Beyond the full scale the gauge stays full; the number is always right.
    """
    width = image.shape[1]
    height = strip_height(width)
    strip = np.full((height, width, 3), PAPER, np.uint8)
    margin = height // 6
    number = f"{degrees:.1f} deg"
    text_right = margin + _put_text(strip, number, margin, height * 0.47, height * 0.34)
    _put_text(strip, "from training", margin, height * 0.84, height * 0.2)
    left = max(text_right, width // 3) + 2 * margin
    right = width - 1 - 2 * margin
    if right - left >= height:  # a tiny picture has room for the number only
        _draw_gauge(strip, left, right, degrees)
    return np.concatenate([image, strip])


def _draw_gauge(strip: np.ndarray, left: int, right: int, degrees: float) -> None:
    height = len(strip)
    top, bottom = round(height * 0.18), round(height * 0.52)

    def column(value: float) -> int:
        return left + round((right - left) * min(max(value / FULL_SCALE, 0), 1))

    cv2.rectangle(strip, (left, top), (right, bottom), TRACK, cv2.FILLED)
    cv2.rectangle(strip, (left, top), (column(degrees), bottom), bar_colour(degrees), cv2.FILLED)
    for value in np.arange(0, FULL_SCALE + TICK / 2, TICK):
        x = column(value)
        cv2.line(strip, (x, bottom + 1), (x, bottom + height // 12), INK, max(height // 40, 1))
        label, size = f"{value:g}", height * 0.2
        _put_text(strip, label, x - _text_width(label, size) // 2, height * 0.88, size)


def _put_text(strip: np.ndarray, text: str, x: int, baseline: float, size: float) -> int:
    """Writes with capitals `size` pixels high; returns the text's width."""
    put_text(strip, text, (x, round(baseline)), size / FONT_HEIGHT, INK, _thickness(size))
    return _text_width(text, size)


def _text_width(text: str, size: float) -> int:
    return text_width(text, size / FONT_HEIGHT, _thickness(size))


def _thickness(size: float) -> int:
    return max(round(size / 10), 1)
