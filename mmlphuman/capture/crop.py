"""The part of a training sample that holds the person: what lies outside is background in truth and render alike.

Data path: Sample of whole images -> Sample of windows of one size, with cameras that draw just these windows.
Shape letters: V views, H, W image height and width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mmlphuman.types import Sample

MARGIN = 0.1  # of the person's longer side, on each side: where Gaussians may stray and are still told off
MIN_MARGIN = 16  # pixels


def crop_to_person(sample: Sample) -> Sample:
    """Windows about the masks with a margin, one for each view and all of the largest one's size.

    The loss over whole images is the loss over the windows times `share`. A view without a person counts as whole.
    """
    height, width = sample.masks.shape[1:]
    boxes = [_box(mask.numpy()) for mask in sample.masks]
    rows = min(max(bottom - top for top, bottom, _, _ in boxes), height)
    columns = min(max(right - left for _, _, left, right in boxes), width)
    if rows * columns == height * width:
        return sample
    corners = [
        (_place(top, bottom, rows, height), _place(left, right, columns, width))
        for top, bottom, left, right in boxes
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
    )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the person with its margin; may reach over the image's border."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0, mask.shape[0], 0, mask.shape[1]
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    margin = max(int(MARGIN * longer), MIN_MARGIN)
    return (
        int(rows[0]) - margin,
        int(rows[-1]) + 1 + margin,
        int(columns[0]) - margin,
        int(columns[-1]) + 1 + margin,
    )


def _place(low: int, high: int, size: int, limit: int) -> int:
    """Where a window of `size` begins that has [low, high) in its middle and does not leave [0, limit)."""
    return min(max((low + high - size) // 2, 0), limit - size)
