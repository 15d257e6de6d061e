"""View-dependent colours: the harmonics by their integrals over the sphere, axes and signs one by one."""

import math

import pytest
import torch

from mmlphuman.render.shading import view_colors
from mmlphuman.types import Cameras, PosedGaussians


def sphere(count: int = 4000) -> torch.Tensor:
    """(count, 3) unit vectors, evenly spread (Fibonacci's spiral)."""
    z = 1 - (2 * torch.arange(count, dtype=torch.double) + 1) / count
    angle = math.pi * (1 + 5**0.5) * torch.arange(count, dtype=torch.double)
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], 1)


def colors_towards(
    directions: torch.Tensor, sh: torch.Tensor, linear: torch.Tensor | None = None
) -> torch.Tensor:
    """(N, 3) of Gaussians 3 m from a camera that lies in `directions` (N, 3) from them. sh: (4, 3) of all of them."""
    count = len(directions)
    linear = torch.eye(3, dtype=torch.double) if linear is None else linear
    w2c = torch.eye(4, dtype=torch.double)[None].clone()
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.double)
    center = torch.tensor([0.3, -1.0, 2.0], dtype=torch.double)
    w2c[0, :3, :3], w2c[0, :3, 3] = turn, -turn @ center
    cameras = Cameras(w2c, torch.eye(3, dtype=torch.double)[None], 4, 4)
    sh, linear = sh.expand(count, 4, 3), linear.expand(count, 3, 3)
    gaussians = PosedGaussians(center - 3 * directions, torch.zeros(count, 6), torch.ones(count), sh, linear)
    return view_colors(gaussians, cameras)[0]


def harmonic(number: int) -> torch.Tensor:
    """(count,) values of one harmonic over the sphere, small enough not to be cut at zero."""
    sh = torch.zeros(4, 3, dtype=torch.double)
    sh[number] = 0.5
    return (colors_towards(sphere(), sh)[:, 0] - 0.5) / 0.5


def test_harmonics_are_orthonormal():
    values = torch.stack([harmonic(number) for number in range(4)])
    integrals = 4 * math.pi * (values @ values.T) / values.shape[1]
    torch.testing.assert_close(integrals, torch.eye(4, dtype=torch.double), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("number", "axis", "sign"), [(1, 1, -1), (2, 2, 1), (3, 0, -1)])
def test_degree_one_in_the_field_s_order_and_signs(number, axis, sign):
    """-y, z, -x of the direction from the Gaussian to the camera."""
    expected = sign * math.sqrt(3 / (4 * math.pi)) * sphere()[:, axis]
    torch.testing.assert_close(harmonic(number), expected, atol=1e-12, rtol=0)


def test_zero_is_grey_and_colours_are_cut_below_only():
    sh = torch.zeros(4, 3, dtype=torch.double)
    direction = sphere(1)
    torch.testing.assert_close(colors_towards(direction, sh), torch.full((1, 3), 0.5, dtype=torch.double))
    sh[0] = torch.tensor([-5.0, 5.0, 1.0])
    expected = [0.0, 0.5 + 5 / (2 * math.sqrt(math.pi)), 0.5 + 1 / (2 * math.sqrt(math.pi))]
    assert colors_towards(direction, sh)[0].tolist() == pytest.approx(expected)


def test_directions_are_turned_back_by_the_transpose_and_made_unit():
    generator = torch.Generator().manual_seed(0)
    linear = torch.randn(3, 3, generator=generator, dtype=torch.double)
    sh = 0.2 * torch.randn(4, 3, generator=generator, dtype=torch.double)
    directions = sphere(20)
    colors = colors_towards(directions, sh, linear)
    for direction, color in zip(directions, colors, strict=True):
        back = linear.T @ direction
        x, y, z = (back / back.norm()).tolist()
        expected = (
            0.5
            + sh[0] / (2 * math.sqrt(math.pi))
            + math.sqrt(3 / (4 * math.pi)) * (-y * sh[1] + z * sh[2] - x * sh[3])
        )
        torch.testing.assert_close(color, expected.clamp(min=0))
