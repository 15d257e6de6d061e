"""A pose's part in a training step as one CUDA graph: pose, draw, compare, backward, the row of its gradients.

Data path: Sample + crops -> memory that the graph reads -> graph -> row of gradients -> KernelAdam; loss terms.
Plain twin: training.pose_step.PoseStep; tests/gpu compares the two.

Half a thousand kernels, which take a few milliseconds to run and several times as long to be started one by one. A
graph is recorded for each size of picture; since windows about a person differ with every pose, sizes are rounded up,
and the rest is painted over as a mask's edge is: it takes part in nothing.
Shape letters: V views, H, W height and width of the window that the graph sees.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.capture.loader import CAMERA_NUMBERS, POSE_NUMBERS
from mmlphuman.gpu.device_crops import NUMBERS, DeviceCrops, crop_numbers
from mmlphuman.gpu.fast_lpips import FastLPIPS
from mmlphuman.gpu.fused_avatar import RecordedAvatar
from mmlphuman.gpu.kernel_adam import KernelAdam
from mmlphuman.gpu.pose_rows import PoseRow, pieces_of_row
from mmlphuman.gpu.tile_pairs import PairFinder, find_pairs, room_for
from mmlphuman.measures.comparison import PERCEPTUAL_SIZE
from mmlphuman.resources import is_out_of_memory
from mmlphuman.text import one_line
from mmlphuman.types import Cameras, Pose, Sample

if TYPE_CHECKING:
    from mmlphuman.training.losses import Crops
    from mmlphuman.training.pose_step import PoseStep

MOST_RECORDINGS = 24  # the oldest goes first
SPARE = 2.0  # times the pixels that a sample needs: a graph of so many is taken, no new one recorded
SMALLEST_GRANULE, GRANULES = 64, 8  # sizes are rounded up to an eighth of the power of two above, or more

log = logging.getLogger(__name__)


def rounded(size: int) -> int:
    granule = max(SMALLEST_GRANULE, 2 ** size.bit_length() // GRANULES)
    return -(-size // granule) * granule


@dataclass(frozen=True)
class Shape:
    """What a recording is made for."""

    views: int
    height: int
    width: int
    exact: bool  # of DeviceCrops

    def takes(self, other: Shape) -> bool:
        fits = other.height <= self.height and other.width <= self.width
        alike = (self.views, self.exact) == (other.views, other.exact)
        return fits and alike and self.height * self.width <= SPARE * other.height * other.width


class RecordedStep:
    """Called like a PoseStep; gives the gradients to the stepper and returns the loss terms, which the next call
    overwrites.

    A sample of a new size is worked on without a recording, which compiles what is missing; the next one records.
    """

    def __init__(self, step: PoseStep, stepper: KernelAdam):
        avatar, loss = step.pose_avatar, copy.copy(step.loss)
        assert isinstance(avatar, RecordedAvatar)
        if isinstance(loss.lpips, FastLPIPS):  # graphs are not recorded into graphs
            loss.lpips = loss.lpips.network
        self.step, self.stepper = replace(step, pose_avatar=avatar.fused, loss=loss), stepper
        self.stage: tuple[ActiveParts, bool] | None = None  # of the schedule, that the next two are of
        self.recordings: dict[Shape, Recording] = {}
        self.recordable = True
        self.written: StepResult | None = None  # by every recording
        self.graphs, self.seconds = 0, 0.0  # recorded so far, and how long that took

    def told(self) -> str:
        return f"recorded {self.graphs} graphs of steps in {self.seconds:.1f} s, within the steps"

    def __call__(
        self, iteration: int, sample: Sample, crops: Crops, background: Tensor, active: ActiveParts
    ) -> dict[str, Tensor]:
        closely = self.step.loss.looks_closely(iteration)
        if (active, closely) != self.stage:
            self.stage, self.recordings, self.written = (active, closely), {}, None
            self.pool = torch.cuda.graph_pool_handle()  # one memory for all: no graph needs what another left
        cameras = sample.cameras
        exact = closely and all(square.size == PERCEPTUAL_SIZE for square in crops.squares)
        recording = self._recording(Shape(len(cameras), cameras.height, cameras.width, exact), sample)
        recording.take(sample, crops, background)
        if self.written is not None and recording.compiled and self._recorded(recording, iteration, active):
            assert recording.graph is not None
            recording.graph.replay()
            result = self.written
        else:
            result = recording.run(iteration, active)
            self.written = self.written or result
        self.stepper.add_row(result.row, active)
        return dict(zip(result.names, result.terms.unbind(), strict=True))

    def _recorded(self, recording: Recording, iteration: int, active: ActiveParts) -> bool:
        """Records what is not recorded; False where this machine's libraries do something that cannot be."""
        if self.recordable and (recording.graph is None or recording.outgrown()):
            assert self.written is not None
            began = time.perf_counter()
            try:
                recording.record(iteration, active, self.written, self.pool)
                self.graphs, self.seconds = self.graphs + 1, self.seconds + time.perf_counter() - began
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.recordable = False
                log.warning(
                    "a training step cannot be recorded here (%s); its kernels are started one by one, which is slower",
                    one_line(error),
                )
                for parameter in self.step.avatar.parameters():
                    parameter.grad = None
        return self.recordable

    def _recording(self, wanted: Shape, sample: Sample) -> Recording:
        shape = replace(wanted, height=rounded(wanted.height), width=rounded(wanted.width))
        fitting = [other for other in self.recordings if other == shape or other.takes(wanted)]
        if fitting:
            return self.recordings[min(fitting, key=lambda other: other.height * other.width)]
        while len(self.recordings) >= MOST_RECORDINGS:
            self.recordings.pop(next(iter(self.recordings)))
        made = self.recordings[shape] = Recording(shape, self.step, sample)
        return made


