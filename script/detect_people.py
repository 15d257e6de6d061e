"""Finds people, their landmarks and soft outlines in one camera's pictures, with MediaPipe's networks.

    .venv-networks/bin/python script/detect_people.py --images images/cam01 --keypoints keypoints/cam01.json
        --frames 0 25 50                                                all people in some frames
        --follow anchors/cam01.json --outlines outlines/cam01           one person through all frames

Stands by itself and imports numpy, cv2 and mediapipe 0.10.21 only, which needs numpy below 2 and so an environment of
its own (Python 3.10 to 3.12); the package starts it (mmlphuman/fitting/networks.py). Whoever has better networks writes
the same files: COCO-WholeBody JSON (keypoints 17, foot_kpts 6, lefthand_kpts and righthand_kpts 21 each, as x, y,
confidence), and PNGs of the pictures' names.

A single pass of these networks is off by more than the networks have to be: each picture is seen several times, turned,
scaled and mirrored about the person, and medians are taken. How far passes disagree lowers the confidence. The outline
is the mean of those of the landmarks' network; MediaPipe's selfie segmentation finds no whole bodies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

# MediaPipe's 33 -> COCO's 17 and the feet (big toe, small toe, heel; it has no small toe).
BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FEET = (31, None, 29, 32, None, 30)
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i for k in range(11, 33, 2) for i in (k + 1, k)), 33, 34)
HANDS = {"left": (13, 15, 17, 19), "right": (14, 16, 18, 20)}  # elbow, wrist, little finger, index
ENDINGS = (".jpg", ".jpeg", ".png")

# The passes about a person: (turned by degrees, scaled, mirrored).
PASSES = (
    *((0, 1.0, False), (10, 1.08, False), (-10, 1.08, False), (5, 0.94, False), (-5, 1.15, False)),
    *((0, 1.0, True), (10, 1.08, True), (-10, 1.08, True), (5, 0.94, True), (-5, 1.15, True)),
)
FEW_PASSES = ((0, 1.0, False), (0, 1.0, True))
# About a hand: (turned, scaled, mirrored).
HAND_PASSES = ((0, 1.0, False), (14, 1.1, False), (-14, 1.1, False), (0, 1.0, True), (14, 0.92, True))
PERSON_PIXELS = 512  # of a side of the crop about a person; the network takes 256
HAND_PIXELS = 320  # its network takes 224
CROP_MARGIN = 1.3  # of the crop to the region, so that the turned region lies within
SPREAD = 0.008  # of the region's side: passes that disagree by so much halve the confidence
HAND_SPREAD = 0.06  # of the hand's region
LOST = 0.5  # share of the passes that must find somebody
SEEN = 0.3  # a wrist of less confidence has no hand that is looked for
MOST_PEOPLE = 6
JUMP = 0.35  # of the region's side, from one frame to the next

POSE_DETECTION = """
input_stream: "image" output_stream: "detections"
node { calculator: "PoseDetectionCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:detections" }
"""
POSE_LANDMARKS = """
input_stream: "image" input_stream: "roi"
output_stream: "landmarks" output_stream: "auxiliary" output_stream: "mask"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:0:complexity" output_side_packet: "PACKET:1:segmentation"
  options: { [mediapipe.ConstantSidePacketCalculatorOptions.ext]: {
    packet { int_value: 1 } packet { bool_value: true } } }
}
node {
  calculator: "PoseLandmarkByRoiCpu"
  input_side_packet: "MODEL_COMPLEXITY:complexity" input_side_packet: "ENABLE_SEGMENTATION:segmentation"
  input_stream: "IMAGE:image" input_stream: "ROI:roi"
  output_stream: "LANDMARKS:landmarks" output_stream: "AUXILIARY_LANDMARKS:auxiliary"
  output_stream: "SEGMENTATION_MASK:mask"
}
"""
HAND_LANDMARKS = """
input_stream: "image" input_stream: "roi" output_stream: "landmarks" output_stream: "handedness"
node {
  calculator: "ConstantSidePacketCalculator" output_side_packet: "PACKET:0:complexity"
  options: { [mediapipe.ConstantSidePacketCalculatorOptions.ext]: { packet { int_value: 1 } } }
}
node {
  calculator: "HandLandmarkCpu" input_side_packet: "MODEL_COMPLEXITY:complexity"
  input_stream: "IMAGE:image" input_stream: "ROI:roi"
  output_stream: "LANDMARKS:landmarks" output_stream: "HANDEDNESS:handedness"
}
"""


class Region:
    """A turned square in the picture: middle (x, y) and side in pixels, angle in radians (0: up is up)."""

    def __init__(self, middle, side: float, angle: float):
        self.middle, self.side, self.angle = np.asarray(middle, float), float(side), float(angle)

    @classmethod
    def of_body(cls, hips, reach) -> Region:
        """From MediaPipe's two points: between the hips, and that at the end of the body's circle, above the head."""
        along = np.asarray(reach, float) - hips
        return cls(hips, 2.5 * float(np.linalg.norm(along)), np.arctan2(along[0], -along[1]))

    @classmethod
    def of_hand(cls, wrist, along, side: float) -> Region:
        """along: from the wrist to the fingers."""
        return cls(np.asarray(wrist) + along, side, np.arctan2(along[0], -along[1]))


class Networks:
    """MediaPipe's networks, each as a graph that takes a picture and a region: nothing is kept from frame to frame."""

    def __init__(self):
        import mediapipe.python
        from mediapipe.python._framework_bindings import resource_util

        # Where the graphs' networks lie in the package, as its own solutions set it.
        resource_util.set_resource_dir(str(Path(str(mediapipe.__file__)).parents[1]))
        self.detection = _Graph(POSE_DETECTION, "detections")
        self.body = _Graph(POSE_LANDMARKS, "landmarks", "auxiliary", "mask")
        self.hand = _Graph(HAND_LANDMARKS, "landmarks", "handedness")

    def find(self, image: np.ndarray) -> list[Region]:
        """The people in a picture (H, W, 3) RGB."""
        height, width = image.shape[:2]
        packets = self.detection(_image(image))
        if "detections" not in packets:
            return []
        import mediapipe as mp

        regions = []
        for found in mp.packet_getter.get_proto_list(packets["detections"]):
            points = [(p.x * width, p.y * height) for p in found.location_data.relative_keypoints]
            regions.append(Region.of_body(np.array(points[0]), np.array(points[1])))
        return [region for region in regions if region.side > 1]

    def body_pass(self, crop: _Crop, region: Region, turned: float, scaled: float, mirrored: bool):
        """(35, 3) points in the picture and their visibility, and the outline in the crop; or None."""
        image, roi = crop.input(region, turned, scaled, mirrored)
        packets = self.body(_image(image), roi)
        if "landmarks" not in packets or "auxiliary" not in packets:
            return None
        points = np.concatenate([_points(packets["landmarks"]), _points(packets["auxiliary"])])
        points[:, :2] = crop.to_picture(points[:, :2], mirrored)
        outline = None
        if "mask" in packets:
            import mediapipe as mp

            outline = mp.packet_getter.get_image(packets["mask"]).numpy_view()
            outline = (outline[:, ::-1] if mirrored else outline).reshape(crop.pixels, crop.pixels).copy()
        return (points[list(MIRRORED)] if mirrored else points), outline

    def hand_pass(self, crop: _Crop, region: Region, turned: float, scaled: float, mirrored: bool):
        """(21, 2) points in the picture and how surely it is a left hand, 0 to 1; or None."""
        image, roi = crop.input(region, turned, scaled, mirrored)
        packets = self.hand(_image(image), roi)
        if "landmarks" not in packets or "handedness" not in packets:
            return None
        import mediapipe as mp

        best = mp.packet_getter.get_proto(packets["handedness"]).classification[0]
        # The network's words are for pictures from a mirror.
        left = best.score if (best.label == "Right") != mirrored else 1 - best.score
        return crop.to_picture(_points(packets["landmarks"])[:, :2], mirrored), left


