"""Background writing: pictures and videos arrive whole, errors are not lost, memory is bounded.

Videos are decoded again: what comes back is what was given, in size, number, rate and colour.
"""

import threading

import av
import cv2
import numpy as np
import pytest

from mmlphuman import picture_files
from mmlphuman.picture_files import ImageWriter, VideoWriter, image_name, write_png


def noise(seed=0, shape=(20, 30, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def test_names_keep_kinds_cameras_and_frames_apart():
    names = {
        str(image_name(kind, camera, frame))
        for kind in picture_files.IMAGE_KINDS
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

    monkeypatch.setattr(picture_files.Path, "replace", disk_full)
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

    monkeypatch.setattr(picture_files, "write_png", slow)
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


def picture(number, height=64, width=96):
    """Smooth colours that move, as 4:2:0 can carry them."""
    y, x = np.mgrid[:height, :width]
    channels = (np.sin((x + 4 * number) / 17), np.cos((y - 3 * number) / 13), np.sin((x + y) / 20))
    return np.stack([127 + 110 * channel for channel in channels], -1).astype(np.uint8)


def write(path, pictures, fps=25.0):
    with VideoWriter(path, fps) as writer:
        for image in pictures:
            writer.write(image)


def decode(path):
    """The stream's facts and its frames as a player shows them, from the file's own colour flags."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.average_rate, stream.codec_context.name, frames


def psnr(a, b):
    return -10 * np.log10(np.square((a.astype(float) - b) / 255).mean())


def test_every_frame_comes_back_in_order(tmp_path):
    pictures = [picture(number) for number in range(12)]
    write(tmp_path / "a.mp4", pictures)
    rate, codec, frames = decode(tmp_path / "a.mp4")
    assert codec == "h264" and rate == 25 and len(frames) == 12
    for number, frame in enumerate(frames):
        scores = [psnr(frame, image) for image in pictures]
        assert scores[number] > 35 and np.argmax(scores) == number
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (90, 140, 60)])
def test_colours_are_right_and_flagged(tmp_path, colour):
    write(tmp_path / "a.mp4", [np.full((32, 48, 3), colour, np.uint8)] * 3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        flags = (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
    assert flags == (1, 1, 1, 1)  # BT.709 three times, limited range
    for frame in decode(tmp_path / "a.mp4")[2]:
        assert np.abs(frame.astype(int) - colour).max() <= 4


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path):
    pictures = [picture(number, 63, 95) for number in range(3)]
    write(tmp_path / "a.mp4", pictures)
    for image, frame in zip(pictures, decode(tmp_path / "a.mp4")[2], strict=True):
        assert frame.shape == (64, 96, 3)
        assert psnr(frame[:63, :95], image) > 35
        assert psnr(frame[63, :95], image[62]) > 30 and psnr(frame[:63, 95], image[:, 94]) > 30


def test_broken_rates_are_exact(tmp_path):
    write(tmp_path / "a.mp4", [picture(0)] * 4, fps=30000 / 1001)
    rate = decode(tmp_path / "a.mp4")[0]
    assert (rate.numerator, rate.denominator) == (30000, 1001)


def test_the_index_comes_first(tmp_path):
    write(tmp_path / "a.mp4", [picture(0)] * 3)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf"), 1e6])
def test_impossible_rates_are_one_line(tmp_path, fps):
    with pytest.raises(ValueError, match="--video: .* frames a second is not possible"):
        VideoWriter(tmp_path / "a.mp4", fps)


def test_a_failed_run_leaves_the_old_video_and_nothing_else(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, [picture(0)] * 3)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="mine"), VideoWriter(path, 25) as writer:
        for number in range(40):
            writer.write(picture(number))
        raise KeyError("mine")
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(path, 25):
        pass
    with pytest.raises(ValueError, match="one size"), VideoWriter(path, 25) as writer:
        writer.write(picture(0))
        writer.write(picture(0, 32, 32))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/a\.mp4: the video could not be written"):
        write(tmp_path / "file" / "a.mp4", [picture(0)])


@pytest.mark.parametrize("when", ["add", "flush"])
def test_an_error_of_the_encoder_ends_the_work(tmp_path, monkeypatch, when):
    def disk_full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_files._Encoder, when, disk_full)
    writer = VideoWriter(tmp_path / "a.mp4", 25, max_waiting=1)
    with pytest.raises(OSError, match=r"a\.mp4.*No space"):
        for _ in range(3):
            writer.write(picture(0))
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_slow_encoder_holds_the_caller_back(tmp_path, monkeypatch):
    gate, encode = threading.Event(), picture_files._Encoder.add

    def slow(self, image):
        gate.wait(10)
        encode(self, image)

    monkeypatch.setattr(picture_files._Encoder, "add", slow)
    writer = VideoWriter(tmp_path / "a.mp4", 25, max_waiting=3)
    for number in range(3):
        writer.write(picture(number))  # fits: returns at once
    fourth = threading.Thread(target=writer.write, args=(picture(3),))
    fourth.start()
    fourth.join(0.1)
    assert fourth.is_alive()
    gate.set()
    fourth.join(10)
    writer.close()
    assert len(decode(tmp_path / "a.mp4")[2]) == 4
