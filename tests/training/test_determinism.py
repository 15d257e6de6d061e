"""`deterministic`: two runs are equal bit for bit, and what cannot be is refused."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.config import default_config
from mmlphuman.training.determinism import apply_determinism
from tests.training.test_divergence import fresh
from tests.training.test_loop import assert_same_state, run


@pytest.fixture(autouse=True)
def switched_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [True, False])
def test_two_runs_on_a_cpu_are_equal_bit_for_bit(tiny_config, capture, tmp_path, deterministic):
    config = apply_determinism(replace(tiny_config, deterministic=deterministic))
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert_same_state(*(run(fresh(config, capture), tmp_path / name) for name in ("one", "two")))


def test_only_what_can_be_repeated_is_used():
    config = apply_determinism(default_config(deterministic=True))
    assert (config.kernels, config.rasterizer) == ("plain", "torch")
    assert apply_determinism(default_config()) == default_config()


def test_a_rasteriser_that_cannot_is_refused_with_one_line():
    with pytest.raises(ValueError, match="deterministic: gsplat.*rasterizer: torch") as error:
        apply_determinism(default_config(deterministic=True, rasterizer="gsplat"))
    assert "\n" not in str(error.value)
    assert not torch.are_deterministic_algorithms_enabled()
