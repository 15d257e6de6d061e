from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checked_capture import CAMERAS, FRAMES, SIZE, rewrite

from mmlphuman.synthetic.capture_writer import make_capture


@pytest.fixture(scope="session")
def clean_check_captures(tmp_path_factory, synthetic_body) -> Callable[[str], Path]:
    """clean_check_captures(layout): the same capture in any layout. Read only."""
    folder = tmp_path_factory.mktemp("checked")
    made = folder / "avatarrex"
    make_capture(
        made,
        synthetic_body,
        size=(SIZE, SIZE),
        num_cameras=CAMERAS,
        num_frames=FRAMES,
        num_novel_frames=0,
    )

    def of(layout: str) -> Path:
        target = folder / layout
        return target if target.exists() else rewrite(made, target, layout)

    return of


@pytest.fixture
def capture_copy(clean_check_captures, tmp_path) -> Path:
    """An AvatarReX folder that the test may damage."""
    return shutil.copytree(clean_check_captures("avatarrex"), tmp_path / "subject")
