"""The PyTorch rasteriser against its twin that follows gsplat's rules word for word, without tiles or extents."""

import pytest
import torch

from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.torch_rasterizer import rasterize_torch
from mmlphuman.types import Cameras, PosedGaussians, upper_triangles
from tests.render.twins import draw, random_cameras, six


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


def test_draws_what_the_rules_say():
    xyz, factors, opacities, colors, cameras = make_scene(60)
    covariances = upper_triangles(factors @ factors.transpose(1, 2))
    image, alphas = rasterize_torch(xyz, covariances, opacities, colors, cameras)
    inputs = (xyz, factors @ factors.transpose(1, 2), opacities, colors)
    expected = draw(*(each.double() for each in inputs), cameras).float()
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


def make_crowd(count: int = 50):
    """Large and opaque ones in front of each other, so that alphas are cut and pixels stop; and faint ones."""
    generator = torch.Generator().manual_seed(5)
    xyz = 0.5 * torch.randn(count, 3, generator=generator, dtype=torch.double)
    factors = 0.15 * torch.randn(count, 3, 3, generator=generator, dtype=torch.double)
    factors += 0.15 * torch.eye(3, dtype=torch.double)
    opacities = torch.rand(count, generator=generator, dtype=torch.double)
    opacities[::3] = 1.0
    opacities[1::9] = 0.01
    colors = torch.rand(2, count, 3, generator=generator, dtype=torch.double)
    return xyz, factors @ factors.transpose(1, 2), opacities, colors


def test_equals_the_rules_written_out_without_tiles_values_and_gradients():
    """Rules and constants are gsplat's, spelled in twins.py: 0.999, 1/255, 1e-4."""
    cameras, given = random_cameras(37, 26), make_crowd()
    cotangent = torch.randn(2, 26, 37, 4, generator=torch.Generator().manual_seed(6), dtype=torch.double)
    found = []
    for ours in (True, False):
        xyz, covariances, opacities, colors = inputs = [each.clone().requires_grad_() for each in given]
        if ours:
            image, alphas = rasterize_torch(xyz, six(covariances), opacities, colors, cameras)
            pictures = torch.cat([image, alphas[..., None]], -1)
        else:
            pictures = draw(xyz, covariances, opacities, colors, cameras)
        gradients = torch.autograd.grad((pictures * cotangent).sum(), inputs)
        found.append((pictures, *gradients[:1], six(gradients[1] + gradients[1].mT), *gradients[2:]))
    assert found[1][0][..., 3].max() > 1 - 2e-4, "some pixels have stopped"
    for name, a, b in zip(("pictures", "xyz", "covariances", "opacities", "colors"), *found, strict=True):
        assert b.abs().max() > 0.01, name
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7 * float(b.detach().abs().max()), msg=name)


def test_a_single_gaussian_is_its_own_formula():
    """Opacity 1 two metres ahead, 5 cm wide, 100 pixels of focal length: 2.5 pixels and the blur."""
    camera = Cameras(
        torch.eye(4)[None], torch.tensor([[[100.0, 0, 12], [0, 100, 12], [0, 0, 1]]]), width=24, height=24
    )
    square = torch.tensor([[0.0025, 0, 0, 0.0025, 0, 0.0025]])
    _, alphas = rasterize_torch(
        torch.tensor([[0.0, 0, 2]]), square, torch.ones(1), torch.ones(1, 1, 3), camera
    )
    for row, column in ((12, 12), (12, 15), (5, 12), (17, 8), (2, 12), (3, 12)):
        distance = (column + 0.5 - 12) ** 2 + (row + 0.5 - 12) ** 2
        expected = torch.exp(torch.tensor(-0.5 * distance / (2.5**2 + 0.3))).item()
        expected = 0.0 if expected < 1 / 255 else expected
        assert alphas[0, row, column].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backgrounds", [1, 2])
def test_the_background_shows_by_what_is_left(backgrounds):
    """One for all views, or one a view."""
    xyz, covariances, opacities, _ = (each.float() for each in make_crowd(12))
    cameras = random_cameras(37, 26)
    cameras = Cameras(cameras.w2c.float(), cameras.intrinsics.float(), 37, 26)
    gaussians = PosedGaussians(
        xyz, six(covariances), opacities, torch.zeros(12, 4, 3), torch.eye(3).repeat(12, 1, 1)
    )
    background = torch.tensor([[0.2, 0.4, 0.9], [1.0, 0.1, 0.3]])[:backgrounds]
    render = rasterize(gaussians, cameras, background[0] if backgrounds == 1 else background)
    assert 0.1 < render.alphas.mean() < 0.9
    left = 1 - render.alphas[..., None]
    expected = 0.5 * render.alphas[..., None] + left * background[:, None, None]  # all are grey
    torch.testing.assert_close(render.colors, expected, rtol=1e-5, atol=1e-5)
