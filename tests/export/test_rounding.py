"""Whole steps chosen together: against rounding one by one, in the errors that count and in the bits."""

import math
from types import SimpleNamespace

import pytest
import torch

from mmlphuman.export import pruning
from mmlphuman.export.compact import encode
from mmlphuman.export.packing import unpacked
from mmlphuman.export.precision import LEVELS, Looked, Steps, with_whole_bases
from mmlphuman.export.pruning import Sensitivity
from mmlphuman.export.rounding import UNSEEN, code_lengths, whole_steps
from tests.builders import small_trained

GAUSSIANS, BASES, NUMBERS = 300, 8, 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def few_directions(rank: int = 2) -> torch.Tensor:
    """(P, K, K) of mean variance 1."""
    directions = random(GAUSSIANS, BASES, rank, seed=1) / math.sqrt(rank)
    return directions @ directions.mT


def mean_error(values: torch.Tensor, whole: torch.Tensor, covariance: torch.Tensor) -> float:
    errors = values - whole
    return float(torch.einsum("pkd,pkl,pld->pd", errors, covariance, errors).mean())


def bits(whole: torch.Tensor) -> float:
    """Of an ideal code of each basis and number."""
    lengths = code_lengths(whole).permute(2, 0, 1)
    return float(lengths.gather(0, whole.abs().long()).sum())


def test_bases_make_good_what_others_err():
    values, weight = 5 * random(GAUSSIANS, BASES, NUMBERS), torch.ones(GAUSSIANS, NUMBERS)
    covariance = few_directions()
    whole = whole_steps(values, weight, covariance, 0.0)
    assert torch.equal(whole, whole.round())
    ours, one_by_one = (mean_error(values, each, covariance) for each in (whole, values.round()))
    assert ours < 0.3 * one_by_one
    # Directions that training never takes stay bounded, since other poses may take them.
    everywhere = torch.eye(BASES).expand(GAUSSIANS, -1, -1)
    assert mean_error(values, whole, everywhere) < ours / UNSEEN + 4 * mean_error(
        values, values.round(), everywhere
    )


def test_where_all_directions_count_alike_each_number_is_the_nearest():
    values = 5 * random(GAUSSIANS, BASES, NUMBERS)
    alike = 3.0 * torch.eye(BASES).expand(GAUSSIANS, -1, -1)
    assert torch.equal(whole_steps(values, torch.ones(GAUSSIANS, NUMBERS), alike, 0.0), values.round())


def test_two_bases_against_all_choices():
    """The least error of all whole numbers near, found for most."""
    values = 3 * random(200, 2, 1)
    direction = random(200, 2, 1, seed=2)
    covariance = direction @ direction.mT
    whole = whole_steps(values, torch.ones(200, 1), covariance, 0.0)
    steady = covariance + UNSEEN * torch.eye(2)

    def cost(whole):
        return torch.einsum("pkd,pkl,pld->p", values - whole, steady, values - whole)

    near = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5)).float()[:, None, :, None]
    best = torch.stack([cost(values.round() + each) for each in near]).amin(0)
    assert (cost(whole) >= best - 1e-4).all()
    assert (cost(whole) < best + 1e-4).float().mean() > 0.6
    assert cost(whole).mean() < 0.8 * cost(values.round()).mean()


