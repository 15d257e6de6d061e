"""Finds people, their landmarks and soft outlines in one camera's pictures, with MediaPipe's networks.

    .venv-networks/bin/python script/detect_people.py --images images/cam01 --keypoints keypoints/cam01.json
        --frames 0 25 50                                                all people in some frames
        --follow anchors/cam01.json --outlines outlines/cam01           one person through all frames

Needs numpy, cv2 and mediapipe 0.10.21 only, which needs numpy below 2 and so an environment of its own (Python 3.10 to
3.12); the package starts it (mmlphuman/fitting/networks.py). Whoever has better networks writes the same files:
COCO-WholeBody JSON (keypoints 17, foot_kpts 6, lefthand_kpts and righthand_kpts 21 each, as x, y, confidence), and PNGs
of the pictures' names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# The networks' environment has not the package, which is installed in the other one.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from mmlphuman.fitting.detector.files import annotation, pictures_in, read_rgb, write_json, write_outline
from mmlphuman.fitting.detector.following import follow
from mmlphuman.fitting.detector.hands import see_hands
from mmlphuman.fitting.detector.person import see_everybody
from mmlphuman.fitting.detector.regions import Region

if TYPE_CHECKING:
    from mmlphuman.fitting.detector.graphs import Networks


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of one camera's pictures")
    parser.add_argument("--keypoints", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--frames", type=int, nargs="+", help="all people in these pictures, no outlines")
    parser.add_argument("--follow", type=Path, help="JSON: {picture's place in order: [x, y, side, angle]}")
    parser.add_argument("--outlines", type=Path, help="folder of the followed person's outlines to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    try:
        from mmlphuman.fitting.detector.graphs import Networks
    except ImportError as error:
        raise ValueError(f"mediapipe cannot be loaded ({error}); pip install mediapipe==0.10.21") from error
    files = pictures_in(args.images)
    networks = Networks()
    if args.frames:
        annotations = find_everybody(networks, files, args.frames)
    else:
        annotations = follow_one(networks, files, args.follow, args.outlines)
    annotations.sort(key=lambda one: (one["image_id"], one["person"]))
    images = [{"id": index, "file_name": path.name} for index, path in enumerate(files)]
    write_json(args.keypoints, {"images": images, "annotations": annotations})


def find_everybody(networks: Networks, files: Sequence[Path], frames: Sequence[int]) -> list[dict]:
    annotations, progress = [], Progress(len(frames))
    for index in frames:
        people = see_everybody(networks, read_rgb(files[index]))
        annotations += [annotation(index, person, {}, number) for number, person in enumerate(people)]
        progress.step()
    return annotations


def follow_one(
    networks: Networks, files: Sequence[Path], anchors_file: Path, outlines: Path | None
) -> list[dict]:
    """Annotations of the person with hands; an outline of every picture, black where the person is not seen."""
    numbers = json.loads(anchors_file.read_text())
    anchors = {
        int(index): Region(np.array([x, y], float), float(side), angle)
        for index, (x, y, side, angle) in numbers.items()
    }
    annotations, progress, missing = [], Progress(len(files)), set(range(len(files)))
    for index, image, person in follow(networks, files, anchors):
        progress.step()
        missing.discard(index)
        outline = np.zeros(image.shape[:2], np.uint8)
        if person is not None:
            annotations.append(annotation(index, person, see_hands(networks, image, person)))
            outline = (person.crop.paste(person.outline, image.shape[:2]) * 255).round().astype(np.uint8)
        write_outline(outlines, files[index], outline)
    for index in missing:  # nobody to follow
        write_outline(outlines, files[index], np.zeros(read_rgb(files[index]).shape[:2], np.uint8))
    return annotations


class Progress:
    """Says "progress DONE TOTAL", which the package reads, at most once a second."""

    def __init__(self, total: int):
        self._done, self._total, self._said = 0, total, time.monotonic()

    def step(self) -> None:
        self._done += 1
        if time.monotonic() - self._said > 1 or self._done == self._total:
            self._said = time.monotonic()
            print(f"progress {self._done} {self._total}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as problem:
        # At once and on a line of its own, whatever MediaPipe's threads are writing.
        os.write(2, f"\nerror: {' '.join(str(problem).split())}\n".encode())
        sys.exit(1)
