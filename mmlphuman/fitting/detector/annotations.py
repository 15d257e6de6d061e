"""A person as COCO-WholeBody's JSON has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mmlphuman.fitting.detector.hands import Hand
from mmlphuman.fitting.detector.landmarks import BODY, FEET
from mmlphuman.fitting.detector.person import Person


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
