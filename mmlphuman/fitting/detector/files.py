"""The files of one camera: pictures that are read, JSON and outlines that are written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

ENDINGS = (".jpg", ".jpeg", ".png")


def pictures_in(folder: Path) -> list[Path]:
    """In the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 as stored. Raises ValueError."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError(f"{path}: not a readable picture")
    return pixels[..., ::-1].copy()


def write_json(path: Path, content: dict) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)


def write_outline(folder: Path | None, picture: Path, outline: np.ndarray) -> None:
    """(H, W) uint8 under the picture's name; nothing without a folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{picture.stem}.png"), outline)
