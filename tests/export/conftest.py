"""An avatar of which some Gaussians change with the pose, and what pictures show of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import default_config
from mmlphuman.export import pruning
from mmlphuman.export.pruning import visible_change
from tests.builders import random_poses, randomise, small_avatar
from tests.export.compact_files import STILL, few_joints


@pytest.fixture(scope="module")
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "PROBE_SIZE", 128)
        yield


@pytest.fixture(scope="module")
def trained(synthetic_body):
    """The first 400 of 600 Gaussians do not change with the pose, the others do much."""
    avatar = randomise(small_avatar(synthetic_body))
    with torch.no_grad():
        for weight in avatar.bank.weights:
            weight.mul_(2)  # so that poses matter
        avatar.property_bases[STILL] = 0
        avatar.sh1_bases[STILL] = 0
        avatar.sh1_bases.mul_(0.1)
    config = default_config(
        init_num_gs=600, num_verts=120, num_features=10, iteration_sh_degree=0, iteration_dxyz_basis=0
    )
    config = replace(config, iteration_gsparam_basis=0)
    poses = PoseSpace.fit(random_poses(30), 5)
    return few_joints(TrainedAvatar(avatar, poses, config, iteration=40))


@pytest.fixture(scope="module")
def change(trained):
    return visible_change(trained, 8, quiet=True)
