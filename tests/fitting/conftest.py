"""The body and the moving person that several stages are tried on."""

from __future__ import annotations

import pytest

from tests.fitting.scene import FRAMES, make_scene, small_body


@pytest.fixture(scope="session")
def body_path(synthetic_body, tmp_path_factory):
    return small_body(synthetic_body, tmp_path_factory.mktemp("body") / "SMPLX_NEUTRAL.npz")


@pytest.fixture(scope="session")
def scene(body_path):
    return make_scene(body_path, FRAMES, step=2)
