"""The fastest way from a pose to posed Gaussians: FusedAvatar in half precision, recorded once as a CUDA graph.

Data path: pose (180 numbers, one small copy) -> graph: features, MLP bank, control points, kinematics, posing.

A frame's dozen kernels take a quarter of a millisecond and starting them one by one takes longer; a graph starts as
one. Weights, bases and skinning weights are copies in half precision, bases laid out so that neighbouring lanes read
neighbouring numbers; all arithmetic is in single precision. For finished avatars: copies do not follow training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mmlphuman.avatar.fused_functions import (
    GaussianParameters,
    bank_forward,
    blend_controls,
    pose_gaussians,
    world_transforms,
)
from mmlphuman.avatar.fused_tables import FusedTables, lanes_together
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.types import Pose, PosedGaussians

NEGLIGIBLE_WEIGHT = 1e-4  # of skinning; moves no point by more than a tenth of a millimetre
WARM_UPS = 2  # runs before recording, which compile the kernels


class FrameGraph:
    """Called with a pose it returns Gaussians that the next call overwrites; drawing on the same stream is safe."""

    def __init__(self, trained: TrainedAvatar):
        avatar, self.trained = trained.avatar, trained
        assert avatar.xyz.device.type == "cuda"
        self.tables = _half_weights(FusedTables.of(avatar, NEGLIGIBLE_WEIGHT))
        self.weights = [weight.detach().half() for weight in avatar.bank.weights]
        self.biases = [bias.detach() for bias in avatar.bank.biases]
        self.position_bases = lanes_together(avatar.position_bases.detach().half())
        names = ("sh0", "sh1", "log_scales", "quats", "opacity_logits", "xyz_offsets")
        self.gaussians = GaussianParameters(
            bases=lanes_together(avatar.property_bases.detach().half()),
            sh1_bases=lanes_together(avatar.sh1_bases.detach().half()),
            **{name: getattr(avatar, name).detach() for name in names},
            rest=avatar.xyz,
            offset_range=avatar.xyz_offset_range,
        )
        self.numbers = torch.zeros(POSE_DIM + 12, device=trained.device)  # joints, rotation, translation
        joints, rotation, translation = self.numbers.split((POSE_DIM, 9, 3))
        self.pose = Pose(joints, translation, rotation.view(3, 3))  # views of `numbers`
        self.graphs = {project: self._record(project) for project in (False, True)}
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

    def time_stages(self, pose: Pose, project: bool, timed: Callable) -> PosedGaussians:
        """The graph's parts one by one, each through `timed(name, work)`, which returns work's result. Skinning is the
        skeleton alone here: the Gaussians are skinned by the kernel that blends them."""
        active, avatar = self.trained.active, self.trained.avatar

        def features() -> Tensor:
            self.numbers.copy_(_numbers(pose), non_blocking=True)
            return self.trained.features(self.pose, project)

        def blend() -> list[Tensor]:
            controls = self._controls(coefficients)
            return pose_gaussians(coefficients, controls, self.gaussians, transforms, self.tables, active)

        seen = timed("features", features)
        coefficients = timed("bank", lambda: bank_forward(seen, self.weights, self.biases)[-1])
        transforms = timed("skinning", lambda: world_transforms(avatar.joints, self.tables, self.pose))
        xyz, covariances, opacities, sh, linear, _, _ = timed("blend", blend)
        return PosedGaussians(xyz, covariances, opacities, sh, linear)

    def _controls(self, coefficients: Tensor | None) -> Tensor:
        avatar = self.trained.avatar
        if not self.trained.active.position_bases:
            return avatar.control_offsets.detach()
        return blend_controls(
            coefficients, self.position_bases, avatar.control_offsets, self.tables, avatar.num_gsparam_bases
        )

    def _run(self, project: bool) -> PosedGaussians:
        active = self.trained.active
        coefficients = None
        if active.position_bases or active.property_bases:
            features = self.trained.features(self.pose, project)
            coefficients = bank_forward(features, self.weights, self.biases)[-1]
        transforms = world_transforms(self.trained.avatar.joints, self.tables, self.pose)
        controls = self._controls(coefficients)
        xyz, covariances, opacities, sh, linear, _, _ = pose_gaussians(
            coefficients, controls, self.gaussians, transforms, self.tables, active
        )
        return PosedGaussians(xyz, covariances, opacities, sh, linear)

    @torch.no_grad()
    def _record(self, project: bool) -> tuple[torch.cuda.CUDAGraph, PosedGaussians]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run(project)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            posed = self._run(project)
        return graph, posed


def _numbers(pose: Pose) -> Tensor:
    return torch.cat([pose.joints, pose.rotation.flatten(), pose.translation])


def _half_weights(tables: FusedTables) -> FusedTables:
    return replace(tables, lbs_weights=tables.lbs_weights.half())
