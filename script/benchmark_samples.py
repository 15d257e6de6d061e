"""Measures what preparing training samples costs on this machine's CPU, step by step and end to end.

    python script/benchmark_samples.py [--data_dir CAPTURE] [--workers 0 1 2] [--out FILE.json]

Without a capture it writes pictures of the published size (1500x2048, 16 cameras) to a temporary folder: a person's
outline over noise of all scales, which compresses to the size of a photograph, with and without lens distortion.
CPU milliseconds per sample on one core are medians; samples a second are of SampleStream as training uses it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mmlphuman.capture.dataset import CaptureDataset  # noqa: E402
from mmlphuman.capture.formats import open_capture  # noqa: E402
from mmlphuman.capture.images import decode_image, edge_band, make_view_reader  # noqa: E402
from mmlphuman.capture.loader import SampleStream  # noqa: E402
from mmlphuman.capture.poses import POSE_PARTS, read_smpl_params  # noqa: E402
from mmlphuman.capture.sampler import EndlessSampler  # noqa: E402
from mmlphuman.command import run_command  # noqa: E402
from mmlphuman.files import atomic_write  # noqa: E402

PUBLISHED_SIZE = (1500, 2048)
CAMERAS, FRAMES = 16, 2  # of the written capture
JPEG_QUALITY = 95
DISTORTION = (-0.1, 0.05, 0.001, -0.001, 0.0)  # of a usual machine-vision lens
STEPS = ("decode image", "decode mask", "undistort", "edge band", "scaling", "total")
WARM_UP = 3


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="a capture; default: pictures made for the purpose")
    parser.add_argument("--size", type=int, nargs=2, default=PUBLISHED_SIZE, help="of those: width height")
    parser.add_argument("--image_scaling", type=float, default=1.0, help="as in the settings")
    parser.add_argument("--samples", type=int, default=64, help="how many are timed in each run")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="reading processes to try")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON here")
    return parser.parse_args()


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


def write_capture(root: Path, size: tuple[int, int], distortion: tuple[float, ...]) -> Path:
    """An AvatarReX folder for timing alone: real files, meaningless poses and cameras."""
    rng, mask = np.random.default_rng(0), person_mask(size)
    names = [f"{22010700 + camera}" for camera in range(CAMERAS)]
    focal, (width, height) = 1.3 * size[0], size
    camera = {
        "K": [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1],
        "R": np.eye(3).ravel().tolist(),
        "T": [0, 0, 3],
        "distCoeff": distortion,
        "imgSize": size,
    }
    pictures = [photograph(size, rng) for _ in range(FRAMES)]
    for name, (frame, picture) in itertools.product(names, enumerate(pictures)):
        folder = root / name / "mask" / "pha"
        folder.mkdir(parents=True, exist_ok=True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        cv2.imwrite(str(root / name / f"{frame:08d}.jpg"), picture, quality)
        cv2.imwrite(str(folder / f"{frame:08d}.jpg"), mask, quality)
    (root / "calibration_full.json").write_text(json.dumps({name: camera for name in names}))
    poses = {key: np.zeros((FRAMES, count)) for key, count, _ in POSE_PARTS}
    np.savez(root / "smpl_params.npz", betas=np.zeros((1, 10)), transl=np.zeros((FRAMES, 3)), **poses)
    return root


def open_dataset(data_dir: Path, image_scaling: float) -> CaptureDataset:
    """Every camera that has pictures, every frame."""
    layout = open_capture(data_dir)
    poses = read_smpl_params(layout.pose_path)
    present = [c for c in range(len(layout.cameras)) if layout.image_path(c, 0).parent.is_dir()]
    return CaptureDataset(layout, poses, range(len(poses)), present, image_scaling)


def time_steps(dataset: CaptureDataset, image_scaling: float, samples: int) -> dict[str, float]:
    """Median CPU milliseconds of each step and of the whole, in this process on one thread."""
    layout = dataset.layout
    times: dict[str, list[float]] = {step: [] for step in STEPS}
    readers = {}
    pairs = list(itertools.islice(itertools.cycle(dataset.pairs), samples + WARM_UP))
    for frame, camera in pairs:
        paths = layout.image_path(camera, frame), layout.mask_path(camera, frame)
        if camera not in readers:
            height, width = cv2.imread(str(paths[1]), cv2.IMREAD_GRAYSCALE).shape
            calibrated = layout.cameras[camera]
            readers[camera] = make_view_reader(calibrated, (width, height), image_scaling, layout.edge_radius)
        reader = readers[camera]
        marks = [time.process_time()]
        image = decode_image(paths[0], cv2.IMREAD_COLOR_RGB)
        marks.append(time.process_time())
        alpha = decode_image(paths[1], cv2.IMREAD_GRAYSCALE)
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
    """Samples a second that arrive in this process, workers started and first samples read before."""
    sampler = EndlessSampler(dataset.pairs, views_per_pose=1, seed=0)
    with SampleStream(dataset, sampler, workers) as stream:
        for _ in range(WARM_UP * max(1, workers)):
            next(stream)
        started = time.perf_counter()
        for _ in range(samples):
            next(stream)
        return round(samples / (time.perf_counter() - started), 1)


def measure(name: str, data_dir: Path, args: argparse.Namespace) -> dict:
    dataset = open_dataset(data_dir, args.image_scaling)
    frame, camera = dataset.pairs[0]
    image_path, mask_path = dataset.layout.image_path(camera, frame), dataset.layout.mask_path(camera, frame)
    sample = dataset.sample(frame, (camera,))
    return {
        "capture": name,
        "size": [sample.cameras.width, sample.cameras.height],
        "image_kilobytes": image_path.stat().st_size // 1000,
        "mask_kilobytes": mask_path.stat().st_size // 1000,
        "cpu_ms_per_sample": time_steps(dataset, args.image_scaling, args.samples),
        "samples_per_second": {str(k): time_stream(dataset, k, args.samples) for k in args.workers},
    }


def format_table(results: list[dict]) -> str:
    rows = [["CPU ms per sample", *(result["capture"] for result in results)]]
    rows += [[step, *(f"{result['cpu_ms_per_sample'][step]:.1f}" for result in results)] for step in STEPS]
    rows += [
        [
            f"samples/s, {workers} worker{'s' * (workers != '1')}",
            *(f"{result['samples_per_second'][workers]:.1f}" for result in results),
        ]
        for workers in results[0]["samples_per_second"]
    ]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def main() -> None:
    args = parse_arguments()
    if args.samples < 1 or min(args.workers, default=0) < 0:
        raise ValueError("--samples must be at least 1 and --workers not negative")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if args.data_dir:
        results = [measure(args.data_dir.resolve().name, args.data_dir, args)]
    else:
        results = []
        for name, distortion in (("no distortion", (0.0,) * 5), ("distortion", DISTORTION)):
            with tempfile.TemporaryDirectory() as folder:
                root = write_capture(Path(folder), tuple(args.size), distortion)
                results.append(measure(name, root, args))
    for result in results:
        width, height = result["size"]
        sizes = f"{result['image_kilobytes']} kB image, {result['mask_kilobytes']} kB mask"
        print(f"{result['capture']}: samples of {width}x{height}, {sizes}")
    print(format_table(results))
    print(json.dumps(results))
    if args.out:
        with atomic_write(args.out) as file:
            file.write((json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    run_command(main)
