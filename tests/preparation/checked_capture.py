"""A synthetic capture in any layout for the checks, small enough to damage a copy of it in every test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmlphuman.capture.formats import open_capture
from mmlphuman.synthetic.layouts import LAYOUTS, write_meta, write_photo
from mmlphuman.synthetic.raycast import Camera

CAMERAS, FRAMES, SIZE = 4, 8, 192


def rewrite(source: Path, target: Path, layout: str) -> Path:
    """The capture in `source` in another layout."""
    opened = open_capture(source)
    cameras = [
        Camera(camera.name, camera.R, camera.T, camera.K, *camera.image_size, camera.dist)
        for camera in opened.cameras
    ]
    with np.load(opened.pose_path) as motion:
        write_meta(LAYOUTS[layout], target, cameras, dict(motion))
    for camera in range(CAMERAS):
        for frame in range(FRAMES):
            image = cv2.imread(str(opened.image_path(camera, frame)), cv2.IMREAD_COLOR_RGB)
            mask = cv2.imread(str(opened.mask_path(camera, frame)), cv2.IMREAD_GRAYSCALE)
            write_photo(LAYOUTS[layout], target, cameras[camera].name, frame, image, mask)
    return target
