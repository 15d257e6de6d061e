"""The browser player's arithmetic and its reader against the package, by Node.js."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact import encode, load_compact, pack
from mmlphuman.export.pruning import Selection, prune
from mmlphuman.types import Pose
from tests.builders import random_pose, small_trained
from tests.player.node import run_node

FINISHED = 10**6
PUBLISHED = {"pose_inputs": "body", "light": "none", "novel_poses": "pca", "hidden_widths": [32, 16, 16]}
SETTINGS = {
    "default": {},
    "published": PUBLISHED,
    "face": {"face": True, "light": "normal", "hidden_widths": [24]},
}
POSE = """
    const { readAvatar } = await load("avatar_file.js");
    const { poseAvatar } = await load("posing.js");
    const avatar = readAvatar(read(args[0]));
    args[2].forEach(([pose, project], i) => write(`${args[1]}/${i}`, poseAvatar(avatar, pose, project)));
"""


def compact_file(path: Path, trained: TrainedAvatar, kept: int = 400, of_sh1: int = 150) -> Path:
    """With bases of the first Gaussians only."""
    points = len(trained.avatar.xyz)
    selection = Selection(
        torch.randperm(points, generator=torch.Generator().manual_seed(1)), kept, of_sh1, 50.0
    )
    pruned = prune(trained, selection)
    path.write_bytes(pack(encode(pruned), pruned, {}))
    return path


def message(pose: Pose) -> dict:
    return {
        "joints": pose.joints.tolist(),
        "expression": pose.expression.tolist(),
        "translation": pose.translation.tolist(),
        "rotation": pose.rotation.flatten().tolist(),
    }


def turned(pose: Pose) -> Pose:
    turn = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return replace(pose, rotation=turn)


@pytest.mark.parametrize("name", SETTINGS)
def test_gaussians_are_posed_as_the_package_poses_them(name, synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, **SETTINGS[name])
    compact = load_compact(compact_file(tmp_path / "a.safetensors", trained))
    poses = [random_pose(1), turned(random_pose(2)), replace(random_pose(3, size=2.0))]
    asked = [(pose, project) for pose in poses for project in (False, True)]
    run_node(POSE, str(tmp_path / "a.safetensors"), str(tmp_path), [(message(p), q) for p, q in asked])
    for i, (pose, project) in enumerate(asked):
        ours = np.fromfile(tmp_path / str(i), np.float32).reshape(-1, 32)
        posed = compact.pose(pose, project)
        parts = (posed.xyz, posed.opacities, posed.covariances, posed.sh[:, 0], posed.linear, posed.sh[:, 1:])
        theirs = torch.cat(
            [part.flatten(1) if part.dim() > 1 else part[:, None] for part in parts], 1
        ).numpy()
        wanted = np.concatenate([theirs, np.zeros_like(theirs[:, :1])], 1)
        np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=2e-5)
        assert np.abs(wanted[:, 22:31]).max() > 1e-3  # something depends on the view
