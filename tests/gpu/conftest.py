"""Where the GPU kernels are compared with their plain twins: on a GPU, or in Triton's interpreter on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mmlphuman.avatar.avatar import Avatar
from tests.builders import randomise, small_avatar

# For the interpreter, which takes milliseconds where a GPU takes none. As on a GPU no size is a multiple of what a
# program works on, and some are larger: two programs of Gaussians, two steps through a layer's outputs, two through
# the next one's inputs.
FEW = {
    "init_num_gs": 150,
    "num_verts": 40,
    "num_features": 4,
    "num_gsparam_bases": 5,
    "num_position_bases": 3,
    "hidden_widths": [20, 72, 20, 20],
}
PUBLISHED_WIDTHS = [512, 256, 256, 256]
METHODS = {
    "published": {"pose_inputs": "body", "hidden_widths": PUBLISHED_WIDTHS, "light": "none"},
    "local inputs and expression, light of places": {"pose_inputs": "local", "light": "place", "face": True},
    "local inputs, light of normals": {"pose_inputs": "local", "light": "normal"},
}


def pytest_configure():
    """Triton's interpreter puts its own functions into triton.language at every call of a function within a kernel,
    a third of its time; once a launch is enough."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from triton import language
    from triton.runtime import interpreter

    put_in, launch, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def put_in_once(function):
        modules = {
            id(each) for each in function.__globals__.values() if each is language or each is language.core
        }
        if not modules <= done:
            done.update(modules)
            return put_in(function)
        return None  # which only a launch looks at

    def launch_anew(*words, **names):
        done.clear()
        return launch(*words, **names)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = put_in_once, launch_anew


@pytest.fixture(scope="session")
def device() -> torch.device:
    """On a GPU the kernels are compiled. With TRITON_INTERPRET=1 the same Python is run on NumPy arrays: slow, and
    without what is CUDA's own (graphs, streams, pinned memory, gsplat), but the same numbers up to rounding."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    pytest.skip("needs a GPU, or Triton's interpreter: make test-kernels")


@pytest.fixture(scope="session")
def pristine_avatar(synthetic_body, device) -> Avatar:
    """On the device, no parameter zero by chance; to be copied. The published method, its bank on a GPU only."""
    return avatar_of(METHODS["published"], synthetic_body, device)


@pytest.fixture(scope="session", params=METHODS)
def avatar_of_each_method(request, synthetic_body, device) -> Avatar:
    """As `pristine_avatar`."""
    return avatar_of(METHODS[request.param], synthetic_body, device)


def avatar_of(method: dict, body: Path, device: torch.device) -> Avatar:
    few = FEW if device.type == "cpu" else {}
    return randomise(small_avatar(body, **method | few)).to(device)
