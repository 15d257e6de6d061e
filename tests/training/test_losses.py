"""The training loss: what is hidden stays hidden, penalties by their definitions, terms on when they should be."""

import pytest
import torch

from mmlphuman.avatar.avatar import AvatarOutput
from mmlphuman.capture.crop import person_box
from mmlphuman.config import default_config
from mmlphuman.training.losses import TrainingLoss, choose_crops, oversize, smoothness
from mmlphuman.types import Render, Sample
from tests.builders import look_at_origin, random_pose

SIZE = 24


@pytest.fixture
def sample():
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    masks[:, 6:18, 8:16] = True
    edges = torch.zeros_like(masks)
    edges[:, 5:7] = True
    images = torch.randint(0, 256, (1, SIZE, SIZE, 3), dtype=torch.uint8)
    persons = (person_box(masks[0].numpy()),)
    return Sample(0, (0,), random_pose(), look_at_origin(size=SIZE), images, masks, edges, persons=persons)


def output(scales=None, offsets=None):
    scales = torch.full((4, 3), 0.005) if scales is None else scales
    offsets = torch.zeros(8, 3) if offsets is None else offsets
    return AvatarOutput(None, scales, offsets)


def total(config, sample, colors, iteration=0, lpips=None, **kwargs):
    loss = TrainingLoss(config, lpips)
    crops = choose_crops(sample, False, torch.Generator())
    neighbours = torch.arange(7).repeat(8, 1)
    return loss(iteration, sample, Render(colors, None), output(**kwargs), neighbours, torch.rand(3), crops)


def test_only_the_trusted_inside_is_compared(sample):
    """No gradient in the band; outside the mask the target is the background."""
    colors = torch.rand(1, SIZE, SIZE, 3, requires_grad=True)
    total(default_config(lambda_ssim=0), sample, colors).total.backward()
    assert (colors.grad[sample.edges] == 0).all()
    assert (colors.grad[~sample.edges] != 0).any(-1).float().mean() > 0.99


def test_l1_is_the_mean_over_all_pixels_and_channels(sample):
    background = torch.tensor([0.1, 0.5, 0.9])
    colors = torch.rand(1, SIZE, SIZE, 3)
    crops = choose_crops(sample, False, torch.Generator())
    losses = TrainingLoss(default_config(), None)(
        0, sample, Render(colors, None), output(), torch.zeros(8, 7, dtype=torch.long), background, crops
    )
    expected = 0.0
    for row in range(SIZE):
        for column in range(SIZE):
            if not sample.edges[0, row, column]:
                inside = sample.masks[0, row, column]
                truth = sample.images[0, row, column] / 255 if inside else background
                expected += (colors[0, row, column] - truth).abs().sum().item()
    assert losses.terms["l1"].item() == pytest.approx(expected / (SIZE * SIZE * 3), rel=1e-4)


def test_the_render_is_clamped_before_it_is_compared(sample):
    bright = torch.full((1, SIZE, SIZE, 3), 7.0, requires_grad=True)
    losses = total(default_config(), sample, bright)
    assert losses.terms["l1"] <= 1
    losses.total.backward()
    assert (bright.grad == 0).all()


def test_smoothness_is_the_mean_distance_to_neighbours_with_a_finite_gradient():
    offsets = torch.tensor([[0.0, 0, 0], [3, 4, 0], [0, 0, 1]], requires_grad=True)
    neighbours = torch.tensor([[0, 1], [1, 0], [2, 0]])
    value = smoothness(offsets, neighbours)
    assert value.item() == pytest.approx((0 + 5 + 0 + 5 + 0 + 1) / 6)
    value.backward()
    assert offsets.grad.isfinite().all() and offsets.grad.abs().max() > 0


def test_oversize_counts_only_scales_above_the_threshold():
    scales = torch.tensor([[0.02, 0.005, 0.01]], requires_grad=True)
    value = oversize(scales, 0.01)
    assert value.item() == pytest.approx(0.02 / 3)
    value.backward()
    assert (scales.grad > 0).tolist() == [[True, False, False]]


def test_perceptual_term_joins_at_its_iteration(sample):
    seen = []

    def lpips(image, truth):
        seen.append(image.shape)
        return (image - truth).square().mean()

    config = default_config(iteration_lpips=5)
    colors = torch.rand(1, SIZE, SIZE, 3)
    assert "lpips" not in total(config, sample, colors, iteration=4, lpips=lpips).terms
    assert "lpips" in total(config, sample, colors, iteration=5, lpips=lpips).terms
    assert seen == [(1, 512, 512, 3)]


def test_total_is_the_weighted_sum_and_zero_weights_are_left_out(sample):
    config = default_config(lambda_ssim=0.2, lambda_scaling=3.0, lambda_dxyz_smooth=0)
    losses = total(config, sample, torch.rand(1, SIZE, SIZE, 3), scales=torch.full((4, 3), 0.5))
    terms = losses.terms
    assert set(terms) == {"l1", "ssim", "scaling", "total"}
    expected = float(terms["l1"] + 0.2 * terms["ssim"] + 3 * terms["scaling"])
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
