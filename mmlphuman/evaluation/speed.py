"""How fast an avatar is drawn: whole frames, and each stage of one (`test.py --test_speed`).

Data path: TrainedAvatar + PoseSequence + one camera -> SpeedReport -> table and one JSON line.

A frame goes from a pose in the computer's memory to a uint8 picture on the device; each frame ends with a
synchronisation. Whole frames and stages are measured in separate passes: a stage is synchronised too, which
keeps the processor from queueing the next one, so the stages' sum is more than a frame on a GPU.
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from tqdm import tqdm

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.animation.render_sequence import Look, draw, to_cameras
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.render.projection import project
from mmlphuman.render.rasterize import rasterize
from mmlphuman.text import aligned
from mmlphuman.types import Cameras, Pose, PosedGaussians

WARM_UP = 10  # frames: kernels are compiled and chosen, memory is taken
MOST_FRAMES, FEWEST_FRAMES = 200, 50  # measured, where the user names no number
STAGES = {
    "features": "the pose to the device; with --test into training's range",
    "bank": "MLPs: pose to coefficients",
    "blend": "coefficients to control points and canonical Gaussians; by kernels: to posed ones",
    "skinning": "skeleton, canonical to posed Gaussians; by kernels: the skeleton alone",
    "rasterise": "colours by view, picture in float",
    "convert": "float to uint8",
}

T = TypeVar("T")


@runtime_checkable
class StagedPoser(Protocol):
    """A poser that can be taken apart (gpu.frame)."""

    def time_stages(self, pose: Pose, project: bool, timed: Callable) -> PosedGaussians: ...


@dataclass(frozen=True)
class Timing:
    """Of many repetitions, in milliseconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Timing:
        return cls(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)))

    def to_json(self) -> dict:
        return {"median": round(self.median, 4), "p95": round(self.p95, 4)}


@dataclass(frozen=True)
class SpeedReport:
    frame: Timing
    stages: dict[str, Timing]  # by the keys of STAGES
    facts: dict  # device, versions, sizes; ready for JSON

    def text(self) -> str:
        """The table for a person."""
        facts, total = self.facts, sum(stage.median for stage in self.stages.values())
        lines = [
            f"{facts['device']}, torch {facts['torch']}, rasteriser {facts['rasterizer']}"
            + ", avatar by GPU kernels in half precision" * facts["kernels"],
            f"{facts['gaussians']:,} Gaussians ({100 * facts['visible']:.0f}% in the picture), "
            f"{facts['control_points']:,} control points, {facts['anchors']} MLPs, "
            f"{facts['property_bases']} + {facts['position_bases']} bases (the first of "
            f"{facts['gaussians_with_bases']:,} Gaussians), {facts['width']}x{facts['height']}"
            + (", poses in training's range (--test)" if facts["projected"] else ""),
            f"{facts['frames']} frames of {facts['poses']} poses, after {facts['warm_up']} to warm up",
            "",
        ]
        whole = self.frame
        rows = [
            ["", "median ms", "95% ms", "fps", ""],
            ["whole frame", f"{whole.median:.3f}", f"{whole.p95:.3f}", f"{1000 / whole.median:.1f}", ""],
        ]
        rows += [
            [f"  {name}", f"{stage.median:.3f}", f"{stage.p95:.3f}", "", STAGES[name]]
            for name, stage in self.stages.items()
        ]
        rows.append(["  sum", f"{total:.3f}", "", "", "each stage apart, with a synchronisation"])
        return "\n".join([*lines, *aligned(rows, left=(0, 4))])

    def to_json(self) -> dict:
        return {
            "frame_ms": self.frame.to_json(),
            "fps": {
                "median": round(1000 / self.frame.median, 2),
                "p95": round(1000 / self.frame.p95, 2),
            },
            "stages_ms": {name: stage.to_json() for name, stage in self.stages.items()},
            **self.facts,
        }


