"""A trained avatar as everyone who renders gets it: the network, the pose space, and how far training came.

Data path: checkpoint or compact file -> TrainedAvatar -> animation, evaluation, export, streaming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.avatar.pose_inputs import largest_seen
from mmlphuman.avatar.pose_space import PoseSpace, angles_between
from mmlphuman.config import Config
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.types import Cameras, Pose, PosedGaussians

if TYPE_CHECKING:
    from mmlphuman.backend import Backend


NOVEL_POSES = {"clamp": "clamped to training's range", "pca": "projected into the training poses' space"}


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
    # A faster way to pose for drawing, (pose, project) -> Gaussians; they may be overwritten by the next call.
    poser: Callable[[Pose, bool], PosedGaussians] | None = None
    # A faster way to draw what `poser` gave: (Gaussians, one camera, background) -> (H, W, 3) uint8.
    drawer: Callable[[PosedGaussians, Cameras, Tensor], Tensor] | None = None

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

    def prepared(self, device: torch.device, backend: Backend) -> TrainedAvatar:
        """On `device` and posed and drawn as the backend does it, for drawing a finished avatar."""
        self.to(device)
        poser = backend.frame_poser(self.avatar, self.active, self.features)
        return replace(self, poser=poser, drawer=backend.frame_drawer())

    def with_novel_poses_of(self, asked: Config) -> TrainedAvatar:
        """What `--test` does, as these settings have it; everything else stays the model's own."""
        mine = replace(self.config, novel_poses=asked.novel_poses, pca_sigmas=asked.pca_sigmas)
        return replace(self, config=mine)

    @torch.no_grad()
    def pose(self, pose: Pose, project: bool = False) -> PosedGaussians:
        """The avatar in a pose (on any device), for drawing. project: as in `features`."""
        if self.poser is not None:
            return self.poser(pose, project)
        pose = pose.to(self.device, non_blocking=True)
        return self.avatar(pose, self.active, self.features(pose, project)).posed

    def features(self, pose: Pose, project: bool) -> Tensor:
        """(175,) what the MLPs see: the pose's numbers; of novel poses brought into training's range."""
        if not project:
            return pose.features
        if self.config.novel_poses == "pca":
            return self.pose_space.project(pose.features, self.config.pca_sigmas)
        return self.pose_space.clamp(pose.features)

    @torch.no_grad()
    def distances(self, pose: Pose) -> Tensor:
        """(N,) degrees: how far what moves each Gaussian lies outside training, for a pose on the avatar's device.

        An anchor's is how much test mode turns a joint that its MLP sees, of these the one that it turns most: a
        mean would make an elbow's 40 degrees little among a hand's twelve joints. 0 where test mode turns
        nothing; expression, which turns nothing, does not count. Gaussians get it from their anchors as they get
        coefficients; those of a compact avatar that have no anchors from their control points, which have.
        """
        avatar = self.avatar
        turned = angles_between(pose.joints, self.features(pose, project=True)[:POSE_DIM])
        at_anchors = largest_seen(turned, avatar.mlp_inputs).expand(len(avatar.bank.weights[0]))[:, None]
        with_anchors = avatar.gaussian_to_anchor(at_anchors)
        by_controls = avatar.gaussian_to_control(avatar.control_to_anchor(at_anchors))
        return torch.cat([with_anchors, by_controls[len(with_anchors) :]])[:, 0]
