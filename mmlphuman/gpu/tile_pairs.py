"""Which Gaussians touch which tile, found on the GPU without asking the host anything.

Data path: projected Gaussians -> front to back -> pairs counted, written, sorted by tile -> gsplat's pixel kernel.
Plain twin: gsplat_pairs of render.gsplat_rasterizer; tests compare pictures.

gsplat's own step waits for the number of pairs to know how much memory they need, which leaves the GPU idle and keeps
the step out of a CUDA graph. Here the memory is given, and a pair is left out where no pixel of the tile would be
changed by the Gaussian, which a box about the Gaussian cannot tell.
Shape letters: V views, N Gaussians, P pairs that there is room for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # Gaussians a program; all wait for the one with the most tiles
LOG_255 = tl.constexpr(5.541263545158426)  # below 1 / 255 a contribution is skipped
SLACK = tl.constexpr(1e-3)  # of an exponent: pairs in doubt are kept
HALVINGS = tl.constexpr(31)  # of an interval of pairs, until one is left
MARGIN = 1.5  # times the most pairs that any picture has needed
GRANULE = 2**16  # pairs; memory of few different sizes is easily used again
SHORT_KEYS = 2**16 - 1  # so many tiles can be sorted by 16-bit keys, which takes half as long


@dataclass(frozen=True)
class TilePairs:
    """The last pairs of `gaussians` belong to the tiles, in their order and within a tile front to back; the first
    are room that was not needed. Where there was too little room the farthest pairs are missing."""

    # (V, rows, columns) int32, where a tile's pairs begin; they end where the next tile's begin
    offsets: Tensor
    gaussians: Tensor  # (P,) int32 index into the V * N projected Gaussians
    needed: Tensor  # () int32, how many pairs there are


@triton.jit
def _reaches(column, row, u, v, a, b, c, limit, TILE: tl.constexpr):
    """Whether the exponent is within `limit` at some pixel of the tile: its least value on the rectangle of pixel
    centres lies where the ellipse is, or on one of the two sides that face it."""
    left, top = column * TILE + 0.5 - u, row * TILE + 0.5 - v
    right, bottom = left + (TILE - 1), top + (TILE - 1)
    x, y = tl.minimum(tl.maximum(left, 0.0), right), tl.minimum(tl.maximum(top, 0.0), bottom)
    y_best = tl.minimum(tl.maximum(-b * x / c, top), bottom)
    x_best = tl.minimum(tl.maximum(-b * y / a, left), right)
    on_column = 0.5 * (a * x * x + c * y_best * y_best) + b * x * y_best
    on_row = 0.5 * (a * x_best * x_best + c * y * y) + b * x_best * y
    return tl.minimum(on_column, on_row) <= limit


@triton.jit
def _candidates(
    nearest_first, centers, radii, conics, opacities, total, N, columns, rows,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The box of tiles about each Gaussian of a block, and its ellipse."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(nearest_first + i, i < total, 0)
    u, v = tl.load(centers + 2 * g), tl.load(centers + 2 * g + 1)
    radius_x, radius_y = tl.load(radii + 2 * g).to(tl.float32), tl.load(radii + 2 * g + 1).to(tl.float32)
    left = tl.minimum(tl.maximum(tl.floor((u - radius_x) / TILE), 0.0), columns).to(tl.int32)
    right = tl.minimum(tl.maximum(tl.ceil((u + radius_x) / TILE), 0.0), columns).to(tl.int32)
    top = tl.minimum(tl.maximum(tl.floor((v - radius_y) / TILE), 0.0), rows).to(tl.int32)
    bottom = tl.minimum(tl.maximum(tl.ceil((v + radius_y) / TILE), 0.0), rows).to(tl.int32)
    seen = (i < total) & (radius_x > 0) & (radius_y > 0)
    width = right - left
    tiles = tl.where(seen, width * (bottom - top), 0)
    limit = tl.log(tl.load(opacities + g % N)) + LOG_255 + SLACK
    a, b, c = tl.load(conics + 3 * g), tl.load(conics + 3 * g + 1), tl.load(conics + 3 * g + 2)
    return i, g, left, top, tl.maximum(width, 1), tiles, u, v, a, b, c, limit


@triton.jit
def count_pairs(
    nearest_first, centers, radii, conics, opacities, counts, total, N, columns, rows,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """counts (V * N): tiles that each Gaussian touches, nearest first."""
    i, g, left, top, width, tiles, u, v, a, b, c, limit = _candidates(
        nearest_first, centers, radii, conics, opacities, total, N, columns, rows, TILE, BLOCK
    )
    found = tl.zeros([BLOCK], tl.int32)
    for step in range(tl.max(tiles, 0)):
        hit = _reaches(left + step % width, top + step // width, u, v, a, b, c, limit, TILE) & (step < tiles)
        found += hit.to(tl.int32)
    tl.store(counts + i, found, i < total)


@triton.jit
def write_pairs(
    nearest_first, centers, radii, conics, opacities, counts, ends, keys, gaussians,
    total, N, columns, rows, room, first_key, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """keys (P), gaussians (P): tile and Gaussian of each pair, nearest Gaussians first. ends: counts, summed up."""
    i, g, left, top, width, tiles, u, v, a, b, c, limit = _candidates(
        nearest_first, centers, radii, conics, opacities, total, N, columns, rows, TILE, BLOCK
    )
    at = tl.load(ends + i, i < total, 0) - tl.load(counts + i, i < total, 0)
    first = first_key + (g // N).to(tl.int32) * (rows * columns)
    for step in range(tl.max(tiles, 0)):
        row, column = top + step // width, left + step % width
        hit = _reaches(column, row, u, v, a, b, c, limit, TILE) & (step < tiles)
        write = hit & (at < room)
        tl.store(keys + at, (first + row * columns + column).to(keys.dtype.element_ty), write)
        tl.store(gaussians + at, g.to(tl.int32), write)
        at += hit.to(tl.int32)


@triton.jit
def tile_starts(keys, offsets, tiles, room, first_key, BLOCK: tl.constexpr):
    """offsets (tiles): how many of the sorted keys (P) are smaller than each tile's."""
    tile = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low = tl.zeros([BLOCK], tl.int32)
    high = low + room
    for _ in range(HALVINGS):
        middle = (low + high) // 2
        searching = low < high
        smaller = tl.load(keys + middle, searching, 0).to(tl.int32) < first_key + tile
        low = tl.where(searching & smaller, middle + 1, low)
        high = tl.where(searching & ~smaller, middle, high)
    tl.store(offsets + tile, low, tile < tiles)