class _Crop:
    """A square part of the picture at the size that a network needs; beyond the border its last pixels go on."""

    def __init__(self, image: np.ndarray, region: Region, pixels: int):
        side = max(8, int(round(region.side * CROP_MARGIN)))
        self.corner = np.round(region.middle - side / 2).astype(int)
        self.side, self.pixels = side, pixels
        height, width = image.shape[:2]
        low = np.maximum(self.corner, 0)
        high = np.minimum(self.corner + side, (width, height))
        high = np.maximum(high, low + 1)
        low = np.minimum(low, (width - 1, height - 1))
        part = image[low[1] : high[1], low[0] : high[0]]
        before, after = low - self.corner, self.corner + side - high
        top, bottom, left, right = (max(0, int(n)) for n in (before[1], after[1], before[0], after[0]))
        part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE)
        shrinks = side > pixels
        self.image = cv2.resize(
            part, (pixels, pixels), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )

    def input(self, region: Region, turned: float, scaled: float, mirrored: bool):
        """The crop, and the region in it as a network takes it."""
        x, y = (region.middle - self.corner) / self.side
        size, angle = region.side / self.side * scaled, region.angle + np.radians(turned)
        if mirrored:
            return self.image[:, ::-1], _rectangle(1 - x, y, size, -angle)
        return self.image, _rectangle(x, y, size, angle)

    def to_picture(self, points: np.ndarray, mirrored: bool) -> np.ndarray:
        points = points.copy()
        if mirrored:
            points[:, 0] = 1 - points[:, 0]
        return points * self.side + self.corner

    def paste(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 with the crop's values in their place, zero elsewhere."""
        whole = np.zeros(shape, np.float32)
        values = cv2.resize(values, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        low = np.maximum(self.corner, 0)
        high = np.minimum(self.corner + self.side, shape[::-1])
        if (high > low).all():
            from_low, from_high = low - self.corner, high - self.corner
            whole[low[1] : high[1], low[0] : high[0]] = values[
                from_low[1] : from_high[1], from_low[0] : from_high[0]
            ]
        return whole


class Person:
    """What has been found of one person in one picture."""

    def __init__(self, points: np.ndarray, confidence: np.ndarray, crop: _Crop, outline: np.ndarray):
        self.points, self.confidence, self.crop, self.outline = points, confidence, crop, outline
        self.region = Region.of_body(points[33], points[34])
        self.hands: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def box(self) -> list[float]:
        """x, y, width, height of the landmarks."""
        low, high = self.points[:33].min(0), self.points[:33].max(0)
        return [round(float(n), 1) for n in (*low, *(high - low))]


def see_person(networks: Networks, image: np.ndarray, region: Region, passes=PASSES) -> Person | None:
    """The person about whom the region is, or None."""
    first = None
    crop = _Crop(image, region, PERSON_PIXELS)
    for turned in (0, 15, -15):
        first = networks.body_pass(crop, region, turned, 1.0, False)
        if first is not None:
            break
    if first is None:
        return None
    region = Region.of_body(first[0][33, :2], first[0][34, :2])
    if not 8 < region.side < 4 * max(image.shape[:2]):
        return None
    crop = _Crop(image, region, PERSON_PIXELS)
    found = [networks.body_pass(crop, region, *one) for one in passes]
    found = [one for one in found if one is not None]
    if len(found) < LOST * len(passes):
        return None
    points, same_side = _without_swaps(np.stack([points for points, _ in found]))
    middle = np.median(points[..., :2], 0)
    spread = np.median(np.linalg.norm(points[..., :2] - middle, axis=-1), 0)
    visible = np.median(points[..., 2], 0)
    confidence = visible / (1 + (spread / (SPREAD * region.side)) ** 2) * same_side
    outlines = [outline for _, outline in found if outline is not None]
    return Person(
        middle, confidence, crop, np.mean(outlines, 0) if outlines else np.zeros((2, 2), np.float32)
    )


def _without_swaps(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Passes (P, 35, 3) that have left and right the other way than most, turned about; and how much most agree."""
    distance = np.linalg.norm(points[:, None, :33, :2] - points[None, :, :33, :2], axis=-1).mean(-1)
    typical = points[np.median(distance, 1).argmin()]
    swapped = points[:, list(MIRRORED)]
    as_is = np.linalg.norm(points[:, 11:33, :2] - typical[11:33, :2], axis=-1).mean(-1)
    about = np.linalg.norm(swapped[:, 11:33, :2] - typical[11:33, :2], axis=-1).mean(-1)
    swap = about < as_is
    share = float(swap.mean())
    return np.where(swap[:, None, None], swapped, points), 1 - min(share, 1 - share)


def see_hands(networks: Networks, image: np.ndarray, person: Person) -> None:
    """Looks for both hands about the wrists."""
    for side, (elbow, wrist, little, index) in HANDS.items():
        if person.confidence[wrist] < SEEN:
            continue
        p = person.points
        forearm = p[wrist] - p[elbow]
        knuckles = (2 * p[index] + p[little]) / 3 - p[wrist]
        # A hand is 0.75 of a forearm long at most; foreshortened ones are compared with the body.
        length = max(
            0.75 * np.linalg.norm(forearm), 1.6 * np.linalg.norm(knuckles), 0.05 * person.region.side
        )
        guesses = [
            Region.of_hand(p[wrist], knuckles * 0.9, 1.9 * float(length)),
            Region.of_hand(
                p[wrist], forearm / max(np.linalg.norm(forearm), 1e-6) * 0.45 * length, 1.9 * float(length)
            ),
            Region.of_hand(p[wrist], knuckles * 0.9, 1.45 * float(length)),
        ]
        seen = _hand_passes(networks, image, [(guess, (0, 1.0, False)) for guess in guesses])
        if not seen:
            continue
        points = _typical([points for points, _ in seen])
        region = _region_of_hand(points)
        refined = _hand_passes(networks, image, [(region, one) for one in HAND_PASSES])
        if len(refined) < LOST * len(HAND_PASSES):
            continue
        stack = np.stack([points for points, _ in refined])
        middle = np.median(stack, 0)
        region = _region_of_hand(middle)
        spread = np.median(np.linalg.norm(stack - middle, axis=-1), 0)
        is_left = float(np.median([left for _, left in refined]))
        right_kind = is_left if side == "left" else 1 - is_left
        off = np.linalg.norm(middle[0] - p[wrist]) / region.side
        # A whole number of doubts: passes that found none, a hand of the other side, a wrist elsewhere.
        sure = len(refined) / len(HAND_PASSES) * (0.3 + 0.7 * right_kind) * np.exp(-((off / 0.35) ** 2))
        confidence = (
            sure * min(1, person.confidence[wrist] + 0.3) / (1 + (spread / (HAND_SPREAD * region.side)) ** 2)
        )
        person.hands[side] = middle, confidence
    if len(person.hands) == 2:  # both in one place are one hand
        (one, of_one), (other, of_other) = person.hands.values()
        size = max(np.linalg.norm(one - one[0], axis=1).max(), 1.0)
        if np.linalg.norm(one - other, axis=1).mean() < 0.25 * size:
            del person.hands["left" if of_one.mean() < of_other.mean() else "right"]


def _hand_passes(networks: Networks, image: np.ndarray, wanted) -> list[tuple[np.ndarray, float]]:
    seen = [networks.hand_pass(_Crop(image, region, HAND_PIXELS), region, *one) for region, one in wanted]
    return [one for one in seen if one is not None]


def _typical(points: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(points)
    distance = np.linalg.norm(stack[:, None] - stack[None], axis=-1).mean(-1)
    return stack[np.median(distance, 1).argmin()]


def _region_of_hand(points: np.ndarray) -> Region:
    """About the hand's points, turned so that its middle finger points up."""
    along = (points[5] + 2 * points[9] + points[13]) / 4 - points[0]
    angle = np.arctan2(along[0], -along[1])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    return Region(((low + high) / 2) @ turn, max(2.0, 1.7 * (high - low).max()), angle)


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
    distance = np.linalg.norm(one.points[:33] - other.points[:33], axis=1)
    return float(np.median(distance)) < 0.06 * max(one.region.side, other.region.side)


def follow(networks: Networks, files: list[Path], anchors: dict[int, Region], say):
    """(index, image, Person or None) of each picture, from each anchor towards the middle between it and the next."""
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
                if person is None or np.linalg.norm(person.region.middle - guess.middle) > JUMP * (
                    1 + unseen
                ) * max(region.side, 1):
                    person = _found_again(networks, image, region, 1 + unseen)
                if person is None:
                    unseen, speed = unseen + 1, np.zeros(2)
                else:
                    moved = person.region.middle - region.middle
                    speed = 0.5 * moved if unseen == 0 and index != anchor else np.zeros(2)
                    region, unseen = person.region, 0
                say()
                yield index, image, person


def _found_again(networks: Networks, image: np.ndarray, last: Region, unseen: int) -> Person | None:
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


def annotation(frame: int, person: Person, number: int = 0) -> dict:
    """COCO-WholeBody's names."""

    def flat(points, confidence):
        return [round(float(n), 3) for p, c in zip(points, confidence, strict=True) for n in (*p, c)]

    nothing = np.zeros(2)
    feet = [nothing if k is None else person.points[k] for k in FEET]
    feet_confidence = [0 if k is None else person.confidence[k] for k in FEET]
    no_hand = np.zeros((21, 2)), np.zeros(21)
    return {
        "image_id": frame,
        "category_id": 1,
        "person": number,
        "bbox": person.box,
        "score": round(float(np.mean(person.confidence[11:29])), 3),
        "keypoints": flat(person.points[list(BODY)], person.confidence[list(BODY)]),
        "foot_kpts": flat(feet, feet_confidence),
        "lefthand_kpts": flat(*person.hands.get("left", no_hand)),
        "righthand_kpts": flat(*person.hands.get("right", no_hand)),
        "region": [
            round(float(n), 4) for n in (*person.region.middle, person.region.side, person.region.angle)
        ],
    }


class _Graph:
    def __init__(self, text: str, *outputs: str):
        import mediapipe as mp
        import mediapipe.calculators.core.constant_side_packet_calculator_pb2  # noqa: F401  which the text names
        from google.protobuf import text_format
        from mediapipe.framework import calculator_pb2

        config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
        self._graph, self._packets, self._time = mp.CalculatorGraph(graph_config=config), {}, 0
        for output in outputs:
            self._graph.observe_output_stream(output, self._packets.__setitem__)
        self._graph.start_run()

    def __call__(self, image, roi=None) -> dict:
        self._packets.clear()
        self._time += 1
        self._graph.add_packet_to_input_stream("image", image.at(self._time))
        if roi is not None:
            self._graph.add_packet_to_input_stream("roi", roi.at(self._time))
        self._graph.wait_until_idle()
        return dict(self._packets)


def _image(pixels: np.ndarray):
    import mediapipe as mp

    return mp.packet_creator.create_image_frame(
        data=np.ascontiguousarray(pixels), image_format=mp.ImageFormat.SRGB
    )


def _rectangle(x: float, y: float, size: float, angle: float):
    import mediapipe as mp
    from mediapipe.framework.formats.rect_pb2 import NormalizedRect

    return mp.packet_creator.create_proto(
        NormalizedRect(x_center=x, y_center=y, width=size, height=size, rotation=angle)
    )


def _points(packet) -> np.ndarray:
    import mediapipe as mp

    return np.array([(p.x, p.y, p.visibility) for p in mp.packet_getter.get_proto(packet).landmark])


def read_rgb(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError(f"{path}: not a readable picture")
    return pixels[..., ::-1].copy()


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)


def write_outline(folder: Path | None, picture: Path, outline: np.ndarray) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{picture.stem}.png"), outline)


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
        import mediapipe  # noqa: F401
    except ImportError as error:
        raise ValueError(f"mediapipe cannot be loaded ({error}); pip install mediapipe==0.10.21") from error
    files = sorted(path for path in args.images.iterdir() if path.suffix.lower() in ENDINGS)
    networks = Networks()
    total = len(args.frames) if args.frames else len(files)
    state = {"done": 0, "said": time.monotonic()}

    def say() -> None:
        state["done"] += 1
        if time.monotonic() - state["said"] > 1 or state["done"] == total:
            state["said"] = time.monotonic()
            print(f"progress {state['done']} {total}", flush=True)

    annotations = []
    if args.frames:
        for index in args.frames:
            people = see_everybody(networks, read_rgb(files[index]))
            annotations += [annotation(index, person, number) for number, person in enumerate(people)]
            say()
    else:
        anchors = {int(k): Region(v[:2], v[2], v[3]) for k, v in json.loads(args.follow.read_text()).items()}
        missing = set(range(len(files)))
        for index, image, person in follow(networks, files, anchors, say):
            missing.discard(index)
            outline = np.zeros(image.shape[:2], np.uint8)
            if person is not None:
                see_hands(networks, image, person)
                annotations.append(annotation(index, person))
                outline = (person.crop.paste(person.outline, image.shape[:2]) * 255).round().astype(np.uint8)
            write_outline(args.outlines, files[index], outline)
        for index in missing:  # nobody to follow
            write_outline(args.outlines, files[index], np.zeros(read_rgb(files[index]).shape[:2], np.uint8))
    annotations.sort(key=lambda one: (one["image_id"], one["person"]))
    images = [{"id": index, "file_name": path.name} for index, path in enumerate(files)]
    write_json(args.keypoints, {"images": images, "annotations": annotations})


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as problem:
        # At once and on a line of its own, whatever MediaPipe's threads are writing.
        os.write(2, f"\nerror: {' '.join(str(problem).split())}\n".encode())
        sys.exit(1)
