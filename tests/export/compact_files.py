"""Small compact files for the tests of them, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import trimesh

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact import Carried, encode, pack, strongest_joints
from mmlphuman.export.pruning import Selection
from tests.export.former_compact import former_file

GAUSSIANS = 600  # of small_avatar
STILL = slice(0, 400)  # of `trained`: Gaussians whose bases are zero


def few_joints(trained: TrainedAvatar) -> TrainedAvatar:
    """Moved by no more joints than a file holds, as bodies are; the small body's coarse volume mixes more."""
    joints, weights = strongest_joints(trained.avatar.lbs_weights)
    trained.avatar.lbs_weights = torch.zeros(len(joints), 55).scatter_add_(1, joints, weights)
    return trained


def write(path: Path, trained: TrainedAvatar, carried: Carried | None = None) -> Path:
    path.write_bytes(pack(encode(trained, carried), trained, {}))
    return path


def write_former(path: Path, trained: TrainedAvatar, carried: Carried | None = None) -> Path:
    path.write_bytes(former_file(trained, carried))
    return path


def some_carried(trained: TrainedAvatar) -> Carried:
    """Frames whose poses are the pose space's, and a box."""
    poses = trained.pose_space.training_poses.numpy()
    translations = np.random.default_rng(0).normal(size=(len(poses), 3)).astype(np.float32)
    frames = PoseSequence(
        poses[:, :165],
        translations,
        np.eye(3, dtype=np.float32),
        100 + 3 * np.arange(len(poses)),
        None,
        "a test",
        expressions=poses[:, 165:],
    )
    return Carried(frames, trimesh.creation.box((0.4, 1.6, 0.2)))


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()


def everything(avatar) -> Selection:
    count = len(avatar.xyz)
    return Selection(torch.arange(count), count, count, float("inf"))
