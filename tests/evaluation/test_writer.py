"""Background writing: the pictures arrive whole, errors are not lost, memory is bounded."""

import threading

import cv2
import numpy as np
import pytest

from mmlphuman.evaluation import writer
from mmlphuman.evaluation.writer import ImageWriter, image_name, write_png


def noise(seed=0, shape=(20, 30, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def test_names_keep_kinds_cameras_and_frames_apart():
    names = {
        str(image_name(kind, camera, frame))
        for kind in writer.IMAGE_KINDS
        for camera in (1, 11)
        for frame in (1, 11)
    }
    assert len(names) == 12
    assert image_name("render", 7, 120).as_posix() == "render/cam007_frame00000120.png"


def test_pictures_come_back_exactly(tmp_path):
    pictures = [noise(seed) for seed in range(9)]
    mask = pictures[0][..., 0] > 100
    with ImageWriter(tmp_path, max_waiting=3) as images:
        paths = [
            images.write(image_name("render", 0, index), picture) for index, picture in enumerate(pictures)
        ]
        mask_path = images.write(image_name("mask", 0, 0), mask)
    for path, picture in zip(paths, pictures, strict=True):
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], picture)
    assert np.array_equal(cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED), mask.astype(np.uint8) * 255)
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".png"] * 10


def test_an_error_names_the_file_at_close(tmp_path):
    (tmp_path / "render").write_text("a file where the folder should be")
    images = ImageWriter(tmp_path)
    images.write(image_name("render", 2, 5), noise())
    with pytest.raises(OSError, match="cam002_frame00000005"):
        images.close()
    images.close()  # harmless


def test_an_error_stops_later_writes(tmp_path):
    images = ImageWriter(tmp_path, max_waiting=1)
    images.write("wrong.png", noise().astype(np.float32))
    with pytest.raises(ValueError, match=r"wrong\.png.*float32"):
        images.write("right.png", noise())
    images.close()


def test_a_failed_write_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, noise(0))
    before = path.read_bytes()

    def disk_full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.Path, "replace", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_png(path, noise(1))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_error_of_the_body_is_the_one_seen(tmp_path):
    with pytest.raises(KeyError, match="mine"), ImageWriter(tmp_path) as images:
        images.write("wrong.png", noise().astype(np.float32))
        raise KeyError("mine")


def test_a_slow_disk_holds_the_caller_back(tmp_path, monkeypatch):
    gate, started = threading.Event(), []

    def slow(path, image):
        started.append(path)
        gate.wait(10)

    monkeypatch.setattr(writer, "write_png", slow)
    images = ImageWriter(tmp_path, threads=1, max_waiting=4)
    for index in range(4):
        images.write(f"{index}.png", noise())  # fits: returns at once
    fifth = threading.Thread(target=images.write, args=("4.png", noise()))
    fifth.start()
    fifth.join(0.1)
    assert fifth.is_alive()
    gate.set()
    fifth.join(10)
    assert not fifth.is_alive()
    images.close()
    assert len(started) == 5
