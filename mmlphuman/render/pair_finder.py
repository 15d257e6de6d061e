"""PairFinder: room for the pairs of a picture without asking the GPU how many there are.

Data path: as gsplat's isect_tiles, in rasterize_gsplat. Needs Triton.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmlphuman.render.tile_kernels import TilePairs, find_pairs

MARGIN = 1.5  # times the most pairs that any picture has needed
GRANULE = 2**16  # pairs; memory of few different sizes is easily used again


def room_for(needed: int) -> int:
    return math.ceil(MARGIN * max(needed, 1) / GRANULE) * GRANULE


class PairFinder:
    """For a series of pictures of similar content (training). The first waits for the GPU's count and every other
    one looks at the count of the one before, which is there by then. A picture with half as many pairs again as any
    before lacks its farthest ones."""

    def __init__(self):
        self.room = 0
        self.needed: Tensor | None = None  # in pinned memory, of the last picture
        self.counted = torch.cuda.Event()

    def __call__(self, *splats_and_grid) -> tuple[Tensor, Tensor]:
        """The arguments and results of FindPairs."""
        with torch.no_grad():
            if self.needed is None:
                self._note(find_pairs(*splats_and_grid, room=room_for(1)))
            self.counted.synchronize()
            self.room = max(self.room, room_for(int(self.needed)))
            pairs = find_pairs(*splats_and_grid, room=self.room)
            self._note(pairs)
        return pairs.offsets, pairs.gaussians

    def _note(self, pairs: TilePairs) -> None:
        self.needed = torch.empty((), dtype=torch.int32, pin_memory=True)
        self.needed.copy_(pairs.needed, non_blocking=True)
        self.counted.record()
