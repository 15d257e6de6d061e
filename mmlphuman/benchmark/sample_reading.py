"""What preparing training samples costs on this machine's CPU, step by step and end to end; and JPEGs on the GPU.

Data path: a capture (or pictures made for the purpose) -> ViewReader's steps, SampleStream -> a result for JSON.

Pictures made for the purpose have the published size and 16 cameras: a person's outline over noise of all scales,
which compresses to the size of a photograph, with and without lens distortion.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from mmlphuman.benchmark.capture_files import calibration_entry, write_capture
from mmlphuman.capture.crop import crop_to_person
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.images import decode_image, decode_mask, edge_band, make_view_reader
from mmlphuman.capture.loader import SampleStream
from mmlphuman.capture.poses import POSE_PARTS, read_smpl_params
from mmlphuman.capture.sampler import EndlessSampler

CAMERAS, FRAMES = 16, 2  # of the written capture
CAMERA_DISTANCE = 3.0  # metres
DISTORTION = (-0.1, 0.05, 0.001, -0.001, 0.0)  # of a usual machine-vision lens
STEPS = ("decode image", "decode mask", "undistort", "edge band", "scaling", "total")
WARM_UP = 3
LEAST_PER_WORKER = 8  # samples, so that what was read ahead does not decide
DECODE_BATCH, DECODE_ROUNDS = 8, 10


def measure_samples(
    data_dir: Path | None, size: tuple[int, int], scaling: float, samples: int, workers: list[int]
) -> list[dict]:
    """Of the capture, or without one of written pictures of `size` (width, height). scaling: as image_scaling.

    CPU milliseconds a sample are medians on one core; samples a second are SampleStream's, as training uses it.
    """
    if samples < 1 or min(workers, default=0) < 0:
        raise ValueError("--samples must be at least 1 and --workers not negative")
    with single_threaded():
        if data_dir is not None:
            return [_measure(data_dir.resolve().name, data_dir, scaling, samples, workers)]
        results = []
        for name, distortion in (("no distortion", (0.0,) * 5), ("distortion", DISTORTION)):
            with tempfile.TemporaryDirectory() as folder:
                root = write_noise_capture(Path(folder), size, distortion)
                results.append(_measure(name, root, scaling, samples, workers))
        return results


@contextmanager
def single_threaded() -> Iterator[None]:
    """One core, as in a worker process."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def person_mask(size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: head, trunk, arms and legs, 18% of the picture, soft edge as a matte has."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    place = lambda x, y: (round(x * width), round(y * height))  # noqa: E731
    cv2.ellipse(mask, place(0.5, 0.17), place(0.07, 0.065), 0, 0, 360, 255, cv2.FILLED)
    cv2.ellipse(mask, place(0.5, 0.4), place(0.14, 0.19), 0, 0, 360, 255, cv2.FILLED)
    limbs = (((0.4, 0.27), (0.2, 0.5)), ((0.6, 0.27), (0.8, 0.5)))
    limbs += (((0.45, 0.55), (0.4, 0.9)), ((0.55, 0.55), (0.6, 0.9)))
    for start, end in limbs:
        cv2.line(mask, place(*start), place(*end), 255, round(0.075 * width))
    return cv2.GaussianBlur(mask, (0, 0), 2)


