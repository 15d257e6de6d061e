"""Where in a picture a network looks: a turned square, and the upright crop about it that the network is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

CROP_MARGIN = 1.3  # of the crop to the region, so that the turned region lies within


class Pass(NamedTuple):
    """One look at a region: by how much it is turned and scaled, and whether the network gets its mirror image."""

    turned: float = 0  # degrees
    scaled: float = 1.0
    mirrored: bool = False


class Rectangle(NamedTuple):
    """A region in a network's terms: in the unit square that is the crop."""

    x: float
    y: float
    size: float
    angle: float  # radians


@dataclass(frozen=True)
class Region:
    """A turned square in the picture."""

    middle: np.ndarray  # (2,) x, y in pixels
    side: float  # pixels
    angle: float  # radians, 0: up is up

    @classmethod
    def of_body(cls, hips: np.ndarray, reach: np.ndarray) -> Region:
        """From MediaPipe's two points: between the hips, and that at the end of the body's circle, above the head."""
        along = reach - hips
        return cls(hips, 2.5 * float(np.linalg.norm(along)), np.arctan2(along[0], -along[1]))

    @classmethod
    def of_hand(cls, wrist: np.ndarray, along: np.ndarray, side: float) -> Region:
        """along: from the wrist to the fingers."""
        return cls(wrist + along, side, np.arctan2(along[0], -along[1]))


class Crop:
    """A square part of the picture at the size that a network needs; beyond the border its last pixels go on."""

    def __init__(self, image: np.ndarray, region: Region, pixels: int):
        """image: (H, W, 3) RGB; pixels: of the crop's side."""
        side = max(8, int(round(region.side * CROP_MARGIN)))
        self.corner = np.round(region.middle - side / 2).astype(int)
        self.side, self.pixels = side, pixels
        height, width = image.shape[:2]
        low = np.maximum(self.corner, 0)
        high = np.minimum(self.corner + side, (width, height))
        high = np.maximum(high, low + 1)
        low = np.minimum(low, (width - 1, height - 1))
        part = image[low[1] : high[1], low[0] : high[0]]
        before, after = low - self.corner, self.corner + side - high
        top, bottom, left, right = (max(0, int(n)) for n in (before[1], after[1], before[0], after[0]))
        part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE)
        shrinks = side > pixels
        self.image = cv2.resize(
            part, (pixels, pixels), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )

    def seen_by(self, look: Pass, region: Region) -> tuple[np.ndarray, Rectangle]:
        """The crop, and the region in it, as a network takes them."""
        x, y = (region.middle - self.corner) / self.side
        size, angle = region.side / self.side * look.scaled, region.angle + np.radians(look.turned)
        if look.mirrored:
            return self.image[:, ::-1], Rectangle(1 - x, y, size, -angle)
        return self.image, Rectangle(x, y, size, angle)

    def to_picture(self, points: np.ndarray, mirrored: bool) -> np.ndarray:
        """(N, 2) in the unit square that is the crop -> pixels of the picture."""
        points = points.copy()
        if mirrored:
            points[:, 0] = 1 - points[:, 0]
        return points * self.side + self.corner

    def paste(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(H, W) float32 with the crop's values in their place, zero elsewhere."""
        whole = np.zeros(shape, np.float32)
        values = cv2.resize(values, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        low = np.maximum(self.corner, 0)
        high = np.minimum(self.corner + self.side, shape[::-1])
        if (high > low).all():
            from_low, from_high = low - self.corner, high - self.corner
            whole[low[1] : high[1], low[0] : high[0]] = values[
                from_low[1] : from_high[1], from_low[0] : from_high[0]
            ]
        return whole
