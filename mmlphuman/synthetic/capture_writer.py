"""Captures of the synthetic subject on disk, in the layout of a published data set.

Data path: body file -> motion, clothed subject, cameras -> photographs, frame by frame in worker processes ->
files. The ray caster knows nothing of layouts, `layouts` nothing of the subject.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from mmlphuman.synthetic.layouts import LAYOUTS, Layout, write_meta, write_photo
from mmlphuman.synthetic.motion import BETAS, make_motion
from mmlphuman.synthetic.raycast import Camera, photograph, pose_mesh
from mmlphuman.synthetic.studio import NO_DISTORTION, camera_ring, full_pose

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


def _write_frame(stage: Stage, layout: Layout, out_dir: Path, frame: int) -> int:
    for camera, image, mask in stage.photographs(frame):
        write_photo(layout, out_dir, camera.name, frame, image, mask)
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
    layout: Layout
    out_dir: Path

    @classmethod
    def start(cls, build: partial, layout: Layout, out_dir: Path) -> None:
        cv2.setNumThreads(1)
        cls.stage, cls.layout, cls.out_dir = build(), layout, out_dir

    @classmethod
    def write(cls, frame: int) -> int:
        return _write_frame(cls.stage, cls.layout, cls.out_dir, frame)


def make_capture(
    out_dir: Path,
    smplx_path: Path,
    *,
    size: tuple[int, int],
    num_cameras: int,
    num_frames: int,
    num_novel_frames: int,
    seed: int = 0,
    layout: str = "avatarrex",
    distortion: Sequence[float] = NO_DISTORTION,
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Write a capture of the synthetic subject: training frames, then frames of other poses.

    size: (width, height) pixels; smplx_path: a file of write_body; layout: a name in LAYOUTS; distortion: k1 k2
    p1 p2 k3 of every camera. The result depends on no other option than size, cameras, frames, seed, layout and
    distortion. Files already in out_dir are overwritten. Raises ValueError if the layout has no distortion.
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
        distortion=np.asarray(distortion, np.float64),
    )
    files = LAYOUTS[layout]
    frames = range(num_frames + num_novel_frames)
    stage = build()
    write_meta(files, out_dir, stage.cameras, stage.motion)
    with tqdm(total=len(frames) * num_cameras, unit="image", desc="capture", disable=not progress) as bar:
        if workers <= 1:
            for frame in frames:
                bar.update(_write_frame(stage, files, out_dir, frame))
            return
        # Fresh processes: a forked one could inherit locked threads of torch.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _Worker.start, (build, files, out_dir))
        with _single_threaded_children(), pool:
            for written in pool.map(_Worker.write, frames):
                bar.update(written)
