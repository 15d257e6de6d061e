"""The light's kernels against SceneLight, values and gradients."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.light import FUNCTIONS, SceneLight
from mmlphuman.types import PosedGaussians


@pytest.mark.parametrize("translation", [[0.5, 0.6, 2.5], [-4.0, 9.0, 1.0]], ids=["inside", "outside"])
@pytest.mark.parametrize("kind", ["normal", "place"])
@pytest.mark.parametrize("count", [1, 128, 300])
def test_lit_harmonics_and_gradients_equal_the_plain_ones(device, kind, translation, count):
    """Fewer Gaussians than a program takes, as many, and more; some of their shades are the darkest."""
    from mmlphuman.gpu.scene_light import lit

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    lowest, highest = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([1.5, 0.75, 5.0])
    light = SceneLight(FUNCTIONS[kind], lowest, highest)
    with torch.no_grad():
        light.coefficients.copy_(0.4 * random(*light.coefficients.shape))
    light = light.to(device)
    translation = torch.tensor(translation, device=device)
    sh, linear = random(count, 4, 3).to(device), random(count, 3, 3).to(device)
    xyz = translation + 0.5 * random(count, 3).to(device)
    normals = torch.nn.functional.normalize(random(count, 3), dim=1).to(device)
    cotangent = random(count, 4, 3).to(device)
    covariances, opacities = sh.new_zeros(count, 6), sh.new_ones(count)
    results = []
    for by_kernel in (False, True):
        leaves = [each.clone().requires_grad_() for each in (sh, xyz, linear)]
        posed = PosedGaussians(leaves[1], covariances, opacities, leaves[0], leaves[2])
        light.zero_grad(set_to_none=True)
        found = lit(posed, light, normals, translation) if by_kernel else light(posed, normals, translation)
        (found.sh * cotangent).sum().backward()
        assert leaves[1].grad is None and leaves[2].grad is None, "light moves nothing"
        assert found.unlit is posed.sh and replace(found, sh=posed.sh, unlit=None) == posed
        results.append((found.sh.detach(), leaves[0].grad, light.coefficients.grad))
    plain, ours = results
    if count > 100:
        unlit = (plain[0][:, 1:] / sh[:, 1:] - 0.05).abs() < 1e-5
        assert 0.02 < unlit.float().mean() < 0.6
    for expected, value in zip(plain, ours, strict=True):
        assert (value - expected).abs().max() < 5e-6 * expected.abs().max()


def test_the_coefficients_gradient_does_not_depend_on_chance(device):
    from mmlphuman.gpu.scene_light import LightFunction

    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(shape, generator=generator).to(device)
        for shape in ((20, 3), (300, 4, 3), (300, 3), (300, 3, 3), (300, 3), (3,))
    ]
    given[0].requires_grad_()
    first, second = (
        torch.autograd.grad(LightFunction.apply(*given).square().sum(), given[0])[0] for _ in range(2)
    )
    assert torch.equal(first, second)
