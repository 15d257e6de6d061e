"""Faults of images, masks and folders: one line that names frame, camera and file.

Each is planted in a copy of a small capture, in every layout that can have it, and read as training reads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults import assert_one_line, contents, read_all
from small_capture import CAMERAS, FRAMES, HEIGHT, LAYOUTS, WIDTH, image_path, mask_path

from mmlphuman.capture.images import decode_image


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clean_captures_read_and_nothing_in_them_changes(capture_of, layout):
    root = capture_of(layout)
    before = contents(root)
    assert read_all(root) == FRAMES * len(CAMERAS)
    assert read_all(root, data_in_memory=True, image_scaling=0.5) == FRAMES * len(CAMERAS)
    assert contents(root) == before


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-150])


def of_size(width: int, height: int) -> Callable[[Path], None]:
    return lambda path: (
        cv2.imwrite(str(path), np.zeros((height, width), np.uint8)) or pytest.fail("unwritten")
    )


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


PICTURE_FAULTS = {
    "cut short": (cut_short, ["cut short"]),
    "empty": (lambda path: path.write_bytes(b""), ["not a readable image"]),
    "text": (lambda path: path.write_text("<html>404</html>"), ["not a readable image"]),
    "another size": (of_size(20, 10), ["20x10", "48x64"]),
    "turned": (of_size(HEIGHT, WIDTH), ["64x48", "48x64"]),
    "a folder": (become_folder, []),
    "a broken link": (become_broken_link, []),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path_of", [image_path, mask_path])
@pytest.mark.parametrize("fault", PICTURE_FAULTS)
def test_unusable_image_or_mask(capture_of, layout, path_of, fault):
    damage, names = PICTURE_FAULTS[fault]
    root = capture_of(layout)
    path = path_of(root, 1, 2, layout)
    damage(path)
    before = contents(root)
    assert_one_line(root, ["frame 2, camera 1", str(path), *names])
    assert contents(root) == before


def wrong_bytes_in_the_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(1).bytes(40) + data[middle + 40 :]


JPEG_DAMAGE = {
    "wrong bytes in the middle": wrong_bytes_in_the_middle,
    "zeros from a third on": lambda data: data[: len(data) // 3].ljust(len(data) - 2, b"\0") + data[-2:],
    "cut and ended again": lambda data: data[: len(data) // 2] + data[-2:],
}


@pytest.mark.parametrize("damage", JPEG_DAMAGE)
@pytest.mark.parametrize("path_of", [image_path, mask_path])
def test_damage_of_which_decoders_only_warn_is_a_fault_and_libjpeg_says_nothing_itself(
    small_capture, capfd, path_of, damage
):
    path = path_of(small_capture, 1, 2)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    assert read_all(small_capture) == FRAMES * len(CAMERAS)
    path.write_bytes(JPEG_DAMAGE[damage](path.read_bytes()))
    assert_one_line(small_capture, ["frame 2, camera 1", str(path), "damaged", "fetch it again or delete it"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", [cv2.IMREAD_COLOR_RGB, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED])
@pytest.mark.parametrize("kind", ["colour", "grey", "progressive"])
def test_jpegs_are_decoded_as_opencv_does_it(tmp_path, mode, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 50) if kind == "grey" else (33, 50, 3), np.uint8)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(kind == "progressive")])
    decoded, expected = decode_image(path, mode), cv2.imread(str(path), mode)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8 and decoded.shape == expected.shape


@pytest.mark.parametrize("special", ["fifo", "/dev/zero", "folder"])
def test_what_is_no_plain_file_is_not_read(tmp_path, special):
    path = tmp_path / "a.jpg"
    if special == "fifo":
        os.mkfifo(path)
    elif special == "folder":
        path.mkdir()
    else:
        path.symlink_to(special)
    with pytest.raises(ValueError, match=r"a\.jpg: not a plain file"):
        decode_image(path, cv2.IMREAD_GRAYSCALE)


def test_png_mask_with_damaged_content(capture_of):
    root = capture_of("actorshq")
    path = mask_path(root, 1, 2, "actorshq")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    assert_one_line(root, ["frame 2, camera 1", str(path), "not a readable image"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_and_mask_of_another_size_than_calibrated(capture_of, layout):
    root = capture_of(layout)
    for path_of in (image_path, mask_path):
        of_size(24, 32)(path_of(root, 1, 2, layout))
    assert_one_line(root, ["frame 2, camera 1", str(image_path(root, 1, 2, layout)), "24x32", "48x64"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path_of", [image_path, mask_path])
def test_camera_folder_missing(capture_of, layout, path_of):
    root = capture_of(layout)
    shutil.rmtree(path_of(root, 1, 0, layout).parent)
    assert_one_line(root, ["camera 1 has no image with a mask", CAMERAS[1]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_images_at_all(capture_of, layout):
    root = capture_of(layout)
    for camera in range(len(CAMERAS)):
        shutil.rmtree(image_path(root, camera, 0, layout).parent)
    assert_one_line(root, ["no frame has both image and mask", str(image_path(root, 0, 0, layout))])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_poses_beyond_the_images(capture_of, layout):
    root = capture_of(layout)
    for camera in range(len(CAMERAS)):
        image_path(root, camera, FRAMES - 1, layout).unlink()
    assert_one_line(
        root, [f"frame {FRAMES - 1} has no image and mask in any camera", "change the frame range"]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_numbered_from_one(capture_of, layout):
    """Frame 0 is missing, and there is a picture more than there are poses: the whole capture is one number off."""
    root = capture_of(layout)
    for camera in range(len(CAMERAS)):
        for path_of in (image_path, mask_path):
            for frame in reversed(range(FRAMES)):
                path_of(root, camera, frame, layout).rename(path_of(root, camera, frame + 1, layout))
    assert_one_line(root, ["frame 0 has no image and mask", "numbered from 1", "script/import_capture.py"])


def test_frames_beyond_the_poses_and_cameras_beyond_the_calibration(capture_of):
    root = capture_of("actorshq")
    with pytest.raises(ValueError, match=r"frame 6 does not exist: smpl_params\.npz holds frames 0 to 5"):
        read_all(root, num_train_frame=FRAMES + 1)
    with pytest.raises(ValueError, match="frame 6 does not exist"):
        read_all(root, num_train_frame=FRAMES + 1, min_pose_change=0.01)
    assert_one_line(root, ["camera 3 does not exist", "cameras 0 to 2"], train_cam_ids=[0, 3])
