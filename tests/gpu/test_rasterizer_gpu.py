"""The two rasterisers on the GPU: same picture, same gradients. Prints the differences it measured."""

import pytest
import torch

from mmlphuman.render.gsplat_rasterizer import rasterize_gsplat
from mmlphuman.render.torch_rasterizer import rasterize_torch
from mmlphuman.types import Cameras, upper_triangles

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="compares with gsplat, which needs a GPU"
)

SIZES = {
    "tiny": (64, 48, 0.02),
    "odd": (301, 203, 0.03),
    "square": (512, 512, 0.01),
    "large_splats": (256, 320, 0.15),
}


def scene(width: int, height: int, scale: float, seed: int):
    """5,000 Gaussians about the origin; some beside, close to, and behind two cameras."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(5000, 3, generator=generator) * torch.tensor([1.0, 0.8, 1.2])
    factors = torch.randn(5000, 3, 3, generator=generator) * scale
    opacities = torch.rand(5000, generator=generator) * 0.98 + 0.01
    colors = torch.rand(2, 5000, 3, generator=generator)
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, 2, 3] = 2.0
    w2c[1, :3, :3] = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    intrinsics = torch.tensor([[width * 0.9, 0, width * 0.48], [0, width * 0.9, height * 0.53], [0, 0, 1]])
    cameras = Cameras(w2c, intrinsics.repeat(2, 1, 1), width, height).to("cuda")
    leaves = {"xyz": xyz, "factors": factors, "opacities": opacities, "colors": colors}
    return {name: value.cuda().requires_grad_() for name, value in leaves.items()}, cameras


def draw(rasterizer, leaves, cameras, cotangent):
    covariances = upper_triangles(leaves["factors"] @ leaves["factors"].transpose(1, 2))
    image, alphas = rasterizer(leaves["xyz"], covariances, leaves["opacities"], leaves["colors"], cameras)
    image = torch.cat([image, alphas[..., None]], -1)
    gradients = torch.autograd.grad((image * cotangent).sum(), list(leaves.values()))
    return image.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_twin_draws_what_gsplat_draws(size, seed, capsys):
    leaves, cameras = scene(*SIZES[size], seed)
    cotangent = torch.randn(2, cameras.height, cameras.width, 4, device="cuda")
    ours, our_gradients = draw(rasterize_torch, leaves, cameras, cotangent)
    theirs, their_gradients = draw(rasterize_gsplat, leaves, cameras, cotangent)
    assert theirs[..., 3].mean() > 0.1
    difference = (ours - theirs).abs().mean().item()
    relative = {
        name: ((our_gradients[name] - gradient).norm() / gradient.norm()).item()
        for name, gradient in their_gradients.items()
    }
    with capsys.disabled():
        print(f"\n{size} seed {seed}: image {difference:.1e}, gradients",
              ", ".join(f"{name} {value:.1e}" for name, value in relative.items()))  # fmt: skip
    assert difference < 1e-3
    assert max(relative.values()) < 0.01, relative


def test_twin_is_the_same_on_cpu_and_gpu():
    leaves, cameras = scene(*SIZES["odd"], seed=2)
    on_cpu = {name: value.detach().cpu().requires_grad_() for name, value in leaves.items()}
    cotangent = torch.randn(2, cameras.height, cameras.width, 4)
    gpu, gpu_gradients = draw(rasterize_torch, leaves, cameras, cotangent.cuda())
    cpu, cpu_gradients = draw(rasterize_torch, on_cpu, cameras.to("cpu"), cotangent)
    assert (gpu.cpu() - cpu).abs().mean() < 1e-5
    for name, gradient in cpu_gradients.items():
        assert (gpu_gradients[name].cpu() - gradient).norm() / gradient.norm() < 5e-3, name
