"""AvatarReX: where its captures keep calibration, images and masks."""

from __future__ import annotations

from pathlib import Path

from mmlphuman.capture.calibration import read_json_calibration
from mmlphuman.capture.layout import CaptureLayout

CALIBRATION_FILE = "calibration_full.json"
EDGE_RADIUS = 5  # pixels, as published


def read_avatarrex(root: Path) -> CaptureLayout:
    """The layout of an AvatarReX capture folder. Raises ValueError for an unusable calibration."""
    return CaptureLayout(
        root=root,
        cameras=read_json_calibration(root / CALIBRATION_FILE),
        image_pattern="{camera}/{frame:08d}.jpg",
        mask_pattern="{camera}/mask/pha/{frame:08d}.jpg",
        edge_radius=EDGE_RADIUS,
    )
