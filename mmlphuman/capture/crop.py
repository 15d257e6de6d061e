"""The part of a training sample that holds the person: what lies outside is background in truth and render alike.

Data path: Sample of whole images -> Sample of windows of one size, with cameras that draw just these windows.
Shape letters: V views, H, W image height and width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mmlphuman.types import Box, Sample

MARGIN = 0.1  # of the person's longer side, on each side: where Gaussians may stray and are still told off
MIN_MARGIN = 16  # pixels


def crop_to_person(sample: Sample) -> Sample:
    """Windows about the masks with a margin, one for each view and all of the largest one's size.

    The loss over whole images is the loss over the windows times `share`. A view without a person counts as whole.
    """
    height, width = sample.masks.shape[1:]
    persons = [person_box(mask.numpy()) for mask in sample.masks]
    boxes = [_with_margin(person) for person in persons]
    rows = min(max(box.bottom - box.top for box in boxes), height)
    columns = min(max(box.right - box.left for box in boxes), width)
    if rows * columns == height * width:
        return replace(sample, persons=tuple(persons))
    corners = [
        (_place(box.top, box.bottom, rows, height), _place(box.left, box.right, columns, width))
        for box in boxes
    ]

    def cut(images: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [
                image[top : top + rows, left : left + columns]
                for image, (top, left) in zip(images, corners, strict=True)
            ]
        )

    intrinsics = sample.cameras.intrinsics.clone()
    intrinsics[:, 0, 2] -= torch.tensor([float(left) for _, left in corners])
    intrinsics[:, 1, 2] -= torch.tensor([float(top) for top, _ in corners])
    return replace(
        sample,
        cameras=replace(sample.cameras, intrinsics=intrinsics, width=columns, height=rows),
        images=cut(sample.images),
        masks=cut(sample.masks),
        edges=cut(sample.edges),
        share=sample.share * rows * columns / (height * width),
        persons=tuple(
            Box(person.top - top, person.bottom - top, person.left - left, person.right - left)
            for person, (top, left) in zip(persons, corners, strict=True)
        ),
    )


def person_box(mask: np.ndarray) -> Box:
    """Bounding box of the person in a mask (H, W); the whole image where nobody is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return Box(0, mask.shape[0], 0, mask.shape[1])
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _with_margin(box: Box) -> Box:
    """May reach over the image's border."""
    margin = max(int(MARGIN * max(box.bottom - box.top, box.right - box.left)), MIN_MARGIN)
    return Box(box.top - margin, box.bottom + margin, box.left - margin, box.right + margin)


def _place(low: int, high: int, size: int, limit: int) -> int:
    """Where a window of `size` begins that has [low, high) in its middle and does not leave [0, limit)."""
    return min(max((low + high - size) // 2, 0), limit - size)
