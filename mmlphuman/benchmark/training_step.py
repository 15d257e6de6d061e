"""What a training step costs: whole, by stages, in memory, and whether the 2,000th costs what the 20th did.

Data path: Subject -> renders of neighbouring poses as a capture on disk -> CaptureDataset -> Trainer -> StepRow.

Samples are read and prepared before the clock runs and given to the step as Trainer's stream hands them out. Stages
are the time between moments noted on the way through Trainer.step, without a synchronisation in between: on a GPU
they add up to the step.
"""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmlphuman.benchmark.capture_files import calibration_entry, write_capture
from mmlphuman.benchmark.clock import Moment, milliseconds, moment, synchronize, wall_milliseconds
from mmlphuman.benchmark.subject import Subject, picture_and_mask
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import POSE_PARTS, read_smpl_params
from mmlphuman.config import Config
from mmlphuman.evaluation.speed import Timing
from mmlphuman.measures.lpips import LPIPS
from mmlphuman.processes import Ranks
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import Scene
from mmlphuman.types import Sample

CAMERAS, FRAMES = 4, 2  # of the capture that the samples come from
VIEWS = (1, 4)  # of a pose in a step
ROUNDS = 4
WARM_UP = 5  # steps: kernels are compiled and chosen, graphs recorded, memory taken
MEMORY_STEPS = 3
STAGES = {
    "inputs": "where the losses look; what is left of the sample's way to the device",
    "pose": "pose to posed Gaussians",
    "rasterise": "forward",
    "losses": "forward, LPIPS's network included",
    "backward": "of everything",
    "optimise": "both optimisers",
}
STEADY_FIRST, STEADY_LAST = range(14, 25), 11  # steps 15 to 25, counted from 1, and the last eleven
FEWEST_STEADY = STEADY_FIRST.stop + STEADY_LAST
GIB = 2**30


@dataclass(frozen=True)
class StepRow:
    name: str  # kernels or plain
    views: int
    step: Timing  # each step synchronised
    back_to_back: float  # ms a step, nobody waiting in between, as a training run does
    stages: dict[str, Timing]
    peak_gib: float | None  # of the GPU's memory, by this trainer; None on a CPU
    losses: tuple[str, ...]
    window: tuple[int, int]  # (width, height) of what is drawn and compared, of the first sample

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "views": self.views,
            "step_ms": self.step.to_json(),
            "ms_per_view": round(self.step.median / self.views, 4),
            "back_to_back_ms": round(self.back_to_back, 4),
            "stages_ms": {name: stage.to_json() for name, stage in self.stages.items()},
            "peak_gib": None if self.peak_gib is None else round(self.peak_gib, 3),
            "losses": list(self.losses),
            "window": list(self.window),
        }


