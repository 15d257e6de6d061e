"""Faults of calibrations: one line that names file, camera and field.

Each is planted in a copy of a small capture, in every layout that can have it, and read as training reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from faults import assert_one_line, read_all
from small_capture import CALIBRATIONS, CAMERAS, HEIGHT, LAYOUTS, WIDTH

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.layout import check_cameras

JSON_LAYOUTS = ("avatarrex", "thuman4")
CAMERA = CAMERAS[1]

# --- calibration as JSON ------------------------------------------------------------------------------------

ROTATION = [1, 0, 0, 0, 1, 0, 0, 0, 1]


def intrinsics(fx=80.0, fy=80.0, cx=24.0, cy=32.0) -> list:
    return [fx, 0, cx, 0, fy, cy, 0, 0, 1]


JSON_FIELD_FAULTS = {  # what is put into the second camera's entry, and what the message must name
    "K missing": ({"K": ...}, ["K is missing"]),
    "R missing": ({"R": ...}, ["R is missing"]),
    "T missing": ({"T": ...}, ["T is missing"]),
    "K of 8 numbers": ({"K": [80.0] * 8}, ["K must be 9 numbers, got 8"]),
    "R of 4 numbers": ({"R": [1, 0, 0, 1]}, ["R must be 9 numbers, got 4"]),
    "T of 4 numbers": ({"T": [0, 0, 2, 1]}, ["T must be 3 numbers, got 4"]),
    "K of text": ({"K": "wide"}, ["K must be 9 numbers, got 'wide'"]),
    "T of text": ({"T": ["0", "0", "two"]}, ["T must be 3 numbers", "two"]),
    "T of numbers as text": ({"T": ["0", "0", "2"]}, ["T must be 3 numbers"]),
    "T of true": ({"T": [True, False, 2]}, ["T must be 3 numbers", "True"]),
    "T null": ({"T": None}, ["T must be 3 numbers, got None"]),
    "T an object": ({"T": {"x": 0}}, ["T must be 3 numbers"]),
    "T of a giant whole number": ({"T": [0, 0, 10**400]}, ["T holds numbers that are not finite"]),
    "T with NaN": ({"T": [0, float("nan"), 2]}, ["T holds numbers that are not finite"]),
    "R with infinity": ({"R": [float("inf"), *ROTATION[1:]]}, ["R holds numbers that are not finite"]),
    "K with NaN": ({"K": intrinsics(fx=float("nan"))}, ["K holds numbers that are not finite"]),
    "R not a rotation": ({"R": [1.1, *ROTATION[1:]]}, ["R is not a rotation"]),
    "R all zero": ({"R": [0] * 9}, ["R is not a rotation"]),
    "R mirrored": ({"R": [-1, *ROTATION[1:]]}, ["R mirrors"]),
    "zero focal length": ({"K": intrinsics(fx=0)}, ["K: focal lengths fx, fy are 0, 80", "positive"]),
    "negative focal length": ({"K": intrinsics(fy=-80)}, ["K: focal lengths fx, fy are 80, -80", "positive"]),
    "focal length as a fraction": ({"K": intrinsics(1.6, 1.2, 0.5, 0.5)}, ["K: focal lengths", "unit"]),
    "principal point far off": ({"K": intrinsics(cx=2400)}, ["K: the principal point", "2400", "unit"]),
    "K transposed": ({"K": [80.0, 0, 0, 0, 80.0, 0, 24.0, 32.0, 1]}, ["K must be upper triangular"]),
    **{
        f"distCoeff of {count}": (
            {"distCoeff": [0.1] * count},
            ["distCoeff must be 0, 4, 5, 8 or 12 numbers", f"got {count}"],
        )
        for count in (1, 3, 6, 14)
    },
    "pixelCenter of a third": ({"pixelCenter": 0.3}, ["pixelCenter is 0.3"]),
    "image size of a planet": ({"imgSize": [10**18, 10**18]}, ["image size", "1000000000000000000"]),
    "an absurd image size": ({"imgSize": [40000, 40000]}, ["image size", "40000", "pixels are possible"]),
    "distCoeff with NaN": ({"distCoeff": [float("nan")] * 5}, ["distCoeff holds numbers that are not"]),
    "zero image size": ({"imgSize": [0, HEIGHT]}, ["image size", "(0, 64)"]),
    "negative image size": ({"imgSize": [WIDTH, -1]}, ["image size", "(48, -1)"]),
    "image size of one number": ({"imgSize": [WIDTH]}, ["imgSize must be 2 numbers, got 1"]),
    "image size with a fraction": ({"imgSize": [WIDTH + 0.5, HEIGHT]}, ["imgSize must be two whole numbers"]),
}


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
@pytest.mark.parametrize("fault", JSON_FIELD_FAULTS)
def test_fault_in_a_field_of_a_json_calibration(capture_of, layout, fault):
    changes, names = JSON_FIELD_FAULTS[fault]
    root = capture_of(layout)
    path = root / CALIBRATIONS[layout]
    calibration = json.loads(path.read_text())
    for field, value in changes.items():
        if value is ...:
            del calibration[CAMERA][field]
        else:
            calibration[CAMERA][field] = value
    path.write_text(json.dumps(calibration))
    assert_one_line(root, [CALIBRATIONS[layout], f"camera '{CAMERA}'", *names])


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
def test_a_lens_is_compared_with_pictures_where_the_calibration_tells_no_size(capture_of, layout):
    root = capture_of(layout)
    path = root / CALIBRATIONS[layout]
    calibration = json.loads(path.read_text())
    for camera in calibration.values():
        del camera["imgSize"]
    path.write_text(json.dumps(calibration))
    assert read_all(root)
    calibration[CAMERA]["K"] = intrinsics(1.6, 1.2, 0.5, 0.5)
    path.write_text(json.dumps(calibration))
    assert_one_line(root, [CAMERA, "K: focal lengths fx, fy come to 1.6, 1.2 pixels", "check their unit"])


JSON_TEXT_FAULTS = {
    "cut short": (lambda text: text[:100], ["not readable as JSON"]),
    "empty": (lambda text: "", ["not readable as JSON"]),
    "no text": (lambda text: "\udcff\udcfe", ["not readable as JSON"]),
    "a list": (lambda text: "[]", ["an object with one entry per camera"]),
    "no camera": (lambda text: "{}", ["an object with one entry per camera"]),
    "camera without fields": (lambda text: '{"22010708": 3}', ["camera '22010708' must be an object"]),
    "brackets without end": (lambda text: "[" * 100_000, ["not readable as JSON"]),
    "camera twice": (lambda text: text.replace(CAMERA, CAMERAS[0]), [f"'{CAMERAS[0]}' appears twice"]),
    "field twice": (lambda text: text.replace('"T"', '"R"'), ["'R' appears twice"]),
}


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
@pytest.mark.parametrize("fault", JSON_TEXT_FAULTS)
def test_unreadable_json_calibration(capture_of, layout, fault):
    change, names = JSON_TEXT_FAULTS[fault]
    root = capture_of(layout)
    path = root / CALIBRATIONS[layout]
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    assert_one_line(root, [CALIBRATIONS[layout], *names])


# --- calibration as CSV -------------------------------------------------------------------------------------


def with_cell(column: str, value: str) -> Callable[[list[list[str]]], None]:
    """Puts a value into the second camera's row."""

    def change(rows: list[list[str]]) -> None:
        rows[2][rows[0].index(column)] = value

    return change


