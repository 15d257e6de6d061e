"""The files of one camera: pictures that are read; people as COCO-WholeBody's JSON has them and outlines, written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.fitting.detector.hands import Hand
from mmlphuman.fitting.detector.landmarks import BODY, FEET
from mmlphuman.fitting.detector.person import Person

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


def annotation(frame: int, person: Person, hands: Mapping[str, Hand], number: int = 0) -> dict:
    """COCO-WholeBody's names; and the number of several people, and the region by which to follow this one."""
    nothing = np.zeros(2)
    feet = [nothing if k is None else person.points[k] for k in FEET]
    feet_confidence = [0 if k is None else person.confidence[k] for k in FEET]
    no_hand = np.zeros((21, 2)), np.zeros(21)
    region = person.region
    return {
        "image_id": frame,
        "category_id": 1,
        "person": number,
        "bbox": person.box,
        "score": round(float(np.mean(person.confidence[11:29])), 3),
        "keypoints": _flat(person.points[list(BODY)], person.confidence[list(BODY)]),
        "foot_kpts": _flat(feet, feet_confidence),
        "lefthand_kpts": _flat(*hands.get("left", no_hand)),
        "righthand_kpts": _flat(*hands.get("right", no_hand)),
        "region": [round(float(n), 4) for n in (*region.middle, region.side, region.angle)],
    }


def _flat(points: Iterable[np.ndarray], confidence: Iterable[float]) -> list[float]:
    """x, y, confidence, x, ..."""
    return [round(float(n), 3) for p, c in zip(points, confidence, strict=True) for n in (*p, c)]


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
