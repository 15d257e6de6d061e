"""Every tensor of a saved avatar is looked at: there, of its shape and type, finite, pointing somewhere."""

from __future__ import annotations

import pytest
import torch

from mmlphuman.avatar.state import check_state
from tests.builders import small_trained


@pytest.fixture(scope="module", params=["local", "body"])
def saved(request, synthetic_body):
    """Settings, and the two states that a checkpoint holds."""
    light = "place" if request.param == "local" else "none"
    trained = small_trained(synthetic_body, pose_inputs=request.param, light=light)
    return trained.config, dict(trained.avatar.state_dict()), dict(trained.pose_space.state_dict())


def faults_of(name: str, value: torch.Tensor):
    """(fault, what is put in the tensor's place, what is said)"""
    yield "a list", value.tolist(), f"tensor {name} is list"
    yield "another type", value.bool(), f"tensor {name} is torch.bool"
    yield "one dimension more", value[None].clone(), f"tensor {name} is .*expected"
    if value.is_floating_point():
        for number in (torch.nan, torch.inf):
            wrong = value.clone()
            wrong[(-1,) * wrong.dim()] = number
            yield str(number), wrong, f"tensor {name} holds numbers that are not finite"
    else:
        for number in (-2, 10**6):
            wrong = value.clone()
            wrong[(-1,) * wrong.dim()] = number
            yield str(number), wrong, f"tensor {name} (points outside|is no skeleton)"
    if value.dim() > 1:
        yield "a row", value[:1].clone().expand_as(value), f"tensor {name} repeats numbers"


def assert_refused(saved, part: int, changed: dict, message: str) -> None:
    states = [*saved[:part], changed, *saved[part + 1 :]]
    with pytest.raises(ValueError, match=message) as error:
        check_state(*states)
    assert "\n" not in str(error.value)


def test_what_is_saved_fits(saved):
    check_state(*saved)
    former = saved[2] | {"training_poses": saved[2]["training_poses"][:, 3:66].clone()}
    check_state(*saved[:2], former)


@pytest.mark.parametrize(("part", "prefix"), [(1, ""), (2, "pose_space.")])
def test_every_tensor_is_looked_at(saved, part, prefix):
    for name, value in saved[part].items():
        for _, wrong, message in faults_of(prefix + name, value):
            assert_refused(saved, part, saved[part] | {name: wrong}, message)
        without = {other: tensor for other, tensor in saved[part].items() if other != name}
        assert_refused(saved, part, without, f"tensor {name} is missing")
    assert_refused(saved, part, saved[part] | {"extra": torch.ones(1)}, "tensor extra is unknown")


def test_numbers_of_gaussians_points_and_anchors_agree(saved):
    for name in (
        "sh0",
        "quats",
        "lbs_weights",
        "control_offsets",
        "bank.biases.0",
        "gaussian_to_control.index",
    ):
        fewer = saved[1] | {name: saved[1][name][:-1].clone()}
        assert_refused(saved, 1, fewer, r"tensor [\w.]+ is .*expected|there are")


def test_weights_that_are_none_are_refused(saved):
    state = saved[1]
    for name in ("lbs_weights", "gaussian_to_control.weight", "control_to_anchor.weight"):
        halved = state | {name: state[name] / 2}
        assert_refused(saved, 1, halved, f"tensor {name} holds weights that do not sum to one")
        negative = state[name].clone()
        negative[0] = 0
        negative[0, :2] = torch.tensor([-1.0, 2.0])
        assert_refused(saved, 1, state | {name: negative}, f"tensor {name} holds negative weights")
