"""What the tests of faulty captures share: reading a capture as training does, and looking at what is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from small_capture import FRAMES

from mmlphuman.capture.dataset import training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config


def read_all(root: Path, **settings) -> int:
    """Reads a capture whole, as training does; the number of samples."""
    layout = open_capture(root)
    config = default_config(num_train_frame=settings.pop("num_train_frame", FRAMES), **settings)
    dataset = training_dataset(config, layout, read_smpl_params(layout.pose_path))
    for frame, camera in dataset.pairs:
        dataset.sample(frame, (camera,))
    return len(dataset.pairs)


def assert_one_line(root: Path, names: list[str], **settings) -> None:
    """Reading raises an error meant for users, and its one line holds all `names`."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_all(root, **settings)
    text = str(caught.value).partition(": python -c")[0]  # a command to copy may be long
    assert "\n" not in text and len(text) < 500 and str(root) in text, text
    for name in names:
        assert name in text, f"{name!r} is not in: {text}"


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in root.rglob("*")
    }
