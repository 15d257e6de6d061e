"""The avatar that is timed: parameters that nobody trained, but as many and as large as trained ones.

Data path: body file + motion + Config -> Subject (avatar, poses, a camera that sees the person at a stated size).
A trained model takes the same place. Shape letters: N Gaussians, V views, F poses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import turntable
from mmlphuman.animation.pose_file import PoseSequence, read_pose_file
from mmlphuman.animation.render_sequence import Look, draw, to_cameras
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.build import build_avatar, build_layout, load_template
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import Backend, choose_backend
from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.weight_volume import build_weight_volume
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import Config
from mmlphuman.pose_layout import BODY_POSE, POSE_DIM
from mmlphuman.render.projection import project
from mmlphuman.types import Pose, PosedGaussians

# What training makes of the parameters, as far as speed depends on it: 200,000 Gaussians then reach 760,000 tiles
# and 180,000 of them are drawn, when the person covers 18% of 1500x2048 pixels.
HIDDEN = 0.1  # share of the Gaussians whose opacity has fallen below what is drawn
HIDDEN_OPACITY, OPACITY = 1e-3, 0.95
SHRINKING = 0.86  # of the first sizes, which overlap generously
PROPERTY_BASIS, SH1_BASIS = 0.02, 0.005  # deviations; there are 15 MLP outputs, of some 0.05
POSITION_BASIS = 0.005  # metres: a millimetre of movement
NEUTRAL_NOISE = {"sh1": 0.02, "log_scales": 0.1, "quats": 0.3, "xyz_offsets": 0.1, "control_offsets": 1e-3}
LIGHT = 0.03  # deviation of its coefficients
COLOR_WAVES, COLOR_AMPLITUDE = 25.0, 0.8  # radians a metre; of degree-0 spherical harmonics

DISTANCE, FOVX = 3.4, 40.0  # metres, degrees: of the first camera, before it is zoomed
COVERAGE = 0.18  # of the picture, by the person
ZOOMS = 3  # corrections; where the picture cuts the person off one is not enough
COVERAGE_SIZE = 512  # pixels of the longer side; larger pictures are measured in small ones
TILE = 16  # pixels, gsplat's


@dataclass(frozen=True)
class Subject:
    trained: TrainedAvatar  # without a poser, on the device
    sequence: PoseSequence
    view: CameraView
    center: np.ndarray  # (3,) what the camera looks at

    def backend(self, kernels: str = "auto") -> Backend:
        """kernels: the setting."""
        return choose_backend(self.trained.config.rasterizer, kernels, self.trained.device)

    def look(self, project_pose: bool = False, white: bool = True, kernels: str = "auto") -> Look:
        color = torch.full((3,), float(white), device=self.trained.device)
        return Look(color, self.backend(kernels), project_pose)

    def ring(self, count: int) -> list[CameraView]:
        """`count` cameras round the person, the first in front."""
        return turntable(self.view, self.center, np.array([0.0, 1.0, 0.0]), count)


def untrained_subject(
    config: Config, body_path: Path, motion_path: Path, size: tuple[int, int], device: torch.device
) -> Subject:
    """An avatar on the body's own surface with the motion's shape and poses. size: (width, height) pixels."""
    motion = read_smpl_params(motion_path)
    body = load_body(body_path, motion.betas)
    exact = config.skinning_weights == "exact"
    volume = None if exact else build_weight_volume(body, config.weight_volume_resolution)
    surface = load_template(None, body)
    avatar = build_avatar(
        config, build_layout(config, body, surface, volume, torch.from_numpy(motion.translations))
    )
    pretend_training(avatar, config.seed)
    pose_space = PoseSpace.fit(torch.from_numpy(motion.poses), config.pca_components)
    trained = TrainedAvatar(avatar, pose_space, config, config.iterations).to(device)
    return framed(trained, read_pose_file(motion_path), size)


def trained_subject(trained: TrainedAvatar, size: tuple[int, int]) -> Subject:
    """A model, in its training poses at the origin, upright."""
    poses = trained.pose_space.training_poses.cpu().numpy().copy()
    poses[:, : BODY_POSE.start] = 0
    sequence = PoseSequence(
        poses[:, :POSE_DIM],
        np.zeros((len(poses), 3), np.float32),
        np.eye(3, dtype=np.float32),
        np.arange(len(poses)),
        None,
        "training poses",
        expressions=poses[:, POSE_DIM:],
    )
    return framed(trained, sequence, size)


@torch.no_grad()
def pretend_training(avatar: Avatar, seed: int) -> None:
    """Fills every parameter, so that nothing is zero or equal by chance; offsets stay as small as trained ones."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor, deviation: float) -> Tensor:
        return deviation * torch.randn(like.shape, generator=generator)

    for name, deviation in NEUTRAL_NOISE.items():
        parameter = getattr(avatar, name)
        parameter.add_(noise(parameter, deviation))
    avatar.log_scales.add_(np.log(SHRINKING))
    phases = torch.tensor([0.0, 2.0, 4.0])
    avatar.sh0.copy_(COLOR_AMPLITUDE * torch.sin(COLOR_WAVES * avatar.xyz + phases))
    hidden = torch.rand(len(avatar.xyz), generator=generator) < HIDDEN
    avatar.opacity_logits.copy_(torch.where(hidden, HIDDEN_OPACITY, OPACITY).logit())
    avatar.property_bases.copy_(noise(avatar.property_bases, PROPERTY_BASIS))
    avatar.sh1_bases.copy_(noise(avatar.sh1_bases, SH1_BASIS))
    avatar.position_bases.copy_(noise(avatar.position_bases, POSITION_BASIS))
    if avatar.light is not None:
        avatar.light.coefficients.copy_(noise(avatar.light.coefficients, LIGHT))


