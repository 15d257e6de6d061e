from __future__ import annotations

import json

import numpy as np
import pytest

from mmlphuman.fitting.keypoint_files import (
    notes_on,
    read_keypoints,
    require_in_pictures,
)
from mmlphuman.fitting.observations import BODY_LANDMARKS, LANDMARKS, LEFT_HAND, RIGHT_HAND, Landmarks
from tests.fitting.footage_files import ring

BODY, HAND = len(BODY_LANDMARKS), 21


def person(shift: float = 0.0, size: float = 100.0) -> np.ndarray:
    """(65, 3) x, y, confidence: every landmark at a place of its own."""
    generator = np.random.default_rng(5)
    places = size * generator.random((len(LANDMARKS), 2)) + shift
    return np.column_stack([places, 0.3 + 0.6 * generator.random(len(LANDMARKS))])


def flat(points: np.ndarray) -> list[float]:
    return [float(number) for number in points.ravel()]


def whole_body(points: np.ndarray) -> np.ndarray:
    """The 133 of COCO-WholeBody: body, feet, a face that must not be taken for hands, hands."""
    face = np.full((68, 3), 0.5)
    return np.concatenate([points[:BODY], face, points[LEFT_HAND], points[RIGHT_HAND]])


def coco(points: np.ndarray) -> dict:
    return {
        "keypoints": flat(points[:17]),
        "foot_kpts": flat(points[17:BODY]),
        "face_kpts": flat(np.full((68, 3), 0.5)),
        "lefthand_kpts": flat(points[LEFT_HAND]),
        "righthand_kpts": flat(points[RIGHT_HAND]),
    }


def openpose(points: np.ndarray) -> dict:
    """Written from the names of BODY_25."""
    arms = [f"{side}_{name}" for side in ("right", "left") for name in ("shoulder", "elbow", "wrist")]
    legs = [f"{side}_{name}" for side in ("right", "left") for name in ("hip", "knee", "ankle")]
    head = ["right_eye", "left_eye", "right_ear", "left_ear"]
    feet = [f"{side}_{name}" for side in ("left", "right") for name in ("big_toe", "small_toe", "heel")]
    names = ["nose", "neck", *arms, "middle", *legs, *head, *feet]
    body = [points[LANDMARKS.index(name)] if name in LANDMARKS else np.full(3, 0.7) for name in names]
    return {
        "pose_keypoints_2d": flat(np.stack(body)),
        "hand_left_keypoints_2d": flat(points[LEFT_HAND]),
        "hand_right_keypoints_2d": flat(points[RIGHT_HAND]),
    }


def mmpose(points: np.ndarray) -> dict:
    all_points = whole_body(points)
    return {"keypoints": all_points[:, :2].tolist(), "keypoint_scores": all_points[:, 2].tolist()}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def check(landmarks: Landmarks, camera: int, frame: int, points: np.ndarray, scale: float = 1.0):
    assert np.allclose(landmarks.places[camera, frame], points[:, :2] * scale, atol=1e-4)
    assert np.allclose(landmarks.confidence[camera, frame], points[:, 2], atol=1e-6)


