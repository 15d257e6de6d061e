"""Who is meant: people made of points in space, seen by a ring of cameras."""

from __future__ import annotations

import numpy as np
import pytest

from mmlphuman.fitting.keypoint_files import Detection
from mmlphuman.fitting.observations import LANDMARKS, Landmarks
from mmlphuman.fitting.people import (
    JOINTS,
    Sighting,
    choose_person,
    groups_of,
    parse_pick,
    without_others,
)
from tests.fitting.footage_files import ring

SIZE = 640, 480
CAMERAS = ring(4, SIZE)
AT = {name: k for k, name in enumerate(LANDMARKS)}
BODY = {
    "shoulder": (0.2, -0.5), "elbow": (0.45, -0.3), "wrist": (0.6, -0.05),
    "hip": (0.12, 0.0), "knee": (0.15, 0.42), "ankle": (0.13, 0.85),
}  # fmt: skip


def body(x: float = 0.0, z: float = 0.0, bow: float = 0.0) -> np.ndarray:
    """(65, 3) points; only the joints matter."""
    points = np.zeros((len(LANDMARKS), 3))
    for side, sign in (("left", 1), ("right", -1)):
        for name, (out, down) in BODY.items():
            points[AT[f"{side}_{name}"]] = sign * out + x, down, z + bow * (0.5 - down) * (1 + 0.4 * sign)
    return points


def seen_by(camera, points: np.ndarray, swapped: bool = False) -> Detection:
    inside = points @ camera.R.T + camera.T
    places = inside @ camera.K.T
    places = places[:, :2] / places[:, 2:]
    if swapped:
        order = np.arange(len(points))
        for left, right in zip(JOINTS[::2], JOINTS[1::2], strict=True):
            order[[left, right]] = right, left
        places = places[order]
    confidence = np.zeros(len(points))
    confidence[JOINTS] = 0.9
    places[confidence == 0] = 0
    return Detection(places, confidence)


def sighting(camera, points, **how) -> Sighting:
    detection = seen_by(camera, points, **how)
    middle = detection.places[JOINTS].mean(0)
    return Sighting(detection, (float(middle[0]), float(middle[1]), detection.size, 0.0))


def survey_of(people: dict[int, list[np.ndarray]], hidden=()) -> list[dict[int, list[Sighting]]]:
    """Of the people (by frame) in all cameras but (camera, frame, person) that are hidden; their order turns."""
    return [
        {
            frame: [
                sighting(camera, points)
                for number, points in enumerate(bodies)
                if (c, frame, number) not in hidden
            ][:: (-1) ** (c + frame)]
            for frame, bodies in people.items()
        }
        for c, camera in enumerate(CAMERAS)
    ]


ONE = {frame: [body(0.1 * frame, 0.2, 0.2)] for frame in range(3)}
TWO = {frame: [body(0.1 * frame, 0.2, 0.2), body(0.9 - 0.1 * frame, -0.9, -0.3)] for frame in range(3)}


def is_of(anchors, people, number: int) -> bool:
    """Whether every anchor is that person's middle."""
    return all(
        np.allclose(region[:2], sighting(camera, people[frame][number]).region[:2])
        for camera, of_camera in zip(CAMERAS, anchors, strict=True)
        for frame, region in of_camera.items()
    )


def test_groups_are_people_across_cameras():
    survey = survey_of(TWO)
    groups = groups_of(CAMERAS, [of_camera[1] for of_camera in survey])
    assert [len(group.members) for group in groups] == [4, 4]
    for group in groups:
        assert group.error < 1e-6
    centers = sorted(float(group.center[2]) for group in groups)
    assert centers == pytest.approx(sorted(float(p[JOINTS, 2].mean()) for p in TWO[1]), abs=1e-6)


def test_one_who_is_swapped_left_and_right_in_one_camera_is_still_one_person():
    sightings = [[sighting(camera, ONE[0][0], swapped=k == 2)] for k, camera in enumerate(CAMERAS)]
    assert len(groups_of(CAMERAS, sightings)[0].members) >= 3


def test_a_single_person_is_found_in_all_cameras_and_frames():
    anchors, notes = choose_person(CAMERAS, survey_of(ONE), 30.0)
    assert [sorted(of_camera) for of_camera in anchors] == [[0, 1, 2]] * 4 and notes == ()


