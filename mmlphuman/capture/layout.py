"""What a capture format must say about itself; everything else in this package is shared by all formats.

Data path: capture folder -> CaptureLayout -> CaptureDataset -> Sample.

A format's reader is one thin file that fills a CaptureLayout: cameras from its calibration file, where the
files are, how wide its unreliable edge is. A camera id is the camera's position in the calibration file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.capture.picture_names import can_have_alpha, find_picture

# k1 k2 p1 p2 | k3 | k4 k5 k6 of the rational model | s1 s2 s3 s4 of the thin prism: OpenCV's models.
DISTORTION_COUNTS = (0, 4, 5, 8, 12)
HALF_PIXEL = 0.5  # what OpenCV's principal points lack, whose pixel centres are whole numbers
ROTATION_TOLERANCE = 1e-3  # on the entries of R R^T - 1; calibration files carry rounded numbers
FOCAL_RANGE = (0.1, 100.0)  # of the image's size; beyond lie fractions or millimetres taken for pixels
MAX_PIXELS = 2**27  # of a picture: 134 million, more than video cameras have
POSE_FILES = ("smpl_params.npz", "smpl_params.json", "smpl_params")  # the last: a folder of a file a frame
SKEW_TOLERANCE = 1.0  # pixels; the rasterisers have no skew
Find = Callable[[Path], Path | None]  # an expected name -> the picture that is there
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibratedCamera:
    """One camera as calibrated; x_camera = R x_world + T, metres.

    K is used as the file has it, for rays through pixel centres at +0.5: the published method hands it to
    gsplat unchanged. (OpenCV's calibration puts centres at integers, so such a K is half a pixel off for all
    cameras alike, which a trained avatar absorbs. Shifting it here would part our numbers from others'.)
    Calibrations that are imported say `half_pixel`: their K is for centres at +0.5, and the lens is undone with
    OpenCV's, half a pixel less.
    """

    name: str
    K: np.ndarray  # (3, 3) pixels
    R: np.ndarray  # (3, 3) world to camera
    T: np.ndarray  # (3,)
    dist: np.ndarray  # (5,), (8,) or (12,): see `distortion`
    image_size: tuple[int, int] | None  # (width, height), None where the file does not tell
    half_pixel: bool = False

    @property
    def w2c(self) -> np.ndarray:
        """(4, 4) world to camera."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.R, self.T
        return matrix

    @property
    def center(self) -> np.ndarray:
        """(3,) camera centre in the world."""
        return -self.R.T @ self.T


@dataclass(frozen=True)
class CaptureLayout:
    """Where a capture keeps its files, and its cameras. Patterns are relative to root, `str.format` style."""

    root: Path
    cameras: tuple[CalibratedCamera, ...]
    image_pattern: str  # with {camera}, the camera's name, and {frame}, e.g. "{camera}/{frame:08d}.jpg"
    mask_pattern: str
    edge_radius: int  # pixels, of the disk that makes the band around the mask's edge

    def find_image(self, camera: int, frame: int, find: Find = find_picture) -> Path | None:
        """The file, whatever picture ending it has; None if there is none. find: FolderListing.find, for many."""
        return find(self._expected(self.image_pattern, camera, frame))

    def find_mask(self, camera: int, frame: int, find: Find = find_picture) -> Path | None:
        """The same for the mask. Where the camera has no folder of masks it is the picture's alpha: the picture."""
        expected = self._expected(self.mask_pattern, camera, frame)
        found = find(expected)
        if found is None and not expected.parent.is_dir():
            image = self.find_image(camera, frame, find)
            return image if image is not None and can_have_alpha(image) else None
        return found

    def image_path(self, camera: int, frame: int) -> Path:
        """The file; where there is none, the name that was expected."""
        return self.find_image(camera, frame) or self._expected(self.image_pattern, camera, frame)

    def mask_path(self, camera: int, frame: int) -> Path:
        return self.find_mask(camera, frame) or self._expected(self.mask_pattern, camera, frame)

    def _expected(self, pattern: str, camera: int, frame: int) -> Path:
        return self.root / pattern.format(camera=self.cameras[camera].name, frame=frame)

    @property
    def pose_path(self) -> Path:
        """The first of POSE_FILES that is there, or is missed."""
        return find_pose_file(self.root) or self.root / POSE_FILES[0]

    @property
    def weight_volume_path(self) -> Path:
        return self.root / "gaussian" / "lbs_weights_grid.npz"

    @property
    def template_path(self) -> Path:
        return self.root / "gaussian" / "template.ply"


def find_pose_file(root: Path) -> Path | None:
    """The first of POSE_FILES that is in a folder."""
    return next((root / name for name in POSE_FILES if (root / name).exists()), None)


def distortion(coefficients: Sequence[float] | np.ndarray = ()) -> np.ndarray:
    """OpenCV's coefficients, 0, 4, 5, 8 or 12 of them, as 5, 8 or 12: k1 k2 p1 p2 k3 [k4 k5 k6 [s1 s2 s3 s4]]."""
    count = len(coefficients)
    assert count in DISTORTION_COUNTS, count
    padded = np.zeros(max(count, 5))
    padded[:count] = coefficients
    return padded


def check_cameras(path: Path, cameras: Sequence[CalibratedCamera]) -> tuple[CalibratedCamera, ...]:
    """The cameras themselves, or a ValueError that names calibration file, camera, field and value."""
    for name, count in Counter(camera.name for camera in cameras).items():
        if count > 1:
            raise ValueError(f"{path}: camera '{name}' appears twice; its images could belong to either")
        # Names become folders: one that leads elsewhere must not reach files outside the capture.
        if not name.isprintable() or name in ("", ".", "..") or any(mark in name for mark in "/\\"):
            raise ValueError(f"{path}: camera name {name!r} is not allowed; it must be a plain folder name")
    for camera in cameras:
        check_lens(f"{path}: camera '{camera.name}'", camera)
        _check_pose(f"{path}: camera '{camera.name}'", camera)
    return tuple(cameras)


def check_lens(where: str, camera: CalibratedCamera) -> None:
    for field in ("K", "dist"):
        if not np.isfinite(getattr(camera, field)).all():
            raise ValueError(f"{where}: {field} holds numbers that are not finite")
    if camera.image_size is not None and min(camera.image_size) < 1:
        raise ValueError(f"{where}: image size (width, height) {camera.image_size} must be positive")
    if camera.image_size is not None and camera.image_size[0] * camera.image_size[1] > MAX_PIXELS:
        raise ValueError(
            f"{where}: image size (width, height) {camera.image_size}: at most {MAX_PIXELS:,} pixels are possible"
        )
    focal, center = camera.K[[0, 1], [0, 1]], camera.K[:2, 2]
    if focal.min() <= 0:
        raise ValueError(
            f"{where}: K: focal lengths fx, fy are {focal[0]:g}, {focal[1]:g}; they must be positive"
        )
    if not np.allclose(camera.K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
        raise ValueError(f"{where}: K must be upper triangular with 1 in its corner, got {camera.K.tolist()}")
    if abs(camera.K[0, 1]) > SKEW_TOLERANCE:
        log.warning("%s: K has a skew of %g pixels, which is ignored", where, camera.K[0, 1])
    if camera.image_size is None:
        return
    size = np.array(camera.image_size)
    if (focal < FOCAL_RANGE[0] * size).any() or (focal > FOCAL_RANGE[1] * size).any():
        raise ValueError(
            f"{where}: K: focal lengths fx, fy come to {focal[0]:g}, {focal[1]:g} pixels for an image of "
            f"{size[0]}x{size[1]}; check their unit"
        )
    if (center < -size).any() or (center > 2 * size).any():
        raise ValueError(
            f"{where}: K: the principal point px, py comes to {center[0]:g}, {center[1]:g} pixels, far outside "
            f"the image of {size[0]}x{size[1]}; check its unit"
        )


def _check_pose(where: str, camera: CalibratedCamera) -> None:
    for field in ("R", "T"):
        if not np.isfinite(getattr(camera, field)).all():
            raise ValueError(f"{where}: {field} holds numbers that are not finite")
    error = np.abs(camera.R @ camera.R.T - np.eye(3)).max()
    if error > ROTATION_TOLERANCE:
        raise ValueError(f"{where}: R is not a rotation (R R^T differs from the identity by {error:.3g})")
    if np.linalg.det(camera.R) < 0:
        raise ValueError(f"{where}: R mirrors (its determinant is -1); a rotation is needed")
