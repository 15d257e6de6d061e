"""One image and its mask, from two files to the arrays of a Sample.

Data path: files -> decode -> undistort -> mask and its unreliable edge -> scale -> View (uint8, bool).
Shape letters: H, W of the scaled image.

Undistortion keeps K. Scaling multiplies K by the ratio of the rounded sizes, which is exact for pixel centres
at +0.5 (see mmlphuman.types). The edge band is made at full size, since its radius is a fact of the capture's
matting, and scaled with the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.capture.layout import CalibratedCamera

MASK_THRESHOLD = 128  # a brighter mask pixel is the person
NEGLIGIBLE_DISTORTION = 1e-6  # coefficients below it move no pixel visibly
# How a file starts and how it must end. OpenCV decodes a JPEG that is cut short without complaint.
END_MARKS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
END_MARK_WITHIN = 4096  # bytes; some cameras append a little after the mark


@dataclass(frozen=True)
class View:
    """One picture of the subject."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    mask: np.ndarray  # (H, W) bool, True on the person
    edge: np.ndarray  # (H, W) bool, True in the band that is not to be trusted


@dataclass(frozen=True)
class ViewReader:
    """Everything one camera's pictures need; made once per camera by `make_view_reader`."""

    source_size: tuple[int, int]  # (width, height) of the files
    size: tuple[int, int]  # (width, height) after scaling
    intrinsics: np.ndarray  # (3, 3) of the scaled image
    remap_tables: tuple[np.ndarray, np.ndarray] | None  # None where there is no distortion
    edge_radius: int

    def read(self, image_path: Path, mask_path: Path) -> View:
        """Raises ValueError, naming the files, if they cannot be decoded or their sizes disagree."""
        image = decode_image(image_path, cv2.IMREAD_COLOR_RGB)
        alpha = decode_image(mask_path, cv2.IMREAD_GRAYSCALE)
        if image.shape[:2] != alpha.shape:
            raise ValueError(
                f"image {image_path} is {_size_text(image)} but its mask {mask_path} is {_size_text(alpha)}"
            )
        if image.shape[1::-1] != self.source_size:
            raise ValueError(
                f"image {image_path} is {_size_text(image)} but its camera's images are "
                f"{self.source_size[0]}x{self.source_size[1]} (width x height)"
            )
        if self.remap_tables is not None:
            image = cv2.remap(image, *self.remap_tables, cv2.INTER_LINEAR)
            alpha = cv2.remap(alpha, *self.remap_tables, cv2.INTER_LINEAR)
        mask = alpha > MASK_THRESHOLD
        edge = edge_band(mask, self.edge_radius)
        if self.size != self.source_size:
            image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
            mask, edge = _scale_bool(mask, self.size), _scale_bool(edge, self.size)
        return View(image, mask, edge)


def make_view_reader(
    camera: CalibratedCamera, source_size: tuple[int, int], image_scaling: float, edge_radius: int
) -> ViewReader:
    """The reader of one camera. source_size: (width, height) of its files."""
    if not 0 < image_scaling <= 1:
        raise ValueError(f"image_scaling must be above 0 and at most 1, got {image_scaling}")
    if edge_radius < 0:
        raise ValueError(f"edge_radius must not be negative, got {edge_radius}")
    size = tuple(max(1, round(length * image_scaling)) for length in source_size)
    ratio = np.array([size[0] / source_size[0], size[1] / source_size[1], 1.0])
    tables = None
    if np.abs(camera.dist).max() > NEGLIGIBLE_DISTORTION:
        tables = cv2.initUndistortRectifyMap(camera.K, camera.dist, None, camera.K, source_size, cv2.CV_16SC2)
    return ViewReader(source_size, size, ratio[:, None] * camera.K, tables, edge_radius)


def decode_image(path: Path, mode: int) -> np.ndarray:
    """uint8 pixels of an image file, (H, W, 3) or (H, W) as `mode` (an OpenCV imread flag) says."""
    data = path.read_bytes()
    for start, end in END_MARKS.items():
        if data.startswith(start) and end not in data[-END_MARK_WITHIN:]:
            raise ValueError(f"{path}: the image file is cut short; fetch it again or delete it")
    try:  # A camera's orientation tag must not turn the pixels that were calibrated.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # an empty or absurd file
        pixels = None
    if pixels is None:
        raise ValueError(f"{path}: not a readable image; fetch it again or delete it")
    return pixels


def edge_band(mask: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) bool: dilation XOR erosion of the mask by a disk of `radius` pixels (method: training).

    Beyond the image's border the mask neither ends nor begins: the border itself makes no edge.
    """
    if radius == 0:
        return np.zeros_like(mask)
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    pixels = mask.astype(np.uint8)
    return cv2.dilate(pixels, disk) != cv2.erode(pixels, disk)


def _scale_bool(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A scaled pixel is True if more than half of its area is."""
    return cv2.resize(values.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > MASK_THRESHOLD


def _size_text(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
