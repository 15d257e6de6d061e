from pathlib import Path

import pytest
from small_capture import write_small_capture


@pytest.fixture
def small_capture(tmp_path) -> Path:
    """A fresh AvatarReX folder of 3 cameras and 6 frames that the test may damage."""
    return write_small_capture(tmp_path / "capture")