def framed(trained: TrainedAvatar, sequence: PoseSequence, size: tuple[int, int]) -> Subject:
    """With a camera in front (the world's y up, the person looking along z) that sees the sequence's middle pose at
    COVERAGE of its picture."""
    pose = sequence.pose(len(sequence.frames) // 2)
    xyz = trained.pose(pose).xyz
    center = ((xyz.amin(0) + xyz.amax(0)) / 2).double().cpu().numpy()
    w2c = np.diag([1.0, -1.0, -1.0, 1.0])  # looks along -z, y down
    w2c[:3, 3] = [-center[0], center[1], center[2] + DISTANCE]
    subject = Subject(trained, sequence, CameraView(w2c, FOVX, *size), center)
    for _ in range(ZOOMS):
        slope = np.tan(np.radians(subject.view.fovx) / 2) * np.sqrt(coverage(subject, pose) / COVERAGE)
        fovx = float(np.degrees(2 * np.arctan(slope)))
        subject = replace(subject, view=replace(subject.view, fovx=fovx))
    return subject


def coverage(subject: Subject, pose: Pose) -> float:
    """Share of the picture that the person covers."""
    width, height = subject.view.width, subject.view.height
    scale = min(1.0, COVERAGE_SIZE / max(width, height))
    small = replace(subject.view, width=round(scale * width), height=round(scale * height))
    return float(picture_and_mask(subject, pose, small)[1].mean() / 255)


def picture_and_mask(subject: Subject, pose: Pose, view: CameraView) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) the person on white and (H, W) how opaque the person is, both uint8."""
    camera = to_cameras(view, subject.trained.device)
    on_white, on_black = (
        draw(subject.trained, pose, [camera], subject.look(white=white))[0].cpu().numpy()
        for white in (True, False)
    )
    return on_white, 255 - (on_white.astype(np.int16) - on_black).clip(0, 255).max(2).astype(np.uint8)


@torch.no_grad()
def workload(subject: Subject) -> dict:
    """What a frame of the middle pose holds, for the record: how much of the picture, how many Gaussians and tiles."""
    pose = subject.sequence.pose(len(subject.sequence.frames) // 2)
    posed = subject.trained.pose(pose)
    visible, intersections = tile_intersections(posed, subject.view)
    return {
        "width": subject.view.width,
        "height": subject.view.height,
        "gaussians": len(posed),
        "visible": visible,
        "tile_intersections": intersections,
        "coverage": round(coverage(subject, pose), 4),
        "poses": len(subject.sequence.frames),
    }


def tile_intersections(posed: PosedGaussians, view: CameraView) -> tuple[int, int]:
    """How many Gaussians reach into the picture, and how many pairs of a Gaussian and a tile that its box touches."""
    camera = to_cameras(view, posed.xyz.device)
    splats = project(posed.xyz, posed.covariances, posed.opacities, camera)
    centers, radii = splats.centers[0], splats.radii[0]
    drawn = radii[:, 0] > 0
    tiles = torch.tensor([-(-view.width // TILE), -(-view.height // TILE)], device=centers.device)
    low = ((centers - radii) / TILE).floor().clamp_min(0)
    high = torch.minimum(((centers + radii) / TILE).ceil(), tiles)
    touched = (high - low).clamp_min(0).prod(1)[drawn]
    return int(drawn.sum()), int(touched.sum())
