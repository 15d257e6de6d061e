"""The avatar by GPU kernels: Avatar.forward with the same arguments and results, several times faster.

Data path: features -> MLP bank (a kernel a layer) -> control points' offsets; pose -> kinematics kernel; all of it ->
one kernel for everything that is per Gaussian -> PosedGaussians. Plain twin: Avatar itself; tests/gpu compares the two.

The sequence of these stages stands here once, for training and for drawing. The large parameters (the MLPs' weights
and all bases) get no gradient: for one pose each of theirs is an outer product of the output's `activations` and the
gradients that the others get (pose_rows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.avatar.pose_inputs import inputs_of
from mmlphuman.gpu.bank import BankFunction
from mmlphuman.gpu.control_points import ControlFunction
from mmlphuman.gpu.posing import PosingFunction
from mmlphuman.gpu.scene_light import lit
from mmlphuman.gpu.skeleton import world_transforms
from mmlphuman.gpu.tables import FusedTables, coalesced
from mmlphuman.types import Pose, PosedGaussians

INVISIBLE_WEIGHT = 1e-4  # of skinning, in a picture; moves no point by more than a tenth of a millimetre

T = TypeVar("T")


def untimed(name: str, work: Callable[[], T]) -> T:
    return work()


class FusedAvatar:
    """Stands in for `avatar` on a GPU: the same call, the same parameters."""

    def __init__(self, avatar: Avatar, half: bool = False):
        """half: for drawing a finished avatar. Weights, bases and skinning weights are copies in half precision, which
        do not follow training; all arithmetic is in single precision. Otherwise they are the avatar's own, its bases
        laid out in another order."""
        self.avatar, self.weights = avatar, tuple(avatar.bank.weights)
        bases = avatar.property_bases, avatar.sh1_bases, avatar.position_bases
        if half:
            tables = FusedTables.of(avatar, INVISIBLE_WEIGHT)
            self.tables = replace(tables, lbs_weights=tables.lbs_weights.half())
            self.weights = tuple(weight.detach().half() for weight in self.weights)
            bases = tuple(coalesced(each.detach().half()) for each in bases)
        else:
            self.tables = FusedTables.of(avatar)
            for each in bases:
                each.data = coalesced(each.data)  # the same numbers and shape
        self.property_bases, self.sh1_bases, self.position_bases = bases

    def __call__(
        self, pose: Pose, active: ActiveParts | None = None, features: Tensor | None = None
    ) -> AvatarOutput:
        return self.stages(
            pose, active or ActiveParts(), lambda: pose.features if features is None else features
        )

    def stages(
        self,
        pose: Pose,
        active: ActiveParts,
        features: Callable[[], Tensor],
        timed: Callable[[str, Callable], object] = untimed,
    ) -> AvatarOutput:
        """Avatar.forward's stages, each through `timed(name, work)`, which returns work's result.

        pose: on the device. features: gives (175,) what the MLPs see; called first. Skinning is the skeleton alone
        here: the Gaussians are skinned by the kernel that blends them.
        """
        avatar, tables = self.avatar, self.tables
        needed = active.position_bases or active.property_bases

        def bank() -> tuple[Tensor | None, ...]:
            return BankFunction.apply(seen, *self.weights, *avatar.bank.biases) if needed else (None,)

        def blend() -> tuple[Tensor, PosedGaussians, Tensor]:
            control_offsets = avatar.control_offsets
            if active.position_bases:
                control_offsets = ControlFunction.apply(
                    coefficients, self.position_bases, control_offsets, tables, avatar.num_gsparam_bases
                )
            *arrays, scales = PosingFunction.apply(
                coefficients, control_offsets, self.property_bases, self.sh1_bases, avatar.sh0, avatar.sh1,
                avatar.log_scales, avatar.quats, avatar.opacity_logits, avatar.xyz_offsets, avatar.xyz,
                transforms, avatar.lbs_weights, tables, avatar.xyz_offset_range, active,
            )  # fmt: skip
            posed = PosedGaussians(*arrays)
            if avatar.light is not None:
                posed = lit(posed, avatar.light, avatar.normals, pose.translation)
            return control_offsets, posed, scales

        seen = timed("features", lambda: inputs_of(features(), avatar.mlp_inputs))
        coefficients, *hidden = timed("bank", bank)
        transforms = timed("skinning", lambda: world_transforms(avatar.joints, tables, pose))
        control_offsets, posed, scales = timed("blend", blend)
        activations = (seen, *hidden, coefficients) if needed else ()
        return AvatarOutput(posed, scales, control_offsets, activations)


class RecordedAvatar:
    """FusedAvatar of a training step, forward and backward recorded as two CUDA graphs, called like it: some twenty
    kernels take less time to run than Python takes to start them one after the other.

    Recorded anew whenever the schedule switches another part of the avatar on. The pose gets a gradient if it asks for
    one. With gradients, results and gradients
    are overwritten by the next call.
    """

    def __init__(self, avatar: Avatar):
        self.fused = FusedAvatar(avatar)
        # What `graphs` were recorded for, and whether they give the pose a gradient.
        self.recorded: tuple[ActiveParts, bool] | None = None
        self.graphs = None

    def __call__(
        self, pose: Pose, active: ActiveParts | None = None, features: Tensor | None = None
    ) -> AvatarOutput:
        active = active or ActiveParts()
        # Drawing; in training the MLPs see the pose itself.
        if features is not None or not torch.is_grad_enabled():
            return self.fused(pose, active, features)
        numbers = (pose.joints, pose.translation, pose.rotation, pose.expression)
        wanted = active, pose.joints.requires_grad
        if wanted != self.recorded:
            example = tuple(
                number.detach().clone().requires_grad_(number.requires_grad) for number in numbers
            )
            self.graphs = torch.cuda.make_graphed_callables(
                _Forward(self.fused, active), example, allow_unused_input=True
            )
            self.recorded = wanted
        xyz, covariances, opacities, sh, linear, scales, controls, *activations = self.graphs(*numbers)
        posed = PosedGaussians(xyz, covariances, opacities, sh, linear)
        return AvatarOutput(posed, scales, controls, tuple(activations))


class _Forward(nn.Module):
    """FusedAvatar between tensors, with the avatar's parameters for all to see."""

    def __init__(self, fused: FusedAvatar, active: ActiveParts):
        super().__init__()
        self.avatar, self.active = fused.avatar, active
        self.pose_avatar = fused

    def forward(self, *numbers: Tensor) -> tuple[Tensor, ...]:
        """numbers: a Pose's, in its order."""
        output = self.pose_avatar(Pose(*numbers), self.active)
        posed = output.posed
        # Before its bases are switched on the control points' offsets are the parameter itself.
        controls = output.control_offsets * 1.0
        return (
            posed.xyz, posed.covariances, posed.opacities, posed.sh, posed.linear, output.scales, controls,
            *output.activations,
        )  # fmt: skip
