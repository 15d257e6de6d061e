"""How fast pictures are drawn, in every way that there is: GPU kernels and plain PyTorch, poses with --test, the
compact model, a still pose seen by a moving camera.

Data path: Subject -> ways to draw it -> interleaved rounds of evaluation.speed -> rows.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmlphuman.animation.render_sequence import Look, draw, to_cameras
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.benchmark.clock import wall_milliseconds
from mmlphuman.benchmark.subject import Subject
from mmlphuman.evaluation.speed import SpeedReport, Timing, measure_speed
from mmlphuman.export.compact import encode, pack
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.precision import LEVELS, Looked
from mmlphuman.export.pruning import PROBES

ROUNDS = 5  # every way takes its turn in each, so that a machine that slows down slows all of them
FEWEST_FRAMES = 2 * ROUNDS  # of one pose only, nothing would be computed anew from frame to frame
COMPARED_POSES = 8
STILL_WARM_UP = 10  # frames
FEW_PROBES = 4  # pictures by which the bases to keep are chosen where their number is given
SAME_PICTURE = 99.0  # dB, for JSON, which has no infinity


@dataclass(frozen=True)
class RenderRow:
    name: str
    frame: Timing
    stages: dict[str, Timing]  # empty where only whole frames are timed
    psnr: float | None = None  # dB to the plain picture of the full avatar, mean of squared errors over poses

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "frame_ms": self.frame.to_json(),
            "fps": round(1000 / self.frame.median, 1),
            "stages_ms": {name: stage.to_json() for name, stage in self.stages.items()},
            "psnr_to_plain": None if self.psnr is None else round(min(self.psnr, SAME_PICTURE), 2),
        }


@dataclass(frozen=True)
class Way:
    """One way to draw the subject."""

    name: str
    trained: TrainedAvatar
    look: Look
    compare: bool = True  # whether its picture should be the plain one's


def measure_rendering(subject: Subject, frames: int, keep: float | None) -> list[RenderRow]:
    """frames: whole frames and, apart, frames by stages that are timed in each way. keep: of the compact avatar's
    bases, as script/compact.py takes it."""
    ways = ways_to_draw(subject, keep)
    each = math.ceil(frames / ROUNDS)
    reports: dict[str, list[SpeedReport]] = {way.name: [] for way in ways}
    still: list[float] = []
    for _ in range(ROUNDS):
        for way in ways:
            report = measure_speed(way.trained, subject.sequence, subject.view, way.look, each, quiet=True)
            reports[way.name].append(report)
        still += time_still_pose(subject, ways[0], each)
    plain = next(way for way in ways if way.name.startswith("plain"))
    rows = [
        RenderRow(
            way.name,
            _pooled([report.frame for report in reports[way.name]]),
            {
                stage: _pooled([report.stages[stage] for report in reports[way.name]])
                for stage in reports[way.name][0].stages
            },
            picture_psnr(subject, way, plain) if way.compare and way is not plain else None,
        )
        for way in ways
    ]
    return [*rows, RenderRow(f"{ways[0].name}, still pose", Timing.of(still), {})]


def ways_to_draw(subject: Subject, keep: float | None) -> list[Way]:
    """The fastest first. Without GPU kernels there is only the plain way, with --test and without."""
    full, device = subject.trained, subject.trained.device
    look, projected = subject.look(), subject.look(project_pose=True)
    plain_look = subject.look(kernels="plain")
    plain = Way("plain", full.prepared(device, plain_look.backend), plain_look)
    if look.backend.kernels:
        fast = full.prepared(device, look.backend)
        ways = [
            Way("kernels", fast, look),
            Way("kernels, --test", fast, projected, compare=False),
            plain,
        ]
    else:
        ways = [plain, Way("plain, --test", plain.trained, projected, compare=False)]
    if not full.avatar.is_compact:
        ways.append(Way("compact", compacted(full, keep).prepared(device, look.backend), look))
    return ways


def compacted(full: TrainedAvatar, keep: float | None) -> TrainedAvatar:
    """What a compact file of the avatar gives back, on its device."""
    probes = PROBES if keep is None else FEW_PROBES
    made = Looked(full, probes, quiet=True).compacted(LEVELS["high"], keep)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "avatar.safetensors"
        path.write_bytes(pack(encode(made.trained, steps=made.steps), made.trained, {}))
        return load_compact(path).to(full.device)


def time_still_pose(subject: Subject, way: Way, frames: int) -> list[float]:
    """Milliseconds of frames that differ in the camera only."""
    pose, device = subject.sequence.pose(0), way.trained.device
    cameras = [to_cameras(view, device) for view in subject.ring(STILL_WARM_UP + frames)]
    times = [
        wall_milliseconds(partial(draw, way.trained, pose, [camera], way.look), device) for camera in cameras
    ]
    return times[STILL_WARM_UP:]


def picture_psnr(subject: Subject, way: Way, reference: Way) -> float:
    """dB between two ways' pictures over poses spread over the sequence, each from another side."""
    count = len(subject.sequence.frames)
    chosen = np.linspace(0, count - 1, COMPARED_POSES).round().astype(int)
    errors = []
    for index, view in zip(chosen, subject.ring(COMPARED_POSES), strict=True):
        pose, camera = subject.sequence.pose(index), to_cameras(view, way.trained.device)
        image, truth = (draw(each.trained, pose, [camera], each.look)[0].float() for each in (way, reference))
        errors.append(float((image - truth).square().mean()) / 255**2)
    error = float(np.mean(errors))
    return -10 * math.log10(error) if error > 0 else math.inf


def _pooled(rounds: list[Timing]) -> Timing:
    """The typical round's numbers."""
    return Timing(*np.median([(timing.median, timing.p95) for timing in rounds], 0).tolist())
