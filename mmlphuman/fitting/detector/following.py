"""One person from picture to picture, from those in which it is known where the person is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlphuman.fitting.detector.files import read_rgb
from mmlphuman.fitting.detector.person import Person, see_person
from mmlphuman.fitting.detector.regions import Region

if TYPE_CHECKING:  # MediaPipe's absence is told by the command
    from mmlphuman.fitting.detector.graphs import Networks

JUMP = 0.35  # of the region's side, from one frame to the next


def follow(
    networks: Networks, files: Sequence[Path], anchors: Mapping[int, Region]
) -> Iterator[tuple[int, np.ndarray, Person | None]]:
    """(index, image, Person or None) of each picture, from each anchor towards the middle between it and the next.

    anchors: picture's index -> where the person is there; nothing comes without one. image: (H, W, 3) RGB.
    """
    order = sorted(anchors)
    if not order:
        return
    starts = [0, *((a + b + 1) // 2 for a, b in zip(order[:-1], order[1:], strict=True)), len(files)]
    for anchor, start, end in zip(order, starts[:-1], starts[1:], strict=True):
        for indices in (range(anchor, end), range(anchor - 1, start - 1, -1)):
            region, speed, unseen = anchors[anchor], np.zeros(2), 0
            for index in indices:
                image = read_rgb(files[index])
                guess = Region(region.middle + speed, region.side, region.angle)
                person = see_person(networks, image, guess)
                farthest = JUMP * (1 + unseen) * max(region.side, 1)
                if person is None or np.linalg.norm(person.region.middle - guess.middle) > farthest:
                    person = _found_again(networks, image, region, 1 + unseen)
                if person is None:
                    unseen, speed = unseen + 1, np.zeros(2)
                else:
                    moved = person.region.middle - region.middle
                    speed = 0.5 * moved if unseen == 0 and index != anchor else np.zeros(2)
                    region, unseen = person.region, 0
                yield index, image, person


def _found_again(networks: Networks, image: np.ndarray, last: Region, unseen: int) -> Person | None:
    """The nearest person about where the one who is followed was `unseen` pictures ago."""
    near = [
        region
        for region in networks.find(image)
        if np.linalg.norm(region.middle - last.middle) < JUMP * min(1 + 0.2 * unseen, 2) * last.side
    ]
    for region in sorted(near, key=lambda region: float(np.linalg.norm(region.middle - last.middle))):
        person = see_person(networks, image, region)
        if person is not None:
            return person
    return None
