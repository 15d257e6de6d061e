"""Tiny runs on the tiny capture."""

import shutil
from pathlib import Path

import pytest

from mmlphuman.config import Config, TestConfig


@pytest.fixture(scope="session")
def capture(tiny_capture, tmp_path_factory) -> Path:
    """A copy of its own, with the weight volume that the first run leaves in it."""
    return Path(shutil.copytree(tiny_capture, tmp_path_factory.mktemp("training") / "capture"))


@pytest.fixture
def tiny_config(synthetic_body) -> Config:
    return Config(
        smpl_pkl_path=str(synthetic_body),
        device="cpu",
        train_cam_ids=[0, 1, 2],
        num_train_frame=24,
        num_workers=0,
        edge_radius=1,
        test=TestConfig(cam_ids=[3], num_frame=2),
        weight_volume_resolution=16,
        init_num_gs=400,
        num_verts=60,
        num_features=8,
        pca_components=5,
        iterations=12,
        iteration_dxyz_basis=2,
        iteration_gsparam_basis=3,
        iteration_sh_degree=5,
        test_every=0,
        checkpoint_every=4,
        log_every=2,
        lambda_lpips=0,
        lambda_ssim=0.1,
    )
