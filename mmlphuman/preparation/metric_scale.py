"""How tall the person is in a calibration's own unit, from masks alone: for cameras without a metric scale.

Data path: cameras + masks of some frames -> person_height -> factor to metres of an import.

In each frame the person stands on the line along `up` through the point that the rays through the masks' middles come
nearest to; the masks' topmost and lowest pixels see its ends. Bent and stretched poses are shorter: the frames' upper
end counts. With cameras all around it is good to a few per cent; poses tell better (script/check_capture.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD, decode_mask, opencv_intrinsics
from mmlphuman.capture.layout import HALF_PIXEL, CalibratedCamera
from mmlphuman.capture.masks import MaskMeasures
from mmlphuman.preparation.source_pictures import SourcePictures

FRAMES = 12  # that are looked at
UPRIGHT = 0.9  # quantile of the frames' heights
LEAST_CAMERAS = 2


def person_height(cameras: Sequence[CalibratedCamera], pictures: Sequence[SourcePictures]) -> float:
    """In the cameras' unit. ValueError where too few masks show a whole person."""
    numbers = sorted({number for camera in pictures for number in camera.masks or camera.images})
    chosen = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, FRAMES).round().astype(int))]
    up = -np.sum([camera.R[1] for camera in cameras], 0)
    if np.linalg.norm(up) < 0.3 * len(cameras):
        raise ValueError("--height: the cameras do not agree on what is up; give --scale instead")
    up /= np.linalg.norm(up)
    heights = []
    for number in chosen:
        rays = {}
        for index, (camera, files) in enumerate(zip(cameras, pictures, strict=True)):
            image = files.images.get(number)
            mask = files.masks.get(number, None if files.masks else image)
            ends = None if mask is None else _ends(camera, mask, image)
            if ends is not None:
                rays[index] = ends
        if len(rays) >= LEAST_CAMERAS:
            heights.append(height_along(up, [cameras[i].center for i in rays], list(rays.values())))
    if not heights:
        raise ValueError(
            "--height: in no frame do two cameras' masks show a whole person; give --masks, or --scale instead"
        )
    return float(np.quantile(heights, UPRIGHT))


def _ends(camera: CalibratedCamera, mask: Path, image: Path | None) -> np.ndarray | None:
    """(3, 3) directions in the world through the mask's middle, top and bottom; None where it is cut off or empty."""
    alpha = decode_mask(mask, image or Path())
    person = alpha > MASK_THRESHOLD if alpha.max() > MASK_THRESHOLD else alpha > 0  # or labels of parts
    measures = MaskMeasures.of(person)
    if not measures.share or measures.border_share:
        return None
    rows, columns = np.nonzero(person)
    return directions(camera, np.array([_middle(rows, columns), *_extremes(rows, columns)]))


def _middle(rows: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    return columns.mean() + HALF_PIXEL, rows.mean() + HALF_PIXEL


def _extremes(rows: np.ndarray, columns: np.ndarray) -> list[tuple[float, float]]:
    """The outer edges of the topmost and the lowest pixels."""
    return [
        (columns[rows == row].mean() + HALF_PIXEL, float(row + edge))
        for row, edge in ((rows.min(), 0), (rows.max(), 1))
    ]


def directions(camera: CalibratedCamera, pixels: np.ndarray) -> np.ndarray:
    """(N, 2) places in the picture, pixel centres at +0.5 -> (N, 3) unit vectors in the world; the lens is undone."""
    K = opencv_intrinsics(camera, camera.K)
    places = pixels - HALF_PIXEL * camera.half_pixel
    flat = cv2.undistortPoints(places[:, None].astype(np.float64), K, camera.dist)[:, 0]
    rays = np.concatenate([flat, np.ones((len(flat), 1))], 1) @ camera.R
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def height_along(up: np.ndarray, centers: Sequence[np.ndarray], rays: Sequence[np.ndarray]) -> float:
    """centers: (3,) of each camera; rays: (3, 3) through the person's middle, top and bottom."""
    middle = nearest_point(centers, [ray[0] for ray in rays])
    ends = []
    for end in (1, 2):
        heights = []
        for center, ray in zip(centers, rays, strict=True):
            # The point of the line middle + h up that is nearest to the ray.
            across = ray[end] - (ray[end] @ up) * up
            along = (middle - center) @ across / (across @ across)
            heights.append((center + along * ray[end] - middle) @ up)
        ends.append(np.median(heights))
    return float(ends[0] - ends[1])


def nearest_point(centers: Sequence[np.ndarray], directions: Sequence[np.ndarray]) -> np.ndarray:
    """(3,) the point with the least sum of squared distances to the lines."""
    across = [np.eye(3) - np.outer(direction, direction) for direction in directions]
    total = sum(part @ center for part, center in zip(across, centers, strict=True))
    return np.linalg.lstsq(np.sum(across, 0), total, rcond=None)[0]


def factor_of_height(metres: float, found: float) -> float:
    if found <= 0:
        raise ValueError("--height: the masks show no person that stands upright; give --scale instead")
    return metres / found
