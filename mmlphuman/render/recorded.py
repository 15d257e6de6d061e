"""RecordedDrawing: the whole rasteriser as one CUDA graph, for pictures that follow one another.

Data path: posed Gaussians + camera -> graph: colours by view, projection, pairs, pixels -> uint8. Needs Triton.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.render.color_kernels import bytes_of
from mmlphuman.render.pair_finder import room_for
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.tile_kernels import find_pairs
from mmlphuman.types import Cameras, PosedGaussians

WARM_UPS = 2  # runs before recording, which compile the kernels
MOST_RECORDINGS = 8  # of other Gaussians or sizes; the oldest goes first


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
            room = room_for(
                int(recording.needed)
            )  # more pairs than there was room for: record anew, draw again
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
        camera = Cameras(camera.w2c.clone(), camera.intrinsics.clone(), camera.width, camera.height).to(
            device
        )
        background = background.clone().to(device)
        needed = torch.empty((), dtype=torch.int32, pin_memory=True)

        def count(*splats_and_grid) -> tuple[Tensor, Tensor]:
            pairs = find_pairs(*splats_and_grid, room=room)
            needed.copy_(pairs.needed, non_blocking=True)
            return pairs.offsets, pairs.gaussians

        def run() -> Tensor:
            return rasterize(gaussians, camera, background, "gsplat", count).colors[0]

        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
            stream.synchronize()
            room = max(room, room_for(int(needed)))
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            image = run()
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