def test_a_bit_is_saved_for_what_it_may_cost():
    values, covariance = random(GAUSSIANS, BASES, NUMBERS), few_directions()
    weight = torch.ones(GAUSSIANS, NUMBERS)
    found = [whole_steps(values, weight, covariance, bit) for bit in (0.0, 0.02, 0.1, 0.5)]
    sizes, errors = [bits(each) for each in found], [mean_error(values, each, covariance) for each in found]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.7 * sizes[0]
    assert errors == sorted(errors)
    # Gaussians that pictures do not show cost nothing.
    weight[: GAUSSIANS // 2] = 0
    unseen = whole_steps(values, weight, covariance, 0.1)
    assert not unseen[: GAUSSIANS // 2].any() and unseen[GAUSSIANS // 2 :].any()


def test_no_gaussian_with_bases_is_no_matter():
    assert whole_steps(torch.zeros(0, 3, 11), torch.zeros(0, 11), torch.zeros(0, 3, 3), 0.1).shape == (
        0,
        3,
        11,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_a_file_holds_the_steps_that_were_chosen(level, synthetic_body, monkeypatch):
    monkeypatch.setattr(pruning, "PROBE_SIZE", 96)
    looked = Looked(small_trained(synthetic_body, 10**6), count=4, quiet=True)
    made = looked.compacted(LEVELS[level])
    stored = encode(made.trained, steps=made.steps)
    order, avatar = made.selection.order, made.trained.avatar
    for name, of_numbers in (
        ("property_bases", looked.sensitivity.properties),
        ("sh1_bases", looked.sensitivity.sh1),
    ):
        whole, scale, offset = (
            torch.from_numpy(unpacked(stored[name + part].data, stored[name + part].entry()))
            for part in ("", ".scale", ".offset")
        )
        assert torch.equal(whole.float(), made.steps.bases[name].whole)
        errors = offset + scale * whole * 2.0 ** made.steps.shift[: len(whole), None, None]
        errors -= getattr(avatar, name)
        covariance = looked.covariance[order[: len(whole)]]
        squared = torch.einsum("pkd,pkl,pld->pd", errors, covariance, errors)
        error = float((squared * of_numbers[order[: len(whole)]]).sum())
        # What each number may make, times LONGER_OF_BASES squared and what is paid for saved bits.
        assert error < 4 * made.steps.error * whole.numel()
    assert made.steps.bases["property_bases"].whole.any()


def test_no_number_needs_a_second_byte_and_the_others_make_good_what_it_lacks():
    """One in a file would give all numbers of it a second byte."""
    values, covariance = 5 * random(GAUSSIANS, BASES, NUMBERS), torch.ones(GAUSSIANS, BASES, BASES)
    values[7, 5, 2], values[8, 0, 1] = 200, -150
    for bit in (0.0, 0.1):
        whole = whole_steps(values, torch.ones(GAUSSIANS, NUMBERS), covariance, bit)
        assert whole.abs().max() == 127 and (whole[7, 5, 2], whole[8, 0, 1]) == (127, -127)
        assert abs((values - whole)[7, :, 2].sum()) < 5, "of the 73 that one lacks"


def bases_of_pictures(unit: float = 1.0, seed: int = 0):
    """Bases in a unit of their own: their steps in it, and pictures' sensitivity to it. Each Gaussian has directions of
    its own."""
    bases = SimpleNamespace(
        property_bases=unit * random(GAUSSIANS, BASES, 11, seed=seed),
        sh1_bases=unit * random(GAUSSIANS // 2, BASES, 9, seed=seed + 1),
    )
    shift = torch.arange(GAUSSIANS) % 3
    steps = Steps(torch.full((11,), 0.1 * unit), torch.full((9,), 0.1 * unit), shift, LEVELS["high"], 1e-6)
    share = 1e-4 * random(GAUSSIANS, 1, seed=seed + 2).exp() / unit**2
    return bases, steps, Sensitivity(share.expand(-1, 11), share.expand(-1, 9))


def test_a_number_in_another_unit_has_the_same_steps():
    ours, finer = (
        with_whole_bases(steps, sensitivity, few_directions(), bases)
        for bases, steps, sensitivity in (bases_of_pictures(), bases_of_pictures(2.0**-6))
    )
    for name in ("property_bases", "sh1_bases"):
        assert ours.bases[name].whole.any()
        assert torch.equal(ours.bases[name].whole, finer.bases[name].whole), name


def test_each_gaussian_is_rounded_for_its_own_directions():
    bases, steps, sensitivity = bases_of_pictures()
    covariance = few_directions()
    chosen = with_whole_bases(steps, sensitivity, covariance, bases).bases
    for name in ("property_bases", "sh1_bases"):
        whole, count = chosen[name].whole, len(chosen[name].whole)
        step = steps.of_bases(name) * 2.0 ** steps.shift[:count, None, None]
        values = (getattr(bases, name) - chosen[name].offset) / step
        own = mean_error(values, whole, covariance[:count])
        assert own < 0.5 * mean_error(values, whole, covariance.roll(1, 0)[:count]), name


def test_gaussians_in_another_order_keep_their_directions(synthetic_body, monkeypatch):
    monkeypatch.setattr(pruning, "PROBE_SIZE", 96)
    looked = Looked(small_trained(synthetic_body, 10**6), count=4, quiet=True)
    made = looked.compacted(LEVELS["tiny"], keep=0.5)
    order = made.selection.order
    assert not torch.equal(order, order.sort().values)
    sensitivity = Sensitivity(looked.sensitivity.properties[order], looked.sensitivity.sh1[order])
    covariance = looked.covariance[order[: made.selection.num_properties]]
    again = with_whole_bases(made.steps, sensitivity, covariance, made.trained.avatar)
    for name, chosen in made.steps.bases.items():
        assert torch.equal(chosen.whole, again.bases[name].whole), name
