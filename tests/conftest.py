"""Fixtures shared by all tests: a synthetic body file and a tiny capture of it, made once per session."""

from __future__ import annotations

import signal
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


@pytest.fixture(scope="session")
def synthetic_body(tmp_path_factory) -> Path:
    """Path of a licence-free body file; the smplx package tells the model type from the name.

    Not compressed as write_body would: written at once and read three times as fast.
    """
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    np.savez(path, **body_arrays())
    return path


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory, synthetic_body) -> Path:
    """Folder of an AvatarReX capture: 4 cameras, 24 training and 4 novel frames, 96 x 96 pixels. Read only."""
    return make_tiny_capture(tmp_path_factory.mktemp("capture") / "tiny", synthetic_body)
