"""Scores of one picture: against torchmetrics and scikit-image, and by construction."""

import functools
import math

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from skimage.metrics import structural_similarity as skimage_ssim
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mmlphuman.evaluation import metrics
from mmlphuman.evaluation.metrics import ImagePair, person_pair, score_picture, sharpness
from mmlphuman.measures.comparison import person_crops, regions
from mmlphuman.measures.lpips import LPIPS

TOLERANCE = 1e-4
BORDER = 5  # pixels that SSIM's window reaches over the picture's edge


@pytest.fixture
def mask():
    mask = np.zeros((48, 64), bool)
    mask[8:40, 20:50] = True
    return mask


@pytest.fixture
def truth(mask):
    noise = np.random.default_rng(0).integers(40, 200, (*mask.shape, 3)).astype(np.uint8)
    return np.where(mask[..., None], noise, np.uint8(255))


@pytest.fixture
def render(truth):
    """Like the truth, and not equal at the picture's border either."""
    noise = np.random.default_rng(1).integers(-30, 30, truth.shape)
    return np.clip(truth.astype(int) + noise, 0, 255).astype(np.uint8)


def score(truth, render, mask=None, lpips=None):
    return score_picture(ImagePair(3, 7, truth, render, mask), lpips)


def skimage_scores(truth, render):
    """(PSNR, SSIM) of (H, W, 3) pictures in [0, 1] by scikit-image.

    SSIM with the published settings. scikit-image leaves out the border, so it gets one: mirrored as ours mirrors.
    """
    truth, render = truth.astype(np.float64), render.astype(np.float64)
    margin = ((BORDER, BORDER), (BORDER, BORDER), (0, 0))
    similarity = skimage_ssim(
        *(np.pad(picture, margin, mode="reflect") for picture in (truth, render)),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    return skimage_psnr(truth, render, data_range=1.0), similarity


def torchmetrics_scores(truth, render):
    """(PSNR, SSIM) of (H, W, 3) pictures in [0, 1] by torchmetrics."""
    pair = [torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() for picture in (render, truth)]
    return (
        float(peak_signal_noise_ratio(*pair, data_range=1.0)),
        float(structural_similarity_index_measure(*pair, data_range=1.0)),
    )


@pytest.mark.parametrize("library", [skimage_scores, torchmetrics_scores])
def test_whole_picture_equals_the_libraries(truth, render, mask, library):
    result = score(truth, render, mask)
    psnr, ssim = library(truth / 255, render / 255)
    assert 15 < psnr < 30 and 0.3 < ssim < 0.99
    assert result.psnr == pytest.approx(psnr, abs=TOLERANCE)
    assert result.ssim == pytest.approx(ssim, abs=TOLERANCE)


@pytest.mark.parametrize("library", [skimage_scores, torchmetrics_scores])
def test_crop_equals_the_libraries(truth, render, mask, library):
    mask = mask.copy()
    mask[20, 63] = True  # the square now reaches over the picture's border
    result = score(truth, render, mask)
    crops = person_pair(ImagePair(3, 7, truth, render, mask)).numpy()
    assert crops.shape == (2, 512, 512, 3)
    psnr, ssim = library(*crops)
    assert result.psnr_crop == pytest.approx(psnr, abs=TOLERANCE) and result.psnr_crop != result.psnr
    assert result.ssim_crop == pytest.approx(ssim, abs=TOLERANCE) and result.ssim_crop != result.ssim


def test_lpips_of_the_crop_equals_torchmetrics(monkeypatch, truth, render, mask):
    # A small crop: the network costs seconds at 512.
    monkeypatch.setattr(metrics, "person_crops", functools.partial(person_crops, size=64))
    ours = LPIPS.with_random_weights(0)
    # torchmetrics takes the layers of VGG16 from torchvision; here it gets ours, numbered alike.
    monkeypatch.setattr(
        torchmetrics_lpips, "_get_tv_model_features", lambda net, pretrained: ours.vgg.features
    )
    theirs = torchmetrics_lpips._LPIPS(net="vgg", pnet_rand=True)
    for index, head in enumerate(ours.heads):
        head.copy_(getattr(theirs, f"lin{index}").model[1].weight[0, :, 0, 0])
    crops = person_pair(ImagePair(3, 7, truth, render, mask))
    expected = theirs(*(crop[None].permute(0, 3, 1, 2) for crop in crops), normalize=True).item()
    assert expected > 1e-3
    assert score(truth, render, mask, ours).lpips == pytest.approx(expected, rel=TOLERANCE)


def test_regions_are_disjoint_and_as_wide_as_said(mask):
    inside, edge = regions(mask)
    assert not (inside & edge).any()
    expected = np.zeros_like(mask)
    expected[12:36, 24:46] = True
    assert np.array_equal(inside, expected)
    row = np.flatnonzero(edge[24])  # through the middle: four pixels to each side of both edges
    assert row.tolist() == [*range(16, 24), *range(46, 54)]


def test_the_picture_border_is_no_edge():
    inside, edge = regions(np.ones((10, 10), bool))
    assert inside.all() and not edge.any()
    inside, edge = regions(np.zeros((10, 10), bool))
    assert not inside.any() and not edge.any()


def test_an_error_is_found_where_it_is(truth, mask):
    inside, edge = regions(mask)
    render = truth.copy()
    render[inside] = truth[inside] - 10
    result = score(truth, render, mask)
    assert result.psnr_inside == pytest.approx(-20 * math.log10(10 / 255), abs=1e-4)
    assert math.isinf(result.psnr_edge) and result.edge_share == 0
    assert result.psnr > result.psnr_inside
    render = truth.copy()
    render[edge] ^= 16
    result = score(truth, render, mask)
    assert math.isinf(result.psnr_inside) and result.edge_share == pytest.approx(1)


def test_equal_pictures(truth, mask):
    result = score(truth, truth, mask)
    assert math.isinf(result.psnr) and result.ssim == pytest.approx(1) and result.edge_share is None
    assert math.isinf(result.psnr_crop) and result.size == (64, 48)
    assert result.label() == "camera 3, frame 7: inf dB"


def test_nothing_is_measured_where_nobody_is(truth):
    nobody = score(truth, truth // 2, np.zeros(truth.shape[:2], bool), lpips=pytest.fail)
    assert (
        nobody.psnr_inside is nobody.psnr_edge is nobody.psnr_crop is nobody.ssim_crop is nobody.lpips is None
    )


def test_without_a_mask_the_whole_picture_is_scored_all_the_same(truth, render, mask):
    with_mask, without = score(truth, render, mask), score(truth, render)
    assert (without.psnr, without.ssim) == (with_mask.psnr, with_mask.ssim)
    assert without.psnr_inside is without.edge_share is without.psnr_crop is None


def test_the_crop_sees_the_person_only(truth, mask):
    def difference(render, truth):  # in place of the network
        return (render - truth).abs().mean()

    away = truth.copy()
    away[:, :4] = 0  # the mask's square spans columns 19 to 50
    result = score(truth, away, mask, difference)
    assert result.lpips == 0 and math.isinf(result.psnr_crop) and not math.isinf(result.psnr)
    person = np.where(mask[..., None], truth // 2, truth)
    assert score(truth, person, mask, difference).lpips > 0.1


def test_pictures_of_different_sizes_are_refused(truth, mask):
    with pytest.raises(ValueError, match="frame 7, camera 3"):
        score(truth, truth[:-1], mask)
    with pytest.raises(ValueError, match="one size"):
        score(truth, truth, mask[:-1])


@pytest.fixture
def cloth():
    """(truth, inside): a picture with wrinkles of several widths, uint8."""
    noise = np.random.default_rng(3).normal(size=(96, 96, 3))
    layers = [cv2.GaussianBlur(noise, (0, 0), width) * width for width in (1.0, 2.0, 5.0)]
    inside = np.zeros((96, 96), bool)
    inside[8:-8, 8:-8] = True
    return np.clip(120 + 60 * sum(layers), 0, 255).astype(np.uint8), inside


def test_sharpness_falls_with_blur_and_rises_with_noise(cloth):
    truth, inside = cloth
    blurred = [sharpness(truth, cv2.GaussianBlur(truth, (0, 0), width), inside) for width in (0.7, 1.5, 3.0)]
    assert 0.95 > blurred[0] > blurred[1] + 0.1 > blurred[2] + 0.2
    grain = np.random.default_rng(4).normal(size=truth.shape)
    noisy = [
        sharpness(truth, np.clip(truth + size * grain, 0, 255).astype(np.uint8), inside) for size in (10, 20)
    ]
    assert 1.05 < noisy[0] < noisy[1] - 0.1


def test_sharpness_does_not_ask_where_the_detail_lies_or_how_bright_it_is(cloth):
    truth, inside = cloth
    assert sharpness(truth, truth, inside) == 1
    assert sharpness(truth, np.roll(truth, (1, 2), (0, 1)), inside) == pytest.approx(1, abs=0.03)
    assert sharpness(truth, truth[::-1, ::-1], inside) == pytest.approx(1, abs=0.1)
    assert sharpness(truth, truth // 2, inside) == pytest.approx(1, abs=0.02)


def test_sharpness_is_of_the_inside_by_its_formula(truth, render, mask):
    inside, _ = regions(mask)

    def detail(picture):  # pixel by pixel
        grey, total, light = picture.astype(float).sum(-1) / 3, 0.0, 0.0
        for y, x in zip(*np.nonzero(inside), strict=True):
            right, down = grey[y, x + 1] - grey[y, x - 1], grey[y + 1, x] - grey[y - 1, x]
            total, light = total + math.sqrt(right**2 + down**2) / 2, light + grey[y, x]
        return total / light

    expected = detail(render) / detail(truth)
    assert score(truth, render, mask).sharpness == pytest.approx(expected, rel=1e-5)
    away = render.copy()
    away[~mask] = 0
    assert score(truth, away, mask).sharpness == pytest.approx(expected, rel=1e-5)


def test_sharpness_needs_detail_to_compare_with(truth, mask):
    grey = np.full_like(truth, 90)
    assert score(grey, truth, mask).sharpness is None
    assert score(truth, grey, mask).sharpness == 0
    assert score(truth, np.zeros_like(truth), mask).sharpness is None
    assert score(truth, truth, np.zeros_like(mask)).sharpness is None
    assert score(truth, truth).sharpness is None
