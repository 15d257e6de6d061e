"""A pose's row holds all of its gradients: of small parameters themselves, of large ones as outer products."""

from functools import partial

import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.avatar.pose_inputs import inputs_of
from mmlphuman.gpu.pose_rows import PoseRow, PoseRows, pieces_of_row
from mmlphuman.processes import Ranks
from tests.builders import random_loss, random_pose, randomise, small_avatar
from tests.local_processes import run_all
from tests.outer_products import all_gradients

CPU = torch.device("cpu")
SCHEDULES = {
    "everything": ActiveParts(),
    "no view dependence": ActiveParts(sh1=False),
    "position bases alone": ActiveParts(property_bases=False),
    "property bases alone": ActiveParts(position_bases=False),
    "nothing yet": ActiveParts(False, False, False),
}


METHODS = {
    "published": {"pose_inputs": "body", "hidden_widths": [512, 256, 256, 256], "light": "none"},
    "local inputs and a light": {},
}


@pytest.fixture(scope="module", params=METHODS)
def avatar(request, synthetic_body):
    return randomise(small_avatar(synthetic_body, **METHODS[request.param]))


def activations(avatar, features) -> tuple[torch.Tensor, ...]:
    """What the GPU kernels hand out, layer by layer."""
    found, bank = [features], avatar.bank
    for weight, bias in zip(bank.weights, bank.biases, strict=True):
        last = len(found) == len(bank.weights)
        sums = torch.einsum("aoi,ai->ao", weight, found[-1].expand(len(weight), -1)) + bias
        found.append(sums if last else sums.relu())
    return tuple(each.detach() for each in found)


def gradients_of_pose(avatar, seed: int, active: ActiveParts) -> tuple[torch.Tensor, ...]:
    """Of a random loss; leaves the gradients, returns the activations."""
    pose = random_pose(seed)
    avatar.zero_grad(set_to_none=True)
    random_loss(avatar(pose, active), seed).backward()
    if not (active.property_bases or active.position_bases):
        return ()
    return activations(avatar, inputs_of(pose.joints, avatar.mlp_inputs))


def without_large(pieces: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As after a backward pass by the GPU kernels."""
    return {name: piece for name, piece in pieces.items() if "bases" not in name and "weights" not in name}


@pytest.mark.parametrize("name", SCHEDULES)
def test_gradients_of_several_poses_follow_from_their_rows(avatar, name):
    active, poses = SCHEDULES[name], PoseRows(Ranks(CPU), 3)
    for _ in range(2):  # the second step's rows take the first's place
        sums: dict[str, torch.Tensor] = {}
        for seed in range(3):
            pieces = pieces_of_row(dict(avatar.named_parameters()), gradients_of_pose(avatar, seed, active))
            for part, parameter in avatar.named_parameters():
                if parameter.grad is not None:
                    sums[part] = sums.get(part, 0) + parameter.grad
            poses.add(PoseRow.of(without_large(pieces)), active)
        poses.take()
    ours = all_gradients(avatar, poses)
    for part, gradient in sums.items():
        if part in ours:
            torch.testing.assert_close(
                ours[part], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
            )
        else:  # autograd's zeros for what is not switched on
            assert not gradient.any(), part
    assert set(ours) <= set(sums) and len(ours) >= 6


def test_rows_are_small(avatar):
    poses = PoseRows(Ranks(CPU), 1)
    pieces = pieces_of_row(dict(avatar.named_parameters()), gradients_of_pose(avatar, 0, ActiveParts()))
    poses.add(PoseRow.of(without_large(pieces)), ActiveParts())
    assert poses.take().numel() < 0.1 * sum(parameter.numel() for parameter in avatar.parameters())


def test_all_ranks_get_all_rows_in_the_order_of_the_poses(avatar, tmp_path):
    active = ActiveParts()
    given = {
        seed: without_large(
            pieces_of_row(dict(avatar.named_parameters()), gradients_of_pose(avatar, seed, active))
        )
        for seed in range(4)
    }
    alone = PoseRows(Ranks(CPU), 4)
    for pieces in given.values():
        alone.add(PoseRow.of(pieces), active)
    torch.save(alone.take(), tmp_path / "alone.pt")

    def work(ranks: Ranks, given) -> None:
        poses = PoseRows(ranks, 4)
        for seed in range(ranks.rank, 4, ranks.world):
            poses.add(PoseRow.of(given[seed]), active)
        assert torch.equal(poses.take(), torch.load(tmp_path / "alone.pt"))

    run_all(2, partial(work, given=given), tmp_path)


def test_poses_of_a_step_have_the_same_parts_on_and_all_must_be_there(avatar):
    poses, pieces = PoseRows(Ranks(CPU), 2), {"sh0": torch.ones(3)}
    poses.add(PoseRow.of(pieces), ActiveParts())
    with pytest.raises(AssertionError, match="rows of all poses"):
        poses.take()
    with pytest.raises(AssertionError, match="differ in what is switched on"):
        poses.add(PoseRow.of(pieces), ActiveParts(sh1=False))
