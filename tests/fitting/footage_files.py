"""Cameras, tiny videos and folders of pictures for tests, written when they are needed; what is extracted of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from mmlphuman.calibrations.calibration import Calibration, opencv_camera
from mmlphuman.capture.images import decode_image
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.fitting.footage import Footage, extract_footage
from mmlphuman.fitting.recordings import find_recordings

SIZE = 64, 48  # width, height
EVEN = [k / 25 for k in range(8)]  # seconds


def camera(name: str, position=(0.0, 0.0, -4.0), size=SIZE) -> CalibratedCamera:
    """Looks at the origin, y down."""
    forward = -np.asarray(position) / np.linalg.norm(position)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[size[0], 0, size[0] / 2 - 0.5], [0, size[0], size[1] / 2 - 0.5], [0, 0, 1]], float)
    return opencv_camera(name, K, R, -R @ np.asarray(position), (), size)


def ring(count: int, size=SIZE) -> list[CalibratedCamera]:
    angles = np.arange(count) * 2 * np.pi / count + 0.3
    return [
        camera(f"cam{k + 1:02d}", (4 * np.sin(a), -0.5 - 0.3 * k, 4 * np.cos(a)), size)
        for k, a in enumerate(angles)
    ]


def calibration(count: int = 2, size=SIZE) -> Calibration:
    return Calibration(tuple(ring(count, size)), "test")


def shade(frame: int) -> int:
    """The grey of a video's frame, by which it is recognised."""
    return 20 + 5 * frame


def frame_of(pixels: np.ndarray) -> float:
    """The inverse of `shade`, of a picture's lower right part."""
    return (float(pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :].mean()) - 20) / 5


def write_video(path: Path, times: Sequence[float], size=SIZE, codec: str = "libx264") -> Path:
    """Frame k, shown from times[k] (seconds) on, is grey with a white upper left quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(
        str(path), "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    ) as container:
        stream = container.add_stream(codec, rate=Fraction(1000))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            pixels = np.full((size[1], size[0], 3), shade(number), np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def mark_turned(path: Path) -> None:
    """Writes a quarter turn into an MP4's track header (ISO 14496-12, 8.3.2: the matrix is the last but 8 bytes)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4
    matrix = place + 4 + 20 + 8 + 8  # version 0: version and flags, times and ids, reserved, layer to volume
    values = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)


def write_numbered(folder: Path, numbers_of: dict) -> None:
    """Grey pictures, camera's name -> their numbers."""
    for name, numbers in numbers_of.items():
        for number in numbers:
            path = folder / name / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((48, 64, 3), number, np.uint8))


def extract(root: Path, out: Path, cameras: Calibration | None = None, **settings) -> Footage:
    recordings, notes = find_recordings(root, cameras or calibration())
    return extract_footage(recordings, out, notes=notes, **settings)


def frames_in(footage: Footage, camera: int) -> list[int]:
    """Which frames of the video the pictures are."""
    pictures = [decode_image(footage.image(camera, f), cv2.IMREAD_GRAYSCALE) for f in range(footage.frames)]
    return [round(frame_of(picture)) for picture in pictures]
