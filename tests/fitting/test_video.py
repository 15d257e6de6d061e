"""Videos that are damaged, or none."""

from __future__ import annotations

import pytest

from mmlphuman.fitting.common_times import frame_range
from tests.fitting.footage_files import EVEN, calibration, extract, frames_in, write_video


def test_a_video_cut_short_is_refused_with_the_frame(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", [k / 25 for k in range(40)], size=(320, 240))
    path = tmp_path / "in" / "cam02.mp4"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - len(data) // 3])
    cameras = calibration(2, (320, 240))
    with pytest.raises(ValueError, match=r"cam02.mp4.*--frames 0:(\d+)") as error:
        extract(tmp_path / "in", tmp_path / "out", cameras)
    last = int(str(error.value).rsplit(":", 1)[1].split()[0])
    assert 0 < last < 39
    footage = extract(tmp_path / "in", tmp_path / "out", cameras, frames=frame_range(f"0:{last}"))
    assert footage.frames == last + 1 and frames_in(footage, 1)[-1] == frames_in(footage, 0)[-1]


def test_a_file_that_is_no_video_is_named(tmp_path):
    write_video(tmp_path / "in" / "cam01.mp4", EVEN)
    (tmp_path / "in" / "cam02.mp4").write_bytes(b"nothing of a video" * 50)
    with pytest.raises(ValueError, match="cam02.mp4: not a readable video") as error:
        extract(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(error.value)
