"""Painting, crops and SSIM: against naive versions, other libraries, and by their gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from mmlphuman.measures.comparison import (
    Square,
    crop_box,
    mask_square,
    paint,
    person_crops,
    random_patch,
    resize_square,
    ssim,
)


def random_images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth_images(*shape, seed=0):
    """Blurred noise: SSIM far from its extremes."""
    noise = random_images(*shape, seed=seed).permute(0, 3, 1, 2)
    return F.avg_pool2d(F.pad(noise, (3,) * 4, mode="replicate"), 7, stride=1).permute(0, 2, 3, 1)


def test_paint_replaces_exactly_the_pixels_not_kept():
    images, keep = random_images(2, 5, 6, 3), random_images(2, 5, 6, seed=1) > 0.5
    images.requires_grad_(True)
    background = torch.tensor([0.2, 0.4, 0.6])
    painted = paint(images, keep, background)
    assert torch.equal(painted[keep], images[keep])
    assert torch.equal(painted[~keep], background.expand(int((~keep).sum()), 3))
    painted.sum().backward()
    assert torch.equal(images.grad, keep[..., None].expand_as(images).float())


def test_mask_square_is_the_smallest_centred_square():
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:30, 20:25] = True  # 20 high, 5 wide
    assert mask_square(mask) == Square(top=10, left=20 - 7, size=20)
    assert mask_square(mask.numpy().astype(np.uint8) * 255) == mask_square(mask)


def test_mask_square_reaches_over_the_border_and_takes_the_whole_image_for_no_person():
    mask = np.zeros((40, 60), bool)
    mask[:, :4] = True
    assert mask_square(mask) == Square(top=0, left=-18, size=40)
    assert mask_square(np.zeros((40, 60), bool)) == Square(top=-10, left=0, size=60)


@pytest.mark.parametrize(
    "square", [Square(2, 3, 4), Square(-3, 5, 9), Square(6, -2, 5), Square(-4, -4, 30), Square(50, 50, 4)]
)
def test_crop_equals_pixel_by_pixel_copy(square):
    image, background = random_images(10, 12, 3), torch.tensor([0.1, 0.5, 0.9])
    crop = crop_box(image, square.box, background)
    assert crop.shape == (square.size, square.size, 3)
    for row in range(square.size):
        for column in range(square.size):
            y, x = square.top + row, square.left + column
            expected = image[y, x] if 0 <= y < 10 and 0 <= x < 12 else background
            assert torch.equal(crop[row, column], expected)


def test_crops_carry_gradients_to_the_pixels_inside_only():
    images = random_images(2, 20, 20, 3).requires_grad_(True)
    squares = [Square(-2, 3, 10), Square(5, 5, 16)]
    crops = person_crops(images, squares, torch.ones(3), size=8)
    assert crops.shape == (2, 8, 8, 3)
    crops.sum().backward()
    touched = images.grad.abs().sum(-1) > 0
    assert touched[0, :8, 3:13].all() and touched[1, 5:20, 5:20].all()
    assert touched.sum() == 8 * 10 + 15 * 15


def test_resize_keeps_the_mean_of_fine_texture():
    # A one-pixel chequerboard shrunk by 3.1: without antialiasing it turns into a coarse pattern.
    rows, columns = torch.meshgrid(torch.arange(62), torch.arange(62), indexing="ij")
    board = ((rows + columns) % 2).float()[..., None].expand(62, 62, 3)
    small = resize_square(board, 20)
    assert (small[2:-2, 2:-2] - 0.5).abs().max() < 0.05
    assert resize_square(board, 62) is board


def test_random_patches_stay_inside_and_reach_every_corner():
    square, generator = Square(-5, 7, 14), torch.Generator().manual_seed(0)
    patches = {random_patch(square, 10, generator) for _ in range(600)}
    assert patches == {Square(top, left, 10) for top in range(-5, 0) for left in range(7, 12)}


def test_random_patch_falls_back_to_a_small_square_and_follows_its_generator():
    assert random_patch(Square(1, 2, 300), 512) == Square(1, 2, 300)
    first, second = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    random_patch(Square(0, 0, 100), 512, first)  # too small for a patch: draws all the same
    random_patch(Square(0, 0, 900), 512, second)
    large = Square(0, 0, 900)
    assert random_patch(large, 512, first) == random_patch(large, 512, second)


@pytest.mark.parametrize("shape", [(1, 33, 47, 3), (2, 64, 40, 3)])
def test_ssim_equals_torchmetrics(shape):
    a = smooth_images(*shape)
    b = (a + 0.1 * random_images(*shape, seed=1) - 0.05).clamp(0, 1)
    expected = structural_similarity_index_measure(
        a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), data_range=1.0
    )
    assert 0.1 < expected < 0.95
    assert abs(ssim(a, b) - expected) < 1e-4


def test_ssim_of_equal_images_is_one_and_symmetric():
    a, b = smooth_images(1, 30, 30, 3), random_images(1, 30, 30, 3, seed=1)
    assert abs(ssim(a, a) - 1) < 1e-5
    assert abs(ssim(a, b) - ssim(b, a)) < 1e-6


def test_ssim_gradient():
    a = smooth_images(1, 7, 8, 3).double().requires_grad_(True)
    b = smooth_images(1, 7, 8, 3, seed=1).double().requires_grad_(True)
    assert torch.autograd.gradcheck(ssim, (a, b))
