"""Pictures that lie otherwise than they were calibrated, or are of another size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmlphuman.capture.images import decode_image
from tests.fitting.footage_files import EVEN, SIZE, calibration, extract, mark_turned, write_video


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


def test_a_picture_of_another_size_is_named(tmp_path):
    for name in ("cam01", "cam02"):
        for frame in range(2):
            path = tmp_path / "in" / name / f"{frame:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.zeros((48, 64 if name == "cam01" or frame == 0 else 60, 3), np.uint8))
    with pytest.raises(ValueError, match="0001.png: is 60x48"):
        extract(tmp_path / "in", tmp_path / "out")
