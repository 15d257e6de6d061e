"""What the render is compared with, and how: painting, crops for the perceptual network, SSIM.

Data path: Render.colors and Sample.images -> [paint the unreliable band, crop the person] -> losses.
Everything here is a pure function of float images in [0, 1]. Shape letters: V views, H, W height and width.

Squares are plain integers found on the CPU from the sample's mask, before the sample moves to the GPU:
cropping then needs no answer from the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmlphuman.capture.crop import person_box
from mmlphuman.types import Box, Render, Sample

PERCEPTUAL_SIZE = 512  # pixels; side of what the perceptual network sees
EDGE_WIDTH = 4  # pixels to either side of the mask's edge, scored apart

# Constants of SSIM as published (Wang et al. 2004) and as torchmetrics uses them.
SSIM_RADIUS = 5  # window 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def paint(images: Tensor, keep: Tensor, background: Tensor) -> Tensor:
    """`images` where `keep` is true, the background colour elsewhere.

    images: (V, H, W, 3); keep: (V, H, W) bool; background: (3,). Painted pixels get no gradient.
    """
    assert keep.shape == images.shape[:-1], f"keep {tuple(keep.shape)} for images {tuple(images.shape)}"
    return torch.where(keep[..., None], images, background.to(images.dtype))


def painted_pair(render: Render, sample: Sample, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The render and its truth (V, H, W, 3) with background where nothing is to be compared, and the mean of their
    absolute differences."""
    truth = paint(sample.images.float() / 255, sample.masks & ~sample.edges, background)
    image = paint(render.colors.clamp(0, 1), ~sample.edges, background)
    return image, truth, (image - truth).abs().mean()


@dataclass(frozen=True)
class Square:
    """A square of whole pixels; may reach over the image's border."""

    top: int
    left: int
    size: int

    @property
    def box(self) -> Box:
        return Box(self.top, self.top + self.size, self.left, self.left + self.size)


def box_square(box: Box) -> Square:
    """Smallest square about a person's bounding box, with the same centre."""
    height, width = box.bottom - box.top, box.right - box.left
    size = max(height, width)
    return Square(box.top - (size - height) // 2, box.left - (size - width) // 2, size)


def mask_square(mask: Tensor | np.ndarray) -> Square:
    """Of a mask (H, W) on the CPU, bool or uint8; about the whole image where nobody is."""
    return box_square(person_box(np.asarray(mask) > 0))


def regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool mask -> two disjoint bool masks: the inside of the person and the band about the edge.

    A pixel's distance is to the nearest pixel on the other side of the edge. The picture's border is no edge.
    """
    mask = mask.astype(np.uint8)
    if mask.all() or not mask.any():
        return mask > 0, np.zeros(mask.shape, bool)
    to_background = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_person = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = np.where(mask, to_background, to_person)
    return (mask > 0) & (distance > EDGE_WIDTH), distance <= EDGE_WIDTH


def random_patch(
    square: Square, patch: int = PERCEPTUAL_SIZE, generator: torch.Generator | None = None
) -> Square:
    """A square of side `patch` at a uniformly random place inside `square`.

    A square no larger than the patch is returned as it is: `resize_square` then enlarges it to the same size.
    generator: a CPU generator, whose state a checkpoint keeps. It is drawn from in both cases, so that the
    sequence does not depend on the sizes of the masks.
    """
    fractions = torch.rand(2, generator=generator).tolist()
    room = square.size - patch
    if room <= 0:
        return square
    down, right = (min(int(fraction * (room + 1)), room) for fraction in fractions)
    return Square(square.top + down, square.left + right, patch)


def crop_box(image: Tensor, box: Box, background: Tensor) -> Tensor:
    """(H, W, 3) -> what of it lies in the box; what lies outside the image is background (3,)."""
    inside = image[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)]
    size = box.bottom - box.top, box.right - box.left
    if inside.shape[:2] == size:
        return inside
    canvas = background.to(image.dtype).expand(*size, 3).clone()
    rows = slice(max(-box.top, 0), max(-box.top, 0) + inside.shape[0])
    columns = slice(max(-box.left, 0), max(-box.left, 0) + inside.shape[1])
    canvas[rows, columns] = inside
    return canvas


def resize_square(crop: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """(S, S, 3) -> (size, size, 3), bilinear; the same crop where S is already `size`.

    Antialiased: when a crop shrinks, the kernel widens with it, so that fine texture is averaged and not
    sampled at random; when it grows this is plain bilinear interpolation (pixel centres, no aligned corners).
    """
    if crop.shape[0] == crop.shape[1] == size:
        return crop
    channels_first = crop.permute(2, 0, 1)[None]
    resized = F.interpolate(
        channels_first, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0)


def person_crops(
    images: Tensor, squares: Sequence[Square], background: Tensor, size: int = PERCEPTUAL_SIZE
) -> Tensor:
    """(V, H, W, 3) and a square for each view -> (V, size, size, 3), the input of the perceptual network."""
    assert len(squares) == len(images), f"{len(squares)} squares for {len(images)} images"
    crops = [
        resize_square(crop_box(image, square.box, background), size)
        for image, square in zip(images, squares, strict=True)
    ]
    return torch.stack(crops)


def _gaussian_blur(maps: Tensor) -> Tensor:
    """(M, H, W) -> (M, H - 10, W - 10): SSIM's window, first along rows, then along columns."""
    count = maps.shape[0]
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=maps.device, dtype=maps.dtype)
    window = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    window = window / window.sum()
    along_rows = F.conv2d(maps[None], window.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    return F.conv2d(along_rows, window.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)[0]


def ssim_map(images_a: Tensor, images_b: Tensor) -> Tensor:
    """Structural similarity of (V, H, W, 3) images in [0, 1] wherever the whole window lies in the image:
    (V, 3, H - 10, W - 10), 1 where they are equal. Gaussian window 11, sigma 1.5, data range 1."""
    assert images_a.shape == images_b.shape, f"{tuple(images_a.shape)} against {tuple(images_b.shape)}"
    a, b = (images.permute(0, 3, 1, 2).flatten(0, 1) for images in (images_a, images_b))
    mean_b = _gaussian_blur(b)  # by itself: with a constant target this costs no backward pass
    # Only the sum of the two variances enters the formula, so their second moments are blurred as one map.
    mean_a, squares, product = _gaussian_blur(torch.cat([a, a * a + b * b, a * b])).chunk(3)
    means_squared, means_product = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
    luminance = (2 * means_product + SSIM_C1) / (means_squared + SSIM_C1)
    structure = (2 * (product - means_product) + SSIM_C2) / (squares - means_squared + SSIM_C2)
    return (luminance * structure).unflatten(0, (len(images_a), -1))


def ssim(images_a: Tensor, images_b: Tensor) -> Tensor:
    """Mean structural similarity of (V, H, W, 3) images in [0, 1]: a scalar, 1 for equal images.

    Borders are mirrored without repeating the border pixel, and the mean runs over every pixel and channel, border
    included: torchmetrics' rule. Gradients flow to both. H and W must exceed the window's radius (5).
    """
    mirrored = (
        F.pad(images.permute(0, 3, 1, 2), (SSIM_RADIUS,) * 4, mode="reflect").permute(0, 2, 3, 1)
        for images in (images_a, images_b)
    )
    return ssim_map(*mirrored).mean()
