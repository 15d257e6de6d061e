"""Whose recording a file or folder is, by its name; pictures that are missing."""

from __future__ import annotations

import pytest

from mmlphuman.fitting.recordings import find_recordings
from tests.fitting.footage_files import EVEN, calibration, extract, write_numbered, write_video


def test_an_empty_folder_and_a_single_camera_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="holds no video"):
        find_recordings(tmp_path / "in", calibration())
    write_video(tmp_path / "in" / "cam01.mp4", EVEN[:2])
    with pytest.raises(ValueError, match="at least 2 are needed"):
        find_recordings(tmp_path / "in", calibration())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_recordings(tmp_path / "elsewhere", calibration())


def test_names_that_do_not_match_are_taken_in_order_and_said(tmp_path):
    for name in ("GX10", "GX2"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:2])
    recordings, notes = find_recordings(tmp_path / "in", calibration())
    assert [recording.place.name for recording in recordings] == ["GX2.mp4", "GX10.mp4"]
    assert "GX2.mp4 is cam01, GX10.mp4 is cam02" in notes[0]


def test_names_that_hold_a_cameras_name_are_its_own_and_others_are_left_out(tmp_path):
    for name in ("walk_cam02_a", "walk_cam01_b"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:2])
    recordings, notes = find_recordings(tmp_path / "in", calibration())
    assert [recording.place.name for recording in recordings] == ["walk_cam01_b.mp4", "walk_cam02_a.mp4"]
    assert not notes
    recordings, notes = find_recordings(tmp_path / "in", calibration(3))
    assert len(recordings) == 2 and "no recording of cam03" in notes[0]


def test_a_missing_picture_is_refused_as_it_would_shift_all_later_ones(tmp_path):
    write_numbered(tmp_path / "in", {"cam01": range(8), "cam02": [0, 1, 2, 5, 6, 7]})
    with pytest.raises(ValueError, match="cam02: no pictures of frames 3-4"):
        extract(tmp_path / "in", tmp_path / "out")
    write_numbered(tmp_path / "every fifth", {"cam01": range(0, 40, 5), "cam02": [0, 5, 10, 20, 25, 30, 35]})
    with pytest.raises(ValueError, match="cam02: no pictures of frames 15,"):
        extract(tmp_path / "every fifth", tmp_path / "out")


def test_numbers_may_go_up_in_steps_or_be_times(tmp_path):
    write_numbered(tmp_path / "steps", {"cam01": range(0, 25, 5), "cam02": range(3, 28, 5)})
    assert extract(tmp_path / "steps", tmp_path / "out").frames == 5
    write_numbered(tmp_path / "times", {"cam01": [0, 33, 67, 100], "cam02": [2, 35, 69, 101]})
    assert extract(tmp_path / "times", tmp_path / "out2").frames == 4
