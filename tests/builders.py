"""Small avatars and poses that several test modules need."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import trimesh

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarLayout, AvatarOutput
from mmlphuman.avatar.build import build_avatar, build_layout
from mmlphuman.avatar.neighbours import Interpolation
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose, forward_kinematics
from mmlphuman.body.smplx_model import Body, load_body
from mmlphuman.body.weight_volume import WeightVolume, build_weight_volume
from mmlphuman.config import default_config
from mmlphuman.pose_layout import NUM_JOINTS, POSE_DIM
from mmlphuman.training.checkpoint import Snapshot, write_snapshot
from mmlphuman.types import Cameras, CanonicalGaussians, Pose

# Of training's poses, for the light: no extent is zero, and the middle is not the origin.
TRANSLATIONS = torch.tensor([[-0.5, -0.2, -0.3], [0.4, 0.3, 0.6]])


def small_avatar(body_path, seed: int = 0, **settings) -> Avatar:
    sizes = {"init_num_gs": 600, "num_verts": 120, "num_features": 10}
    config = default_config(**sizes | settings, seed=seed)
    body, volume = body_and_volume(body_path)
    template = trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)
    layout = build_layout(config, body, template, volume, TRANSLATIONS, expression=config.face)
    return build_avatar(config, layout)


@cache
def body_and_volume(body_path: Path) -> tuple[Body, WeightVolume]:
    """Made once, which takes longer than the rest of an avatar; nobody changes them."""
    body = load_body(body_path, torch.zeros(10))
    return body, build_weight_volume(body, 24)


def randomise(avatar: Avatar, seed: int = 0, size: float = 0.1) -> Avatar:
    """Moves every parameter but the MLPs' away from its start, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in avatar.named_parameters():
            if not name.startswith("bank"):
                scale = 0.01 if name in ("control_offsets", "position_bases") else size
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return avatar


def small_trained(body_path, iteration: int = 40, **settings) -> TrainedAvatar:
    """With every parameter moved, and a pose space."""
    config = default_config(**{"init_num_gs": 600, "num_verts": 120, "num_features": 10} | settings)
    pose_space = PoseSpace.fit(random_poses(30, size=1.0), 20)
    return TrainedAvatar(randomise(small_avatar(body_path, **settings)), pose_space, config, iteration)


def save_checkpoint(model_dir: Path, trained: TrainedAvatar, training_state: dict, keep: int) -> Path:
    """As a run does that is where `trained` is."""
    return write_snapshot(model_dir, Snapshot.of(trained, training_state), keep)


def random_poses(count: int, seed: int = 0, size: float = 0.3) -> torch.Tensor:
    """(count, 165) as training's: every joint moves, root, jaw, eyes and hands too."""
    return size * torch.randn(count, POSE_DIM, generator=torch.Generator().manual_seed(seed))


def random_pose(seed: int = 0, size: float = 0.3) -> Pose:
    generator = torch.Generator().manual_seed(seed)
    joints = size * torch.randn(165, generator=generator)
    joints[66:75] = 0
    translation = torch.randn(3, generator=generator)
    return Pose(joints, translation, torch.eye(3), size * torch.randn(10, generator=generator))


def random_loss(output: AvatarOutput, seed: int) -> torch.Tensor:
    """Of everything that a loss may look at, with random weights."""
    generator, posed = torch.Generator().manual_seed(seed), output.posed
    parts = (
        posed.xyz, posed.covariances, posed.opacities, posed.sh, output.scales, output.control_offsets
    )  # fmt: skip
    return sum((part * torch.randn(part.shape, generator=generator).to(part.device)).sum() for part in parts)


def canonical_of(
    avatar: Avatar, pose: Pose, active: ActiveParts | None = None, features=None
) -> CanonicalGaussians:
    """The Gaussians of a pose before skinning."""
    active = active or ActiveParts()
    coefficients = avatar.coefficients(pose.joints if features is None else features, active)
    return avatar.canonical_gaussians(
        coefficients, avatar.offset_control_points(coefficients, active), active
    )


def look_at_origin(distance: float = 3.0, size: int = 48, views: int = 1) -> Cameras:
    """Cameras on a ring about the y axis, upright, looking at the origin."""
    w2c = torch.eye(4).repeat(views, 1, 1)
    for view in range(views):
        angle = torch.tensor(2 * torch.pi * view / views)
        turn = torch.tensor([[angle.cos(), 0, -angle.sin()], [0, 1, 0], [angle.sin(), 0, angle.cos()]])
        flip = torch.diag(torch.tensor([1.0, -1, -1]))
        w2c[view, :3, :3] = flip @ turn
        w2c[view, 2, 3] = distance
    intrinsics = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    return Cameras(w2c, intrinsics.repeat(views, 1, 1), size, size)


def random_layout(
    generator: torch.Generator, gaussians: int = 12, controls: int = 9, anchors: int = 4
) -> AvatarLayout:
    """Of random numbers, on no body: where nothing but the arithmetic counts. Made in no time."""

    def table(rows: int, values: int) -> Interpolation:
        weight = 0.1 + torch.rand(rows, 3, generator=generator)
        index = torch.stack([torch.randperm(values, generator=generator)[:3] for _ in range(rows)])
        return Interpolation(index, weight / weight.sum(1, keepdim=True))

    parents = (-1, *(int(torch.randint(0, joint, (), generator=generator)) for joint in range(1, NUM_JOINTS)))
    joints = torch.randn(NUM_JOINTS, 3, generator=generator)
    lbs_weights = torch.rand(gaussians, NUM_JOINTS, generator=generator) ** 8
    layout = AvatarLayout(
        xyz=torch.randn(gaussians, 3, generator=generator),
        lbs_weights=lbs_weights / lbs_weights.sum(1, keepdim=True),
        gaussian_to_anchor=table(gaussians, anchors),
        gaussian_to_control=table(gaussians, controls),
        control_to_anchor=table(controls, anchors),
        control_neighbours=torch.arange(7).repeat(controls, 1),
        joints=joints,
        parents=torch.tensor(parents),
        canonical_transforms=forward_kinematics(canonical_pose(), joints, parents),
        initial_log_scales=-4 + torch.rand(gaussians, generator=generator),
    )
    normals = torch.nn.functional.normalize(torch.randn(gaussians, 3, generator=generator), dim=1)
    return replace(layout, normals=normals, places=TRANSLATIONS)