FORMS = {
    "openpose": lambda points: {"version": 1.3, "people": [openpose(points)]},
    "coco": lambda points: {"annotations": [coco(points)]},
    "whole body, flat": lambda points: [{"keypoints": flat(whole_body(points)), "image_id": 7}],
    "mmpose": lambda points: [mmpose(points)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_a_frame(tmp_path, form):
    for frame in range(3):
        write(tmp_path / "a" / f"a_{frame:012d}_keypoints.json", FORMS[form](person(frame)))
    landmarks = read_keypoints(tmp_path, ["a"], range(3))
    for frame in range(3):
        check(landmarks, 0, frame, person(frame))


def test_seventeen_points_leave_feet_and_hands_unseen(tmp_path):
    write(tmp_path / "a" / "0.json", {"annotations": [{"keypoints": flat(person()[:17])}]})
    landmarks = read_keypoints(tmp_path, ["a"], range(1))
    assert np.allclose(landmarks.places[0, 0, :17], person()[:17, :2], atol=1e-4)
    assert landmarks.confidence[0, 0, :17].all() and not landmarks.confidence[0, 0, 17:].any()


def test_one_file_of_coco_numbers_frames_by_its_images(tmp_path):
    images = [{"id": 90 - frame, "file_name": f"{frame:08d}.jpg"} for frame in range(3)]
    annotations = [coco(person(frame)) | {"image_id": 90 - frame} for frame in (2, 0)]
    write(tmp_path / "a.json", {"images": images, "annotations": annotations})
    landmarks = read_keypoints(tmp_path, ["a"], range(3), scale=0.5)
    check(landmarks, 0, 0, person(0), 0.5)
    check(landmarks, 0, 2, person(2), 0.5)
    assert not landmarks.confidence[0, 1].any()


def test_one_file_of_mmpose_counts_from_its_first_frame(tmp_path):
    info = [{"frame_id": frame + 1, "instances": [mmpose(person(frame))]} for frame in range(2)]
    write(tmp_path / "a.json", {"meta_info": {}, "instance_info": info})
    landmarks = read_keypoints(tmp_path, ["a"], range(2))
    check(landmarks, 0, 1, person(1))


def test_files_that_do_not_begin_with_0_are_counted_from_the_first(tmp_path):
    for number in (1000, 1001):
        write(tmp_path / "a" / f"{number}.json", FORMS["coco"](person(number - 1000)))
    check(read_keypoints(tmp_path, ["a"], range(2)), 0, 1, person(1))


def test_flags_of_annotations_become_confidences(tmp_path):
    points = person()[:17].copy()
    points[:, 2] = [2, 1, 0] * 5 + [2, 2]
    write(tmp_path / "a" / "0.json", {"annotations": [{"keypoints": flat(points)}]})
    assert np.array_equal(read_keypoints(tmp_path, ["a"], range(1)).confidence[0, 0, :17], points[:, 2] / 2)


def test_of_several_people_the_largest_is_followed(tmp_path):
    for frame in range(4):
        small, large = person(400, 60), person(5 * frame, 120)
        write(
            tmp_path / "a" / f"{frame}.json", {"people": [openpose(small), openpose(large)][:: (-1) ** frame]}
        )
    landmarks = read_keypoints(tmp_path, ["a"], range(4))
    for frame in range(4):
        check(landmarks, 0, frame, person(5 * frame, 120))


def test_nobody_far_away_stands_in_for_the_one_who_is_followed(tmp_path):
    write(tmp_path / "a" / "0.json", {"people": [openpose(person(0, 120)), openpose(person(900, 60))]})
    write(tmp_path / "a" / "1.json", {"people": [openpose(person(900, 60))]})
    assert not read_keypoints(tmp_path, ["a"], range(2)).confidence[0, 1].any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "must hold a list of people"),
        ([{"keypoints": [1.0] * 30}], "keypoints must be 51 or 399 numbers, got 30"),
        ([{"keypoints": [float("nan")] * 51}], "not finite"),
        ([{"bbox": [1, 2, 3, 4]}], "neither keypoints"),
        ({"people": [{"pose_keypoints_2d": [0.5] * 12}]}, "pose_keypoints_2d must be 54 or 75 numbers"),
        ({"people": [{"pose_keypoints_2d": [0.5] * 75, "hand_left_keypoints_2d": [1, 2]}]}, "hand_left"),
        ([{"keypoints": [[1, 2]] * 17, "keypoint_scores": [0.5] * 16}], "keypoint_scores"),
    ],
)
def test_what_is_no_person_is_named(tmp_path, content, said):
    write(tmp_path / "a" / "0.json", content)
    with pytest.raises(ValueError, match=said) as error:
        read_keypoints(tmp_path, ["a"], range(1))
    assert "0.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_annotations_of_no_frame_and_empty_ones_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither a.json nor a folder a/"):
        read_keypoints(tmp_path, ["a"], range(1))
    write(
        tmp_path / "a.json",
        {"images": [{"id": 3, "file_name": "0.jpg"}], "annotations": [coco(person()) | {"image_id": 4}]},
    )
    with pytest.raises(ValueError, match="image_id 4"):
        read_keypoints(tmp_path, ["a"], range(1))
    write(tmp_path / "a.json", {"images": [], "annotations": []})
    with pytest.raises(ValueError, match="no camera hold a person"):
        read_keypoints(tmp_path, ["a"], range(1))


def test_notes_name_cameras_and_frames():
    confidence = np.full((3, 6, len(LANDMARKS)), 0.9, np.float32)
    confidence[0] = 0
    confidence[1, 2:4] = 0
    landmarks = Landmarks(np.zeros((*confidence.shape, 2), np.float32), confidence)
    notes = notes_on(landmarks, ["a", "b", "c"])
    assert "a never sees the person" in notes[0] and "b does not see the person in frames 2-3" in notes[1]
    assert "fewer than two cameras" in notes[2] and "2-3" in notes[2]
    confidence[1] = 0
    with pytest.raises(ValueError, match="no frame has two cameras"):
        notes_on(landmarks, ["a", "b", "c"])


def test_landmarks_of_another_number_or_without_a_place_are_refused():
    with pytest.raises(ValueError, match="Landmarks need"):
        Landmarks(np.zeros((1, 1, 3, 2)), np.zeros((1, 1, 3)))
    places, confidence = np.full((1, 1, len(LANDMARKS), 2), np.nan), np.zeros((1, 1, len(LANDMARKS)))
    with pytest.raises(ValueError, match="not finite"):
        Landmarks(places, confidence)


def test_keypoints_of_larger_pictures_are_refused():
    cameras = ring(2)  # 64 x 48 pixels
    places = np.tile(np.array([40.0, 30.0], np.float32), (2, 3, len(LANDMARKS), 1))
    confidence = np.ones(places.shape[:3], np.float32)
    require_in_pictures("kp", Landmarks(places, confidence), cameras)
    places[1] *= 2
    with pytest.raises(ValueError, match=r"'cam02's keypoints lie outside its pictures \(64x48\)"):
        require_in_pictures("kp", Landmarks(places, confidence), cameras)
    require_in_pictures("kp", Landmarks(places, 0 * confidence), cameras)
