"""A subject of a few hundred Gaussians, once for the tests of the benchmark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlphuman.benchmark.subject import Subject, untrained_subject
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.synthetic.motion import BETAS, make_motion

SIZE = (96, 128)  # width, height


@pytest.fixture(scope="session")
def subject(synthetic_body, tmp_path_factory) -> Subject:
    """With every loss but LPIPS; an avatar that nobody may change."""
    config = default_config(
        init_num_gs=600, num_verts=100, num_features=8, weight_volume_resolution=16,
        lambda_lpips=0, lambda_ssim=0.1, edge_radius=1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("motion") / "smpl_params.npz"
    joints = load_body(synthetic_body, BETAS[0]).joints.double().numpy()
    np.savez(path, **make_motion(joints, 40, 0, 0))
    return untrained_subject(config, synthetic_body, path, SIZE, torch.device("cpu"))
