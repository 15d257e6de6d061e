"""A tiny capture's settings and a model trained on it, once for all tests of the commands."""

from __future__ import annotations

import pytest

from tests.commands.runs import train

CONFIG = """
smpl_pkl_path: {body}
device: cpu
train_cam_ids: [0, 1, 2]
num_train_frame: 24
num_workers: 1
edge_radius: 1
test: {{cam_ids: [3, 1], num_frame: 2}}
weight_volume_resolution: 16
init_num_gs: 400
num_verts: 60
num_features: 8
pca_components: 5
iterations: {iterations}
iteration_dxyz_basis: 2
iteration_gsparam_basis: 2
iteration_sh_degree: 4
checkpoint_every: 3
log_every: 2
lambda_lpips: 0
"""


@pytest.fixture(scope="session")
def files(tiny_capture, synthetic_body, tmp_path_factory):
    """The capture, settings of a short and of an endless run."""
    folder = tmp_path_factory.mktemp("commands")
    for name, iterations in (("short", 6), ("endless", 100_000)):
        (folder / f"{name}.yaml").write_text(CONFIG.format(body=synthetic_body, iterations=iterations))
    return {"data": tiny_capture, "short": folder / "short.yaml", "endless": folder / "endless.yaml"}


@pytest.fixture(scope="session")
def model(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    status, out, err = train(files, folder)
    assert status == 0, err
    return folder
