"""Crops by numbers on the device give what crops by plain numbers give, values and gradients."""

import pytest
import torch

from mmlphuman.measures.comparison import PERCEPTUAL_SIZE, Square
from mmlphuman.training.losses import Crops
from mmlphuman.types import Box

HEIGHT, WIDTH = 90, 70
BOXES = (Box(0, HEIGHT, 10, 40), Box(20, 61, 0, WIDTH))  # at three borders, and within
SQUARES = {
    "patches": (Square(-30, 10, PERCEPTUAL_SIZE), Square(5, -250, PERCEPTUAL_SIZE)),
    "one shrinks, one grows": (Square(-500, -300, 1100), Square(5, -15, 33)),
    "all inside": (Square(3, 4, 60), Square(30, 1, 57)),
}


@pytest.mark.parametrize("squares", SQUARES.values(), ids=SQUARES)
def test_device_crops_equal_plain_ones(squares, device):
    from mmlphuman.gpu.device_crops import DeviceCrops, crop_numbers

    generator = torch.Generator().manual_seed(0)
    images, truth = (torch.rand(2, HEIGHT, WIDTH, 3, generator=generator).to(device) for _ in range(2))
    background = torch.rand(3, generator=generator).to(device)
    numbers = torch.tensor(crop_numbers(squares, BOXES), dtype=torch.float32, device=device)
    exact = all(square.size == PERCEPTUAL_SIZE for square in squares)
    found = []
    for places in (Crops(squares, BOXES), DeviceCrops(numbers, exact)):
        leaf = images.clone().requires_grad_()
        crops = places.perceptual(leaf, background)
        weights = torch.linspace(-1, 1, crops.numel(), device=device).view_as(crops)
        dissimilarity = places.dissimilarity(leaf, truth, background)
        ((crops * weights).sum() + 1000 * dissimilarity).backward()
        found.append((crops.detach(), dissimilarity.detach(), leaf.grad))
    for plain, ours in zip(*found, strict=True):
        assert plain.shape == ours.shape
        torch.testing.assert_close(ours, plain, atol=2e-5 * float(plain.abs().max()), rtol=0)


def test_what_lies_beyond_the_picture_changes_nothing(device):
    """A window about a person may be laid into a larger one: the rest is background."""
    from mmlphuman.gpu.device_crops import DeviceCrops, crop_numbers

    generator = torch.Generator().manual_seed(1)
    images, truth = (torch.rand(2, HEIGHT, WIDTH, 3, generator=generator).to(device) for _ in range(2))
    background = torch.rand(3, generator=generator).to(device)
    numbers = torch.tensor(crop_numbers(SQUARES["all inside"], BOXES), dtype=torch.float32, device=device)
    places, scores = DeviceCrops(numbers, exact=False), []
    for more in (0, 32):
        laid = []
        for each in (images, truth):
            canvas = background.expand(2, HEIGHT + more, WIDTH + more, 3).clone()
            canvas[:, :HEIGHT, :WIDTH] = each
            laid.append(canvas)
        scores.append(places.dissimilarity(*laid, background))
    torch.testing.assert_close(*scores)
