"""GpuBackend: the answers of plain_backend.Backend, its plain twin, where GPU kernels can be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.gpu.fast_lpips import FastLPIPS
from mmlphuman.gpu.frame import FrameGraph, RecordedDrawing
from mmlphuman.gpu.fused_avatar import RecordedAvatar
from mmlphuman.gpu.kernel_adam import KernelAdam
from mmlphuman.gpu.painting import painted_pair
from mmlphuman.gpu.recorded_step import RecordedStep
from mmlphuman.gpu.tile_pairs import PairFinder
from mmlphuman.gpu.view_colors import bytes_of, kernel_colors
from mmlphuman.measures.lpips import LPIPS
from mmlphuman.plain_backend import Backend
from mmlphuman.types import Cameras, Pose, PosedGaussians


class GpuBackend(Backend):
    kernels = True

    def training_avatar(self, avatar: Avatar) -> RecordedAvatar:
        return RecordedAvatar(avatar)

    def pair_finder(self) -> PairFinder | None:
        return PairFinder() if self.rasterizer == "gsplat" else None

    def perceptual_loss(self, lpips: LPIPS) -> FastLPIPS:
        return FastLPIPS(lpips)

    def painted_pair(self) -> Callable:
        return painted_pair

    def step_recorder(self) -> Callable[..., RecordedStep] | None:
        return RecordedStep if self.rasterizer == "gsplat" else None

    def stepper(self, pose_avatar: RecordedAvatar) -> Callable[..., KernelAdam]:
        return partial(KernelAdam, tables=pose_avatar.fused.tables)

    def frame_poser(
        self, avatar: Avatar, active: ActiveParts, features: Callable[[Pose, bool], Tensor]
    ) -> FrameGraph:
        return FrameGraph(avatar, active, features)

    def frame_drawer(self) -> RecordedDrawing | None:
        return RecordedDrawing() if self.rasterizer == "gsplat" else None

    def view_colors(self, gaussians: PosedGaussians, cameras: Cameras) -> Tensor:
        return kernel_colors(gaussians, cameras)

    def to_bytes(self, image: Tensor) -> Tensor:
        return bytes_of(image)
