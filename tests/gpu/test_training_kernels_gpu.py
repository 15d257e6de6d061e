"""The training step's GPU kernels against plain PyTorch: LPIPS and Adam."""

import copy

import pytest
import torch

from mmlphuman.config import Config
from mmlphuman.training.optimisers import Optimisers
from mmlphuman.training.perceptual import LPIPS
from tests.builders import small_avatar

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="compares GPU kernels, which need a GPU"
)


def test_feature_distance_equals_the_plain_formula():
    from mmlphuman.training.fast_perceptual import FeatureDistance

    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        torch.randn(2, 64, 24, 20, generator=generator).cuda().contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    head = torch.rand(64, generator=generator).cuda()
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


@pytest.mark.parametrize("views", [1, 2])
def test_fast_lpips_is_lpips_up_to_bfloat16(views):
    from mmlphuman.training.fast_perceptual import FastLPIPS

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


def test_adam_by_kernel_equals_torch_and_either_resumes_the_other(synthetic_body):
    """Groups with and without weight decay; one parameter joins late, as the bases do."""
    config = Config(init_num_gs=600, num_verts=120, num_features=10)
    plain = small_avatar(synthetic_body).cuda()
    ours = copy.deepcopy(plain)
    steppers = [Optimisers(plain, config, 1.0), Optimisers(ours, config, 1.0, kernels=True)]
    generator = torch.Generator().manual_seed(0)
    for iteration in range(6):
        if iteration == 4:  # states change places
            states = [copy.deepcopy(optimisers.state_dict()) for optimisers in steppers]
            for optimisers, state in zip(steppers, reversed(states), strict=True):
                optimisers.load_state_dict(state)
        for name, parameter in plain.named_parameters():
            late = name == "sh1" and iteration < 2
            grad = None if late else torch.randn(parameter.shape, generator=generator).cuda() * 1e-3
            parameter.grad, ours.get_parameter(name).grad = grad, None if grad is None else grad.clone()
        for optimisers in steppers:
            optimisers.set_rates(iteration)
            optimisers.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=2e-5, atol=1e-7, msg=name)
