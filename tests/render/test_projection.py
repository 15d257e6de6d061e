"""Projection against gsplat's formulas written out for one Gaussian at a time, in double precision.

Constants are spelled here again, from gsplat 1.5.3; nothing is imported but what is tested.
"""

import pytest
import torch

from mmlphuman.render.projection import Splats, project
from mmlphuman.types import Cameras
from tests.render.twins import project_one, random_cameras, six

WIDTH, HEIGHT = 45, 30


def random_gaussians(count: int, seed: int = 0):
    """All about the cameras: in sight, beside, behind, near, faint. Covariances as matrices."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(count, 3, generator=generator, dtype=torch.double) * torch.tensor([1.5, 1.5, 2.0])
    factors = torch.randn(count, 3, 3, generator=generator, dtype=torch.double) * 0.1
    opacities = torch.rand(count, generator=generator, dtype=torch.double)
    opacities[::7] *= 0.02
    return xyz, factors @ factors.transpose(1, 2), opacities


def assert_equals_twin(splats: Splats, xyz, covariances, opacities, cameras) -> int:
    """Returns how many are visible."""
    visible = 0
    for view in range(len(cameras)):
        for n in range(len(xyz)):
            expected = project_one(xyz[n], covariances[n], float(opacities[n]), cameras, view)
            about = f"Gaussian {n} in view {view}"
            assert splats.radii[view, n].tolist() == list(expected.radii), about
            if expected.radii == (0, 0):
                continue
            visible += 1
            assert splats.depths[view, n].item() == pytest.approx(expected.depth, rel=1e-12), about
            torch.testing.assert_close(
                splats.centers[view, n], expected.center, rtol=1e-10, atol=1e-10, msg=about
            )
            torch.testing.assert_close(
                splats.conics[view, n], expected.conic, rtol=1e-9, atol=1e-12, msg=about
            )
    return visible


def test_equals_the_formulas():
    xyz, covariances, opacities = random_gaussians(80)
    cameras = random_cameras(WIDTH, HEIGHT)
    splats = project(xyz, six(covariances), opacities, cameras)
    visible = assert_equals_twin(splats, xyz, covariances, opacities, cameras)
    assert 30 < visible < 130  # some of both kinds


def test_gradients_are_those_of_the_formulas():
    xyz, covariances, opacities = random_gaussians(40, seed=1)
    cameras = random_cameras(WIDTH, HEIGHT)
    generator = torch.Generator().manual_seed(2)
    cotangents = torch.randn(len(cameras), len(xyz), 6, generator=generator, dtype=torch.double)
    grads = []
    for by_formula in (False, True):
        ours, matrices = xyz.clone().requires_grad_(), covariances.clone().requires_grad_()
        if by_formula:
            loss = torch.zeros((), dtype=torch.double)
            for view in range(len(cameras)):
                for n in range(len(xyz)):
                    one = project_one(ours[n], matrices[n], float(opacities[n]), cameras, view)
                    if one.radii != (0, 0):
                        loss = loss + (torch.cat([one.center, one.conic]) * cotangents[view, n, :5]).sum()
        else:
            splats = project(ours, six(matrices), opacities, cameras)
            numbers = torch.cat([splats.centers, splats.conics], -1) * cotangents[..., :5]
            loss = numbers[splats.radii[..., 0] > 0].sum()
        loss.backward()
        grads.append((ours.grad, six(matrices.grad + matrices.grad.transpose(1, 2))))
    for a, b in zip(*grads, strict=True):
        assert b.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("depth", "drawn"), [(0.101, True), (0.099, False), (-1.0, False)])
def test_the_near_plane_is_at_ten_centimetres(depth, drawn):
    camera = Cameras(
        torch.eye(4)[None], torch.tensor([[[40.0, 0, 22], [0, 40, 15], [0, 0, 1]]]), WIDTH, HEIGHT
    )
    splats = project(torch.tensor([[0.0, 0, depth]]), 1e-6 * six(torch.eye(3)[None]), torch.ones(1), camera)
    assert bool(splats.radii.any()) == drawn


def test_no_gaussian_is_thinner_than_the_blur():
    camera = Cameras(
        torch.eye(4)[None], torch.tensor([[[40.0, 0, 22], [0, 40, 15], [0, 0, 1]]]), WIDTH, HEIGHT
    )
    splats = project(torch.tensor([[0.0, 0, 2]]), torch.zeros(1, 6), torch.ones(1), camera)
    torch.testing.assert_close(splats.conics[0, 0], torch.tensor([1 / 0.3, 0, 1 / 0.3]))


def test_alpha_is_below_a_byte_s_step_beyond_the_extent():
    """On the box's border nothing is left of a Gaussian that 1/255 would still show, and the box is no larger."""
    xyz, covariances, opacities = random_gaussians(200, seed=3)
    cameras = random_cameras(WIDTH, HEIGHT)
    splats = project(xyz, six(covariances), opacities, cameras)
    view, n = (splats.radii[..., 0] > 0).nonzero().unbind(1)
    a, b, c = splats.conics[view, n].unbind(-1)
    determinant = a * c - b * b
    for axis, other in ((0, c), (1, a)):  # the largest reach of an ellipse along an axis
        reach = splats.radii[view, n, axis]
        highest = opacities[n] * torch.exp(-0.5 * reach**2 / (other / determinant))
        assert (highest <= 1 / 255 + 1e-12).all()
        inside = opacities[n] * torch.exp(-0.5 * (reach - 1).clamp_min(0) ** 2 / (other / determinant))
        assert (inside > 1 / 255 - 1e-12).all()