def without_column(column: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        position = rows[0].index(column)
        for row in rows:
            del row[position]

    return change


CSV_FAULTS = {
    "missing column": (without_column("rz"), ["column 'rz' is missing"]),
    "column twice": (lambda rows: rows[0].__setitem__(3, "ry"), ["column 'rx' is missing"]),
    "extra column of a known name": (
        lambda rows: [row.append(row[1]) for row in rows],
        ["'w' appears twice"],
    ),
    "empty row": (lambda rows: rows.insert(2, []), ["line 3 is empty"]),
    "row of empty cells": (lambda rows: rows.insert(2, [""] * 13), ["line 3 is empty"]),
    "row cut short": (lambda rows: rows.__setitem__(2, rows[2][:7]), ["line 3 has 7 cells", "has 13"]),
    "row with a cell too many": (lambda rows: rows[2].append("1"), ["line 3 has 14 cells"]),
    "no camera": (lambda rows: rows.__delitem__(slice(1, None)), ["holds no camera"]),
    "nothing": (lambda rows: rows.clear(), ["is empty", "name,w,h"]),
    "no header": (lambda rows: rows.__delitem__(0), ["column 'name' is missing"]),
    "text for a number": (with_cell("fx", "wide"), ["line 3", CAMERA, "fx must be a number, got 'wide'"]),
    "empty cell": (with_cell("ty", ""), ["line 3", CAMERA, "ty must be a number, got ''"]),
    "NaN": (with_cell("rx", "nan"), ["line 3", CAMERA, "rx is nan"]),
    "infinity": (with_cell("tz", "-inf"), ["line 3", CAMERA, "tz is -inf"]),
    "zero focal length": (with_cell("fx", "0"), [CAMERA, "focal lengths fx, fy are 0"]),
    "negative focal length": (with_cell("fy", "-1.2"), [CAMERA, "focal lengths fx, fy", "positive"]),
    "focal length in pixels": (with_cell("fx", "8000"), [CAMERA, "focal lengths fx, fy come to", "unit"]),
    "principal point in pixels": (with_cell("px", "24"), [CAMERA, "principal point px, py", "unit"]),
    "rotation in degrees": (with_cell("ry", "120"), ["line 3", CAMERA, "rx, ry, rz", "radians"]),
    "zero width": (with_cell("w", "0"), [CAMERA, "image size"]),
    "width with a fraction": (with_cell("w", "48.5"), ["line 3", CAMERA, "w is 48.5", "whole number"]),
    "camera twice": (with_cell("name", CAMERAS[0]), [f"camera '{CAMERAS[0]}' appears twice"]),
    "camera without name": (with_cell("name", ""), ["camera name ''"]),
    "quote without end": (with_cell("name", '"22'), ["not readable as CSV"]),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_fault_in_a_csv_calibration(capture_of, fault):
    change, names = CSV_FAULTS[fault]
    root = capture_of("actorshq")
    path = root / "calibration.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("\n".join(",".join(row) for row in rows) + "\n" * bool(rows))
    assert_one_line(root, ["calibration.csv", *names])


def test_harmless_marks_in_a_csv_calibration(capture_of):
    """Byte-order mark, Windows line ends, spaces, extra columns, blank lines at the end."""
    root = capture_of("actorshq")
    path = root / "calibration.csv"
    expected = open_capture(root).cameras
    lines = [line.replace(",", ", ") + ",extra" for line in path.read_text().splitlines()]
    path.write_bytes(("\ufeff" + "\r\n".join([*lines, "", ""])).encode())
    for camera, other in zip(open_capture(root).cameras, expected, strict=True):
        assert camera.name == other.name and (camera.w2c == other.w2c).all() and (camera.K == other.K).all()


# --- which cameras, which format ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["../x", "..", ".", "/etc", "a/b", "a\\b", "a\nb"])
def test_camera_name_that_leads_out_of_the_capture(capture_of, layout, name):
    root = capture_of(layout)
    path = root / CALIBRATIONS[layout]
    written = f'"{name}"' if layout == "actorshq" else json.dumps(name)
    old = CAMERA if layout == "actorshq" else json.dumps(CAMERA)
    path.write_text(path.read_text().replace(old, written))
    assert_one_line(root, [CALIBRATIONS[layout], f"camera name {name!r}", "plain folder name"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_calibration_names_the_files_looked_for(capture_of, layout):
    root = capture_of(layout)
    (root / CALIBRATIONS[layout]).unlink()
    assert_one_line(root, [*CALIBRATIONS.values(), "--data_dir"])


def test_calibrations_of_two_formats(capture_of):
    root = capture_of("thuman4")
    (root / "calibration.csv").write_text("")
    assert_one_line(root, ["several formats", "calibration.json and calibration.csv"])


def test_skew_is_said_to_be_ignored(capture_of, caplog):
    root = capture_of("thuman4")
    path = root / "calibration.json"
    path.write_text(path.read_text().replace("[80.0, 0,", "[80.0, 5,", 1))
    open_capture(root)
    assert f"camera '{CAMERAS[0]}': K has a skew of 5 pixels" in caplog.text


def test_many_cameras_are_no_trouble(capture_of):
    """Of 60,000 names the one that is there twice is found at once, in the file and among cameras."""
    root = capture_of("thuman4")
    path, one = root / "calibration.json", open_capture(root).cameras[0]
    names = [*map(str, range(59_999)), "7"]
    path.write_text("{" + ",".join(f'"{name}": 0' for name in names) + "}")
    began = time.process_time()
    with pytest.raises(ValueError, match="'7' appears twice"):
        open_capture(root)
    with pytest.raises(ValueError, match="'7' appears twice"):
        check_cameras(path, [replace(one, name=name) for name in names])
    assert time.process_time() - began < 5


def test_deep_brackets_around_a_number_are_read_or_refused(capture_of):
    root = capture_of("thuman4")
    path = root / "calibration.json"
    calibration = json.loads(path.read_text())
    calibration[CAMERA]["T"] = "DEEP"
    path.write_text(json.dumps(calibration).replace('"DEEP"', "[" * 900 + "0, 0, 2" + "]" * 900))
    assert open_capture(root).cameras[1].T.tolist() == [0, 0, 2]
