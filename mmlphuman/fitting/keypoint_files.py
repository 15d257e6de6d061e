"""Keypoints that anybody's detector has written -> Landmarks.

Data path: KEYPOINTS/CAM.json, or KEYPOINTS/CAM/ of a file a frame -> people of each picture -> the one who is meant ->
Landmarks.

Forms, told apart by their content:
- COCO: {"images": [{"id", "file_name"}], "annotations": [...]}, or a list of annotations with "image_id"; each has
  keypoints (17 or 133 times x, y, confidence) and may have COCO-WholeBody's foot_kpts, lefthand_kpts, righthand_kpts;
- MMPose: {"instance_info": [{"frame_id", "instances": [...]}]}, or a list of instances for each frame's file;
- OpenPose: {"people": [{"pose_keypoints_2d": 25 or 18 times x, y, confidence, "hand_left_keypoints_2d": ...}]}.
A frame is what "images" say, else the number in a file's name in the order of its camera's files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.fitting.observations import BODY_LANDMARKS, LANDMARKS, LEFT_HAND, RIGHT_HAND, Landmarks
from mmlphuman.json_file import numbers, read_json
from mmlphuman.text import cut_ranges

COCO, FEET, FACE, HAND = 17, 6, 68, 21
WHOLE_BODY = COCO + FEET + FACE + 2 * HAND
# OpenPose's BODY_25 for each of BODY_LANDMARKS; the first 18 without the feet are its older COCO's plus its middle hip.
BODY_25 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11, 19, 20, 21, 22, 23, 24)
OPENPOSE_COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
FULL_CONFIDENCE = 1.0
SURE, OUTSIDE = (
    0.3,
    0.4,
)  # confidence; share of landmarks outside the pictures: people who leave them have fewer
VISIBLE = 2  # COCO's annotations say 0, 1 or 2 where detectors have a confidence


@dataclass(frozen=True)
class Detection:
    """One person in one picture."""

    places: np.ndarray  # (K, 2)
    confidence: np.ndarray  # (K,)

    @property
    def box(self) -> np.ndarray:
        """(4,) left, top, right, bottom of what is seen."""
        seen = self.places[self.confidence > 0]
        if not len(seen):
            return np.zeros(4)
        return np.concatenate([seen.min(0), seen.max(0)])

    @property
    def size(self) -> float:
        box = self.box
        return float(np.hypot(box[2] - box[0], box[3] - box[1]))

    @property
    def score(self) -> float:
        return float(self.confidence[: len(BODY_LANDMARKS)].mean())


People = list[list[Detection]]  # of each frame of a camera
Choose = Callable[
    [int, People], list[Detection | None]
]  # camera, its people -> of each frame the one who is meant


def read_keypoints(
    folder: str | Path,
    names: Sequence[str],
    frames: Sequence[int],
    choose: Choose | None = None,
    scale: float = 1.0,
) -> Landmarks:
    """Of V cameras by name and F frames, which have these numbers (rising) in the files.

    choose: whom to take where there are several; default: the one who moves on from the frame before, beginning with
    the one seen largest. scale: pixels of the capture's pictures in one of those that the detector saw.
    Raises FileNotFoundError or ValueError, which name file and field.
    """
    places = np.zeros((len(names), len(frames), len(LANDMARKS), 2), np.float32)
    confidence = np.zeros(places.shape[:3], np.float32)
    for camera, name in enumerate(names):
        people = read_people(Path(folder), name, frames[-1] + 1)
        persons = (choose or follow_largest)(camera, people)
        for frame, person in enumerate(persons[number] for number in frames):
            if person is not None:
                places[camera, frame], confidence[camera, frame] = person.places * scale, person.confidence
    if not confidence.any():
        raise ValueError(f"{folder}: the keypoints of no camera hold a person")
    return Landmarks(places, confidence)


def follow_largest(_: int, people: People) -> list[Detection | None]:
    """From the frame with the largest person on, forwards and backwards, the one nearest to the last one found."""
    sizes = [max((person.size * person.score for person in one), default=0.0) for one in people]
    chosen: list[Detection | None] = [None] * len(people)
    if not any(sizes):
        return chosen
    start = int(np.argmax(sizes))
    for frames in (range(start, len(people)), range(start, -1, -1)):
        last = max(people[start], key=lambda person: person.size * person.score)
        for frame in frames:
            near = [(float(np.abs(person.box - last.box).mean()), person) for person in people[frame]]
            distance, person = min(near, key=lambda pair: pair[0], default=(np.inf, None))
            if person is not None and distance < 0.5 * last.size:
                chosen[frame] = last = person
    return chosen


def read_people(folder: Path, name: str, frames: int) -> People:
    """Everybody in a camera's pictures, from CAM.json or the folder CAM/."""
    single = folder / f"{name}.json"
    if single.is_file():
        return _of_file(single, frames)
    if not (folder / name).is_dir():
        raise FileNotFoundError(
            f"{folder}: has neither {name}.json nor a folder {name}/ of a JSON file a frame"
        )
    files = sorted(
        (folder / name).glob("*.json"), key=lambda file: (_number(file.name) is None, _number(file.name) or 0)
    )
    numbered = [_number(file.name) for file in files]
    if any(number is None for number in numbered) or len(set(numbered)) < len(files) or not files:
        raise ValueError(
            f"{folder / name}: needs a JSON file a frame, its number the last one in its name, as 000012.json"
        )
    first = 0 if len(files) <= frames and max(n for n in numbered if n is not None) < frames else numbered[0]
    people: People = [[] for _ in range(frames)]
    for number, file in zip(numbered, files, strict=True):
        assert number is not None and first is not None
        if number - first < frames:
            people[number - first] = _people(file, read_json(file))
    return people


