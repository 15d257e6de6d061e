"""Captures of the synthetic subject on disk, in the layout of a published data set.

Data path: body file -> motion, clothed subject, cameras -> photographs, frame by frame in worker processes ->
files. The ray caster knows nothing of layouts, `layouts` nothing of the subject.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mmlphuman.synthetic import hard
from mmlphuman.synthetic.appearance import STUDIO_LIGHT, Light, Prints, make_prints
from mmlphuman.synthetic.folds import Cloth, StillCloth, make_cloth, mean_cloth
from mmlphuman.synthetic.garments import ClothedSubject, dress, load_body
from mmlphuman.synthetic.hard_motion import make_hard_motion
from mmlphuman.synthetic.layouts import LAYOUTS, Layout, write_ceiling, write_meta, write_photo
from mmlphuman.synthetic.motion import BETAS, make_motion, plant_pose_errors
from mmlphuman.synthetic.raycast import Camera, photograph, pose_mesh
from mmlphuman.synthetic.studio import NO_DISTORTION, RING_RADIUS, camera_ring, color_casts, full_pose

SUBJECTS = ("demo", "hard")
COARSE_IMAGE = 256  # pictures smaller than this use one round of subdivision instead of two


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to photograph any frame."""

    subject: ClothedSubject
    cloth: Cloth | StillCloth
    prints: Prints
    cameras: list[Camera]
    motion: dict[str, np.ndarray]  # the true one
    light: Light = STUDIO_LIGHT
    flesh: hard.Flesh | None = None  # blend shapes of the body, if it has any
    casts: np.ndarray | None = None  # (C, 3) factors of the cameras' red, green and blue

    def photographs(self, frame: int, white: bool = False) -> Iterator[tuple[Camera, np.ndarray, np.ndarray]]:
        """(camera, image, mask) of every camera at one frame. white: in place of the backdrop."""
        pose = full_pose(self.motion, frame)
        flesh = self.flesh and self.flesh.displace(self.subject, pose, self.motion["expression"][frame])
        mesh = pose_mesh(self.subject, self.cloth, pose, self.motion["transl"][frame], flesh)
        for index, camera in enumerate(self.cameras):
            image, mask = photograph(mesh, camera, self.prints, self.light, white)
            if self.casts is not None:
                cast = image * self.casts[index].astype(np.float32)
                image = (cast.clip(0, 255) + 0.5).astype(np.uint8)
            yield camera, image, mask

    def ceiling(self, camera_ids: Sequence[int], training_frames: Sequence[int]) -> Stage:
        """The same with the cloth as on average over these frames, seen by these cameras without distortion."""
        poses = self.motion["body_pose"][list(training_frames)]
        return replace(
            self,
            cloth=mean_cloth(self.cloth, self.subject, poses),
            cameras=[replace(self.cameras[i], distortion=NO_DISTORTION) for i in camera_ids],
            casts=None if self.casts is None else self.casts[list(camera_ids)],
        )


def set_stage(
    smplx_path: Path,
    *,
    size: tuple[int, int],
    num_cameras: int,
    num_frames: int,
    num_novel_frames: int,
    seed: int = 0,
    distortion: np.ndarray = NO_DISTORTION,
    subject: str = "demo",
    color_cast: float = 0.0,
) -> Stage:
    """Dress the body of `smplx_path` (a file of write_body), choreograph it, and put up the cameras."""
    body = load_body(smplx_path, BETAS[0])
    rounds = 1 if max(size) < COARSE_IMAGE else 2
    frames = (num_frames, num_novel_frames, seed)
    casts = color_casts(num_cameras, color_cast, seed) if color_cast else None
    if subject == "demo":
        motion = make_motion(body.joints, *frames)
        dressed = dress(body, rounds)
        cameras = camera_ring(body, motion, num_cameras, size, distortion, RING_RADIUS)
        return Stage(dressed, make_cloth(dressed), make_prints(), cameras, motion, casts=casts)
    motion = make_hard_motion(body.joints, *frames)
    rng = np.random.default_rng([seed, 5])
    dressed = dress(replace(body, weights=hard.own_weights(body, rng)), rounds)
    cloth, flesh = hard.make_hard_cloth(dressed, rng), hard.make_flesh(smplx_path, body, rng)
    cameras = camera_ring(body, motion, num_cameras, size, distortion, hard.RING_RADIUS)
    return Stage(dressed, cloth, make_prints(), cameras, motion, hard.LAMP_LIGHT, flesh, casts)


