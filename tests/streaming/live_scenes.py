"""A small avatar as viewers see it, cameras that look at it, and requests for pictures of it."""

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import PYTORCH
from mmlphuman.config import default_config
from mmlphuman.streaming.live_scene import LiveScene
from mmlphuman.streaming.messages import PoseRequest, RenderRequest
from tests.builders import random_pose, randomise, small_avatar

FRAMES = 12


@pytest.fixture(scope="module")
def trained(synthetic_body) -> TrainedAvatar:
    avatar = randomise(small_avatar(synthetic_body, num_gsparam_bases=3, num_position_bases=3))
    poses = torch.stack([random_pose(seed).joints for seed in range(FRAMES)])
    config = default_config(
        num_features=10, iteration_dxyz_basis=0, iteration_gsparam_basis=0, iteration_sh_degree=0
    )
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 4), config, 100)


@pytest.fixture
def scene(trained) -> LiveScene:
    poses = np.stack([random_pose(seed).joints.numpy() for seed in range(FRAMES)])
    translations = np.random.default_rng(0).normal(0, 0.1, (FRAMES, 3)).astype(np.float32)
    return LiveScene(trained, PYTORCH, poses, translations, range(100, 100 + FRAMES), {3: view()}, "a test")


def view(angle: float = 0.0, size: int = 64, distance: float = 3.0, fovx: float = 50.0) -> CameraView:
    """A camera that goes about the y axis, upright, looking at the origin; at angle 0 from +z."""
    turn = np.array(
        [[np.cos(angle), 0, -np.sin(angle)], [0, -1, 0], [-np.sin(angle), 0, -np.cos(angle)]], float
    )
    w2c = np.eye(4)
    w2c[:3, :3], w2c[2, 3] = turn, distance
    return CameraView(w2c, fovx, size, size)


def ask(pose: PoseRequest | None = None, camera: CameraView | None = None, **more) -> RenderRequest:
    return RenderRequest(1, camera or view(), pose or PoseRequest(), **more)
