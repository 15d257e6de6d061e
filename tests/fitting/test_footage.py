"""Recordings become numbered pictures and cameras at their size, which can be read again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmlphuman.capture.images import decode_image
from mmlphuman.fitting.common_times import frame_range
from mmlphuman.fitting.footage import read_footage
from tests.fitting.footage_files import EVEN, SIZE, calibration, extract, frames_in, shade, write_video


def test_frames_of_videos_become_numbered_pictures(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / "videos" / f"{name}.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out")
    assert footage.frames == 8 and footage.rate == pytest.approx(25) and footage.notes == ()
    assert frames_in(footage, 0) == frames_in(footage, 1) == list(range(8))
    again = read_footage(tmp_path / "out")
    assert again.frames == 8 and again.rate == footage.rate
    for one, other in zip(again.cameras, footage.cameras, strict=True):
        assert one.name == other.name and one.image_size == SIZE and np.array_equal(one.K, other.K)
        assert one.half_pixel == other.half_pixel


def test_a_range_and_a_scale(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out", frames=frame_range("1:6:2"), scale=0.5)
    assert not footage.notes
    assert frames_in(footage, 1) == [1, 3, 5]
    assert footage.cameras[0].image_size == (32, 24)
    ratio = footage.cameras[0].K[:2] / calibration().cameras[0].K[:2].clip(1e-9)
    assert np.allclose(ratio[calibration().cameras[0].K[:2] > 0], 0.5)
    assert decode_image(footage.image(0, 0), cv2.IMREAD_COLOR_RGB).shape == (24, 32, 3)


def test_pictures_are_linked_and_those_with_a_mark_are_turned(tmp_path):
    for name in ("cam01", "cam02"):
        for frame in range(3):
            pixels = np.full((48, 64, 3), shade(frame), np.uint8)
            path = tmp_path / "in" / "images" / name / f"{frame + 7:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    footage = extract(tmp_path / "in", tmp_path / "out", frames=frame_range("1:2"))
    assert footage.frames == 2 and footage.rate is None
    assert footage.image(1, 0).resolve() == tmp_path / "in" / "images" / "cam02" / "00008.png"
    assert frames_in(footage, 0) == [1, 2]
