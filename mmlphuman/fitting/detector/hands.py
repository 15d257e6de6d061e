"""A person's hands in one picture, looked for about the wrists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmlphuman.fitting.detector.landmarks import HANDS
from mmlphuman.fitting.detector.person import LOST, Person
from mmlphuman.fitting.detector.regions import Crop, Pass, Region

if TYPE_CHECKING:  # MediaPipe's absence is told by the command
    from mmlphuman.fitting.detector.graphs import Networks

PASSES = (Pass(), Pass(14, 1.1), Pass(-14, 1.1), Pass(mirrored=True), Pass(14, 0.92, True))
HAND_PIXELS = 320  # of a side of the crop about a hand; its network takes 224
SPREAD = 0.06  # of the hand's region: passes that disagree by so much halve the confidence
SEEN = 0.3  # a wrist of less confidence has no hand that is looked for

Hand = tuple[np.ndarray, np.ndarray]  # (21, 2) pixels and (21,) confidence


def see_hands(networks: Networks, image: np.ndarray, person: Person) -> dict[str, Hand]:
    """Those of "left" and "right" that are seen. image: (H, W, 3) RGB."""
    hands = {side: hand for side in HANDS if (hand := _see_hand(networks, image, person, side)) is not None}
    if len(hands) == 2:  # both in one place are one hand
        (one, of_one), (other, of_other) = hands.values()
        size = max(np.linalg.norm(one - one[0], axis=1).max(), 1.0)
        if np.linalg.norm(one - other, axis=1).mean() < 0.25 * size:
            del hands["left" if of_one.mean() < of_other.mean() else "right"]
    return hands


def _see_hand(networks: Networks, image: np.ndarray, person: Person, side: str) -> Hand | None:
    elbow, wrist, little, index = HANDS[side]
    if person.confidence[wrist] < SEEN:
        return None
    p = person.points
    forearm = p[wrist] - p[elbow]
    knuckles = (2 * p[index] + p[little]) / 3 - p[wrist]
    # A hand is 0.75 of a forearm long at most; foreshortened ones are compared with the body.
    length = float(
        max(0.75 * np.linalg.norm(forearm), 1.6 * np.linalg.norm(knuckles), 0.05 * person.region.side)
    )
    guesses = [
        Region.of_hand(p[wrist], knuckles * 0.9, 1.9 * length),
        Region.of_hand(p[wrist], forearm / max(np.linalg.norm(forearm), 1e-6) * 0.45 * length, 1.9 * length),
        Region.of_hand(p[wrist], knuckles * 0.9, 1.45 * length),
    ]
    seen = _passes(networks, image, [(guess, Pass()) for guess in guesses])
    if not seen:
        return None
    region = _region_of(_typical([points for points, _ in seen]))
    refined = _passes(networks, image, [(region, look) for look in PASSES])
    if len(refined) < LOST * len(PASSES):
        return None
    stack = np.stack([points for points, _ in refined])
    middle = np.median(stack, 0)
    region = _region_of(middle)
    spread = np.median(np.linalg.norm(stack - middle, axis=-1), 0)
    is_left = float(np.median([left for _, left in refined]))
    right_kind = is_left if side == "left" else 1 - is_left
    off = np.linalg.norm(middle[0] - p[wrist]) / region.side
    # A whole number of doubts: passes that found none, a hand of the other side, a wrist elsewhere.
    sure = len(refined) / len(PASSES) * (0.3 + 0.7 * right_kind) * np.exp(-((off / 0.35) ** 2))
    confidence = sure * min(1, person.confidence[wrist] + 0.3) / (1 + (spread / (SPREAD * region.side)) ** 2)
    return middle, confidence


def _passes(
    networks: Networks, image: np.ndarray, wanted: Sequence[tuple[Region, Pass]]
) -> list[tuple[np.ndarray, float]]:
    """Of those that find a hand its (21, 2) points and how surely it is a left one."""
    seen = [networks.hand_pass(Crop(image, region, HAND_PIXELS), region, look) for region, look in wanted]
    return [one for one in seen if one is not None]


def _typical(points: list[np.ndarray]) -> np.ndarray:
    """The one that is nearest to most others."""
    stack = np.stack(points)
    distance = np.linalg.norm(stack[:, None] - stack[None], axis=-1).mean(-1)
    return stack[np.median(distance, 1).argmin()]


def _region_of(points: np.ndarray) -> Region:
    """About the hand's points, turned so that its middle finger points up."""
    along = (points[5] + 2 * points[9] + points[13]) / 4 - points[0]
    angle = np.arctan2(along[0], -along[1])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    return Region(((low + high) / 2) @ turn, max(2.0, 1.7 * float((high - low).max())), angle)
