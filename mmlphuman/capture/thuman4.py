"""THuman4.0: where its captures keep calibration, images and masks."""

from __future__ import annotations

from pathlib import Path

from mmlphuman.capture.calibration import read_json_calibration
from mmlphuman.capture.layout import CaptureLayout

CALIBRATION_FILE = "calibration.json"
EDGE_RADIUS = 3  # pixels, as published


def read_thuman4(root: Path) -> CaptureLayout:
    """The layout of a THuman4.0 capture folder. Raises ValueError for an unusable calibration."""
    return CaptureLayout(
        root=root,
        cameras=read_json_calibration(root / CALIBRATION_FILE),
        image_pattern="images/{camera}/{frame:08d}.jpg",
        mask_pattern="masks/{camera}/{frame:08d}.jpg",
        edge_radius=EDGE_RADIUS,
    )