def test_two_people_are_refused_with_what_to_say_and_that_works():
    survey = survey_of(TWO)
    with pytest.raises(ValueError, match="2 people") as error:
        choose_person(CAMERAS, survey, 30.0)
    assert "\n" not in str(error.value)
    words = [word for word in str(error.value).split() if word.startswith("cam0")]
    names = [camera.name for camera in CAMERAS]
    chosen = []
    for word in words:
        anchors, _ = choose_person(CAMERAS, survey, 30.0, [parse_pick(word, names, 3)])
        assert [sorted(of_camera) for of_camera in anchors] == [[0, 1, 2]] * 4
        chosen += [number for number in (0, 1) if is_of(anchors, TWO, number)]
    assert sorted(chosen) == [0, 1]


def test_a_bystander_in_one_camera_is_told_and_not_taken():
    hidden = [(c, frame, 1) for c in range(1, 4) for frame in range(3)]
    anchors, notes = choose_person(CAMERAS, survey_of(TWO, hidden), 30.0)
    assert is_of(anchors, TWO, 0) and "cam01: others are seen there" in notes[0] and len(notes) == 1


def test_a_camera_that_never_sees_the_person_is_told():
    hidden = [(2, frame, 0) for frame in range(3)]
    anchors, notes = choose_person(CAMERAS, survey_of(ONE, hidden), 30.0)
    assert anchors[2] == {} and "cam03: the person is not found" in notes[0]


def test_a_box_picks_the_person_whom_it_covers_most():
    names, camera = [camera.name for camera in CAMERAS], CAMERAS[1]
    box = seen_by(camera, TWO[2][1]).box
    text = f"cam02,2,{box[0] - 3},{box[1] + 4},{box[2] + 5},{box[3]}"
    anchors, _ = choose_person(CAMERAS, survey_of(TWO), None, [parse_pick(text, names, 3)])
    assert is_of(anchors, TWO, 1)


def test_a_pick_that_hits_nobody_says_where_people_are():
    pick = parse_pick("cam01,1,3,3", [camera.name for camera in CAMERAS], 3)
    with pytest.raises(ValueError, match="nobody is found there; people of cam01, frame 1, are at .* and "):
        choose_person(CAMERAS, survey_of(TWO), 30.0, [pick])


@pytest.mark.parametrize(
    "text", ["cam01,0,5", "cam01", "cam09,0,5,5", "cam01,7,5,5", "cam01,0,x,5", "cam01,0.5,1,1"]
)
def test_picks_in_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="--person"):
        parse_pick(text, [camera.name for camera in CAMERAS], 3)


def test_cameras_that_do_not_agree_take_the_only_person_and_say_so():
    wrong = [CAMERAS[0], *CAMERAS[2:], CAMERAS[1]]  # the order of a calibration gone wrong
    survey = [
        {frame: [sighting(camera, bodies[0])] for frame, bodies in ONE.items()} for camera in CAMERAS[:2]
    ]
    crooked = [wrong[0], wrong[1]]
    anchors, notes = choose_person(crooked, survey, 30.0)
    assert all(len(of_camera) == 3 for of_camera in anchors) and "check the calibration" in notes[0]


def test_nobody_at_all_is_refused():
    with pytest.raises(ValueError, match="find nobody"):
        choose_person(CAMERAS, [{0: []} for _ in CAMERAS], 30.0)


def test_a_camera_that_has_gone_over_to_somebody_else_is_dropped():
    frames = [body(0.1 * k, 0.2, 0.2) for k in range(4)]
    other = body(-0.9, -0.6)
    detections = [
        [
            seen_by(camera, other if (c == 1 and k == 2) else frames[k], swapped=c == 3 and k == 1)
            for k in range(4)
        ]
        for c, camera in enumerate(CAMERAS)
    ]
    landmarks = Landmarks(
        np.array([[one.places for one in row] for row in detections], np.float32),
        np.array([[one.confidence for one in row] for row in detections], np.float32),
    )
    checked, notes = without_others(CAMERAS, landmarks)
    lost = (checked.confidence != landmarks.confidence).any(-1)
    assert np.argwhere(lost).tolist() == [[1, 2]] and not checked.confidence[1, 2].any()
    assert "cam02" in notes[0] and "frames 2:" in notes[0] and len(notes) == 1
