"""The rasteriser's twin in plain PyTorch: differentiable, on any device, by gsplat's alpha rules.

Data path: Splats -> Prepared -> per-tile lists sorted by depth -> blended tiles -> images, whole or by rows of tiles.

Shape letters: V views, N Gaussians, K visible ones of all views, M (tile, Gaussian) pairs, T tiles with at least one
pair, P pixels of a tile, S steps of a slab (consecutive list entries blended together before finished tiles are
dropped).

All tiles advance through their lists together, S entries at a time, so that everything is a vector operation
over S x T x P numbers and finished tiles drop out. Within a tile the exponent of a Gaussian is a quadratic
polynomial of the pixel's place: its six coefficients times the six monomials of every pixel is a small matrix
product, and so is the sum of weighted colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.render.projection import MIN_ALPHA, Splats, project
from mmlphuman.types import Cameras

TILE = 8  # pixels; small tiles waste few evaluations, and 64 pixels fill the vector units
SLAB = 16  # list entries between two looks at which tiles are finished
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4  # a pixel stops before the Gaussian that would take it below
NO_CONTRIBUTION = -100.0  # exponent of an entry that pads a short list: exp of it is far below MIN_ALPHA


@dataclass(frozen=True)
class Prepared:
    """What every part of a picture needs. Its tensors are its own, whatever becomes of the Gaussians."""

    splats: Splats
    log_opacities: Tensor  # (N,)
    channels: Tensor  # (V * N, 4) colour and 1
    cameras: Cameras
    order: Tensor  # (K,) index into the flattened (V * N) splats, front to back
    low: Tensor  # (K, 2) first column and row of the tiles that the extent box touches...
    high: Tensor  # (K, 2) ...and those behind the last

    @property
    def rows(self) -> int:
        """Of tiles, in one view."""
        return -(-self.cameras.height // TILE)

    @property
    def columns(self) -> int:
        return -(-self.cameras.width // TILE)


@dataclass(frozen=True)
class TileLists:
    """Which Gaussians touch which tile, front to back; tiles in order of falling list length."""

    splats: Tensor  # (M,) index into the flattened (V * N) splats
    first: Tensor  # (T,) where a tile's entries start in `splats`
    length: Tensor  # (T,)
    tiles: Tensor  # (T,) flat tile index (view, row, column), rows counted from `top`
    top: int  # row of the picture
    rows: int
    columns: int


def rasterize_torch(
    xyz: Tensor, covariances: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Draws N Gaussians for V cameras.

    xyz (N, 3), covariances (N, 6) upper triangles (xx, xy, xz, yy, yz, zz), opacities (N,), colors (V, N, 3).
    Returns premultiplied colours (V, H, W, 3), without background, and alphas (V, H, W).
    """
    prepared = prepare(xyz, covariances, opacities, colors, cameras)
    return blend_rows(prepared, 0, prepared.rows)


