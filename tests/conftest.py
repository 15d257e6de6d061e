"""Fixtures shared by all tests: a synthetic body file and a tiny capture of it, made once per run."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmlphuman.synthetic.body import body_arrays
from mmlphuman.training.guarding import SIGNALS
from tests.tiny_run import make_tiny_capture


def pytest_configure():
    """A job in the background ignores Ctrl-C, and so would the commands that tests start to interrupt them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before():
    """A run that was asked to stop ignores further signals, and so would the commands that later tests start."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of a run's workers fills for all of them; the others wait for it. Read only."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / name
    made = root / f"{name}.made"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def synthetic_body(tmp_path_factory) -> Path:
    """Path of a licence-free body file; the smplx package tells the model type from the name.

    Not compressed as write_body would: written at once and read three times as fast.
    """
    name = "SMPLX_NEUTRAL.npz"
    return (
        made_once(tmp_path_factory, "smplx", lambda folder: np.savez(folder / name, **body_arrays())) / name
    )


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory, synthetic_body) -> Path:
    """Folder of an AvatarReX capture: 4 cameras, 24 training and 4 novel frames, 96 x 96 pixels. Read only.

    The worker's own copy: runs keep their weight volume in it.
    """
    made = made_once(
        tmp_path_factory, "capture_to_copy", lambda folder: make_tiny_capture(folder / "tiny", synthetic_body)
    )
    return shutil.copytree(made / "tiny", tmp_path_factory.mktemp("capture") / "tiny")
