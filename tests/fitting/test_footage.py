from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmlphuman.capture.images import decode_image
from mmlphuman.fitting.footage import extract_footage, find_footage, frame_range, read_footage
from tests.fitting.footage_files import SIZE, calibration, frame_of, mark_turned, shade, write_video

EVEN = [k / 25 for k in range(8)]


def extract(root, out, cameras=None, **settings):
    sources, notes = find_footage(root, cameras or calibration())
    return extract_footage(sources, out, notes=notes, **settings)


def frames_in(footage, camera: int) -> list[int]:
    """Which frames of the video the pictures are."""
    pictures = [decode_image(footage.image(camera, f), cv2.IMREAD_GRAYSCALE) for f in range(footage.frames)]
    return [round(frame_of(picture)) for picture in pictures]


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


@pytest.mark.parametrize("calibrated", [SIZE, SIZE[::-1]])
def test_a_marked_turn_is_heeded_unless_only_the_stored_picture_was_calibrated(tmp_path, calibrated):
    for name in ("cam01", "cam02"):
        mark_turned(write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:3]))
    footage = extract(tmp_path / "in", tmp_path / "out", calibration(2, calibrated))
    picture = decode_image(footage.image(0, 0), cv2.IMREAD_GRAYSCALE)
    assert picture.shape[::-1] == calibrated == footage.cameras[0].image_size
    corners = [part.mean() for half in np.array_split(picture, 2) for part in np.array_split(half, 2, 1)]
    # Stored with the white quarter at the upper left; a quarter turn clockwise takes it to the upper right.
    assert int(np.argmax(corners)) == (0 if calibrated == SIZE else 1)
    assert any("mark to be turned" in note for note in footage.notes)


def test_other_sizes_of_one_aspect_scale_the_intrinsics(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:3])
    footage = extract(tmp_path / "in", tmp_path / "out", calibration(2, (192, 144)))
    assert np.allclose(footage.cameras[0].K[:2] * 3, calibration(2, (192, 144)).cameras[0].K[:2])
    assert any("192x144 to 64x48" in note for note in footage.notes)


def test_what_a_codec_has_filled_up_is_cut_off_not_squeezed(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:3], size=(1080 // 8 * 2, 96))
    footage = extract(tmp_path / "in", tmp_path / "out", calibration(2, (272, 96)))
    assert np.array_equal(footage.cameras[0].K, calibration(2, (272, 96)).cameras[0].K)
    assert footage.cameras[0].image_size == (270, 96) and "cut at the right or bottom" in footage.notes[0]


def test_another_aspect_is_refused_and_nothing_is_left(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:3])
    with pytest.raises(
        ValueError, match="64x48, but camera 'cam01' was calibrated at 48x64; are they turned"
    ) as error:
        extract(tmp_path / "in", tmp_path / "out", calibration(2, (48, 64)))
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == [tmp_path / "in"]


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


def test_an_empty_folder_and_a_single_camera_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="holds no video"):
        find_footage(tmp_path / "in", calibration())
    write_video(tmp_path / "in" / "cam01.mp4", EVEN[:2])
    with pytest.raises(ValueError, match="at least 2 are needed"):
        find_footage(tmp_path / "in", calibration())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_footage(tmp_path / "elsewhere", calibration())


def test_names_that_do_not_match_are_taken_in_order_and_said(tmp_path):
    for name in ("GX10", "GX2"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:2])
    sources, notes = find_footage(tmp_path / "in", calibration())
    assert [source.place.name for source in sources] == ["GX2.mp4", "GX10.mp4"]
    assert "GX2.mp4 is cam01, GX10.mp4 is cam02" in notes[0]


def test_names_that_hold_a_cameras_name_are_its_own_and_others_are_left_out(tmp_path):
    for name in ("walk_cam02_a", "walk_cam01_b"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN[:2])
    sources, notes = find_footage(tmp_path / "in", calibration())
    assert [source.place.name for source in sources] == ["walk_cam01_b.mp4", "walk_cam02_a.mp4"] and not notes
    sources, notes = find_footage(tmp_path / "in", calibration(3))
    assert len(sources) == 2 and "no recording of cam03" in notes[0]


def test_frames_past_the_end_are_told(tmp_path):
    for name in ("cam01", "cam02"):
        write_video(tmp_path / "in" / f"{name}.mp4", EVEN)
    footage = extract(tmp_path / "in", tmp_path / "out", frames=frame_range("5:90"))
    assert footage.frames == 3
    assert footage.notes == ("--frames asks for frames up to 90, there are 0 to 7: 3 are taken",)


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


def test_orientation_of_exif_is_heeded(tmp_path):
    for name in ("cam01", "cam02"):
        path = tmp_path / "in" / name / "0000.jpg"
        path.parent.mkdir(parents=True)
        pixels = np.full((48, 64, 3), 40, np.uint8)
        pixels[:24, :32] = 255
        data = cv2.imencode(".jpg", pixels)[1].tobytes()
        # A segment of one entry: tag 0x112 (orientation), one short, 6: to be turned clockwise by a quarter.
        tiff = (
            b"MM\x00*\x00\x00\x00\x08"
            + b"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
        )
        body = b"Exif\x00\x00" + tiff
        path.write_bytes(data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:])
    footage = extract(tmp_path / "in", tmp_path / "out", calibration(2, (48, 64)))
    picture = decode_image(footage.image(0, 0), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (64, 48) and picture[:28, 28:].mean() > 200 > picture[:28, :20].mean()


def test_a_picture_of_another_size_is_named(tmp_path):
    for name in ("cam01", "cam02"):
        for frame in range(2):
            path = tmp_path / "in" / name / f"{frame:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.zeros((48, 64 if name == "cam01" or frame == 0 else 60, 3), np.uint8))
    with pytest.raises(ValueError, match="0001.png: is 60x48"):
        extract(tmp_path / "in", tmp_path / "out")


def write_numbered(folder, numbers_of: dict) -> None:
    for name, numbers in numbers_of.items():
        for number in numbers:
            path = folder / name / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((48, 64, 3), number, np.uint8))


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
