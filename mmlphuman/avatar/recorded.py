"""The avatar of a training step, recorded: FusedAvatar's kernels forward and backward as two CUDA graphs.

Some twenty kernels take less time to run than Python takes to start them one after the other. Recorded anew whenever
the schedule switches another part of the avatar on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.avatar.fused import FusedAvatar
from mmlphuman.types import Pose, PosedGaussians


class RecordedAvatar:
    """Called like FusedAvatar. With gradients, results and gradients are overwritten by the next call."""

    def __init__(self, avatar: Avatar):
        self.fused = FusedAvatar(avatar)
        self.active: ActiveParts | None = None  # what `graphs` was recorded for
        self.graphs = None

    def __call__(
        self, pose: Pose, active: ActiveParts | None = None, features: Tensor | None = None
    ) -> AvatarOutput:
        active = active or ActiveParts()
        if (
            features is not None or not torch.is_grad_enabled()
        ):  # drawing; in training the MLPs see the pose itself
            return self.fused(pose, active, features)
        numbers = (pose.joints, pose.translation, pose.rotation)
        if active != self.active:
            example = tuple(number.clone() for number in numbers)
            self.graphs = torch.cuda.make_graphed_callables(
                _Forward(self.fused, active), example, allow_unused_input=True
            )
            self.active = active
        xyz, covariances, opacities, sh, linear, scales, controls, *activations = self.graphs(*numbers)
        posed = PosedGaussians(xyz, covariances, opacities, sh, linear)
        return AvatarOutput(posed, scales, controls, tuple(activations))


class _Forward(nn.Module):
    """FusedAvatar between tensors, with the avatar's parameters for all to see."""

    def __init__(self, fused: FusedAvatar, active: ActiveParts):
        super().__init__()
        self.avatar, self.active = fused.avatar, active
        self.pose_avatar = fused

    def forward(self, joints: Tensor, translation: Tensor, rotation: Tensor) -> tuple[Tensor, ...]:
        output = self.pose_avatar(Pose(joints, translation, rotation), self.active)
        posed = output.posed
        # Before its bases are switched on the control points' offsets are the parameter itself.
        controls = output.control_offsets * 1.0
        return (
            posed.xyz, posed.covariances, posed.opacities, posed.sh, posed.linear, output.scales, controls,
            *output.activations,
        )  # fmt: skip
