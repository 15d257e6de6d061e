"""A saved state goes on the same, whatever stepped before and however it lies in memory."""

import copy

import pytest
import torch

from mmlphuman.config import default_config
from mmlphuman.training.optimisers import Optimisers
from tests.builders import randomise, small_avatar

CONFIG = default_config(init_num_gs=600, num_verts=120, num_features=10, iterations=10)


def take_step(optimisers: Optimisers, avatar, iteration: int) -> None:
    generator = torch.Generator().manual_seed(iteration)
    for parameter in avatar.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimisers.set_rates(iteration)
    optimisers.step()


def in_kernels_layout(states: list[dict], fused: bool) -> list[dict]:
    """The averages of bases with the Gaussians last in memory (fused_tables.lanes_together). fused: what is saved."""
    states = copy.deepcopy(states)
    for state in states:
        for group in state["param_groups"]:
            group["fused"] = fused
        for numbers in state["state"].values():
            for average in ("exp_avg", "exp_avg_sq"):
                if numbers[average].dim() == 3:
                    numbers[average] = numbers[average].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return states


@pytest.mark.parametrize("fresh", [True, False], ids=["resumed", "after a divergence"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused by then", "not fused by then"])
def test_a_state_in_another_layout_is_the_same_state(fresh, fused, synthetic_body):
    usual = randomise(small_avatar(synthetic_body))
    changed = copy.deepcopy(usual)
    ours, theirs = (Optimisers(avatar, CONFIG, 1.0) for avatar in (usual, changed))
    for iteration in range(2):
        take_step(ours, usual, iteration)
        take_step(theirs, changed, iteration)
    saved = in_kernels_layout(ours.state_dict(), fused)
    if fresh:
        theirs = Optimisers(changed, CONFIG, 1.0)
    theirs.load_state_dict(saved)
    for iteration in range(2, 4):
        take_step(ours, usual, iteration)
        take_step(theirs, changed, iteration)
    for name, parameter in usual.named_parameters():
        torch.testing.assert_close(changed.get_parameter(name), parameter, rtol=1e-6, atol=1e-9, msg=name)


def test_rates_are_those_of_the_iteration_after_loading_too(synthetic_body):
    avatar = small_avatar(synthetic_body)
    optimisers = Optimisers(avatar, CONFIG, 1.0, poses=4)
    take_step(optimisers, avatar, 0)
    resumed = Optimisers(avatar, CONFIG, 1.0, poses=4)
    resumed.load_state_dict(optimisers.state_dict())
    for each in (optimisers, resumed):
        each.set_rates(10)
    rates = [
        [group["lr"] for each in both.optimisers for group in each.param_groups]
        for both in (optimisers, resumed)
    ]
    assert rates[0] == rates[1]
    expected = 2 * CONFIG.color_lr * CONFIG.lr_decay.color  # the root of four poses
    assert any(rate == pytest.approx(expected) for rate in rates[1])
