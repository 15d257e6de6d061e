"""People found in single pictures -> which of them are one person, across cameras and time -> the one who is meant.

Data path: Sighting of each camera and frame (networks.py) -> groups of a frame (one person seen by several cameras) ->
tracks (one person over time) -> choose_person -> for each camera where the person is in some frames.

Two sightings belong together if their joints, put into space, fall back onto the pictures where they were seen.
Shares are of the person's size in that picture, so that nothing depends on pixels or on the calibration's unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.fitting.keypoint_files import Detection
from mmlphuman.fitting.observations import BODY_LANDMARKS, Landmarks
from mmlphuman.fitting.triangulation import nearest_points, slopes, undistorted
from mmlphuman.text import cut_ranges

JOINTS = [
    BODY_LANDMARKS.index(f"{side}_{name}")
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]
SHOULDERS, HIPS = slice(0, 2), slice(6, 8)  # among JOINTS
SEEN = 0.25  # confidence
FEWEST_JOINTS = 6
SAME = 0.035  # share of the size by which joints of one person may miss; calibrations from elsewhere miss by 0.02
HARDLY_SEEN = 0.03  # somebody who is hidden by another has little confidence everywhere
ELSEWHERE = 0.08  # a camera that is off by more, while the others agree, shows somebody else
STRIDE, STRIDE_A_SECOND = 2.0, 6.0  # torso lengths that a person moves between two looks, and more a second
RIVAL = 0.6  # of the best one's sightings: who is seen as often is another one who may be meant
SMALL = 0.5  # of the largest person's size: a bystander


@dataclass(frozen=True)
class Sighting:
    """A person in one picture."""

    detection: Detection
    region: tuple[float, ...]  # middle x, y, side, angle: where the networks have to look


@dataclass(frozen=True)
class Pick:
    """Whom the user means: a point on the person, or a box."""

    camera: int
    frame: int
    box: tuple[float, float, float, float]  # left, top, right, bottom; of a point twice the point
    text: str


@dataclass(frozen=True)
class Group:
    """One person at one time."""

    members: dict[int, int]  # camera -> which of its sightings
    joints: np.ndarray  # (J, 3), NaN where not known
    error: float

    @property
    def center(self) -> np.ndarray:
        return np.nanmean(self.joints, 0)

    @property
    def torso(self) -> float:
        length = np.linalg.norm(np.nanmean(self.joints[SHOULDERS], 0) - np.nanmean(self.joints[HIPS], 0))
        spread = np.nanmax(np.linalg.norm(self.joints - self.center, axis=1)) / 2
        return float(length if np.isfinite(length) else spread)


Track = dict[int, Group]  # by frame
Survey = list[dict[int, list[Sighting]]]  # of each camera, by frame
Anchors = list[dict[int, tuple[float, ...]]]  # of each camera, by frame: the person's region


def parse_pick(text: str, names: Sequence[str], frames: int) -> Pick:
    """`CAM,FRAME,x,y` or `CAM,FRAME,left,top,right,bottom`, in pixels of the picture. Raises ValueError."""
    camera, *rest = text.split(",")
    try:
        values = [float(part) for part in rest]
    except ValueError:
        values = []
    if len(values) not in (3, 5) or not all(np.isfinite(values)) or values[0] != int(values[0]):
        raise ValueError(
            f"--person {text}: CAM,FRAME,x,y (a point on the person) or CAM,FRAME,left,top,right,bottom is needed"
        )
    if camera not in names:
        raise ValueError(f"--person {text}: no camera '{camera}'; there are {', '.join(names)}")
    if not 0 <= values[0] < frames:
        raise ValueError(f"--person {text}: there are frames 0 to {frames - 1}")
    x, y, *far = values[1:]
    box = (x, y, *far) if far else (x, y, x, y)
    return Pick(names.index(camera), int(values[0]), (box[0], box[1], box[2], box[3]), text)


class _Scene:
    """Cameras and what each sees in one frame, as rays.

    middles: only the points midway between left and right, which do not mind if a network takes one for the other.
    """

    def __init__(
        self,
        cameras: Sequence[CalibratedCamera],
        sightings: Sequence[Sequence[Detection]],
        least: float = SEEN,
        middles: bool = False,
    ):
        self.cameras, self._middles = cameras, middles
        self.rays: list[list[np.ndarray]] = []
        self.seen: list[list[np.ndarray]] = []
        self.sizes: list[list[float]] = []  # in the units of rays
        for camera, of_camera in zip(cameras, sightings, strict=True):
            found = [slopes(undistorted(one.places[JOINTS], camera), camera) for one in of_camera]
            seen = [np.where(one.confidence[JOINTS] > least, one.confidence[JOINTS], 0) for one in of_camera]
            if middles:
                found = [points.reshape(-1, 2, 2).mean(1) for points in found]
                seen = [weights.reshape(-1, 2).min(1) for weights in seen]
            self.rays.append(found)
            self.seen.append(seen)
            self.sizes.append([max(one.size, 1.0) / float(camera.K[0, 0]) for one in of_camera])

    @property
    def fewest(self) -> int:
        """Joints that two sightings must have in common."""
        return FEWEST_JOINTS // 2 if self._middles else FEWEST_JOINTS

    def joints(self, members: dict[int, int]) -> np.ndarray:
        cameras = [self.cameras[camera] for camera in members]
        seen = np.stack([self.rays[camera][index] for camera, index in members.items()])
        weights = np.stack([self.seen[camera][index] for camera, index in members.items()])
        return nearest_points(seen, weights, cameras)

    def error(self, joints: np.ndarray, camera: int, index: int) -> float:
        """By how much of the size joints miss the sighting, left and right as they are or swapped (which networks do at
        times); infinite with too few joints in common or behind the camera."""
        inside = joints @ self.cameras[camera].R.T + self.cameras[camera].T
        as_is = list(range(len(joints)))
        errors = []
        for order in (as_is,) if self._middles else (as_is, [i ^ 1 for i in as_is]):
            seen, found = self.seen[camera][index][order], self.rays[camera][index][order]
            usable = (seen > 0) & np.isfinite(inside[:, 2])
            if usable.sum() < self.fewest or (inside[usable, 2] <= 0).any():
                continue
            off = np.linalg.norm(inside[usable, :2] / inside[usable, 2:] - found[usable], axis=1)
            errors.append(float(np.median(off)) / self.sizes[camera][index])
        return min(errors, default=np.inf)


def groups_of(cameras: Sequence[CalibratedCamera], sightings: Sequence[Sequence[Sighting]]) -> list[Group]:
    """The people of one time, each seen by two cameras at least; those seen by most come first."""
    scene = _Scene(cameras, [[one.detection for one in of_camera] for of_camera in sightings])
    left = {(camera, index) for camera, of_camera in enumerate(sightings) for index in range(len(of_camera))}
    groups = []
    while True:
        candidates = [
            group
            for (a, i), (b, j) in combinations(sorted(left), 2)
            if a != b and (group := _grown(scene, left, {a: i, b: j})) is not None
        ]
        if not candidates:
            return groups
        best = max(candidates, key=lambda group: (len(group.members), -group.error))
        groups.append(best)
        left -= set(best.members.items())


def _grown(scene: _Scene, left: set[tuple[int, int]], members: dict[int, int]) -> Group | None:
    """With the sighting of each other camera that fits."""
    joints = scene.joints(members)
    if max(scene.error(joints, *one) for one in members.items()) > SAME:
        return None
    for camera in range(len(scene.cameras)):
        if camera in members:
            continue
        error, index = min(
            ((scene.error(joints, camera, index), index) for one, index in left if one == camera),
            default=(np.inf, -1),
        )
        if error < 2 * SAME:
            grown = members | {camera: index}
            grown_joints = scene.joints(grown)
            if max(scene.error(grown_joints, *one) for one in grown.items()) <= SAME:
                members, joints = grown, grown_joints
    return Group(members, joints, float(np.mean([scene.error(joints, *one) for one in members.items()])))


def torso_length(cameras: Sequence[CalibratedCamera], landmarks: Landmarks, looks: int = 9) -> float:
    """Of one person, in the calibration's unit: median of some frames in which cameras agree; NaN if they never do.

    They agree or not whatever the unit is.
    """
    frames = landmarks.confidence.shape[1]
    lengths = []
    for frame in np.unique(np.linspace(0, frames - 1, min(looks, frames)).round().astype(int)):
        seen = [
            Detection(places[frame], confidence[frame])
            for places, confidence in zip(landmarks.places, landmarks.confidence, strict=True)
        ]
        found = groups_of(cameras, [[Sighting(one, ())] if one.confidence.any() else [] for one in seen])
        lengths += [found[0].torso] if found else []
    return float(np.median(lengths)) if lengths else float("nan")


def tracks_of(groups: dict[int, list[Group]], rate: float | None) -> list[Track]:
    """One person over time each, the nearest from one look to the next; those with most sightings come first."""
    tracks: list[Track] = []
    for frame in sorted(groups):
        pairs = []
        for number, track in enumerate(tracks):
            last_frame = max(track)
            last = track[last_frame]
            seconds = (frame - last_frame) / (rate or 30.0)
            reach = (STRIDE + STRIDE_A_SECOND * seconds) * last.torso
            for index, group in enumerate(groups[frame]):
                distance = float(np.linalg.norm(group.center - last.center))
                if distance < reach:
                    pairs.append((distance, number, index))
        taken_tracks, taken = set(), set()
        for _, number, index in sorted(pairs):
            if number not in taken_tracks and index not in taken:
                tracks[number][frame] = groups[frame][index]
                taken_tracks.add(number)
                taken.add(index)
        tracks += [{frame: group} for index, group in enumerate(groups[frame]) if index not in taken]
    return sorted(tracks, key=_sightings, reverse=True)


def _sightings(track: Track) -> int:
    return sum(len(group.members) for group in track.values())


def choose_person(
    cameras: Sequence[CalibratedCamera], survey: Survey, rate: float | None, picks: Sequence[Pick] = ()
) -> tuple[Anchors, tuple[str, ...]]:
    """Where the person is in the frames of the survey, for each camera; and notes.

    Raises ValueError, one line, for nobody, for several people of whom none is picked, and for a pick that hits nobody.
    """
    frames = sorted({frame for of_camera in survey for frame in of_camera})
    if not any(sightings for of_camera in survey for sightings in of_camera.values()):
        raise ValueError(
            "the networks find nobody in any picture; is there a person, upright and large enough?"
        )
    groups = {
        frame: groups_of(cameras, [of_camera.get(frame, []) for of_camera in survey]) for frame in frames
    }
    tracks = tracks_of(groups, rate)
    if picks:
        return _picked(cameras, survey, tracks, picks)
    tracks = [track for track in tracks if _sightings(track) > 2 or len(frames) == 1]
    if not tracks:
        return _largest(cameras, survey)
    best, others = tracks[0], tracks[1:]
    rivals = [track for track in others if _sightings(track) > RIVAL * _sightings(best)]
    if rivals:
        raise ValueError(_refusal(cameras, survey, [best, *rivals]))
    anchors = _anchors(cameras, survey, best)
    return anchors, _notes(cameras, survey, anchors)


def _refusal(cameras: Sequence[CalibratedCamera], survey: Survey, tracks: list[Track]) -> str:
    """Names a point on each, in one picture that shows all if there is one."""
    common = [
        (frame, camera)
        for frame in sorted(set.intersection(*(set(track) for track in tracks)))
        for camera in range(len(cameras))
        if all(camera in track[frame].members for track in tracks)
    ]
    places = []
    for track in tracks:
        frame = common[0][0] if common else min(track)
        camera = common[0][1] if common else min(track[frame].members)
        x, y = survey[camera][frame][track[frame].members[camera]].region[:2]
        places.append(f"--person {cameras[camera].name},{frame},{x:.0f},{y:.0f}")
    return f"{len(tracks)} people are seen by several cameras; say who is meant: {' or '.join(places)}"


def _anchors(cameras: Sequence[CalibratedCamera], survey: Survey, track: Track) -> Anchors:
    return [
        {
            frame: survey[camera][frame][group.members[camera]].region
            for frame, group in track.items()
            if camera in group.members
        }
        for camera in range(len(cameras))
    ]


def _notes(cameras: Sequence[CalibratedCamera], survey: Survey, anchors: Anchors) -> tuple[str, ...]:
    notes = []
    for camera, of_camera, chosen in zip(cameras, survey, anchors, strict=True):
        others = [
            frame
            for frame, sightings in of_camera.items()
            if frame in chosen and any(one.region != chosen[frame] for one in sightings)
        ]
        if others:
            notes.append(
                f"{camera.name}: others are seen there, too (frames {cut_ranges(others)} of those looked at); look "
                "at masks where they touch the person"
            )
        if not chosen:
            notes.append(
                f"{camera.name}: the person is not found in it; give --person {camera.name},FRAME,x,y"
            )
    return tuple(notes)


def _largest(cameras: Sequence[CalibratedCamera], survey: Survey) -> tuple[Anchors, tuple[str, ...]]:
    """Where cameras do not agree in space on anybody, but each shows one person only."""
    anchors: Anchors = []
    for camera, of_camera in zip(cameras, survey, strict=True):
        chosen = {}
        for frame, sightings in of_camera.items():
            ordered = sorted(sightings, key=lambda one: one.detection.size, reverse=True)
            if len(ordered) > 1 and ordered[1].detection.size > SMALL * ordered[0].detection.size:
                raise ValueError(
                    f"{camera.name}, frame {frame}: several people, and no two cameras agree on one in space; check "
                    "the calibration, and give --person CAM,FRAME,x,y for each camera"
                )
            if ordered:
                chosen[frame] = ordered[0].region
        anchors.append(chosen)
    return anchors, (
        "no two cameras agree in space on where the person is: check the calibration (its unit, axes, the order of "
        "cameras) and that all videos show one time",
    )


def _picked(
    cameras: Sequence[CalibratedCamera], survey: Survey, tracks: list[Track], picks: Sequence[Pick]
) -> tuple[Anchors, tuple[str, ...]]:
    hits = {(pick.camera, pick.frame): _hit(cameras, survey, pick) for pick in picks}

    def agrees(track: Track) -> int:
        return sum(
            frame in track and track[frame].members.get(camera) == index
            for (camera, frame), index in hits.items()
        )

    best = max(tracks, key=agrees, default=None)
    if best is None or agrees(best) == 0:
        best = {}
        if len({camera for camera, _ in hits}) < 2:
            raise ValueError(
                f"--person {picks[0].text}: no other camera shows that person for certain; give --person for each"
            )
    anchors = _anchors(cameras, survey, best)
    for (camera, frame), index in hits.items():
        if best.get(frame) is None or best[frame].members.get(camera) != index:
            anchors[camera] = {}  # what the user says counts alone
    for (camera, frame), index in hits.items():
        anchors[camera][frame] = survey[camera][frame][index].region
    return anchors, _notes(cameras, survey, anchors)


def _hit(cameras: Sequence[CalibratedCamera], survey: Survey, pick: Pick) -> int:
    """Which sighting."""
    sightings = survey[pick.camera].get(pick.frame, [])
    left, top, right, bottom = pick.box
    scores = []
    for one in sightings:
        box, joints = one.detection.box, one.detection.places[JOINTS]
        margin = 0.1 * one.detection.size
        x, y = (left + right) / 2, (top + bottom) / 2
        inside = box[0] - margin <= x <= box[2] + margin and box[1] - margin <= y <= box[3] + margin
        if (left, top) == (right, bottom):
            seen = one.detection.confidence[JOINTS] > SEEN
            near = np.linalg.norm(joints[seen] - (x, y), axis=1).min() if seen.any() else np.inf
            middle = np.linalg.norm(np.array(one.region[:2]) - (x, y))
            scores.append(-min(near, middle) / one.detection.size if inside else -np.inf)
        else:
            width = min(right, box[2]) - max(left, box[0])
            height = min(bottom, box[3]) - max(top, box[1])
            overlap = max(width, 0) * max(height, 0)
            union = (right - left) * (bottom - top) + (box[2] - box[0]) * (box[3] - box[1]) - overlap
            scores.append(overlap / union if overlap > 0 else -np.inf)
    if not scores or max(scores) == -np.inf:
        found = " and ".join(f"{one.region[0]:.0f},{one.region[1]:.0f}" for one in sightings) or "nowhere"
        raise ValueError(
            f"--person {pick.text}: nobody is found there; people of {cameras[pick.camera].name}, frame {pick.frame}, "
            f"are at {found}"
        )
    return int(np.argmax(scores))


def without_others(
    cameras: Sequence[CalibratedCamera], landmarks: Landmarks
) -> tuple[Landmarks, tuple[str, ...]]:
    """Landmarks of a camera are dropped (confidence 0) in frames in which all other cameras agree and it shows somebody
    else, as after two people have crossed."""
    confidence = landmarks.confidence.copy()
    count, frames = confidence.shape[:2]
    for frame in range(frames):
        sightings = [
            [Detection(landmarks.places[camera, frame].astype(float), landmarks.confidence[camera, frame])]
            for camera in range(count)
        ]
        scene = _Scene(cameras, sightings, least=HARDLY_SEEN, middles=True)
        usable = [camera for camera in range(count) if (scene.seen[camera][0] > 0).sum() >= scene.fewest]
        for camera in usable:
            others = {other: 0 for other in usable if other != camera}
            if len(others) < 2:
                continue
            joints = scene.joints(others)
            agreement = float(np.median([scene.error(joints, other, 0) for other in others]))
            if agreement < SAME and max(ELSEWHERE, 3 * agreement) < scene.error(joints, camera, 0) < np.inf:
                confidence[camera, frame] = 0
    notes = []
    for camera, lost in zip(cameras, (confidence != landmarks.confidence).any(-1), strict=True):
        if lost.any():
            notes.append(
                f"{camera.name} shows somebody else, or the person wrongly, in frames "
                f"{cut_ranges(np.flatnonzero(lost).tolist())}: not used; --person {camera.name},FRAME,x,y may help"
            )
    return Landmarks(landmarks.places, confidence), tuple(notes)
