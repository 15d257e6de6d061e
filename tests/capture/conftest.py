import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_capture import LAYOUTS, write_small_capture


@pytest.fixture
def small_capture(tmp_path) -> Path:
    """A fresh AvatarReX folder of 3 cameras and 6 frames that the test may damage."""
    return write_small_capture(tmp_path / "capture")


@pytest.fixture(scope="session")
def clean_captures(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clean")
    return {layout: write_small_capture(folder / layout, layout) for layout in LAYOUTS}


@pytest.fixture
def capture_of(clean_captures, tmp_path) -> Callable[[str], Path]:
    """capture_of(layout): the same capture in any of the three layouts, a copy that the test may damage."""
    return lambda layout: shutil.copytree(clean_captures[layout], tmp_path / layout)
