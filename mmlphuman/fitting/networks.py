"""Pictures -> landmarks and soft outlines of one person, by the packaged networks in an environment of their own.

Data path: Footage -> script/detect_people.py (detector/), a process for each camera: everybody in a few frames ->
people.py: who is meant -> the same program: that person through all frames -> OUT/keypoints/CAM.json,
OUT/outlines/CAM/%08d.png -> Landmarks.

MediaPipe needs a numpy and an OpenCV that the rest does not work with; hence the environment, and files in between.
Other detectors write the same files, which keypoint_files.read_keypoints and masks.make_masks read.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmlphuman.files import atomic_write
from mmlphuman.fitting.footage import Footage
from mmlphuman.fitting.keypoint_files import notes_on, person_of, read_keypoints
from mmlphuman.fitting.observations import LANDMARKS, Landmarks
from mmlphuman.fitting.people import Sighting, choose_person, parse_pick, without_others
from mmlphuman.json_file import numbers, read_json
from mmlphuman.resources import available_cores
from mmlphuman.text import one_line

CHECKOUT = Path(__file__).parents[2]
PROGRAM = CHECKOUT / "script" / "detect_people.py"
ENVIRONMENT = CHECKOUT / ".venv-networks"
INSTALL = "python3.11 -m venv .venv-networks && .venv-networks/bin/pip install mediapipe==0.10.21 (Python 3.10 to 3.12)"
# Millimetres from the open body's joint or vertex to where these networks see its landmark, in the T-pose's axes (x to
# the person's left, y up, z forward), which turn with it: of the left ones, the right ones are their mirror images.
# Means over 220 drawings of five persons of other shapes, colours and poses by other cameras; single persons are 3 to
# 10 mm beside. It is this much in every picture, so that no number of cameras averages it out.
SHIFTS = {
    "nose": (0, 24, -26), "eye": (-4, 13, -27), "ear": (-36, 3, 29),
    "shoulder": (-4, 7, -4), "elbow": (8, 8, 19), "wrist": (11, -4, 6), "hip": (-10, 0, 20),
    "knee": (12, -7, -13), "ankle": (-4, 32, 18), "big_toe": (18, 11, -21), "heel": (-12, 15, 16),
}  # fmt: skip
LOOKS = 9  # frames of each camera in which everybody is looked for


@dataclass(frozen=True)
class Networked:
    landmarks: Landmarks
    outlines: Path  # folder of CAM/%08d.png
    notes: tuple[str, ...]


def interpreter_in(environment: str | Path = ENVIRONMENT) -> Path:
    """The Python of the networks' environment. Raises FileNotFoundError that says how to make it."""
    for place in ("bin/python", "Scripts/python.exe"):
        if (Path(environment) / place).is_file():
            return Path(environment) / place
    raise FileNotFoundError(
        f"{environment}: the networks' environment is not there; make it in the checkout: {INSTALL}; or give keypoints "
        "and masks of another detector"
    )


def landmark_shifts() -> np.ndarray:
    """(K, 3) float64 metres, NaN where nothing is known: see posed_body.read_fitted_body."""
    shifts = np.full((len(LANDMARKS), 3), np.nan)
    for number, name in enumerate(LANDMARKS):
        part = name.removeprefix("left_").removeprefix("right_")
        if part in SHIFTS:
            mirrored = -1 if name.startswith("right_") else 1
            shifts[number] = np.array(SHIFTS[part]) * (mirrored, 1, 1) / 1000
    return shifts