def photograph(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: noise whose amplitude falls with its frequency, as that of photographs does."""
    width, height = size
    image = np.full((height, width, 3), 110, np.float32)
    for octave in range(9):
        coarse = rng.normal(size=(max(2, height >> octave), max(2, width >> octave), 3)).astype(np.float32)
        image += 2.0 * 2.0 ** (octave / 2) * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def write_noise_capture(root: Path, size: tuple[int, int], distortion: tuple[float, ...]) -> Path:
    """A capture for timing alone: real files, meaningless poses and cameras."""
    rng, mask = np.random.default_rng(0), person_mask(size)
    focal, (width, height) = 1.3 * size[0], size
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    w2c = np.eye(4)
    w2c[2, 3] = CAMERA_DISTANCE
    entries = [calibration_entry(w2c, intrinsics, size, distortion)] * CAMERAS
    motion = {key: np.zeros((FRAMES, count)) for key, count, _ in POSE_PARTS}
    motion |= {"betas": np.zeros((1, 10)), "transl": np.zeros((FRAMES, 3))}
    photographs = [photograph(size, rng) for _ in range(FRAMES)]
    pictures = (
        (camera, frame, photographs[frame], mask) for camera in range(CAMERAS) for frame in range(FRAMES)
    )
    return write_capture(root, entries, motion, pictures)


def _measure(name: str, data_dir: Path, scaling: float, samples: int, workers: list[int]) -> dict:
    dataset = open_dataset(data_dir, scaling)
    paths = [_paths(dataset, pair) for pair in dataset.pairs]
    sample = dataset.sample(dataset.pairs[0][0], (dataset.pairs[0][1],))
    return {
        "capture": name,
        "size": [sample.cameras.width, sample.cameras.height],
        "image_kilobytes": paths[0][0].stat().st_size // 1000,
        "mask_kilobytes": paths[0][1].stat().st_size // 1000,
        "cpu_ms_per_sample": time_steps(dataset, scaling, samples),
        "samples_per_second": {str(count): time_stream(dataset, count, samples) for count in workers},
        "gpu_decode": time_gpu_decode([image for image, _ in paths]),
    }


def open_dataset(data_dir: Path, scaling: float) -> CaptureDataset:
    """Every camera that has pictures, every frame."""
    layout = open_capture(data_dir)
    poses = read_smpl_params(layout.pose_path)
    present = [c for c in range(len(layout.cameras)) if layout.image_path(c, 0).parent.is_dir()]
    return CaptureDataset(layout, poses, range(len(poses)), present, scaling)


def _paths(dataset: CaptureDataset, pair: tuple[int, int]) -> tuple[Path, Path]:
    frame, camera = pair
    return dataset.layout.image_path(camera, frame), dataset.layout.mask_path(camera, frame)


def time_steps(dataset: CaptureDataset, scaling: float, samples: int) -> dict[str, float]:
    """Median CPU milliseconds of each step and of the whole, in this process on one thread."""
    layout = dataset.layout
    times: dict[str, list[float]] = {step: [] for step in STEPS}
    readers = {}
    for frame, camera in itertools.islice(itertools.cycle(dataset.pairs), samples + WARM_UP):
        paths = _paths(dataset, (frame, camera))
        if camera not in readers:
            height, width = decode_image(paths[0], cv2.IMREAD_GRAYSCALE).shape
            calibrated = layout.cameras[camera]
            readers[camera] = make_view_reader(calibrated, (width, height), scaling, layout.edge_radius)
        reader = readers[camera]
        marks = [time.process_time()]
        image = decode_image(paths[0], cv2.IMREAD_COLOR_RGB)
        marks.append(time.process_time())
        alpha = decode_mask(paths[1], paths[0])
        marks.append(time.process_time())
        image, mask = reader.undistort(image, alpha)
        marks.append(time.process_time())
        edge = edge_band(mask, reader.edge_radius)
        marks.append(time.process_time())
        reader.scale(image, mask, edge)
        marks.append(time.process_time())
        reader.read(*paths)
        marks.append(time.process_time())
        for step, spent in zip(STEPS, np.diff(marks), strict=True):
            times[step].append(1000 * float(spent))
    return {step: round(statistics.median(spent[WARM_UP:]), 2) for step, spent in times.items()}


def time_stream(dataset: CaptureDataset, workers: int, samples: int) -> float:
    """Cropped samples a second that arrive in this process, workers started and first samples read before."""
    sampler = EndlessSampler(dataset.pairs, views_per_pose=1, seed=0)
    samples = max(samples, LEAST_PER_WORKER * workers)
    with SampleStream(dataset, sampler, workers, prepare=crop_to_person) as stream:
        for _ in range(WARM_UP * max(1, workers)):
            next(stream)
        started = time.perf_counter()
        for _ in range(samples):
            next(stream)
        return round(samples / (time.perf_counter() - started), 1)


def time_gpu_decode(paths: list[Path]) -> dict | None:
    """Milliseconds a JPEG of torchvision on the GPU, in batches: on the wall, and of this processor's time, which
    unpacking takes too. None where there is no GPU, no torchvision, or torchvision cannot."""
    if not torch.cuda.is_available() or importlib.util.find_spec("torchvision") is None:
        return None
    from torchvision.io import ImageReadMode, decode_jpeg

    files = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
    if not files:
        return None
    batch = [
        torch.from_numpy(np.fromfile(path, np.uint8))
        for path in itertools.islice(itertools.cycle(files), DECODE_BATCH)
    ]
    wall, processor = [], []
    try:
        for _ in range(WARM_UP + DECODE_ROUNDS):
            torch.cuda.synchronize()
            marks = time.perf_counter(), time.process_time()
            decode_jpeg(batch, mode=ImageReadMode.RGB, device="cuda")
            torch.cuda.synchronize()
            wall.append(1000 * (time.perf_counter() - marks[0]) / len(batch))
            processor.append(1000 * (time.process_time() - marks[1]) / len(batch))
    except (RuntimeError, TypeError) as error:  # built without nvJPEG, or too old for batches
        return {"batch": DECODE_BATCH, "error": str(error).splitlines()[0]}
    return {
        "batch": DECODE_BATCH,
        "wall_ms": round(statistics.median(wall[WARM_UP:]), 3),
        "cpu_ms": round(statistics.median(processor[WARM_UP:]), 3),
    }
