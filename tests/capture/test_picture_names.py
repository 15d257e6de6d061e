"""Which file is a frame's picture: any ending in any case, and the same answer for one file as for a listed folder."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from faults import assert_one_line, read_all
from small_capture import CAMERAS, FRAMES, LAYOUTS, image_path, mask_path

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.picture_names import FolderListing, find_picture

NAMES = ["a.jpg", "a.png", "b.PNG", "c.JPEG", "d.Jpg", "e.txt", "e", "f.jpeg", "f.JPG", "g.tiff", "h.i.png"]


@pytest.mark.parametrize(("expected", "found"), [
    ("a.jpg", "a.jpg"), ("a.png", "a.png"), ("a.jpeg", "a.png"), ("b.jpg", "b.PNG"), ("c.jpg", "c.JPEG"),
    ("d.png", "d.Jpg"),
    ("e.jpg", None), ("f.png", "f.jpeg"), ("g.jpg", None), ("h.i.jpg", "h.i.png"), ("absent.jpg", None),
])  # fmt: skip
def test_the_picture_of_a_stem(tmp_path, expected, found):
    for name in NAMES:
        (tmp_path / name).write_text("")
    wanted = None if found is None else tmp_path / found
    assert find_picture(tmp_path / expected) == wanted
    assert FolderListing().find(tmp_path / expected) == wanted
    assert (
        find_picture(tmp_path / "absent" / expected)
        is None
        is FolderListing().find(tmp_path / "absent" / expected)
    )


def convert(root, layout, path_of, ending: str, camera: int) -> None:
    for frame in range(FRAMES):
        path = path_of(root, camera, frame, layout)
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        data = cv2.imencode(ending.lower(), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
        path.unlink()
        path.with_suffix(ending).write_bytes(data.tobytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", [".png", ".PNG", ".JPG", ".jpeg", ".Jpeg", ".jpg"])
def test_captures_of_any_ending_are_read_whole(capture_of, layout, ending):
    """Also cameras of different endings in one capture."""
    root = capture_of(layout)
    convert(root, layout, image_path, ending, 0)
    convert(root, layout, mask_path, ending, 1)
    assert read_all(root) == FRAMES * len(CAMERAS)
    opened = open_capture(root)
    assert opened.image_path(0, 3) == image_path(root, 0, 3, layout).with_suffix(ending)
    assert opened.mask_path(1, 3) == mask_path(root, 1, 3, layout).with_suffix(ending)


def masks_into_alpha(root, layout, depth=np.uint8) -> None:
    for camera in range(len(CAMERAS)):
        for frame in range(FRAMES):
            image, mask = image_path(root, camera, frame, layout), mask_path(root, camera, frame, layout)
            pixels = np.dstack([cv2.imread(str(image)), cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)])
            if depth == np.uint16:
                pixels = pixels.astype(np.uint16) * 257
            image.unlink()
            assert cv2.imwrite(str(image.with_suffix(".png")), pixels)
        shutil.rmtree(mask_path(root, camera, 0, layout).parent)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_is_the_mask_where_there_is_no_folder_of_masks(capture_of, layout, depth):
    from mmlphuman.capture.images import make_view_reader

    root = capture_of(layout)
    before = open_capture(root)
    camera = before.cameras[1]
    reader = make_view_reader(camera, camera.image_size, 1.0, 2)
    expected = reader.read(before.image_path(1, 2), before.mask_path(1, 2))
    masks_into_alpha(root, layout, depth)
    assert read_all(root) == FRAMES * len(CAMERAS)
    layout_now = open_capture(root)
    view = reader.read(layout_now.image_path(1, 2), layout_now.mask_path(1, 2))
    for field in ("mask", "edge", "image"):
        np.testing.assert_array_equal(getattr(view, field), getattr(expected, field))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_png_without_alpha_and_masks(capture_of, layout):
    root = capture_of(layout)
    convert(root, layout, image_path, ".png", 1)
    shutil.rmtree(mask_path(root, 1, 0, layout).parent)
    assert_one_line(root, ["frame 0, camera 1", "no alpha channel", "no folder of masks"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gap_among_masks_is_not_filled_with_alpha(capture_of, layout):
    root = capture_of(layout)
    convert(root, layout, image_path, ".png", 1)
    mask_path(root, 1, 2, layout).unlink()
    assert read_all(root) == FRAMES * len(CAMERAS) - 1


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        (
            lambda path: path.with_name(f"{int(path.stem)}.jpg"),
            "6 files such as 0.jpg: script/import_capture.py",
        ),
        (
            lambda path: path.with_suffix(".webp"),
            "6 files such as 00000000.webp: pictures end with .png, .jpg",
        ),
        (
            lambda path: path.with_name(f"{int(path.stem) + 50:08d}.jpg"),
            "00000050.jpg: change the frame range",
        ),
    ],
)
def test_what_lies_in_the_place_of_missing_pictures_is_told(capture_of, renamed, said):
    root = capture_of("avatarrex")
    for frame in range(FRAMES):
        path = image_path(root, 1, frame, "avatarrex")
        path.rename(renamed(path))
    assert_one_line(root, ["camera 1 has no image with a mask", said], num_train_frame=FRAMES)
    assert_one_line(root, ["no frame has both", said], train_cam_ids=[1])
    shutil.rmtree(path.parent)
    assert_one_line(root, ["no frame has both", f"there is no folder {path.parent}"], train_cam_ids=[1])
