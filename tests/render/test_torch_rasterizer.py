"""The PyTorch rasteriser against a per-pixel loop that follows the blending rules word for word."""

import torch

from mmlphuman.render.projection import MIN_ALPHA, project
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.torch_rasterizer import MAX_ALPHA, MIN_TRANSMITTANCE, rasterize_torch
from mmlphuman.types import Cameras, PosedGaussians, upper_triangles


def make_scene(count: int, seed: int = 0, scale: float = 0.08):
    """Random Gaussians in front of, beside and behind two cameras."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(count, 3, generator=generator) * torch.tensor([1.0, 1.0, 1.5])
    factors = torch.randn(count, 3, 3, generator=generator) * scale
    opacities = torch.rand(count, generator=generator)
    colors = torch.rand(2, count, 3, generator=generator)
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, 2, 3] = 3.0
    w2c[1, :3, :3] = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    intrinsics = torch.tensor([[40.0, 0, 21], [0, 42, 15], [0, 0, 1]]).repeat(2, 1, 1)
    return xyz, factors, opacities, colors, Cameras(w2c, intrinsics, width=45, height=30)


def draw_by_loop(xyz, covariances, opacities, colors, cameras):
    splats = project(xyz, covariances, opacities, cameras)
    image = torch.zeros(len(cameras), cameras.height, cameras.width, 4, dtype=xyz.dtype)
    for view in range(len(cameras)):
        order = [i for i in splats.depths[view].argsort().tolist() if splats.radii[view, i, 0] > 0]
        for row in range(cameras.height):
            for column in range(cameras.width):
                remaining = 1.0
                for i in order:
                    dx = splats.centers[view, i, 0] - (column + 0.5)
                    dy = splats.centers[view, i, 1] - (row + 0.5)
                    a, b, c = splats.conics[view, i]
                    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                    alpha = min(float(opacities[i] * torch.exp(-sigma)), MAX_ALPHA)
                    if alpha < MIN_ALPHA:
                        continue
                    if remaining * (1 - alpha) <= MIN_TRANSMITTANCE:
                        break
                    image[view, row, column, :3] += remaining * alpha * colors[view, i]
                    image[view, row, column, 3] += remaining * alpha
                    remaining *= 1 - alpha
    return image


def test_draws_what_the_rules_say():
    xyz, factors, opacities, colors, cameras = make_scene(60)
    covariances = upper_triangles(factors @ factors.transpose(1, 2))
    image, alphas = rasterize_torch(xyz, covariances, opacities, colors, cameras)
    expected = draw_by_loop(xyz, covariances, opacities, colors, cameras)
    assert image.shape == (2, 30, 45, 3) and alphas.shape == (2, 30, 45)
    assert alphas.max() > 0.5
    torch.testing.assert_close(torch.cat([image, alphas[..., None]], -1), expected, atol=2e-5, rtol=1e-4)


def test_gradients_match_finite_differences():
    """Double precision, smooth region: few faint splats, none near a threshold of the rules."""
    torch.manual_seed(1)
    xyz = (torch.randn(5, 3, dtype=torch.double) * 0.1).requires_grad_()
    factors = (torch.eye(3, dtype=torch.double).repeat(5, 1, 1) * 0.5).requires_grad_()
    opacities = torch.full((5,), 0.5, dtype=torch.double, requires_grad=True)
    colors = torch.rand(1, 5, 3, dtype=torch.double, requires_grad=True)
    w2c = torch.eye(4, dtype=torch.double)[None].clone()
    w2c[0, 2, 3] = 3
    intrinsics = torch.tensor([[[30.0, 0, 6], [0, 30, 5], [0, 0, 1]]], dtype=torch.double)
    cameras = Cameras(w2c, intrinsics, width=12, height=10)

    def draw(xyz, factors, opacities, colors):
        return rasterize_torch(
            xyz, upper_triangles(factors @ factors.transpose(1, 2)), opacities, colors, cameras
        )

    assert torch.autograd.gradcheck(draw, (xyz, factors, opacities, colors), atol=1e-5)


def test_saturated_pixels_pass_no_gradient_to_what_lies_behind():
    xyz = torch.tensor([[0.0, 0, 0], [0, 0, 0.1], [0, 0, 0.2], [0, 0, 1]])
    opacities = torch.full((4,), 0.9999, requires_grad=True)
    colors = torch.rand(1, 4, 3, requires_grad=True)
    w2c = torch.eye(4)[None].clone()
    w2c[0, 2, 3] = 2
    cameras = Cameras(w2c, torch.tensor([[[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]]), width=8, height=8)
    image, _ = rasterize_torch(
        xyz, upper_triangles(torch.eye(3).repeat(4, 1, 1)) * 4000.0, opacities, colors, cameras
    )
    image.sum().backward()
    assert colors.grad[0, 0].abs().sum() > 0
    assert colors.grad[0, 3].abs().max() == 0


def test_order_of_gaussians_does_not_matter():
    xyz, factors, opacities, colors, cameras = make_scene(300)
    covariances = upper_triangles(factors @ factors.transpose(1, 2))
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    straight, _ = rasterize_torch(xyz, covariances, opacities, colors, cameras)
    shuffled, _ = rasterize_torch(
        xyz[shuffle], covariances[shuffle], opacities[shuffle], colors[:, shuffle], cameras
    )
    torch.testing.assert_close(straight, shuffled)


def test_views_together_equal_views_alone():
    xyz, factors, opacities, colors, cameras = make_scene(300)
    covariances = upper_triangles(factors @ factors.transpose(1, 2))
    both, _ = rasterize_torch(xyz, covariances, opacities, colors, cameras)
    for view in range(2):
        one = slice(view, view + 1)
        alone, _ = rasterize_torch(xyz, covariances, opacities, colors[one], cameras[one])
        torch.testing.assert_close(both[one], alone)


def test_nothing_in_sight_is_background_and_has_gradients():
    xyz, factors, opacities, _, cameras = make_scene(20)
    xyz = (xyz.abs() * torch.tensor([1.0, 1, 0]) + torch.tensor([0, 0, -50.0])).requires_grad_()
    covariances = upper_triangles(factors @ factors.transpose(1, 2))
    gaussians = PosedGaussians(xyz, covariances, opacities, torch.zeros(20, 4, 3),
                               torch.eye(3).repeat(20, 1, 1))  # fmt: skip
    background = torch.tensor([0.2, 0.4, 0.6])
    render = rasterize(gaussians, cameras[:1], background)
    torch.testing.assert_close(render.colors, background.expand(1, 30, 45, 3))
    render.colors.sum().backward()
    assert xyz.grad.abs().max() == 0
