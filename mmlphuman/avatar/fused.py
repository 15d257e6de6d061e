"""The avatar by GPU kernels: Avatar.forward with the same arguments and results, several times faster.

The large parameters (the MLPs' weights and all bases) get no gradient here. For one pose each of theirs is an outer
product of the output's `activations` and the gradients that the others get: training.pose_rows.

Data path: pose -> kinematics kernel; features -> MLP bank (a kernel a layer) -> control points' offsets -> one kernel
for everything that is per Gaussian -> PosedGaussians. Plain twin: Avatar itself; tests/gpu compares the two.
"""

from __future__ import annotations

from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.avatar.fused_functions import (
    BankFunction,
    ControlFunction,
    PosingFunction,
    world_transforms,
)
from mmlphuman.avatar.fused_tables import FusedTables, lanes_together
from mmlphuman.types import Pose, PosedGaussians


class FusedAvatar:
    """Stands in for `avatar` on a GPU: the same call, the same parameters."""

    def __init__(self, avatar: Avatar):
        self.avatar, self.tables = avatar, FusedTables.of(avatar)
        for bases in (avatar.property_bases, avatar.sh1_bases, avatar.position_bases):
            bases.data = lanes_together(bases.data)  # the same numbers and shape, in another order

    def __call__(
        self, pose: Pose, active: ActiveParts | None = None, features: Tensor | None = None
    ) -> AvatarOutput:
        avatar, tables, active = self.avatar, self.tables, active or ActiveParts()
        coefficients, activations = None, ()
        if active.position_bases or active.property_bases:
            bank = avatar.bank
            features = pose.body if features is None else features
            coefficients, *hidden = BankFunction.apply(features, *bank.weights, *bank.biases)
            activations = (features, *hidden, coefficients)
        control_offsets = avatar.control_offsets
        if active.position_bases:
            control_offsets = ControlFunction.apply(
                coefficients, avatar.position_bases, control_offsets, tables, avatar.num_gsparam_bases
            )
        xyz, covariances, opacities, sh, linear, scales = PosingFunction.apply(
            coefficients, control_offsets, avatar.property_bases, avatar.sh1_bases, avatar.sh0, avatar.sh1,
            avatar.log_scales, avatar.quats, avatar.opacity_logits, avatar.xyz_offsets, avatar.xyz,
            world_transforms(avatar.joints, tables, pose), tables, avatar.xyz_offset_range, active,
        )  # fmt: skip
        posed = PosedGaussians(xyz, covariances, opacities, sh, linear)
        return AvatarOutput(posed, scales, control_offsets, activations)
