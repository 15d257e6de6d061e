"""A tiny capture's settings and a model trained on it, once for all tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmlphuman.config import save_config
from mmlphuman.export import texture
from tests.commands.runs import call, make_compact, train
from tests.tiny_run import tiny_settings


@pytest.fixture(scope="session")
def files(tiny_capture, synthetic_body, tmp_path_factory):
    """The capture, settings of a short and of an endless run."""
    folder = tmp_path_factory.mktemp("commands")
    for name, iterations in (("short", 6), ("endless", 100_000)):
        settings = tiny_settings(
            synthetic_body,
            test=dict(cam_ids=[3, 1], num_frame=2),
            iterations=iterations,
            iteration_dxyz_basis=2,
            iteration_gsparam_basis=2,
            iteration_sh_degree=4,
            checkpoint_every=3,
        )
        save_config(settings, folder / f"{name}.yaml")
    return {"data": tiny_capture, "short": folder / "short.yaml", "endless": folder / "endless.yaml"}


@pytest.fixture(scope="session")
def model(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    status, out, err = train(files, folder, run=call)
    assert status == 0, err
    return folder


@pytest.fixture(autouse=True)
def coarse_textures(monkeypatch):
    """Of exported meshes: nobody looks at them here, and fine ones take seconds."""
    monkeypatch.setattr(texture, "NEAR", 4)


@pytest.fixture(scope="session")
def compact(model, tmp_path_factory) -> Path:
    """Of the model; alone in its folder, so that nothing is found beside it."""
    return make_compact(model, tmp_path_factory.mktemp("alone") / "avatar.safetensors", "--keep", 1)[0]