def run_networks(
    footage: Footage, out: str | Path, people: Sequence[str] = (), environment: str | Path = ENVIRONMENT
) -> Networked:
    """The person's landmarks and outlines in all pictures; what an earlier call has finished in `out` is kept.

    people: whom the user means, see people.parse_pick. Raises FileNotFoundError or ValueError, one line each.
    """
    out = Path(out)
    interpreter_in(environment)
    names = [camera.name for camera in footage.cameras]
    picks = [parse_pick(text, names, footage.frames) for text in people]
    wanted = {
        "person": sorted(people),
        "frames": footage.frames,
        "sizes": [list(c.image_size or ()) for c in footage.cameras],
    }
    record = out / "person.json"
    notes: tuple[str, ...]
    if record.is_file() and (earlier := _chosen_before(record, wanted)) is not None:
        anchors, notes = earlier
    else:
        for stale in ("keypoints", "outlines", "survey"):
            if (out / stale).is_dir():
                shutil.rmtree(out / stale)
        looks = np.unique(np.linspace(0, footage.frames - 1, min(LOOKS, footage.frames)).round().astype(int))
        frames = sorted({*looks.tolist(), *(pick.frame for pick in picks)})
        _run_all(
            environment,
            [_words(footage, name, out / "survey") + ["--frames", *map(str, frames)] for name in names],
            "people",
            len(frames),
        )
        survey = [_survey_of(out / "survey" / f"{name}.json", frames) for name in names]
        found, notes = choose_person(footage.cameras, survey, footage.rate, picks)
        anchors = [{str(frame): list(region) for frame, region in of_camera.items()} for of_camera in found]
        with atomic_write(record) as file:
            file.write(json.dumps({"wanted": wanted, "anchors": anchors, "notes": notes}).encode())
    commands = []
    for name, of_camera in zip(names, anchors, strict=True):
        if (out / "keypoints" / f"{name}.json").is_file():  # written last
            continue
        with atomic_write(out / "anchors" / f"{name}.json") as file:
            file.write(json.dumps(of_camera).encode())
        follow = [
            "--follow",
            str(out / "anchors" / f"{name}.json"),
            "--outlines",
            str(out / "outlines" / name),
        ]
        commands.append(_words(footage, name, out / "keypoints") + follow)
    _run_all(environment, commands, "landmarks", footage.frames)
    landmarks, other_notes = without_others(
        footage.cameras, read_keypoints(out / "keypoints", names, range(footage.frames))
    )
    return Networked(landmarks, out / "outlines", (*notes, *other_notes, *notes_on(landmarks, names)))


def _chosen_before(record: Path, wanted: dict) -> tuple[list, tuple[str, ...]] | None:
    """Anchors and notes of an earlier start that wanted the same; None where it did not, or the file is damaged."""
    try:
        earlier = read_json(record)
        if earlier["wanted"] == wanted and len(earlier["anchors"]) == len(wanted["sizes"]):
            return earlier["anchors"], tuple(map(str, earlier["notes"]))
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _words(footage: Footage, name: str, out: Path) -> list[str]:
    return ["--images", str(footage.folder / "images" / name), "--keypoints", str(out / f"{name}.json")]


def _survey_of(path: Path, frames: Sequence[int]) -> dict[int, list[Sighting]]:
    found: dict[int, list[Sighting]] = {frame: [] for frame in frames}
    for annotation in read_json(path)["annotations"]:
        region = tuple(numbers(str(path), annotation, "region", 4).tolist())
        found[annotation["image_id"]].append(Sighting(person_of(path, annotation), region))
    return found


def _run_all(environment: str | Path, commands: list[list[str]], what: str, frames: int) -> None:
    """The program with each list of words, as many at a time as there are cores."""
    if not commands:
        return
    python = interpreter_in(environment)
    with (
        tqdm(total=frames * len(commands), desc=what, unit="picture", mininterval=2) as bar,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        running: list[subprocess.Popen] = []
        try:
            list(pool.map(lambda words: _run(python, words, running, bar.update), commands))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _run(
    python: Path, words: list[str], running: list[subprocess.Popen], progress: Callable[[float], object]
) -> None:
    command = [str(python), str(PROGRAM), *words]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise ValueError(f"{python}: cannot be run ({error.strerror}); make it anew: {INSTALL}") from error
    running.append(process)
    done, said = 0, []
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("progress "):
                progress(int(line.split()[1]) - done)
                done = int(line.split()[1])
            else:
                said = [*said[-20:], line]
    if process.returncode:
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")] or said[-1:]
        what = one_line(errors[-1] if errors else process.returncode)
        hint = f"; {python} is of another environment, make one: {INSTALL}" * ("ModuleNotFoundError" in what)
        raise ValueError(f"{PROGRAM.name} failed: {what}{hint}")
