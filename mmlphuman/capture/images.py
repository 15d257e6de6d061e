"""One image and its mask, from two files to the arrays of a Sample.

Data path: files -> decode -> undistort -> mask and its unreliable edge -> scale -> View (uint8, bool).
Shape letters: H, W of the scaled image.

Undistortion keeps K. Scaling multiplies K by the ratio of the rounded sizes, which is exact for pixel centres
at +0.5 (see mmlphuman.types). The edge band is made at full size, since its radius is a fact of the capture's
matting, and scaled with the mask.

For speed the steps after decoding work where the person is, with the same values there as on the whole picture.
Nothing looks at the colours outside the mask (the background is painted over them), so an undistorted picture
stays black away from it. script/benchmark.py --only samples measures every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from mmlphuman.capture.layout import HALF_PIXEL, MAX_PIXELS, CalibratedCamera
from mmlphuman.files import read_plain_file
from mmlphuman.resources import OutOfMemory, memory_for
from mmlphuman.text import one_line

SMALLEST = 16  # pixels a side of a scaled picture
BAND = 64  # rows that are undistorted together, in the columns that the person takes there
MASK_THRESHOLD = 128  # a brighter mask pixel is the person
NEGLIGIBLE_DISTORTION = 1e-6  # coefficients below it move no pixel visibly
JPEG_START = b"\xff\xd8"
# How a file starts and how it must end.
END_MARKS = {JPEG_START: b"\xff\xd9", b"\x89PNG": b"IEND"}
END_MARK_WITHIN = 4096  # bytes; some cameras append a little after the mark


@dataclass(frozen=True)
class View:
    """One picture of the subject."""

    image: np.ndarray  # (H, W, 3) uint8 RGB; where there was distortion, black far outside the mask
    mask: np.ndarray  # (H, W) bool, True on the person
    edge: np.ndarray  # (H, W) bool, True in the band that is not to be trusted


Window = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class Undistortion:
    """Where each pixel of the undistorted picture is taken from, in OpenCV's fixed-point tables."""

    tables: tuple[np.ndarray, np.ndarray]
    farthest: int  # pixels, no pixel comes from farther away along either axis

    def apply(self, pixels: np.ndarray, around: np.ndarray, margin: int) -> np.ndarray:
        """The undistorted picture where it is within `margin` pixels of a True one of `around`, else zero."""
        result = np.zeros(pixels.shape, np.uint8)
        for top in range(0, len(around), BAND):  # legs take fewer columns than outstretched arms
            near = around[max(0, top - margin) : top + BAND + margin]
            window = slice(top, top + BAND), _bounding_window(near, margin)[1]
            if result[window].size:
                whole, fraction = (table[window] for table in self.tables)
                result[window] = cv2.remap(pixels, whole, fraction, cv2.INTER_LINEAR)
        return result


@dataclass(frozen=True)
class ViewReader:
    """Everything one camera's pictures need; made once per camera by `make_view_reader`."""

    source_size: tuple[int, int]  # (width, height) of the files
    size: tuple[int, int]  # (width, height) after scaling
    intrinsics: np.ndarray  # (3, 3) of the scaled image
    undistortion: Undistortion | None  # None where there is no distortion
    edge_radius: int

    def read(self, image_path: Path, mask_path: Path) -> View:
        """Raises ValueError, naming the files, if they cannot be decoded or their sizes disagree."""
        image, alpha = self.decode(image_path, mask_path)
        image, mask = self.undistort(image, alpha)
        return self.scale(image, mask, edge_band(mask, self.edge_radius))

    def decode(self, image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The files' own pixels: (H, W, 3) RGB and (H, W), uint8."""
        image = decode_image(image_path, cv2.IMREAD_COLOR_RGB)
        alpha = decode_mask(mask_path, image_path)
        if image.shape[:2] != alpha.shape:
            raise ValueError(
                f"image {image_path} is {_size_text(image)} but its mask {mask_path} is {_size_text(alpha)}"
            )
        if image.shape[1::-1] != self.source_size:
            raise ValueError(
                f"image {image_path} is {_size_text(image)} but its camera's images are "
                f"{self.source_size[0]}x{self.source_size[1]} (width x height)"
            )
        return image, alpha

    def undistort(self, image: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-> the pinhole camera's picture and its mask (bool)."""
        mask = alpha > MASK_THRESHOLD
        if self.undistortion is None:
            return image, mask
        # A pixel of the result is True only if one that it is interpolated from is brighter than the threshold.
        mask = self.undistortion.apply(alpha, mask, self.undistortion.farthest + 1) > MASK_THRESHOLD
        # A scaled mask pixel averages source pixels just outside the mask.
        margin = math.ceil(self.source_size[0] / self.size[0])
        return self.undistortion.apply(image, mask, margin), mask

    def scale(self, image: np.ndarray, mask: np.ndarray, edge: np.ndarray) -> View:
        if self.size == self.source_size:
            return View(image, mask, edge)
        image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        return View(image, _scale_bool(mask, self.size), _scale_bool(edge, self.size))


def make_view_reader(
    camera: CalibratedCamera, source_size: tuple[int, int], image_scaling: float, edge_radius: int
) -> ViewReader:
    """The reader of one camera. source_size: (width, height) of its files."""
    if edge_radius < 0:
        raise ValueError(f"edge_radius must not be negative, got {edge_radius}")
    size, intrinsics = scaled_camera(camera, source_size, image_scaling)
    undistortion = None
    if has_distortion(camera):
        undistortion = _make_undistortion(camera, source_size)
    return ViewReader(source_size, size, intrinsics, undistortion, edge_radius)


def scaled_camera(
    camera: CalibratedCamera, source_size: tuple[int, int], image_scaling: float
) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height) of the scaled images and their (3, 3) intrinsics."""
    if not 0 < image_scaling <= 1:
        raise ValueError(f"image_scaling must be above 0 and at most 1, got {image_scaling}")
    width, height = (max(1, round(length * image_scaling)) for length in source_size)
    if min(width, height) < min(SMALLEST, *source_size):
        raise ValueError(
            f"image_scaling: {image_scaling:g} makes pictures of {width}x{height} pixels out of "
            f"{source_size[0]}x{source_size[1]}; {SMALLEST} a side are the least"
        )
    ratio = np.array([width / source_size[0], height / source_size[1], 1.0])
    return (width, height), ratio[:, None] * camera.K


def has_distortion(camera: CalibratedCamera) -> bool:
    return bool(np.abs(camera.dist).max() > NEGLIGIBLE_DISTORTION)


def opencv_intrinsics(camera: CalibratedCamera, K: np.ndarray) -> np.ndarray:
    """(3, 3) K of this camera (at any scale) as OpenCV's functions take it, whose pixel centres are whole numbers."""
    return K - HALF_PIXEL * camera.half_pixel * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])


