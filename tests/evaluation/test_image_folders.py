"""Folders of pictures: what matches, how they are read, and what is refused."""

import cv2
import numpy as np
import pytest

from mmlphuman.evaluation.image_folders import camera_and_frame, match_folders, program_names, read_picture
from mmlphuman.picture_files import image_name, write_png


def picture(seed=0, size=(20, 30)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)


def write(path, pixels):
    """pixels as OpenCV takes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def folders(tmp_path):
    """gt, render and mask of two cameras and two frames, as test.py writes them."""
    for camera in (1, 12):
        for frame in (0, 3):
            for seed, kind in enumerate(("gt", "render")):
                write_png(tmp_path / image_name(kind, camera, frame), picture(100 * camera + frame + seed))
            write_png(tmp_path / image_name("mask", camera, frame), picture(frame)[..., 0] > 128)
    return tmp_path


def test_our_own_pictures_match(folders):
    matched = match_folders(folders / "gt", [folders / "render"], folders / "mask")
    pictures = list(matched.pictures("render"))
    assert [(item.camera, item.frame) for item in pictures] == [(1, 0), (1, 3), (12, 0), (12, 3)]
    assert matched.notes == ()
    assert np.array_equal(pictures[3].ground_truth, picture(1203))
    assert np.array_equal(pictures[3].render, picture(1204))
    assert np.array_equal(pictures[3].mask, picture(3)[..., 0] > 128)


def test_without_masks(folders):
    matched = match_folders(folders / "gt", [folders / "render"])
    assert all(item.mask is None for item in matched.pictures("render"))


def test_subfolders_keep_cameras_apart_and_suffixes_may_differ(tmp_path):
    for camera in ("left", "right"):
        for frame in ("0001", "0002"):
            write(tmp_path / "truth" / camera / f"{frame}.png", picture())
            write(tmp_path / "peer" / camera / f"{frame}.JPG", picture())
    matched = match_folders(tmp_path / "truth", [tmp_path / "peer"])
    found = [(item.camera, item.frame) for item in matched.pictures("peer")]
    assert found == [("left", "0001"), ("left", "0002"), ("right", "0001"), ("right", "0002")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cam007_frame00000120", (7, 120)),
        ("sub/cam007_frame00000120", (7, 120)),
        ("00012", ("", "00012")),
        ("a/b/00012", ("a/b", "00012")),
        ("cam007_frame00000120_x", ("", "cam007_frame00000120_x")),
    ],
)
def test_cameras_and_frames_are_in_the_names(name, expected):
    assert camera_and_frame(name) == expected


def test_programs_are_compared_on_what_all_have(folders):
    peer = folders / "peer"
    write(peer / "cam001_frame00000003.png", picture(5))
    write(peer / "cam012_frame00000003.jpg", picture(6))
    write(peer / "more.png", picture(7))
    matched = match_folders(folders / "gt", [folders / "render", peer])
    assert matched.names == ("cam001_frame00000003", "cam012_frame00000003")
    assert len(list(matched.pictures("render"))) == len(list(matched.pictures("peer"))) == 2
    assert len(matched.notes) == 3 and any("1 of 3" in note and "more" in note for note in matched.notes)


def test_programs_are_named_as_shortly_as_tells_them_apart(tmp_path):
    paths = [tmp_path / "ours" / "render", tmp_path / "peer" / "render"]
    assert program_names(paths) == ["ours/render", "peer/render"]
    assert program_names([paths[0], tmp_path / "peer"]) == ["render", "peer"]
    with pytest.raises(ValueError, match="twice"):
        program_names([paths[0], paths[0]])


def test_nothing_in_common_is_an_error(tmp_path):
    write(tmp_path / "a" / "1.png", picture())
    write(tmp_path / "b" / "2.png", picture())
    with pytest.raises(ValueError, match="no picture has the same name") as caught:
        match_folders(tmp_path / "a", [tmp_path / "b"])
    assert "has 1" in str(caught.value) and "has 2" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no"):
        match_folders(tmp_path / "a", [tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        match_folders(tmp_path / "a", [tmp_path / "nowhere"])
    write(tmp_path / "a" / "1.jpg", picture())
    with pytest.raises(ValueError, match="one name"):
        match_folders(tmp_path / "a", [tmp_path / "a"])


def test_sizes_must_agree(folders):
    render = folders / image_name("render", 1, 3)
    write(render, picture(size=(20, 31)))
    matched = match_folders(folders / "gt", [folders / "render"], folders / "mask")
    with pytest.raises(ValueError, match=r"cam001_frame00000003\.png is 31x20 but .* is 30x20"):
        list(matched.pictures("render"))
    write(render, picture())
    write(folders / image_name("mask", 12, 0), picture(size=(10, 15)))
    with pytest.raises(ValueError, match=r"mask.cam012_frame00000000\.png is 15x10"):
        list(matched.pictures("render"))


def test_pictures_too_small_to_be_scored_are_one_line(tmp_path):
    assert read_picture(write(tmp_path / "small.png", picture(size=(6, 6)))).shape == (6, 6, 3)
    with pytest.raises(ValueError, match=r"tiny\.png: is 9x5; .* at least 6 pixels a side"):
        read_picture(write(tmp_path / "tiny.png", picture(size=(5, 9))))


def test_transparency_is_refused_and_an_opaque_alpha_is_not(tmp_path):
    colours = picture()
    opaque = np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])
    assert np.array_equal(read_picture(write(tmp_path / "opaque.png", opaque)), colours[..., ::-1])
    opaque[3, 4, 3] = 254
    with pytest.raises(ValueError, match=r"clear\.png.*transparent"):
        read_picture(write(tmp_path / "clear.png", opaque))


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("grey.png", picture()[..., 0], "grey"),
        ("deep.png", picture().astype(np.uint16) * 257, "8 bits"),
    ],
)
def test_other_pictures_are_refused(tmp_path, name, pixels, message):
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        read_picture(write(tmp_path / name, pixels))


def test_damaged_files_are_named(tmp_path):
    path = write(tmp_path / "cut.png", picture())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut\.png.*cut short"):
        read_picture(path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg"):
        read_picture(tmp_path / "text.jpg")
