"""Captures of the synthetic subject on disk, in the layout of a published data set.

Data path: body file -> motion, clothed subject, cameras -> photographs, frame by frame in worker processes ->
AvatarReX layout. The ray caster knows nothing of layouts, the layout writer nothing of the subject.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mmlphuman.synthetic.appearance import Prints, make_prints
from mmlphuman.synthetic.folds import Cloth, make_cloth
from mmlphuman.synthetic.garments import ClothedSubject, dress, load_body
from mmlphuman.synthetic.motion import BETAS, make_motion
from mmlphuman.synthetic.raycast import Camera, photograph, pose_mesh
from mmlphuman.synthetic.studio import NO_DISTORTION, camera_ring, full_pose

JPEG_QUALITY = 98
COARSE_IMAGE = 256  # pictures smaller than this use one round of subdivision instead of two


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to photograph any frame."""

    subject: ClothedSubject
    cloth: Cloth
    prints: Prints
    cameras: list[Camera]
    motion: dict[str, np.ndarray]

    def photographs(self, frame: int) -> Iterator[tuple[Camera, np.ndarray, np.ndarray]]:
        """(camera, image, mask) of every camera at one frame."""
        mesh = pose_mesh(
            self.subject, self.cloth, full_pose(self.motion, frame), self.motion["transl"][frame]
        )
        for camera in self.cameras:
            yield camera, *photograph(mesh, camera, self.prints)


def set_stage(
    smplx_path: Path,
    *,
    size: tuple[int, int],
    num_cameras: int,
    num_frames: int,
    num_novel_frames: int,
    seed: int = 0,
    distortion: np.ndarray = NO_DISTORTION,
) -> Stage:
    """Dress the body of `smplx_path` (a file of write_body), choreograph it, and put up the cameras."""
    body = load_body(smplx_path, BETAS[0])
    motion = make_motion(body.joints, num_frames, num_novel_frames, seed)
    subject = dress(body, rounds=1 if max(size) < COARSE_IMAGE else 2)
    cameras = camera_ring(body, motion, num_cameras, size, distortion)
    return Stage(subject, make_cloth(subject), make_prints(), cameras, motion)


def write_avatarrex_meta(out_dir: Path, cameras: list[Camera], motion: dict[str, np.ndarray]) -> None:
    """`calibration_full.json` (world to camera) and `smpl_params.npz`, and a folder for every camera."""
    calibration = {
        camera.name: {
            "K": camera.intrinsics.ravel().tolist(),
            "R": camera.rotation.ravel().tolist(),
            "T": camera.translation.tolist(),
            "distCoeff": camera.distortion.tolist(),
            "imgSize": [camera.width, camera.height],
        }
        for camera in cameras
    }
    for camera in cameras:
        (out_dir / camera.name / "mask" / "pha").mkdir(parents=True, exist_ok=True)
    (out_dir / "calibration_full.json").write_text(json.dumps(calibration, indent=1) + "\n")
    np.savez(out_dir / "smpl_params.npz", **motion)


def write_avatarrex_photo(
    out_dir: Path, camera: str, frame: int, image: np.ndarray, mask: np.ndarray
) -> None:
    """One (H, W, 3) uint8 RGB photo and its (H, W) uint8 mask."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    full_chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    folder = out_dir / camera
    for path, pixels, options in (
        (folder / f"{frame:08d}.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality + full_chroma),
        (folder / "mask" / "pha" / f"{frame:08d}.jpg", mask, quality),
    ):
        if not cv2.imwrite(str(path), pixels, options):
            raise OSError(f"could not write {path}")


def _write_frame(stage: Stage, out_dir: Path, frame: int) -> int:
    for camera, image, mask in stage.photographs(frame):
        write_avatarrex_photo(out_dir, camera.name, frame, image, mask)
    return len(stage.cameras)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes started meanwhile use one thread each: frames are spread, and more threads only collide."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Worker:
    """Holds a worker process's own stage, built once when the process starts."""

    stage: Stage
    out_dir: Path

    @classmethod
    def start(cls, build: partial, out_dir: Path) -> None:
        cv2.setNumThreads(1)
        cls.stage, cls.out_dir = build(), out_dir

    @classmethod
    def write(cls, frame: int) -> int:
        return _write_frame(cls.stage, cls.out_dir, frame)


def make_capture(
    out_dir: Path,
    smplx_path: Path,
    *,
    size: tuple[int, int],
    num_cameras: int,
    num_frames: int,
    num_novel_frames: int,
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Write an AvatarReX capture of the synthetic subject: training frames, then frames of other poses.

    size: (width, height) pixels; smplx_path: a file of write_body. The result depends on no other option than
    size, cameras, frames and seed. Files already in out_dir are overwritten.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    build = partial(
        set_stage,
        Path(smplx_path),
        size=tuple(size),
        num_cameras=num_cameras,
        num_frames=num_frames,
        num_novel_frames=num_novel_frames,
        seed=seed,
    )
    frames = range(num_frames + num_novel_frames)
    stage = build()
    write_avatarrex_meta(out_dir, stage.cameras, stage.motion)
    with tqdm(total=len(frames) * num_cameras, unit="image", desc="capture", disable=not progress) as bar:
        if workers <= 1:
            for frame in frames:
                bar.update(_write_frame(stage, out_dir, frame))
            return
        # Fresh processes: a forked one could inherit locked threads of torch.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _Worker.start, (build, out_dir))
        with _single_threaded_children(), pool:
            for written in pool.map(_Worker.write, frames):
                bar.update(written)