def find_pairs(
    centers: Tensor,
    radii: Tensor,
    depths: Tensor,
    conics: Tensor,
    opacities: Tensor,
    columns: int,
    rows: int,
    tile: int,
    room: int,
) -> TilePairs:
    """centers (V, N, 2), radii (V, N, 2) int32, depths (V, N), conics (V, N, 3) by gsplat's projection; opacities
    (N,). columns x rows tiles of `tile` pixels a view. room: pairs that memory is taken for."""
    views, count = depths.shape
    total, tiles, device = views * count, views * rows * columns, depths.device
    nearest_first = depths.flatten().sort().indices
    grid = (triton.cdiv(total, BLOCK),)
    splats = (nearest_first, centers, radii, conics, opacities)
    counts = torch.empty(total, dtype=torch.int32, device=device)
    count_pairs[grid](*splats, counts, total, count, columns, rows, TILE=tile, BLOCK=BLOCK)
    ends = counts.cumsum(0, dtype=torch.int32)

    key_type = torch.int16 if tiles <= SHORT_KEYS else torch.int32
    unused = torch.iinfo(key_type).min  # sorts before all tiles
    keys = torch.full((room,), unused, dtype=key_type, device=device)
    gaussians = torch.empty(room, dtype=torch.int32, device=device)
    write_pairs[grid](
        *splats, counts, ends, keys, gaussians, total, count, columns, rows, room, unused + 1,
        TILE=tile, BLOCK=BLOCK,
    )  # fmt: skip
    keys, by_tile = keys.sort(stable=True)
    offsets = torch.empty(views, rows, columns, dtype=torch.int32, device=device)
    tile_starts[(triton.cdiv(tiles, BLOCK),)](keys, offsets, tiles, room, unused + 1, BLOCK=BLOCK)
    # Unused room holds whatever memory held; nobody reads it but this line.
    return TilePairs(offsets, gaussians.index_select(0, by_tile), ends[-1])


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