def _make_undistortion(camera: CalibratedCamera, size: tuple[int, int]) -> Undistortion:
    K = opencv_intrinsics(camera, camera.K)
    tables = cv2.initUndistortRectifyMap(K, camera.dist, None, K, size, cv2.CV_16SC2)
    columns, rows = np.arange(size[0], dtype=np.int32), np.arange(size[1], dtype=np.int32)[:, None]
    farthest = max(np.abs(tables[0][..., 0] - columns).max(), np.abs(tables[0][..., 1] - rows).max())
    return Undistortion(tables, int(farthest) + 1)  # the tables' first half is rounded down


def decode_image(path: Path, mode: int) -> np.ndarray:
    """uint8 pixels of an image file, (H, W, 3) or (H, W) as `mode` (an OpenCV imread flag) says.

    ValueError, one line, also where a decoder would only warn of damage and make up the rest of the picture.
    """
    data = read_plain_file(path)
    for start, end in END_MARKS.items():
        if data.startswith(start) and end not in data[-END_MARK_WITHIN:]:
            raise ValueError(f"{path}: the image file is cut short; fetch it again or delete it")
    if data.startswith(JPEG_START):
        try:
            with memory_for(f"{path} does not fit"):
                return decode_jpeg(data, mode)
        except OutOfMemory:
            raise
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({one_line(error)}); fetch it again or delete it") from error
    try:  # A camera's orientation tag must not turn the pixels that were calibrated.
        with memory_for(f"{path} does not fit"):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # an empty or absurd file
        pixels = None
    if pixels is None:
        raise ValueError(f"{path}: not a readable image; fetch it again or delete it")
    return pixels


def decode_mask(path: Path, image_path: Path) -> np.ndarray:
    """(H, W) uint8 of a mask file; where that is the image itself, its alpha channel."""
    if path != image_path:
        return decode_image(path, cv2.IMREAD_GRAYSCALE)
    pixels = decode_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 3 or pixels.shape[2] not in (2, 4):
        raise ValueError(f"{path}: has no alpha channel to be the mask, and there is no folder of masks")
    alpha = pixels[..., -1]
    return alpha if alpha.dtype == np.uint8 else (alpha >> 8).astype(np.uint8)  # of 16 bits


def decode_jpeg(data: bytes, mode: int) -> np.ndarray:
    """As OpenCV decodes it, bit by bit, in less time. ValueError where OpenCV prints libjpeg's warnings instead."""
    *size, colours, _ = simplejpeg.decode_jpeg_header(data)
    height, width = map(int, size)
    if height * width > MAX_PIXELS:
        raise ValueError(f"it claims {width}x{height} pixels, at most {MAX_PIXELS:,} are possible")
    space = {cv2.IMREAD_GRAYSCALE: "GRAY", cv2.IMREAD_COLOR_RGB: "RGB"}.get(mode)
    if space is None:  # IMREAD_UNCHANGED
        space = "GRAY" if colours == "Gray" else "BGR"
    pixels = simplejpeg.decode_jpeg(data, space, strict=True)
    return pixels[..., 0] if space == "GRAY" else pixels


def edge_band(mask: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) bool: dilation XOR erosion of the mask by a disk of `radius` pixels.

    Beyond the image's border the mask neither ends nor begins: the border itself makes no edge.
    """
    if radius == 0:
        return np.zeros_like(mask)
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    window = _bounding_window(mask, margin=radius)  # no edge outside it
    band = np.zeros_like(mask)
    if band[window].size:
        pixels = mask[window].view(np.uint8)
        band[window] = cv2.dilate(pixels, disk) != cv2.erode(pixels, disk)
    return band


def _bounding_window(mask: np.ndarray, margin: int) -> Window:
    """Rows and columns of the True pixels and `margin` more on every side; empty for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(0, top - margin), top + height + margin),
        slice(max(0, left - margin), left + width + margin),
    )


def _scale_bool(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A scaled pixel is True if more than half of its area is."""
    return cv2.resize(values.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > MASK_THRESHOLD


def _size_text(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
