"""A frame of a finished avatar as CUDA graphs: the fastest way from a pose to a picture on the GPU.

Data path: pose (187 numbers, one small copy) -> FrameGraph: FusedAvatar's stages in half precision -> PosedGaussians
-> RecordedDrawing: colours by view, projection, pairs, pixels -> uint8.
Plain twins: TrainedAvatar.pose, and rasterize with to_bytes.

A frame's dozen kernels take a quarter of a millisecond and starting them one by one takes longer; a graph starts as
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.gpu.fused_avatar import FusedAvatar
from mmlphuman.gpu.tile_pairs import find_pairs, room_for
from mmlphuman.gpu.view_colors import bytes_of, kernel_colors
from mmlphuman.pose_layout import EXPRESSION_DIM, POSE_DIM
from mmlphuman.render.gsplat_rasterizer import rasterize_gsplat
from mmlphuman.types import Cameras, Pose, PosedGaussians

WARM_UPS = 2  # runs before recording, which compile the kernels
MOST_RECORDINGS = 8  # of other Gaussians or sizes; the oldest goes first

T = TypeVar("T")


def record(run: Callable[[], T], device: torch.device) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph that does what `run` does, and run's result, which every replay writes anew."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


class FrameGraph:
    """Called with a pose it returns Gaussians that the next call overwrites; drawing on the same stream is safe.

    The avatar is one that training does not change any more.
    """

    def __init__(self, avatar: Avatar, active: ActiveParts, features: Callable[[Pose, bool], Tensor]):
        """features: of TrainedAvatar."""
        device = avatar.xyz.device
        self.fused, self.active, self.features = FusedAvatar(avatar, half=True), active, features
        sizes = (POSE_DIM, 9, 3, EXPRESSION_DIM)
        self.numbers = torch.zeros(sum(sizes), device=device)  # as `_numbers` gives them
        joints, rotation, translation, expression = self.numbers.split(sizes)
        self.pose = Pose(joints, translation, rotation.view(3, 3), expression)  # views of `numbers`
        self.graphs = {project: self._record(project, device) for project in (False, True)}
        self.posed_for: dict[bool, Tensor] = {}  # numbers that each graph's Gaussians are posed for

    @torch.no_grad()
    def __call__(self, pose: Pose, project: bool = False) -> PosedGaussians:
        """pose: on the CPU (best: one copy, none while it stays the same) or on the device. project: as
        TrainedAvatar.features."""
        graph, posed = self.graphs[project]
        numbers = _numbers(pose)
        before = self.posed_for.get(project)
        if before is not None and numbers.device.type == "cpu" and torch.equal(numbers, before):
            return posed  # only the camera has moved
        self.numbers.copy_(numbers, non_blocking=True)
        graph.replay()
        self.posed_for = {**self.posed_for, project: numbers} if numbers.device.type == "cpu" else {}
        return posed

    @torch.no_grad()
    def time_stages(self, pose: Pose, project: bool, timed: Callable) -> PosedGaussians:
        """The graph's parts one by one, each through `timed`: see FusedAvatar.stages."""

        def features() -> Tensor:
            self.numbers.copy_(_numbers(pose), non_blocking=True)
            return self.features(self.pose, project)

        return self.fused.stages(self.pose, self.active, features, timed).posed

    @torch.no_grad()
    def _record(self, project: bool, device: torch.device) -> tuple[torch.cuda.CUDAGraph, PosedGaussians]:
        def run() -> PosedGaussians:
            return self.fused.stages(self.pose, self.active, lambda: self.features(self.pose, project)).posed

        return record(run, device)


def _numbers(pose: Pose) -> Tensor:
    return torch.cat([pose.joints, pose.rotation.flatten(), pose.translation, pose.expression])


class RecordedDrawing:
    """Called with Gaussians that lie where they lay before (as FrameGraph's do) it draws by replaying."""

    def __init__(self):
        self.recordings: dict[tuple, _Recording] = {}

    @torch.no_grad()
    def __call__(self, gaussians: PosedGaussians, camera: Cameras, background: Tensor) -> Tensor:
        """One camera, background (3,) -> (H, W, 3) uint8, in memory of its own."""
        key = (gaussians.xyz.data_ptr(), camera.width, camera.height)
        room = room_for(1)  # counted before recording
        while True:
            recording = self.recordings.get(key)
            if recording is None or recording.gaussians is not gaussians:
                self.recordings.pop(key, None)
                while len(self.recordings) >= MOST_RECORDINGS:
                    self.recordings.pop(next(iter(self.recordings)))
                recording = self.recordings[key] = _Recording.make(gaussians, camera, background, room)
            image = recording.draw(camera, background)
            if recording.was_whole():
                return image
            # More pairs than there was room for: record anew, draw again.
            room = room_for(int(recording.needed))
            del self.recordings[key]


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    gaussians: PosedGaussians  # read where they lie
    camera: Cameras  # written before each replay, as is the background
    background: Tensor
    image: Tensor  # (H, W, 3) float, what the graph draws
    needed: Tensor  # () int32 in pinned memory: pairs of the last picture
    room: int
    drawn: torch.cuda.Event

    @classmethod
    def make(cls, gaussians: PosedGaussians, camera: Cameras, background: Tensor, room: int) -> _Recording:
        device = gaussians.xyz.device
        own = Cameras(camera.w2c.clone(), camera.intrinsics.clone(), camera.width, camera.height)
        camera = own.to(device)
        background = background.clone().to(device)
        needed = torch.empty((), dtype=torch.int32, pin_memory=True)

        def count(*splats_and_grid) -> tuple[Tensor, Tensor]:
            pairs = find_pairs(*splats_and_grid, room=room)
            needed.copy_(pairs.needed, non_blocking=True)
            return pairs.offsets, pairs.gaussians

        def run() -> Tensor:
            colors = kernel_colors(gaussians, camera)
            splats = gaussians.xyz, gaussians.covariances, gaussians.opacities
            return rasterize_gsplat(*splats, colors, camera, background[None], count)[0][0]

        run()
        torch.cuda.current_stream(device).synchronize()
        room = max(room, room_for(int(needed)))  # of `count` as well, from here on
        graph, image = record(run, device)
        return cls(graph, gaussians, camera, background, image, needed, room, torch.cuda.Event())

    def draw(self, camera: Cameras, background: Tensor) -> Tensor:
        self.camera.w2c.copy_(camera.w2c, non_blocking=True)
        self.camera.intrinsics.copy_(camera.intrinsics, non_blocking=True)
        self.background.copy_(background, non_blocking=True)
        self.graph.replay()
        self.drawn.record()
        return bytes_of(self.image)  # queued before anybody waits for the count

    def was_whole(self) -> bool:
        """Whether the last picture's pairs had room; waits until it is drawn."""
        self.drawn.synchronize()
        return int(self.needed) <= self.room