def prepare(
    xyz: Tensor, covariances: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> Prepared:
    """What `blend_rows` draws from. Shapes: see rasterize_torch."""
    splats = project(xyz, covariances, opacities, cameras)
    channels = torch.cat([colors, torch.ones_like(colors[..., :1])], -1).flatten(0, 1)
    with torch.no_grad():
        order = splats.depths.flatten().argsort()  # the stable sort by tile, later, keeps it
        order = order[splats.radii.flatten(0, 1)[order, 0] > 0]
        centers, radii = (part.flatten(0, 1)[order] for part in (splats.centers, splats.radii))
        size = torch.tensor([-(-cameras.width // TILE), -(-cameras.height // TILE)], device=order.device)
        low = ((centers - radii) / TILE).floor().long().clamp_min(0)
        high = torch.minimum(((centers + radii) / TILE).ceil().long(), size)
    return Prepared(splats, opacities.clamp_min(1e-12).log(), channels, cameras, order, low, high)


def blend_rows(prepared: Prepared, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    """The part of the pictures between two rows of tiles, `bottom` left out -> as rasterize_torch, H its own."""
    lists = build_tile_lists(prepared, top, bottom)
    coefficients = _exponent_coefficients(prepared, lists)
    blended = _BlendTiles.apply(coefficients, prepared.channels.index_select(0, lists.splats), lists)

    cameras = prepared.cameras
    tile_count = len(cameras) * lists.rows * lists.columns
    image = blended.new_zeros(tile_count, TILE * TILE, 4).index_copy(0, lists.tiles, blended)
    image = image.view(len(cameras), lists.rows, lists.columns, TILE, TILE, 4).transpose(2, 3)
    image = image.reshape(len(cameras), lists.rows * TILE, lists.columns * TILE, 4)
    image = image[:, : cameras.height - top * TILE, : cameras.width]
    return image[..., :3], image[..., 3]


@torch.no_grad()
def row_loads(prepared: Prepared) -> Tensor:
    """(rows,) how much there is to blend: pairs of the extent boxes with each row's tiles, in all views, and the tiles
    themselves. The time that rows take is about in proportion."""
    width = (prepared.high[:, 0] - prepared.low[:, 0]).clamp_min(0)
    width = width * (prepared.high[:, 1] > prepared.low[:, 1])
    steps = width.new_zeros(prepared.rows + 1)
    steps.index_add_(0, prepared.low[:, 1].clamp_max(prepared.rows), width)
    steps.index_add_(0, prepared.high[:, 1].clamp_min(0), -width)
    return steps.cumsum(0)[:-1] + prepared.columns * len(prepared.cameras)


@torch.no_grad()
def build_tile_lists(prepared: Prepared, top: int, bottom: int) -> TileLists:
    """Pairs every visible splat with the tiles its extent box touches between two rows, sorted by tile, then depth."""
    splats, columns, rows = prepared.splats, prepared.columns, bottom - top
    there = (prepared.low[:, 1] < bottom) & (prepared.high[:, 1] > top)
    order, low, high = prepared.order[there], prepared.low[there], prepared.high[there]
    low = torch.stack([low[:, 0], low[:, 1].clamp_min(top)], 1)
    high = torch.stack([high[:, 0], high[:, 1].clamp_max(bottom)], 1)
    extent = (high - low).clamp_min(0)
    count = extent[:, 0] * extent[:, 1]

    splat = torch.repeat_interleave(torch.arange(len(order), device=order.device), count)
    step = torch.arange(len(splat), device=order.device) - (count.cumsum(0) - count).index_select(0, splat)
    width = extent[:, 0].index_select(0, splat)
    row = low[:, 1].index_select(0, splat) + step // width
    column = low[:, 0].index_select(0, splat) + step % width
    view = order.index_select(0, splat) // splats.depths.shape[1]
    tile = (view * rows + row - top) * columns + column
    touches = _may_touch(splats, order.index_select(0, splat), row, column)
    tile, by_tile = tile[touches].sort(stable=True)
    splat = order.index_select(0, splat[touches]).index_select(0, by_tile)

    tiles, length = torch.unique_consecutive(tile, return_counts=True)
    first = length.cumsum(0) - length
    length, longest_first = length.sort(descending=True, stable=True)
    return TileLists(splat, first[longest_first], length, tiles[longest_first], top, rows, columns)


def _may_touch(splats: Splats, splat: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(M,) False where the tile surely lies outside the splat's ellipse, by the tile's circumscribed circle."""
    a, b, c = splats.conics.flatten(0, 1).index_select(0, splat).unbind(-1)
    center = splats.centers.flatten(0, 1).index_select(0, splat)
    dx = center[:, 0] - (column * TILE + TILE / 2)
    dy = center[:, 1] - (row * TILE + TILE / 2)
    distance = (a * dx * dx + 2 * b * dx * dy + c * dy * dy).clamp_min(0).sqrt()  # in standard deviations
    middle = 0.5 * (a + c)
    steepest = (middle + (middle * middle - (a * c - b * b)).clamp_min(0).sqrt()).sqrt()  # per pixel
    return distance - steepest * (TILE / 2**0.5) < 3.34  # a hair over projection.MAX_EXTENT


def _exponent_coefficients(prepared: Prepared, lists: TileLists) -> Tensor:
    """(M, 6) log alpha of each pair as a polynomial 1, x, y, xx, xy, yy about the tile's centre."""
    splats = prepared.splats
    log_opacity = prepared.log_opacities.repeat(len(prepared.cameras))
    packed = torch.cat([splats.centers.flatten(0, 1), splats.conics.flatten(0, 1), log_opacity[:, None]], -1)
    u, v, a, b, c, log_opacity = packed.index_select(0, lists.splats).unbind(-1)
    entry_tile = torch.empty_like(lists.splats)  # tile of each pair, from the lists
    ends = torch.repeat_interleave(torch.arange(len(lists.tiles), device=u.device), lists.length)
    within = torch.arange(len(ends), device=u.device) - (lists.length.cumsum(0) - lists.length).index_select(
        0, ends
    )
    entry_tile[lists.first.index_select(0, ends) + within] = lists.tiles.index_select(0, ends)
    u = u - (entry_tile % lists.columns * TILE + TILE / 2)
    v = v - ((entry_tile // lists.columns % lists.rows + lists.top) * TILE + TILE / 2)
    au_bv, bu_cv = a * u + b * v, b * u + c * v
    constant = log_opacity - 0.5 * (u * au_bv + v * bu_cv)
    return torch.stack([constant, au_bv, bu_cv, -0.5 * a, -b, -0.5 * c], -1)


def _monomials(like: Tensor) -> Tensor:
    """(6, P) values of 1, x, y, xx, xy, yy at the pixels of a tile, about its centre."""
    offset = torch.arange(TILE, dtype=like.dtype, device=like.device) + 0.5 - TILE / 2
    y, x = (grid.flatten() for grid in torch.meshgrid(offset, offset, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


@dataclass
class _Slab:
    """S consecutive list entries of the T' tiles that were unfinished then; what the backward pass needs."""

    active: Tensor  # (T',) positions in the lists' tile order
    entries: Tensor  # (S, T') index into the M pairs, M where a list has ended
    alphas: Tensor  # (S, T', P), 0 where skipped
    before: Tensor  # (S, T', P) transmittance in front of each entry
    weights: Tensor  # (S, T', P) alpha times transmittance, 0 once the pixel has stopped
    differentiable: Tensor  # (S, T', P) bool: neither stopped nor cut at MAX_ALPHA


class _BlendTiles(torch.autograd.Function):
    """Front-to-back blending: (M, 6) exponents and (M, 4) channels -> (T, P, 4).

    Transmittance is multiplied on past the point where a pixel stops; being monotonous, it says by itself
    whether the pixel has stopped, and no other state is carried from slab to slab.
    """

    @staticmethod
    def forward(ctx, coefficients: Tensor, channels: Tensor, lists: TileLists) -> Tensor:
        pairs, tiles = len(coefficients), len(lists.tiles)
        monomials = _monomials(coefficients)
        ended = coefficients.new_zeros(1, 6)
        ended[0, 0] = NO_CONTRIBUTION
        coefficients = torch.cat([coefficients, ended])
        channels = torch.cat([channels, channels.new_zeros(1, 4)])
        transmittance = coefficients.new_ones(tiles, TILE * TILE)
        blended = coefficients.new_zeros(tiles, 4, TILE * TILE)
        ctx.slabs = []
        longest = int(lists.length[0]) if tiles else 0
        for start in range(0, longest, SLAB):
            unfinished = (lists.length > start) & (transmittance.amax(1) > MIN_TRANSMITTANCE)
            active = unfinished.nonzero()[:, 0]
            if len(active) == 0:
                break
            step = start + torch.arange(min(SLAB, longest - start), device=active.device)[:, None]
            entries = torch.where(step < lists.length[active], lists.first[active] + step, pairs)
            slab, transmittance[active] = _blend_slab(
                coefficients, monomials, active, entries, transmittance[active]
            )
            features = channels[entries]  # (S, T', 4)
            blended[active] += features.permute(1, 2, 0) @ slab.weights.transpose(0, 1)
            if any(ctx.needs_input_grad):  # a picture to look at needs half the memory
                ctx.slabs.append(slab)
        ctx.save_for_backward(channels)
        return blended.transpose(1, 2).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_blended: Tensor):
        (channels,) = ctx.saved_tensors
        monomials = _monomials(channels)
        grad_coefficients = channels.new_zeros(len(channels), 6)
        grad_channels = torch.zeros_like(channels)
        behind = channels.new_zeros(grad_blended.shape[:2])  # sum over what lies behind of weight * along
        for slab in reversed(ctx.slabs):
            grad = grad_blended[slab.active]  # (T', P, 4)
            # (S, T', P)
            along = (channels[slab.entries].transpose(0, 1) @ grad.transpose(1, 2)).transpose(0, 1)
            grad_channels[slab.entries] = (slab.weights.transpose(0, 1) @ grad).transpose(0, 1)
            grad_exponents, behind[slab.active] = _backward_slab(slab, along, behind[slab.active])
            grad_coefficients[slab.entries] = grad_exponents @ monomials.T
        return grad_coefficients[:-1], grad_channels[:-1], None


def _blend_slab(coefficients, monomials, active, entries, transmittance) -> tuple[_Slab, Tensor]:
    alphas = (coefficients[entries] @ monomials).exp_()  # (S, T', P)
    uncut = alphas <= MAX_ALPHA
    alphas.clamp_(max=MAX_ALPHA).mul_(alphas >= MIN_ALPHA)
    passing = 1 - alphas
    steps = alphas.new_empty(len(alphas) + 1, *transmittance.shape)
    steps[0] = transmittance
    for step, factor in enumerate(passing):
        torch.mul(steps[step], factor, out=steps[step + 1])
    running = steps[1:] > MIN_TRANSMITTANCE
    weights = (alphas * steps[:-1]).mul_(running)
    return _Slab(active, entries, alphas, steps[:-1], weights, uncut.logical_and_(running)), steps[-1]


def _backward_slab(slab: _Slab, along: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
    """along: (S, T', P) the loss's derivative along each entry's channels -> d loss / d exponent, new behind."""
    gains = slab.weights * along
    sums = torch.empty_like(gains)
    for step in range(len(gains) - 1, -1, -1):
        sums[step] = behind
        behind = behind + gains[step]
    # alpha d/dalpha: an entry adds its own colour and dims everything behind it.
    dimmed = sums.mul_(slab.alphas).div_(1 - slab.alphas)
    return (slab.alphas * slab.before).mul_(along).sub_(dimmed).mul_(slab.differentiable), behind
