"""A trained avatar as everyone who renders gets it: the network, the pose space, and how far training came.

Data path: checkpoint or compact file -> TrainedAvatar -> animation, evaluation, export, streaming.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.config import Config
from mmlphuman.types import Pose


def active_parts(config: Config, iteration: int) -> ActiveParts:
    """What the schedule has switched on at this iteration."""
    return ActiveParts(
        position_bases=iteration >= config.iteration_dxyz_basis,
        property_bases=iteration >= config.iteration_gsparam_basis,
        sh1=iteration >= config.iteration_sh_degree,
    )


@dataclass(frozen=True)
class TrainedAvatar:
    avatar: Avatar
    pose_space: PoseSpace
    config: Config  # of the training run
    iteration: int

    @property
    def active(self) -> ActiveParts:
        return active_parts(self.config, self.iteration)

    @property
    def device(self) -> torch.device:
        return self.avatar.xyz.device

    def to(self, device: torch.device | str) -> TrainedAvatar:
        """Moves the modules (in place, as modules move) and returns itself."""
        self.avatar.to(device)
        self.pose_space.to(device)
        return self

    def features(self, pose: Pose, project: bool) -> Tensor:
        """(63,) what the MLPs see: the pose's body numbers, for novel poses projected into the pose space."""
        return self.pose_space.project(pose.body, self.config.pca_sigmas) if project else pose.body