def _number(name: str) -> int | None:
    """The last number of a file's name, that of `cam01_000000000012_keypoints.json` being 12."""
    found = re.findall(r"\d+", name.removesuffix(".json"))
    return int(found[-1]) if found else None


def _of_file(path: Path, frames: int) -> People:
    content = read_json(path)
    people: People = [[] for _ in range(frames)]
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        entries = content["instance_info"]
        first = min((_integer(path, entry, "frame_id") for entry in entries), default=0)
        for entry in entries:
            place = _integer(path, entry, "frame_id") - first
            if place < frames:
                people[place] += _people(path, entry.get("instances", []))
        return people
    order: dict[object, int] = {}
    annotations = content
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        annotations = content["annotations"]
        images = content.get("images")
        if isinstance(images, list) and all(isinstance(image, dict) and "id" in image for image in images):
            named = sorted(images, key=lambda image: str(image.get("file_name", "")))
            order = {_key(image["id"]): place for place, image in enumerate(named)}
    if not isinstance(annotations, list):
        raise ValueError(f"{path}: holds neither COCO's annotations nor MMPose's instance_info")
    for annotation in annotations:
        image = _key(annotation.get("image_id")) if isinstance(annotation, dict) else None
        place = order.get(image, -1) if order else image
        if not isinstance(place, int) or place < 0:
            raise ValueError(
                f"{path}: annotation of image_id {image!r}, which is no frame and not among its images"
            )
        if place < frames:
            people[place] += _people(path, [annotation])
    return people


def _key(value: object) -> object:
    return value if isinstance(value, int | str) else None


def _integer(path: Path, entry: object, field: str) -> int:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, int):
        raise ValueError(f"{path}: {field} must be a whole number, got {value!r}")
    return value


def _people(path: Path, content: Any) -> list[Detection]:
    """Of one picture."""
    if isinstance(content, dict):
        content = next(
            (content[key] for key in ("people", "annotations", "instances") if key in content), [content]
        )
    if not isinstance(content, list) or not all(isinstance(person, dict) for person in content):
        raise ValueError(f"{path}: must hold a list of people")
    found = [person_of(path, person) for person in content]
    return [person for person in found if person.confidence.any()]