@torch.no_grad()
def measure_speed(
    trained: TrainedAvatar,
    sequence: PoseSequence,
    view: CameraView,
    look: Look,
    frames: int | None = None,
    quiet: bool = False,
) -> SpeedReport:
    """Times `frames` frames (default: every pose, at most 200, repeated where there are fewer than 50).

    ValueError for less than one frame.
    """
    count = len(sequence.frames)
    if frames is None:
        frames = max(min(count, MOST_FRAMES), FEWEST_FRAMES)
    if frames < 1:
        raise ValueError(f"--speed_frames: {frames} frames cannot be measured; give 1 or more")
    camera = to_cameras(view, trained.device)
    poses = [sequence.pose(index) for index in range(min(count, frames))]
    for pose in itertools.islice(itertools.cycle(poses), WARM_UP):
        _time_stages(trained, pose, camera, look)
        _time_frame(trained, pose, camera, look)

    whole: list[float] = []
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    with tqdm(total=2 * frames, desc="measuring", unit="frame", disable=quiet) as bar:
        for pose in itertools.islice(itertools.cycle(poses), frames):
            whole.append(_time_frame(trained, pose, camera, look))
            bar.update()
        for pose in itertools.islice(itertools.cycle(poses), frames):
            times, posed = _time_stages(trained, pose, camera, look)
            for name, milliseconds in times.items():
                stages[name].append(milliseconds)
            bar.update()
    facts = _facts(trained, look, camera, posed) | {
        "frames": frames,
        "poses": len(poses),
        "warm_up": WARM_UP,
    }
    return SpeedReport(Timing.of(whole), {name: Timing.of(times) for name, times in stages.items()}, facts)


def _time_frame(trained: TrainedAvatar, pose: Pose, camera: Cameras, look: Look) -> float:
    """Milliseconds of one frame by the clock on the wall, to the end of all that it queued."""
    _synchronize(trained.device)
    begin = time.perf_counter()
    draw(trained, pose, [camera], look)
    _synchronize(trained.device)
    return 1000 * (time.perf_counter() - begin)


def _time_stages(
    trained: TrainedAvatar, pose: Pose, camera: Cameras, look: Look
) -> tuple[dict[str, float], PosedGaussians]:
    """Avatar.forward and draw taken apart. Returns the stages' milliseconds and the posed Gaussians."""
    avatar, active, device = trained.avatar, trained.active, trained.device
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        result, times[name] = _timed(work, device)
        return result

    def features() -> tuple[Pose, torch.Tensor]:
        there = pose.to(device, non_blocking=True)
        return there, trained.features(there, look.project_pose)

    def blend():
        control_offsets = avatar.offset_control_points(coefficients, active)
        return avatar.canonical_gaussians(coefficients, control_offsets, active)

    if isinstance(trained.poser, StagedPoser):
        posed = trained.poser.time_stages(pose, look.project_pose, timed)
    else:
        pose, seen = timed("features", features)
        coefficients = timed("bank", lambda: avatar.coefficients(seen, active))
        canonical = timed("blend", blend)
        posed = timed(
            "skinning", lambda: avatar.pose_gaussians(canonical, avatar.skinning_transforms(pose), pose)
        )
    render = timed("rasterise", lambda: rasterize(posed, camera, look.background, look.backend))
    timed("convert", lambda: look.backend.to_bytes(render.colors[0]))
    return {name: times[name] for name in STAGES}, posed


def _timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """The result of `work` and its milliseconds: between CUDA events on a GPU, by the clock on a CPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        begin.record(stream)
        result = work()
        end.record(stream)
        end.synchronize()
        return result, begin.elapsed_time(end)
    began = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - began)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _facts(trained: TrainedAvatar, look: Look, camera: Cameras, posed: PosedGaussians) -> dict:
    """What the numbers depend on."""
    avatar, config, device = trained.avatar, trained.config, trained.device
    splats = project(posed.xyz, posed.covariances, posed.opacities, camera)
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "gsplat": metadata.version("gsplat") if look.backend.rasterizer == "gsplat" else None,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "rasterizer": look.backend.rasterizer,
        "kernels": trained.poser is not None,
        "projected": look.project_pose,
        "gaussians": len(posed),
        "visible": round(float((splats.radii[0, :, 0] > 0).float().mean()), 4),
        "gaussians_with_bases": len(avatar.gaussian_to_anchor.index),  # a compact avatar has pruned others'
        "control_points": len(avatar.control_to_anchor.index),
        "anchors": config.num_features,
        "property_bases": config.num_gsparam_bases,
        "position_bases": config.num_position_bases,
        "width": camera.width,
        "height": camera.height,
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's as Linux tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # another system
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
