"""Pictures without background: straight colour and alpha, which laid on any colour are the picture on that colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.picture_files import laid_on, write_png
from mmlphuman.render.rasterize import cut_out, rasterize
from mmlphuman.types import PosedGaussians, upper_triangles
from tests.builders import look_at_origin


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(0)
    factors = 0.1 * torch.randn(40, 3, 3, generator=generator)
    sh = torch.zeros(40, 4, 3)
    sh[:, 0] = 1.2 * torch.rand(40, 3, generator=generator) - 0.6  # no colour beyond 1: nothing is cut off
    gaussians = PosedGaussians(
        xyz=0.4 * torch.randn(40, 3, generator=generator),
        covariances=upper_triangles(factors @ factors.transpose(1, 2)),
        opacities=torch.rand(40, generator=generator),
        sh=sh,
        linear=torch.eye(3).repeat(40, 1, 1),
    )
    return gaussians, look_at_origin()


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.9, 0.1, 0.5)])
def test_laid_on_a_colour_it_is_the_picture_on_that_colour(scene, background):
    picture = cut_out(*scene)[0].numpy()
    direct = rasterize(*scene, torch.tensor(background)).colors[0].numpy() * 255
    assert picture.shape == (48, 48, 4) and picture.dtype == np.uint8
    # Colour and alpha are rounded once each, and the sum once more.
    assert np.abs(laid_on(picture, background).astype(float) - direct).max() <= 1.51
    alphas = picture[..., 3]
    assert (alphas == 0).any() and ((alphas > 20) & (alphas < 230)).any(), "nothing, and something half there"


def test_colour_is_not_multiplied_by_alpha(scene):
    """A Gaussian that hides little has its own colour all the same."""
    gaussians, camera = scene
    faint = PosedGaussians(
        gaussians.xyz[:1] * 0,
        gaussians.covariances[:1],
        torch.tensor([0.3]),
        gaussians.sh[:1],
        gaussians.linear[:1],
    )
    picture = cut_out(faint, camera)[0]
    own = (0.5 + 0.28209479 * faint.sh[0, 0]).mul(255).round()
    seen = picture[..., 3] > 0
    assert seen.any() and int(picture[..., 3].max()) < 90
    assert (picture[..., :3][seen].float() - own).abs().max() <= 1


def test_a_file_keeps_all_four_channels(scene, tmp_path):
    picture = cut_out(*scene)[0].numpy()
    write_png(tmp_path / "a.png", picture)
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[..., [2, 1, 0, 3]], picture)
    assert np.array_equal(laid_on(picture[..., :3], (0, 0, 0)), picture[..., :3]), "one without alpha stays"
