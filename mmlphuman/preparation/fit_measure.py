"""One (frame, camera) of a capture, read at a reduced size, and how the projected body lies in its mask.

Data path: files -> Shot (reduced, undistorted mask) + posed SurfacePoints -> Fit (numbers).
Shape letters: P points, h, w of the reduced mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD, NEGLIGIBLE_DISTORTION, decode_image
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.posed_surface import Projection, project_points

REDUCED_SIDE = 512  # pixels, longest side of the masks that are measured: 4-5 mm a pixel for a whole person
TOLERANCE = 0.01  # metres by which the body may stick out of the mask: fits are not better
FAR = 0.3  # metres from the projected body: no clothes
HAND_WINDOW = 0.13  # metres either side of a hand's middle


@dataclass(frozen=True)
class Shot:
    """One picture's mask and camera, reduced."""

    frame: int
    camera: int
    mask: np.ndarray  # (h, w) bool
    w2c: np.ndarray  # (4, 4)
    K: np.ndarray  # (3, 3) of the reduced picture
    brightest: int  # value in the mask's file
    border_share: float  # of the picture's border that the mask covers

    @property
    def size(self) -> tuple[int, int]:
        return self.mask.shape[1], self.mask.shape[0]

    @property
    def mask_share(self) -> float:
        return float(self.mask.mean())


@dataclass(frozen=True)
class Fit:
    """How the body lies in one mask. Shares are NaN where there is nothing to take a share of."""

    frame: int
    camera: int
    mask_share: float  # of the picture
    in_view: float  # share of the body's surface points inside the picture
    inside: float  # share of those that fall into the mask, TOLERANCE allowed
    overlap: float  # intersection over union of mask and projected body
    far: float  # share of the mask farther than FAR from the projected body
    holes: float  # share of the projected body in holes that the mask encloses
    size_ratio: float  # root of mask area over body area; NaN unless the whole body is in view
    hand_gain: tuple[float, ...]  # cm^2 by which the mean hand pose fits each visible hand better


class SizeMismatch(ValueError):
    """Image, mask and calibration disagree about the picture's size."""


def load_shot(layout: CaptureLayout, frame: int, camera: int) -> Shot:
    """Read one pair of files. SizeMismatch, or another ValueError or an OSError where they cannot be read."""
    calibrated = layout.cameras[camera]
    image_path, mask_path = layout.image_path(camera, frame), layout.mask_path(camera, frame)
    image = decode_image(image_path, cv2.IMREAD_GRAYSCALE)
    alpha = decode_image(mask_path, cv2.IMREAD_GRAYSCALE)
    sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (image, alpha)]
    if image.shape != alpha.shape:
        raise SizeMismatch(f"image {image_path} is {sizes[0]} but its mask {mask_path} is {sizes[1]}")
    expected = calibrated.image_size
    if expected is not None and image.shape[::-1] != tuple(expected):
        raise SizeMismatch(f"image {image_path} is {sizes[0]} but its camera is {expected[0]}x{expected[1]}")
    reduced, K = reduce_picture(alpha, calibrated.K, REDUCED_SIDE)
    reduced = undistort_picture(reduced, K, calibrated.dist)
    mask = reduced > MASK_THRESHOLD
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return Shot(frame, camera, mask, calibrated.w2c, K, int(alpha.max()), float(border.mean()))


def reduce_picture(pixels: np.ndarray, K: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture with its longest side at most `side`, and its K."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels, K
    reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return reduced, np.array([size[0] / width, size[1] / height, 1.0])[:, None] * K


def undistort_picture(pixels: np.ndarray, K: np.ndarray, dist: np.ndarray) -> np.ndarray:
    """The pinhole camera's picture with the same K."""
    if np.abs(dist).max() <= NEGLIGIBLE_DISTORTION:
        return pixels
    return cv2.undistort(pixels, K, dist)


def measure_fit(
    shot: Shot, points: np.ndarray, mean_hand_points: np.ndarray | None, hands: dict[str, np.ndarray]
) -> Fit:
    """points: (P, 3) posed in the world; mean_hand_points: the same with the mean hand added to the pose."""
    projection = project_points(points, shot.w2c, shot.K, shot.size)
    silhouette = projection.silhouette()
    grown = cv2.dilate(shot.mask.view(np.uint8), _disk(TOLERANCE * projection.pixels_per_metre)) > 0
    seen = projection.in_view
    inside = grown[projection.rows[seen], projection.columns[seen]]
    mask_area, body_area = int(shot.mask.sum()), int(silhouette.sum())
    whole = seen.all() and mask_area > 0 and shot.border_share == 0
    gains = ()
    if mean_hand_points is not None and seen.any():
        other = project_points(mean_hand_points, shot.w2c, shot.K, shot.size)
        gains = _hand_gains(shot.mask, projection, other, hands)
    return Fit(
        frame=shot.frame,
        camera=shot.camera,
        mask_share=shot.mask_share,
        in_view=float(seen.mean()),
        inside=float(inside.mean()) if seen.any() else float("nan"),
        overlap=overlap(shot.mask, silhouette),
        far=_far_share(shot.mask, silhouette, projection.pixels_per_metre),
        holes=_hole_share(shot.mask, silhouette),
        size_ratio=float(np.sqrt(mask_area / body_area)) if whole else float("nan"),
        hand_gain=gains,
    )


def overlap(mask: np.ndarray, silhouette: np.ndarray) -> float:
    """Intersection over union; NaN if both are empty."""
    union = int((mask | silhouette).sum())
    return int((mask & silhouette).sum()) / union if union else float("nan")


def _far_share(mask: np.ndarray, silhouette: np.ndarray, pixels_per_metre: float) -> float:
    if not mask.any() or not silhouette.any():
        return float("nan")
    distance = cv2.distanceTransform((~silhouette).view(np.uint8), cv2.DIST_L2, 3)
    return float((distance[mask] > FAR * pixels_per_metre).mean())


def _hole_share(mask: np.ndarray, silhouette: np.ndarray) -> float:
    """Holes that lie behind the body: between arm and hip the background may well show."""
    if not silhouette.any():
        return float("nan")
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    return float((filled & ~mask & silhouette).sum() / silhouette.sum())


def _hand_gains(
    mask: np.ndarray, flat: Projection, mean: Projection, hands: dict[str, np.ndarray]
) -> tuple[float, ...]:
    """Per hand in view: area around it where silhouette and mask disagree, as given minus with the mean hand."""
    silhouettes = flat.silhouette(), mean.silhouette()
    gains = []
    for hand in hands.values():
        if not (flat.in_view[hand].all() and mean.in_view[hand].all()):
            continue
        reach = HAND_WINDOW * flat.pixels_per_metre
        row, column = flat.rows[hand].mean(), flat.columns[hand].mean()
        rows = slice(max(0, int(row - reach)), int(row + reach) + 1)
        columns = slice(max(0, int(column - reach)), int(column + reach) + 1)
        wrong = [int((silhouette ^ mask)[rows, columns].sum()) for silhouette in silhouettes]
        gains.append((wrong[0] - wrong[1]) * (100 / flat.pixels_per_metre) ** 2)
    return tuple(gains)


def _disk(radius: float) -> np.ndarray:
    whole = int(np.ceil(radius))
    offsets = np.arange(-whole, whole + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= max(radius, 0.5) ** 2).astype(np.uint8)
