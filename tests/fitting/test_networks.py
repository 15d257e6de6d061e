"""The networks' processes: with a stand-in for the program's interpreter, and with MediaPipe itself where it is."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmlphuman.fitting import networks
from mmlphuman.fitting.footage import Footage
from mmlphuman.fitting.networks import ENVIRONMENT, PROGRAM, interpreter_in, landmark_shifts, run_networks
from mmlphuman.fitting.observations import LANDMARKS
from mmlphuman.picture_files import write_png
from tests.fitting.footage_files import ring
from tests.fitting.test_people import SIZE, body, seen_by

FRAMES = 5

# Stands in for a Python with MediaPipe: answers from SEEN, a JSON of {camera: [people of each frame]}, and keeps count.
STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[2:]
value = lambda name: words[words.index(name) + 1]
camera = pathlib.Path(value("--images")).name
root = pathlib.Path(__file__).parents[1]
with (root / "calls.txt").open("a") as calls:
    calls.write(("survey " if "--frames" in words else "follow ") + camera + "\\n")
if (root / "fails.txt").exists() and camera == "cam02":
    print("a warning")
    print("error: the network fell over")
    sys.exit(1)
seen = json.loads((root / "seen.json").read_text())[camera]
if "--frames" in words:
    wanted = list(map(int, words[words.index("--frames") + 1 :]))
    annotations = [one for frame in wanted for one in seen[frame]]
else:
    anchors = json.loads(pathlib.Path(value("--follow")).read_text())
    assert anchors
    annotations = [one for people in seen for one in people if one["number"] == 0]
    folder = pathlib.Path(value("--outlines"))
    folder.mkdir(parents=True)
print("progress 2 5")
out = pathlib.Path(value("--keypoints"))
out.parent.mkdir(parents=True, exist_ok=True)
images = [{{"id": frame, "file_name": "%08d.jpg" % frame}} for frame in range(len(seen))]
out.write_text(json.dumps({{"images": images, "annotations": annotations}}))
"""


def annotation(detection, frame: int, number: int) -> dict:
    points = np.column_stack([detection.places, detection.confidence])
    middle = detection.places[detection.confidence > 0].mean(0)
    return {
        "image_id": frame,
        "number": number,
        "region": [*middle.tolist(), detection.size, 0.0],
        "keypoints": points[:17].ravel().tolist(),
        "foot_kpts": points[17:23].ravel().tolist(),
    }


@pytest.fixture
def environment(tmp_path) -> Path:
    place = tmp_path / "environment"
    (place / "bin").mkdir(parents=True)
    python = place / "bin" / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return place


def footage(tmp_path, environment, people: int = 1) -> Footage:
    cameras = tuple(ring(3, SIZE))
    bodies = [[body(0.05 * f, 0.2, 0.2), body(0.8, -0.9, 0.1)][:people] for f in range(FRAMES)]
    seen = {
        camera.name: [
            [annotation(seen_by(camera, points), f, k) for k, points in enumerate(of_frame)]
            for f, of_frame in enumerate(bodies)
        ]
        for camera in cameras
    }
    (environment / "seen.json").write_text(json.dumps(seen))
    return Footage(tmp_path / "footage", cameras, FRAMES, 25.0, ())


def calls(environment) -> list[str]:
    return sorted((environment / "calls.txt").read_text().split("\n")[:-1])


def test_landmarks_come_back_and_nothing_is_done_twice(tmp_path, environment):
    shots = footage(tmp_path, environment)
    found = run_networks(shots, tmp_path / "out", environment=environment)
    expected = seen_by(shots.cameras[1], body(0.05 * 3, 0.2, 0.2))
    assert np.allclose(found.landmarks.places[1, 3], expected.places, atol=1e-3)
    assert found.landmarks.confidence.shape == (3, FRAMES, len(LANDMARKS)) and found.notes == ()
    first = calls(environment)
    assert first == sorted(f"{what} cam0{k}" for what in ("survey", "follow") for k in (1, 2, 3))
    again = run_networks(shots, tmp_path / "out", environment=environment)
    assert calls(environment) == first and np.array_equal(again.landmarks.places, found.landmarks.places)
    (tmp_path / "out" / "keypoints" / "cam02.json").unlink()
    (tmp_path / "out" / "outlines" / "cam02").rmdir()
    run_networks(shots, tmp_path / "out", environment=environment)
    assert calls(environment) == sorted([*first, "follow cam02"])