@dataclass(frozen=True)
class StepResult:
    row: PoseRow
    names: tuple[str, ...]  # of the loss terms
    terms: Tensor  # (names,)


class Recording:
    """The memory in which a graph of one shape finds a sample, and the graph."""

    def __init__(self, shape: Shape, step: PoseStep, like: Sample):
        """like: any sample of so many views."""
        self.shape, self.step = shape, step
        device, views, size = like.images.device, shape.views, (shape.views, shape.height, shape.width)
        sizes = (*POSE_NUMBERS, *(views * count for count in CAMERA_NUMBERS), views * NUMBERS, 3, 1)
        self.numbers = torch.zeros(sum(sizes), device=device)
        joints, translation, rotation, expression, w2c, intrinsics, crops, self.background, share = (
            self.numbers.split(sizes)
        )
        self.places = DeviceCrops(crops.view(views, NUMBERS), shape.exact)
        self.sample = Sample(
            frame=like.frame,
            camera_ids=like.camera_ids,
            pose=Pose(joints, translation, rotation.view(3, 3), expression),
            cameras=Cameras(w2c.view(-1, 4, 4), intrinsics.view(-1, 3, 3), shape.width, shape.height),
            images=torch.zeros(*size, 3, dtype=torch.uint8, device=device),
            masks=torch.zeros(size, dtype=torch.bool, device=device),
            edges=torch.ones(size, dtype=torch.bool, device=device),
            share=share[0],
        )
        self.compiled = False  # all that it runs
        self.graph: torch.cuda.CUDAGraph | None = None
        self.room, self.needed = 0, torch.zeros((), dtype=torch.int32, pin_memory=device.type == "cuda")

    def take(self, sample: Sample, crops: Crops, background: Tensor) -> None:
        """Writes all that a sample is where `run` reads it, without waiting for the device."""
        pose, cameras, own = sample.pose, sample.cameras, self.sample
        height, width = cameras.height, cameras.width
        # The loss is a mean over the window, which is larger here.
        share = sample.share * self.shape.height * self.shape.width / (height * width)
        host = [number for row in crop_numbers(crops.squares, crops.boxes) for number in row]
        told = torch.tensor([*host, share]).to(self.numbers.device, non_blocking=True)
        parts = (
            *(pose.joints, pose.translation, pose.rotation, pose.expression, cameras.w2c, cameras.intrinsics),
            *(told[:-1], background, told[-1:]),
        )
        torch.cat([part.reshape(-1) for part in parts], out=self.numbers)
        if (height, width) != (self.shape.height, self.shape.width):
            own.edges.fill_(True)
        for mine, given in (
            (own.images, sample.images),
            (own.masks, sample.masks),
            (own.edges, sample.edges),
        ):
            mine[:, :height, :width] = given

    def run(self, iteration: int, active: ActiveParts) -> StepResult:
        """Kernel by kernel."""
        self.compiled = True
        return self._run(self.step, iteration, active)

    def record(self, iteration: int, active: ActiveParts, result: StepResult, pool: tuple) -> None:
        """The graph writes into `result`, of a former run of any size."""
        step, finder = self.step, self.step.find_pairs
        if isinstance(finder, PairFinder):
            self.room = finder.room = max(finder.room, room_for(int(self.needed)))
            self.needed.zero_()
            step = replace(step, find_pairs=self._find_pairs)
        graph = torch.cuda.CUDAGraph()
        # Other threads fetch samples meanwhile, which would end a recording that minds what they do.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._run(step, iteration, active, result)
        self.graph = graph

    def outgrown(self) -> bool:
        """Whether some picture of late had more pairs of Gaussians and tiles than there is room for, so that its
        farthest ones are missing. Asks nobody: a count is here a few steps after its picture."""
        return int(self.needed) > self.room

    def _find_pairs(self, *splats_and_grid) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            pairs = find_pairs(*splats_and_grid, room=self.room)
            self.needed.copy_(pairs.needed, non_blocking=True)
        return pairs.offsets, pairs.gaussians

    def _run(
        self, step: PoseStep, iteration: int, active: ActiveParts, result: StepResult | None = None
    ) -> StepResult:
        parameters = dict(step.avatar.named_parameters())
        output, terms = step(iteration, self.sample, self.places, self.background, active)
        pieces = pieces_of_row(parameters, output.activations)
        row = PoseRow.of(pieces, result and result.row.numbers)
        stacked = torch.stack(list(terms.values()), out=result and result.terms)
        for parameter in parameters.values():
            parameter.grad = None
        return StepResult(row, tuple(terms), stacked)
