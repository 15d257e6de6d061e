"""Tiny runs on the tiny capture."""

import shutil
from pathlib import Path

import pytest

from mmlphuman.config import Config
from tests.tiny_run import tiny_settings


@pytest.fixture(scope="session")
def capture(tiny_capture, tmp_path_factory) -> Path:
    """A copy of its own, for what a run may leave in it."""
    return Path(shutil.copytree(tiny_capture, tmp_path_factory.mktemp("training") / "capture"))


@pytest.fixture
def tiny_config(synthetic_body) -> Config:
    return tiny_settings(
        synthetic_body,
        num_workers=0,
        iterations=12,
        iteration_dxyz_basis=2,
        iteration_gsparam_basis=3,
        iteration_sh_degree=5,
        test_every=0,
        checkpoint_every=4,
        lambda_ssim=0.1,
    )