def test_two_people_need_a_pick_and_another_pick_begins_anew(tmp_path, environment):
    shots = footage(tmp_path, environment, people=2)
    with pytest.raises(ValueError, match="2 people"):
        run_networks(shots, tmp_path / "out", environment=environment)
    x, y = seen_by(shots.cameras[0], body(0.05, 0.2, 0.2)).places[LANDMARKS.index("left_hip")]
    found = run_networks(shots, tmp_path / "out", [f"cam01,1,{x:.1f},{y:.1f}"], environment)
    assert "others are seen there" in found.notes[0]
    surveys = calls(environment).count("survey cam01")
    run_networks(shots, tmp_path / "out", [f"cam01,2,{x:.1f},{y:.1f}"], environment)
    assert calls(environment).count("survey cam01") == surveys + 1


def test_an_error_of_the_program_is_one_line(tmp_path, environment):
    (environment / "fails.txt").touch()
    with pytest.raises(ValueError, match="detect_people.py failed: the network fell over") as error:
        run_networks(footage(tmp_path, environment), tmp_path / "out", environment=environment)
    assert "\n" not in str(error.value)


def test_a_missing_environment_says_how_to_make_it(tmp_path, environment):
    with pytest.raises(
        FileNotFoundError, match=r"pip install mediapipe==0.10.21 \(Python 3.10 to 3.12\)"
    ) as error:
        run_networks(footage(tmp_path, environment), tmp_path / "out", environment=tmp_path / "nowhere")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.skipif(not ENVIRONMENT.is_dir(), reason="MediaPipe's environment is not there")
def test_mediapipe_finds_nobody_in_an_empty_room_and_names_damaged_pictures(tmp_path):
    write_png(tmp_path / "cam01" / "00000000.png", np.full((240, 160, 3), 128, np.uint8))
    python = interpreter_in(networks.ENVIRONMENT)
    words = [
        str(python),
        str(PROGRAM),
        "--images",
        str(tmp_path / "cam01"),
        "--keypoints",
        str(tmp_path / "k.json"),
    ]
    subprocess.run([*words, "--frames", "0"], check=True, capture_output=True)
    assert json.loads((tmp_path / "k.json").read_text())["annotations"] == []
    (tmp_path / "none.json").write_text("{}")
    subprocess.run(
        [*words, "--follow", str(tmp_path / "none.json"), "--outlines", str(tmp_path / "o")],
        check=True,
        capture_output=True,
    )
    outline = cv2.imread(str(tmp_path / "o" / "00000000.png"), cv2.IMREAD_GRAYSCALE)
    assert outline is not None and outline.shape == (240, 160) and not outline.any()
    (tmp_path / "cam01" / "00000000.png").write_bytes(b"nothing")
    failed = subprocess.run([*words, "--frames", "0"], capture_output=True, text=True)
    assert failed.returncode == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, failed.stderr
    assert errors[0].endswith("00000000.png: not a readable picture")


def test_an_interpreter_of_another_environment_says_how_to_make_one(tmp_path, environment):
    shots = footage(tmp_path, environment)
    python = environment / "bin" / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'cv2'\"\nexit 1\n")
    with pytest.raises(
        ValueError, match="No module named 'cv2'; .* another environment, make one: .*mediapipe"
    ):
        run_networks(shots, tmp_path / "out", environment=environment)
    python.write_text("#!/nowhere\n")
    with pytest.raises(ValueError, match="bin/python: cannot be run .*make it anew: .*mediapipe"):
        run_networks(shots, tmp_path / "out", environment=environment)


def test_a_damaged_choice_of_the_person_is_made_again(tmp_path, environment):
    shots = footage(tmp_path, environment)
    found = run_networks(shots, tmp_path / "out", environment=environment)
    for harm in ("{", "[]", json.dumps({"wanted": 5})):
        (tmp_path / "out" / "person.json").write_text(harm)
        again = run_networks(shots, tmp_path / "out", environment=environment)
        assert np.array_equal(again.landmarks.places, found.landmarks.places)


def test_shifts_know_no_side_and_are_of_body_landmarks():
    shifts = dict(zip(LANDMARKS, landmark_shifts(), strict=True))
    known = {name for name, shift in shifts.items() if np.isfinite(shift).all()}
    assert {"nose", "left_hip", "right_heel"} < known and len(known) == 21
    assert "left_small_toe" not in known and "left_hand_wrist" not in known  # the networks have no small toe
    for name in known - {"nose"}:
        mirrored = shifts[name.replace("left", "right")] * [-1, 1, 1]
        assert np.allclose(shifts[name.replace("right", "left")], mirrored)
    assert shifts["nose"][0] == 0
    assert max(np.linalg.norm(shifts[name]) for name in known) < 0.06
