"""Captures for timing: AvatarReX folders of pictures that were made for the purpose.

Data path: cameras + poses + pictures -> files -> CaptureDataset, as training reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

JPEG_QUALITY = 95
FIRST_NAME = 22010700  # names are numbers, as there


def camera_name(camera: int) -> str:
    return f"{FIRST_NAME + camera}"


def calibration_entry(
    w2c: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], distortion: tuple[float, ...] = (0.0,) * 5
) -> dict:
    """One camera of calibration_full.json. w2c (4, 4) metres, intrinsics (3, 3) pixels, size (width, height)."""
    return {
        "K": intrinsics.ravel().tolist(),
        "R": w2c[:3, :3].ravel().tolist(),
        "T": w2c[:3, 3].tolist(),
        "distCoeff": list(distortion),
        "imgSize": list(size),
    }


def write_capture(
    root: Path,
    calibration: list[dict],
    motion: dict[str, np.ndarray],
    pictures: Iterable[tuple[int, int, np.ndarray, np.ndarray]],
) -> Path:
    """pictures: camera, frame, (H, W, 3) RGB and (H, W) mask, uint8. motion: the arrays of smpl_params.npz."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    for camera, frame, image, mask in pictures:
        masks = root / camera_name(camera) / "mask" / "pha"
        masks.mkdir(parents=True, exist_ok=True)
        for path, pixels in (
            (root / camera_name(camera) / f"{frame:08d}.jpg", image[..., ::-1]),
            (masks / f"{frame:08d}.jpg", mask),
        ):
            if not cv2.imwrite(str(path), np.ascontiguousarray(pixels), quality):
                raise OSError(f"could not write {path}")
    content = {camera_name(camera): entry for camera, entry in enumerate(calibration)}
    (root / "calibration_full.json").write_text(json.dumps(content))
    np.savez(root / "smpl_params.npz", allow_pickle=False, **motion)
    return root
