"""Where the GPU kernels are compared with their plain twins: on a GPU, or in Triton's interpreter on a CPU."""

from __future__ import annotations

import os

import pytest
import torch

from mmlphuman.avatar import mlp_bank
from mmlphuman.avatar.avatar import Avatar
from tests.builders import randomise, small_avatar

# For the interpreter, which takes milliseconds where a GPU takes none. As on a GPU no size is a multiple of what a
# program works on, and some are larger: two programs of Gaussians, two steps through a layer's outputs, two through
# the next one's inputs.
FEW = {"init_num_gs": 150, "num_verts": 40, "num_features": 4, "num_gsparam_bases": 5, "num_position_bases": 3}
NARROW = (20, 72, 20, 20)


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
    """On the device, no parameter zero by chance; to be copied. Its bank is as published on a GPU only."""
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setattr(mlp_bank, "HIDDEN", NARROW)
        return randomise(small_avatar(synthetic_body, **FEW if device.type == "cpu" else {})).to(device)
