"""The file layouts of the three published data sets, for writing.

Place: cameras, motion, photographs -> files. Written from the formats' description, apart from the readers in
mmlphuman.capture, so that each can be wrong without the other hiding it. Shape letters: H, W image size.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.synthetic.raycast import Camera

JPEG_QUALITY = 98


@dataclass(frozen=True)
class Layout:
    """Patterns are relative to the capture, with {camera}, its name, and {frame}."""

    calibration_file: str
    image_pattern: str
    mask_pattern: str
    has_distortion: bool
    write_calibration: Callable[[Path, list[Camera]], None]


def write_meta(layout: Layout, out_dir: Path, cameras: list[Camera], motion: dict[str, np.ndarray]) -> None:
    """Calibration, `smpl_params.npz` and every camera's folders.

    Raises ValueError for lens distortion that the layout cannot express.
    """
    if not layout.has_distortion and any(np.any(camera.distortion) for camera in cameras):
        raise ValueError(f"{layout.calibration_file} has no field for lens distortion; choose another layout")
    for camera in cameras:
        for pattern in (layout.image_pattern, layout.mask_pattern):
            path = out_dir / pattern.format(camera=camera.name, frame=0)
            path.parent.mkdir(parents=True, exist_ok=True)
    layout.write_calibration(out_dir / layout.calibration_file, cameras)
    np.savez(out_dir / "smpl_params.npz", allow_pickle=False, **motion)


def write_photo(
    layout: Layout, out_dir: Path, camera: str, frame: int, image: np.ndarray, mask: np.ndarray
) -> None:
    """One (H, W, 3) uint8 RGB photo and its (H, W) uint8 mask."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    full_chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for pattern, pixels, options in (
        (layout.image_pattern, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality + full_chroma),
        (layout.mask_pattern, mask, quality if layout.mask_pattern.endswith(".jpg") else []),
    ):
        path = out_dir / pattern.format(camera=camera, frame=frame)
        if not cv2.imwrite(str(path), pixels, options):
            raise OSError(f"could not write {path}")


def write_ceiling(out_dir: Path, camera: int, frame: int, image: np.ndarray) -> None:
    """One (H, W, 3) uint8 RGB picture to compare with, on white, lossless and named as test.py names its own."""
    path = out_dir / "ceiling" / f"cam{camera:03d}_frame{frame:08d}.png"
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"could not write {path}")


def _write_json(path: Path, cameras: list[Camera]) -> None:
    """World to camera, pixels."""
    calibration = {
        camera.name: {
            "K": camera.intrinsics.ravel().tolist(),
            "R": camera.rotation.ravel().tolist(),
            "T": camera.translation.tolist(),
            "distCoeff": camera.distortion.tolist(),
            "imgSize": [camera.width, camera.height],
        }
        for camera in cameras
    }
    path.write_text(json.dumps(calibration, indent=1) + "\n")


def _write_csv(path: Path, cameras: list[Camera]) -> None:
    """Camera to world: axis-angle and centre; intrinsics as fractions of the image's size."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "w", "h", "rx", "ry", "rz", "tx", "ty", "tz", "fx", "fy", "px", "py"])
        for camera in cameras:
            focal_and_center = camera.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
            fractions = focal_and_center / np.tile([camera.width, camera.height], 2)
            numbers = [
                *Rotation.from_matrix(camera.rotation.T).as_rotvec().tolist(),
                *camera.center.tolist(),
                *fractions.tolist(),
            ]
            writer.writerow([camera.name, camera.width, camera.height, *numbers])


LAYOUTS = {
    "avatarrex": Layout(
        calibration_file="calibration_full.json",
        image_pattern="{camera}/{frame:08d}.jpg",
        mask_pattern="{camera}/mask/pha/{frame:08d}.jpg",
        has_distortion=True,
        write_calibration=_write_json,
    ),
    "thuman4": Layout(
        calibration_file="calibration.json",
        image_pattern="images/{camera}/{frame:08d}.jpg",
        mask_pattern="masks/{camera}/{frame:08d}.jpg",
        has_distortion=True,
        write_calibration=_write_json,
    ),
    "actorshq": Layout(
        calibration_file="calibration.csv",
        image_pattern="rgbs/{camera}/{camera}_rgb{frame:06d}.jpg",
        mask_pattern="masks/{camera}/{camera}_mask{frame:06d}.png",
        has_distortion=False,
        write_calibration=_write_csv,
    ),
}