def training_capture(subject: Subject, folder: Path, edge_radius: int | None) -> CaptureDataset:
    """Pictures of the subject from a ring of cameras, each of the pose after the one that it is filed under: a render
    then differs from its truth as it does in training."""
    sequence, views = subject.sequence, subject.ring(CAMERAS)
    frames = range(len(sequence.frames) // 2, len(sequence.frames) // 2 + FRAMES)
    if frames.stop >= len(sequence.frames):
        raise ValueError(f"{sequence.source}: {len(sequence.frames)} poses are too few to time training on")
    motion = {key: sequence.poses[:, where] for key, _, where in POSE_PARTS}
    motion |= {"betas": np.zeros((1, 10), np.float32), "transl": sequence.translations}
    entries = [calibration_entry(view.w2c, view.intrinsics, (view.width, view.height)) for view in views]
    pictures = (
        (camera, frame, *picture_and_mask(subject, sequence.pose(frame + 1), view))
        for camera, view in enumerate(views)
        for frame in frames
    )
    write_capture(folder, entries, motion, pictures)
    layout = open_capture(folder)
    poses = read_smpl_params(layout.pose_path)
    return CaptureDataset(layout, poses, frames, range(CAMERAS), edge_radius=edge_radius)


def make_trainer(
    subject: Subject,
    dataset: CaptureDataset,
    kernels: str,
    views: int,
    ranks: Ranks | None = None,
) -> Trainer:
    """A new run on a copy of the subject, in its second half, when the schedule has switched everything on."""
    trained = subject.trained
    config = replace(trained.config, kernels=kernels, views_per_pose=views, num_workers=0)
    scene = Scene(dataset, dataset, copy.deepcopy(trained.avatar), copy.deepcopy(trained.pose_space))
    lpips = LPIPS.with_random_weights(config.seed) if config.lambda_lpips > 0 else None
    return Trainer(config, scene, lpips, trained.device, late_iteration(config), ranks)


def late_iteration(config: Config) -> int:
    """An iteration at which every part and every loss is on."""
    starts = (
        config.iteration_dxyz_basis,
        config.iteration_gsparam_basis,
        config.iteration_sh_degree,
        config.iteration_lpips * (config.lambda_lpips > 0),
    )
    return min(max(config.iterations // 2, *starts), config.iterations - 1)


def take_samples(trainer: Trainer) -> list[Sample]:
    """All that there are, as training gets them."""
    with trainer.stream as stream:
        return [next(stream) for _ in range(CAMERAS * FRAMES // trainer.config.views_per_pose)]


class Run:
    """A trainer with its samples and what was measured of it so far."""

    def __init__(self, subject: Subject, dataset: CaptureDataset, kernels: str, views: int):
        self.device = subject.trained.device
        cuda = self.device.type == "cuda"
        before = torch.cuda.memory_allocated(self.device) if cuda else 0
        self.name, self.views = "plain" if kernels == "plain" else "kernels", views
        self.trainer = make_trainer(subject, dataset, kernels, views)
        self.samples = take_samples(self.trainer)
        self.steps = 0
        for _ in range(WARM_UP):
            losses, _ = self.step()
        self.losses = tuple(name for name in losses if name != "total")
        self.peak_gib = None
        if cuda:
            synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            for _ in range(MEMORY_STEPS):
                self.step()
            synchronize(self.device)
            self.peak_gib = (torch.cuda.max_memory_allocated(self.device) - before) / GIB
        self.whole: list[float] = []
        self.back_to_back: list[float] = []
        self.stages: dict[str, list[float]] = {name: [] for name in STAGES}

    def step(self):
        sample = self.samples[self.steps % len(self.samples)]
        self.steps += 1
        return self.trainer.step(sample)

    def measure(self, steps: int) -> None:
        self.whole += [wall_milliseconds(self.step, self.device) for _ in range(steps)]

        def several() -> None:
            for _ in range(steps):
                self.step()

        self.back_to_back.append(wall_milliseconds(several, self.device) / steps)
        for _ in range(steps):
            for name, spent in self.staged_step().items():
                self.stages[name].append(spent)

    def staged_step(self) -> dict[str, float]:
        synchronize(self.device)
        with noted_moments(self.trainer, self.device) as moments:
            moments.append(moment(self.device))
            self.step()
            moments.append(moment(self.device))
        synchronize(self.device)
        # begin | pose | pose's end | losses | their end | optimiser | its end, which is the step's but for a return
        assert len(moments) == 8, (
            f"Trainer.step has other stages than are timed here ({len(moments)} moments)"
        )
        spent = [milliseconds(*pair) for pair in zip(moments[:6], moments[1:7], strict=True)]
        return dict(zip(STAGES, spent, strict=True))

    def row(self) -> StepRow:
        cameras = self.samples[0].cameras
        return StepRow(
            self.name,
            self.views,
            Timing.of(self.whole),
            float(np.median(self.back_to_back)),
            {name: Timing.of(times) for name, times in self.stages.items()},
            self.peak_gib,
            self.losses,
            (cameras.width, cameras.height),
        )


@contextmanager
def noted_moments(trainer: Trainer, device: torch.device) -> Iterator[list[Moment]]:
    """Meanwhile the trainer notes when it begins and ends to pose, to compute losses and to optimise, and starts its
    kernels one by one: a recorded step has no stages that could be told apart."""
    moments: list[Moment] = []

    def noting(work: Callable) -> Any:
        def call(*arguments, **named):
            moments.append(moment(device))
            result = work(*arguments, **named)
            moments.append(moment(device))
            return result

        return call

    step, recorded = trainer.pose_step, trainer.recorded_step
    pose_avatar, loss = step.pose_avatar, step.loss
    step.pose_avatar, step.loss, trainer.recorded_step = noting(pose_avatar), noting(loss), None
    trainer.optimisers.step = noting(trainer.optimisers.step)
    try:
        yield moments
    finally:
        step.pose_avatar, step.loss, trainer.recorded_step = pose_avatar, loss, recorded
        del trainer.optimisers.step  # the class's own again


def measure_training(subject: Subject, folder: Path, steps: int) -> list[StepRow]:
    """steps: that are timed in each of three ways (synchronised, back to back, by stages). folder: empty, for files."""
    dataset = training_capture(subject, folder, subject.trained.config.edge_radius)
    device = subject.trained.device
    ways = ("auto", "plain") if subject.backend().kernels else ("plain",)
    rows = []
    for views in VIEWS:
        runs = [Run(subject, dataset, kernels, views) for kernels in ways]
        for _ in range(ROUNDS):
            for run in runs:
                run.measure(math.ceil(steps / ROUNDS))
        rows += [run.row() for run in runs]
        del runs, run
        release(device)
    return rows


def measure_steadiness(subject: Subject, folder: Path, steps: int) -> dict:
    """One-view steps from the first on, each synchronised: early and last ones compared, time and memory.

    steps: FEWEST_STEADY or more. folder: empty, for files.
    """
    assert steps >= FEWEST_STEADY, f"{steps} steps have no early and late part"
    dataset = training_capture(subject, folder, subject.trained.config.edge_radius)
    device = subject.trained.device
    trainer = make_trainer(subject, dataset, "auto", 1)
    samples = take_samples(trainer)
    times, memory = [], []
    began = time.perf_counter()
    for index in range(steps):
        sample = samples[index % len(samples)]
        times.append(wall_milliseconds(partial(trainer.step, sample), device))
        memory.append(torch.cuda.memory_allocated(device) if device.type == "cuda" else None)
    early, late = STEADY_FIRST, range(steps - STEADY_LAST, steps)
    result = {"steps": steps, "seconds": round(time.perf_counter() - began, 2)}
    for name, part in (("early", early), ("late", late)):
        used = [memory[index] for index in part]
        result[name] = {
            "steps": [part.start + 1, part.stop],
            "median_ms": round(float(np.median([times[index] for index in part])), 4),
            # The samples' sizes differ, and with them what is alive after a step: the largest of a whole round.
            "memory_bytes": None if used[0] is None else max(used),
        }
    del trainer
    release(device)
    return result


def release(device: torch.device) -> None:
    """Gives back the memory of trainers that have gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
