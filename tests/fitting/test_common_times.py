"""Which frames of each video are pictures: other rates, other lengths, ranges."""

from __future__ import annotations

import numpy as np
import pytest

from mmlphuman.fitting.common_times import frame_range
from tests.fitting.footage_files import EVEN, extract, frames_in, write_video


@pytest.mark.parametrize("text", ["", "3:1", "a:b", "1:2:3:4", "0:9:0", "-1:3"])
def test_ranges_that_hold_nothing_are_refused(text):
    if text:
        with pytest.raises(ValueError, match="--frames"):
            frame_range(text)
    else:
        assert frame_range(text) == slice(0, None, 1)


def test_one_number_is_one_frame():
    assert list(range(9))[frame_range("4")] == [4]
    assert list(range(9))[frame_range("2:")] == [2, 3, 4, 5, 6, 7, 8]
    assert list(range(9))[frame_range(":2")] == [0, 1, 2]


def test_the_slower_camera_gives_the_times(tmp_path):
    write_video(tmp_path / "in" / "cam01.mp4", [k / 50 for k in range(16)])
    write_video(tmp_path / "in" / "cam02.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out")
    assert frames_in(footage, 0) == list(range(0, 16, 2)) and frames_in(footage, 1) == list(range(8))
    assert "cam01 50, cam02 25" in footage.notes[0] and len(footage.notes) == 1


def test_of_a_rate_that_varies_the_nearest_frames_are_taken(tmp_path):
    times = [0, 0.04, 0.08, 0.10, 0.12, 0.18, 0.20, 0.24, 0.28]
    write_video(tmp_path / "in" / "cam01.mp4", times)
    write_video(tmp_path / "in" / "cam02.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out")
    expected = [int(np.argmin(np.abs(np.array(times) - time))) for time in np.arange(footage.frames) / 25]
    assert frames_in(footage, 0) == expected
    assert any("its rate varies" in note and "cam01" in note for note in footage.notes)


def test_lengths_that_differ_are_told(tmp_path):
    write_video(tmp_path / "in" / "cam01.mp4", EVEN)
    write_video(tmp_path / "in" / "cam02.mp4", EVEN[:6])
    footage = extract(tmp_path / "in", tmp_path / "out")
    assert footage.frames == 6 and "cam01 8, cam02 6" in footage.notes[0]


def test_frames_past_the_end_are_told(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out", frames=frame_range("5:90"))
    assert footage.frames == 3
    assert footage.notes == ("--frames asks for frames up to 90, there are 0 to 7: 3 are taken",)
