"""The training step's GPU kernels against plain PyTorch: LPIPS, and Adam with the gradients that it puts together."""

import copy
from functools import partial

import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.config import default_config
from mmlphuman.gpu.pose_rows import PoseRow, pieces_of_row
from mmlphuman.measures.lpips import LPIPS
from mmlphuman.processes import Ranks
from mmlphuman.training.optimisers import Optimisers
from tests.builders import random_loss, random_pose


def test_feature_distance_equals_the_plain_formula(device):
    from mmlphuman.gpu.fast_lpips import FeatureDistance

    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        torch.randn(2, 64, 24, 20, generator=generator)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    head = torch.rand(64, generator=generator).to(device)
    grads = []
    for distance in (FeatureDistance.apply, plain_distance):
        leaf = ours.clone(memory_format=torch.preserve_format).requires_grad_()
        value = distance(leaf, theirs, head)
        (3 * value).backward()
        grads.append((value.detach(), leaf.grad))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-4, atol=1e-9)


def plain_distance(ours, theirs, head):
    unit = [maps / (maps.square().sum(1, keepdim=True) + 1e-8).sqrt() for maps in (ours, theirs)]
    return ((unit[0] - unit[1]).square().mean((0, 2, 3)) * head).sum()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN in bfloat16, recorded as a CUDA graph")
@pytest.mark.parametrize("views", [1, 2])
def test_fast_lpips_is_lpips_up_to_bfloat16(views):
    from mmlphuman.gpu.fast_lpips import FastLPIPS

    lpips = LPIPS.with_random_weights(0).cuda()
    fast, generator = FastLPIPS(lpips), torch.Generator().manual_seed(0)
    for _ in range(3):  # recorded at the first call, replayed after it
        render, target = (torch.rand(views, 64, 64, 3, generator=generator).cuda() for _ in range(2))
        results = []
        for network in (lpips, fast):
            leaf = render.clone().requires_grad_()
            value = network(leaf, target)
            (0.1 * value).backward()
            results.append((value.item(), leaf.grad.clone()))
        (plain, plain_grad), (ours, our_grad) = results
        cosine = torch.nn.functional.cosine_similarity(plain_grad.flatten(), our_grad.flatten(), 0)
        print(f"LPIPS {plain:.5f} and {ours:.5f}, cosine of the gradients {cosine:.4f}")
        assert abs(ours - plain) < 3e-3 * plain
        assert cosine > 0.95


# What the light goes by is nothing that the optimiser sees.
with_and_without_light = pytest.mark.parametrize(
    "avatar_of_each_method", ["published", "local inputs and expression, light of places"], indirect=True
)


@with_and_without_light
def test_adam_by_kernels_equals_torch_and_either_resumes_the_other(avatar_of_each_method, device):
    """Two poses a step, the parts of the avatar switched on one after the other, rates with and without decay."""
    from mmlphuman.gpu.fused_avatar import FusedAvatar
    from mmlphuman.gpu.kernel_adam import KernelAdam

    torch.backends.cuda.matmul.allow_tf32 = False
    # A decay that is large enough to be seen in a step.
    config = default_config(iterations=2 * len(SWITCHED_ON), encoder_weight_decay=0.5)
    plain = copy.deepcopy(avatar_of_each_method)
    ours = copy.deepcopy(plain)
    fused = FusedAvatar(ours)

    def fresh() -> list[Optimisers]:
        ranks = Ranks(device)
        return [
            Optimisers(plain, config, 1.0, None, ranks, poses=2),
            Optimisers(ours, config, 1.0, partial(KernelAdam, tables=fused.tables), ranks, poses=2),
        ]

    steppers = fresh()
    for iteration, active in enumerate(SWITCHED_ON):
        if iteration in (4, 5):  # states change places: as on a resume, and as after a divergence
            states = [copy.deepcopy(optimisers.state_dict()) for optimisers in steppers]
            steppers = fresh() if iteration == 4 else steppers
            for optimisers, state in zip(steppers, reversed(states), strict=True):
                optimisers.load_state_dict(state)
        for pose in (random_pose(2 * iteration + each).to(device) for each in range(2)):
            for forward, optimisers in zip((plain, fused), steppers, strict=True):
                output = forward(pose, active)
                # Gradients as small as in training: eps matters.
                (1e-6 * random_loss(output, iteration)).backward()
                optimisers.add_pose(output, active)
        for optimisers in steppers:
            optimisers.set_rates(2 * iteration)
            assert optimisers.step().isfinite()
        for name, parameter in plain.named_parameters():
            difference = (ours.get_parameter(name) - parameter).abs()
            # Where the two poses' gradients cancel down to rounding, a share of some 1e-6 of a large bank's millions,
            # Adam's first steps, of the rate's size, differ in sign: ten times that share, none of a small parameter.
            unequal = difference > 2e-3 * parameter.abs().max()
            assert unequal.sum() <= 1e-5 * unequal.numel(), (iteration, name, int(unequal.sum()))
            assert difference.norm() < 1e-4 * parameter.norm(), (iteration, name)


SWITCHED_ON = (
    ActiveParts(False, False, False), ActiveParts(property_bases=False), ActiveParts(sh1=False),
    ActiveParts(), ActiveParts(), ActiveParts(),
)  # fmt: skip


@with_and_without_light
def test_adam_by_kernels_tells_of_a_number_that_is_not_finite(avatar_of_each_method, device):
    from mmlphuman.gpu.fused_avatar import FusedAvatar
    from mmlphuman.gpu.kernel_adam import KernelAdam

    avatar = copy.deepcopy(avatar_of_each_method)
    fused = FusedAvatar(avatar)
    optimisers = Optimisers(
        avatar, default_config(), 1.0, partial(KernelAdam, tables=fused.tables), Ranks(device)
    )
    output = fused(random_pose(1).to(device))
    random_loss(output, 0).backward()
    pieces = pieces_of_row(dict(avatar.named_parameters()), output.activations)
    coefficients = f"inputs.{len(avatar.bank.weights)}"
    of_light = () if avatar.light is None else ("light.coefficients",)
    for broken in (None, "sh0", "bank.biases.2", "inputs.0", coefficients, "control_offsets", *of_light):
        optimisers.stepper.rows.add(PoseRow.of(pieces), ActiveParts())
        if broken:
            begin, count = optimisers.stepper.rows.layout[broken]
            optimisers.stepper.rows.rows[0, 0, begin + count // 2] = torch.nan
        assert optimisers.step().isfinite() == (broken is None), broken