@dataclass(frozen=True)
class _Writer:
    """Writes one frame after the other; in worker processes, each with its own."""

    stage: Stage
    layout: Layout
    out_dir: Path
    ceiling_cameras: tuple[int, ...]
    ceiling: Stage | None  # of these cameras

    @classmethod
    def build(
        cls, stage: Callable[[], Stage], layout: Layout, out_dir: Path, cameras: Sequence[int], training: int
    ) -> _Writer:
        """cameras: of ceiling pictures; training: number of frames whose mean wrinkles they show."""
        true = stage()
        ceiling = true.ceiling(cameras, range(training)) if cameras else None
        return cls(true, layout, out_dir, tuple(cameras), ceiling)

    def write(self, frame: int) -> int:
        """Returns the number of photographs taken."""
        for camera, image, mask in self.stage.photographs(frame):
            write_photo(self.layout, self.out_dir, camera.name, frame, image, mask)
        if self.ceiling is not None:
            pictures = self.ceiling.photographs(frame, white=True)
            for number, (_, image, _) in zip(self.ceiling_cameras, pictures, strict=True):
                write_ceiling(self.out_dir, number, frame, image)
        return len(self.stage.cameras) + len(self.ceiling_cameras)


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
    """Holds a worker process's own writer, built once when the process starts."""

    writer: _Writer

    @classmethod
    def start(cls, build: partial) -> None:
        cv2.setNumThreads(1)
        cls.writer = build()

    @classmethod
    def write(cls, frame: int) -> int:
        return cls.writer.write(frame)


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
    distortion: Sequence[float] | np.ndarray = NO_DISTORTION,
    subject: str = "demo",
    pose_error: tuple[float, float] = (0.0, 0.0),
    color_cast: float = 0.0,
    ceiling_cameras: Sequence[int] = (),
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Write a capture of a synthetic subject: training frames, then frames of other poses.

    size: (width, height) pixels; smplx_path: a file of write_body; layout: a name in LAYOUTS; distortion: k1 k2
    p1 p2 k3 of every camera; subject: one of SUBJECTS, "hard" has num_novel_frames of each of three sets of other
    poses (hard_motion.frame_sets); pose_error: degrees and centimetres (plant_pose_errors; the true poses go to
    smpl_params_true.npz); color_cast: share (color_casts; the factors go to color_casts.json); ceiling_cameras:
    those whose pictures with mean wrinkles are wanted (write_ceiling). The result depends on no other option than
    these, cameras, frames and seed. Files already in out_dir are overwritten. Raises ValueError if the layout has
    no distortion.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    set_up = partial(
        set_stage,
        Path(smplx_path),
        size=size,
        num_cameras=num_cameras,
        num_frames=num_frames,
        num_novel_frames=num_novel_frames,
        seed=seed,
        distortion=np.asarray(distortion, np.float64),
        subject=subject,
        color_cast=color_cast,
    )
    build = partial(_Writer.build, set_up, LAYOUTS[layout], out_dir, tuple(ceiling_cameras), num_frames)
    writer = build()
    stage = writer.stage
    told = stage.motion
    if any(pose_error):
        told = plant_pose_errors(stage.motion, num_frames, *pose_error, seed)
    write_meta(writer.layout, out_dir, stage.cameras, told)
    if any(pose_error):
        np.savez(out_dir / "smpl_params_true.npz", allow_pickle=False, **stage.motion)
    if stage.casts is not None:
        factors = {
            camera.name: cast.tolist() for camera, cast in zip(stage.cameras, stage.casts, strict=True)
        }
        (out_dir / "color_casts.json").write_text(json.dumps(factors, indent=1) + "\n")
    frames = range(len(stage.motion["transl"]))
    total = len(frames) * (num_cameras + len(ceiling_cameras))
    with tqdm(total=total, unit="image", desc="capture", disable=not progress) as bar:
        if workers <= 1:
            for frame in frames:
                bar.update(writer.write(frame))
            return
        # Fresh processes: a forked one could inherit locked threads of torch.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _Worker.start, (build,))
        with _single_threaded_children(), pool:
            for written in pool.map(_Worker.write, frames):
                bar.update(written)
