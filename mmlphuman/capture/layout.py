"""What a capture format must say about itself; everything else in this package is shared by all formats.

Data path: capture folder -> CaptureLayout -> CaptureDataset -> Sample.

A format's reader is one thin file that fills a CaptureLayout: cameras from its calibration file, where the
files are, how wide its unreliable edge is. A camera id is the camera's position in the calibration file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

DISTORTION_COEFFICIENTS = 5  # k1 k2 p1 p2 k3
ROTATION_TOLERANCE = 1e-3  # on the entries of R R^T - 1; calibration files carry rounded numbers


@dataclass(frozen=True)
class CalibratedCamera:
    """One camera as calibrated; x_camera = R x_world + T, metres.

    K is used as the file has it, for rays through pixel centres at +0.5: the published method hands it to
    gsplat unchanged. (OpenCV's calibration puts centres at integers, so such a K is half a pixel off for all
    cameras alike, which a trained avatar absorbs. Shifting it here would part our numbers from others'.)
    """

    name: str
    K: np.ndarray  # (3, 3) pixels
    R: np.ndarray  # (3, 3) world to camera
    T: np.ndarray  # (3,)
    dist: np.ndarray  # (5,) k1 k2 p1 p2 k3
    image_size: tuple[int, int] | None  # (width, height), None where the file does not tell

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

    def image_path(self, camera: int, frame: int) -> Path:
        return self.root / self.image_pattern.format(camera=self.cameras[camera].name, frame=frame)

    def mask_path(self, camera: int, frame: int) -> Path:
        return self.root / self.mask_pattern.format(camera=self.cameras[camera].name, frame=frame)

    @property
    def pose_path(self) -> Path:
        return self.root / "smpl_params.npz"

    @property
    def weight_volume_path(self) -> Path:
        return self.root / "gaussian" / "lbs_weights_grid.npz"

    @property
    def template_path(self) -> Path:
        return self.root / "gaussian" / "template.ply"


def check_camera(path: Path, camera: CalibratedCamera) -> CalibratedCamera:
    """The camera itself, or a ValueError that names calibration file, camera, field and value."""
    where = f"{path}: camera '{camera.name}'"
    for field in ("K", "R", "T", "dist"):
        if not np.isfinite(getattr(camera, field)).all():
            raise ValueError(f"{where}: {field} holds numbers that are not finite")
    if camera.K[0, 0] <= 0 or camera.K[1, 1] <= 0:
        raise ValueError(
            f"{where}: K has focal lengths {camera.K[0, 0]:g}, {camera.K[1, 1]:g}; they must be positive"
        )
    if not np.allclose(camera.K[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
        raise ValueError(f"{where}: K must be upper triangular with 1 in its corner, got {camera.K.tolist()}")
    error = np.abs(camera.R @ camera.R.T - np.eye(3)).max()
    if error > ROTATION_TOLERANCE:
        raise ValueError(f"{where}: R is not a rotation (R R^T differs from the identity by {error:.3g})")
    if np.linalg.det(camera.R) < 0:
        raise ValueError(f"{where}: R mirrors (its determinant is -1); a rotation is needed")
    if camera.image_size is not None and min(camera.image_size) < 1:
        raise ValueError(f"{where}: image size {camera.image_size} must be positive")
    return camera