def person_of(path: Path, person: dict) -> Detection:
    """One person's object in any of the forms. Raises ValueError."""
    places, confidence = np.zeros((len(LANDMARKS), 2)), np.zeros(len(LANDMARKS))
    body = slice(0, len(BODY_LANDMARKS))

    def put(where: slice, points: np.ndarray) -> None:
        places[where][: len(points)], confidence[where][: len(points)] = points[:, :2], points[:, 2]

    if "pose_keypoints_2d" in person:
        points = _triples(path, person, "pose_keypoints_2d", (18, 25))
        put(body, points[list(BODY_25 if len(points) == 25 else OPENPOSE_COCO)])
        for side, where in (("left", LEFT_HAND), ("right", RIGHT_HAND)):
            if person.get(f"hand_{side}_keypoints_2d"):
                put(where, _triples(path, person, f"hand_{side}_keypoints_2d", (HAND,)))
    elif "keypoints" in person:
        points = _triples(path, person, "keypoints", (COCO, WHOLE_BODY), "keypoint_scores")
        put(body, points[: COCO + FEET] if len(points) == WHOLE_BODY else points)
        hands = COCO + FEET + FACE
        if len(points) == WHOLE_BODY:
            put(LEFT_HAND, points[hands : hands + HAND])
            put(RIGHT_HAND, points[hands + HAND :])
        if person.get("foot_kpts"):
            put(slice(COCO, COCO + FEET), _triples(path, person, "foot_kpts", (FEET,)))
        for side, where in (("left", LEFT_HAND), ("right", RIGHT_HAND)):
            if person.get(f"{side}hand_kpts"):
                put(where, _triples(path, person, f"{side}hand_kpts", (HAND,)))
    else:
        raise ValueError(f"{path}: a person has neither keypoints (COCO) nor pose_keypoints_2d (OpenPose)")
    places[confidence <= 0] = 0
    return Detection(places, np.clip(confidence, 0, 1))


def _triples(path: Path, person: dict, field: str, counts: tuple[int, ...], scores: str = "") -> np.ndarray:
    """(N, 3) x, y, confidence."""
    if scores and scores in person:  # MMPose keeps them apart
        found = numbers(str(path), person, field, [2 * count for count in counts]).reshape(-1, 2)
        return np.column_stack([found, numbers(str(path), person, scores, len(found))])
    points = numbers(str(path), person, field, [3 * count for count in counts]).reshape(-1, 3)
    if (points[:, 2] == VISIBLE).any():  # COCO's flags: 1 is marked though hidden
        points = np.column_stack([points[:, :2], points[:, 2] / VISIBLE])
    return points


def require_in_pictures(
    folder: str | Path, landmarks: Landmarks, cameras: Sequence[CalibratedCamera]
) -> None:
    """ValueError where a camera's landmarks lie outside its pictures: they are of larger ones, or turned ones."""
    for camera, places, confidence in zip(cameras, landmarks.places, landmarks.confidence, strict=True):
        assert camera.image_size is not None, "footage knows its pictures' sizes"
        seen = places[confidence > SURE]
        outside = ((seen < 0) | (seen > camera.image_size)).any(-1)
        if len(seen) and outside.mean() > OUTSIDE:
            raise ValueError(
                f"{folder}: {100 * outside.mean():.0f} % of camera '{camera.name}'s keypoints lie outside its pictures "
                f"({camera.image_size[0]}x{camera.image_size[1]}): found in pictures of another size, or turned ones? "
                "They are given in pixels of the source's"
            )


def notes_on(landmarks: Landmarks, names: Sequence[str]) -> tuple[str, ...]:
    """What is doubtful, for people. Raises ValueError where fewer than two cameras see the person."""
    seen = (landmarks.confidence[..., : len(BODY_LANDMARKS)] > 0.2).mean(-1) > 0.2  # (V, F)
    notes = []
    for name, frames in zip(names, seen, strict=True):
        if not frames.any():
            notes.append(
                f"{name} never sees the person: it is of no use; leave it out, or name the person there"
            )
        elif not frames.all():
            missing = cut_ranges(np.flatnonzero(~frames).tolist())
            notes.append(
                f"{name} does not see the person in frames {missing}; does the person leave the picture?"
            )
    few = np.flatnonzero(seen.sum(0) < 2)
    if len(few) == seen.shape[1]:
        raise ValueError(
            "no frame has two cameras that see the person; are the videos of one scene, at one time?"
        )
    if len(few):
        notes.append(
            f"fewer than two cameras see the person in frames {cut_ranges(few.tolist())}: leave them out (--frames)"
        )
    return tuple(notes)
