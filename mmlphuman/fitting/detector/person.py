"""Where a person's landmarks are in one picture, and the outline: by several passes about a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mmlphuman.fitting.detector.landmarks import BELOW_FACE, HIPS, LANDMARKS, MIRRORED, REACH
from mmlphuman.fitting.detector.regions import Crop, Pass, Region

if TYPE_CHECKING:  # MediaPipe's absence is told by the command
    from mmlphuman.fitting.detector.graphs import Networks

FEW_PASSES = (Pass(), Pass(mirrored=True))
PASSES = tuple(
    Pass(turned, scaled, mirrored)
    for mirrored in (False, True)
    for turned, scaled in ((0, 1.0), (10, 1.08), (-10, 1.08), (5, 0.94), (-5, 1.15))
)
FIRST_PASSES = (Pass(), Pass(15), Pass(-15))  # until one of them finds somebody
PERSON_PIXELS = 512  # of a side of the crop about a person; the network takes 256
SPREAD = 0.008  # of the region's side: passes that disagree by so much halve the confidence
LOST = 0.5  # share of the passes that must find somebody
MOST_PEOPLE = 6
SAME = 0.06  # of the region's side: who is nearer to another is the other


@dataclass(frozen=True)
class Person:
    """What has been found of one person in one picture."""

    points: np.ndarray  # (35, 2) pixels
    confidence: np.ndarray  # (35,)
    crop: Crop
    outline: np.ndarray  # (H, W) float32 of the crop, 0 to 1

    @property
    def region(self) -> Region:
        return Region.of_body(self.points[HIPS], self.points[REACH])

    @property
    def box(self) -> list[float]:
        """x, y, width, height of the landmarks."""
        low, high = self.points[LANDMARKS].min(0), self.points[LANDMARKS].max(0)
        return [round(float(n), 1) for n in (*low, *(high - low))]


def see_person(
    networks: Networks, image: np.ndarray, region: Region, passes: Sequence[Pass] = PASSES
) -> Person | None:
    """The person about whom the region is, or None. image: (H, W, 3) RGB."""
    crop = Crop(image, region, PERSON_PIXELS)
    looks = (networks.body_pass(crop, region, look) for look in FIRST_PASSES)
    first = next((found for found in looks if found is not None), None)
    if first is None:
        return None
    region = Region.of_body(first[0][HIPS, :2], first[0][REACH, :2])
    if not 8 < region.side < 4 * max(image.shape[:2]):
        return None
    crop = Crop(image, region, PERSON_PIXELS)
    found = [networks.body_pass(crop, region, look) for look in passes]
    found = [one for one in found if one is not None]
    if len(found) < LOST * len(passes):
        return None
    points, same_side = _without_swaps(np.stack([points for points, _ in found]))
    middle = np.median(points[..., :2], 0)
    spread = np.median(np.linalg.norm(points[..., :2] - middle, axis=-1), 0)
    visible = np.median(points[..., 2], 0)
    confidence = visible / (1 + (spread / (SPREAD * region.side)) ** 2) * same_side
    outlines = [outline for _, outline in found if outline is not None]
    outline = np.mean(outlines, 0) if outlines else np.zeros((2, 2), np.float32)
    return Person(middle, confidence, crop, outline)


def _without_swaps(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Passes (P, 35, 3) that have left and right the other way than most, turned about; and how much most agree."""
    places = points[:, LANDMARKS, :2]
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1).mean(-1)
    typical = points[np.median(distance, 1).argmin(), BELOW_FACE, :2]
    swapped = points[:, list(MIRRORED)]
    as_is = np.linalg.norm(points[:, BELOW_FACE, :2] - typical, axis=-1).mean(-1)
    about = np.linalg.norm(swapped[:, BELOW_FACE, :2] - typical, axis=-1).mean(-1)
    swap = about < as_is
    share = float(swap.mean())
    return np.where(swap[:, None, None], swapped, points), 1 - min(share, 1 - share)


def see_everybody(networks: Networks, image: np.ndarray) -> list[Person]:
    """All people in a picture: who has been found is painted over, and the rest is searched again."""
    people: list[Person] = []
    left = image.copy()
    while len(people) < MOST_PEOPLE:
        new = []
        for region in networks.find(left):
            person = see_person(networks, image, region, FEW_PASSES)
            if person is not None and not any(_same(person, other) for other in people + new):
                new.append(person)
        if not new:
            return people
        people += new
        for person in new:
            outline = person.crop.paste(person.outline, image.shape[:2])
            cover = cv2.dilate((outline > 0.3).astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool)
            left[cover] = 127
    return people[:MOST_PEOPLE]


def _same(one: Person, other: Person) -> bool:
    distance = np.linalg.norm(one.points[LANDMARKS] - other.points[LANDMARKS], axis=1)
    return float(np.median(distance)) < SAME * max(one.region.side, other.region.side)
