"""A folder that export.py would write, of a small avatar, and a browser to open it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.web import AVATAR, write_web
from tests.builders import random_pose, small_trained
from tests.player.files import FINISHED, compact_file
from tests.player.pictures import WEBGPU, served
from tests.streaming.browser import Browser, missing_programs

FRAMES = 6


def make_sequence() -> PoseSequence:
    poses = [random_pose(seed, size=0.2) for seed in range(FRAMES)]
    return PoseSequence(
        poses=np.stack([pose.joints.numpy() for pose in poses]),
        translations=0.2 * np.stack([pose.translation.numpy() for pose in poses]),
        rotation=np.eye(3, dtype=np.float32),
        frames=np.arange(10, 10 + FRAMES),
        fps=25.0,
        source="made up",
    )


@pytest.fixture(scope="session")
def site(synthetic_body, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    file = compact_file(folder / AVATAR, small_trained(synthetic_body, FINISHED, init_num_gs=1500))
    write_web(folder, file.read_bytes(), make_sequence(), "somebody")
    return folder


@pytest.fixture(scope="session")
def trained(site) -> TrainedAvatar:
    return load_compact(site / AVATAR)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"{' and '.join(missing)} not found; Debian: apt install chromium chromium-driver")
    browser = Browser(tmp_path_factory.mktemp("browser"), WEBGPU)
    yield browser
    browser.close()


@pytest.fixture
def address(site):
    with served(site) as (address, _):
        yield address
