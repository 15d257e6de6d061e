"""Avatar, losses and one training step give the same on the GPU as on the CPU."""

import copy

import pytest
import torch

from mmlphuman.backend import choose_backend
from mmlphuman.render.rasterize import rasterize
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="compares the GPU with the CPU")


def test_avatar_on_gpu_equals_cpu(synthetic_body):
    torch.backends.cuda.matmul.allow_tf32 = False
    cpu = randomise(small_avatar(synthetic_body))
    gpu = copy.deepcopy(cpu).to("cuda")
    pose, cameras = random_pose(1), look_at_origin(views=2, size=96)
    weights = torch.rand(2, 96, 96, 3)
    images = {}
    for avatar, device in ((cpu, "cpu"), (gpu, "cuda")):
        backend = choose_backend("auto", "auto", device)
        render = rasterize(
            avatar(pose.to(device)).posed, cameras.to(device), torch.ones(3, device=device), backend
        )
        (render.colors * weights.to(device)).sum().backward()
        images[device] = render.colors.detach().cpu()
    assert (images["cpu"] - images["cuda"]).abs().mean() < 1e-4
    for (name, a), b in zip(cpu.named_parameters(), gpu.parameters(), strict=True):
        assert (a.grad - b.grad.cpu()).norm() <= 0.02 * a.grad.norm(), name
