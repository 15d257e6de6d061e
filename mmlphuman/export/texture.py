"""A texture for the avatar's mesh: what a camera in front of each of its points would see of the Gaussians there.

Data path: canonical triangles + canonical Gaussians -> a place of its own for each triangle (atlas) -> for each texel
the point on the triangle -> the Gaussians near by, seen along the triangle's normal -> colour.

The atlas is a grid of square cells, two triangles in each, every triangle of the same size whatever its shape: nothing
can overlap and no unwrapping can fail. It is made for drawing, not for painting.

Shape letters: T triangles, S side of the picture, c side of a cell, G Gaussians near a triangle, X texels of a cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from mmlphuman.avatar.offset_bases import covariance_factors
from mmlphuman.types import SH_DEGREE_0, SH_DEGREE_1, CanonicalGaussians

SIZES = (1024, 2048, 4096)  # of a picture; the first that has TEXELS_PER_GAUSSIAN, or the last
MARGIN = 1.0  # texels between a triangle and its cell's edge, for bilinear filtering
# Texels by which the legs of the two in a cell are shorter, for the same along their long sides, aslant.
BETWEEN = 2.1
NEAR = 64  # Gaussians that are looked at for a triangle
REACH = 0.025  # metres along the normal; what is further is another part of the body
CHUNK = 256  # triangles at a time
THINNEST = 2e-4  # metres: no Gaussian falls between texels
LEAST_ALPHA = 1e-3  # where less is seen the nearest Gaussian's colour stands in
TEXELS_PER_GAUSSIAN = 16  # wanted; about 4 from one to the next


@dataclass(frozen=True)
class Atlas:
    side: int  # S
    cell: int  # c
    uv: np.ndarray  # (T, 3, 2) float32, of each corner; 0 to 1 from the picture's top left


def make_atlas(triangles: int, gaussians: int) -> Atlas:
    across = math.ceil(math.sqrt(-(-triangles // 2)))
    wanted = TEXELS_PER_GAUSSIAN * gaussians
    side = next((size for size in SIZES if size**2 >= wanted and size // across >= 6), SIZES[-1])
    cell = side // across
    if cell < 6:
        raise ValueError(
            f"a template of {triangles:,} triangles has too many for a texture; give a coarser --template"
        )
    number = np.arange(triangles)
    row, column = np.divmod(number // 2, across)
    corner = np.stack([column, row], 1)[:, None] * float(cell)
    leg = cell - 2 * MARGIN - BETWEEN
    first = MARGIN + leg * np.array([[0, 0], [1, 0], [0, 1]])
    local = np.where((number % 2 == 0)[:, None, None], first, cell - first)
    return Atlas(side, cell, ((corner + local) / side).astype(np.float32))


def texel_weights(cell: int) -> tuple[np.ndarray, Tensor]:
    """(2, X) which of a cell's texels (row-major) are the first triangle's, and the second's; (2, X, 3) barycentric
    coordinates of each texel's middle, which go on beyond the triangle to the cell's edge."""
    y, x = np.divmod(np.arange(cell * cell), cell)
    middle = np.stack([x, y], 1) + 0.5
    leg = cell - 2 * MARGIN - BETWEEN
    own = (middle - MARGIN) / leg, (cell - middle - MARGIN) / leg
    first = middle.sum(1) < cell
    weights = np.stack([np.concatenate([1 - each.sum(1, keepdims=True), each], 1) for each in own])
    return np.stack([first, ~first]), torch.from_numpy(weights).float()


@torch.no_grad()
def bake(corners: Tensor, gaussians: CanonicalGaussians, atlas: Atlas) -> np.ndarray:
    """corners: (T, 3, 3) of the triangles among the Gaussians. -> (S, S, 3) uint8 sRGB."""
    device = corners.device
    normals = torch.nn.functional.normalize(
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=1
    )
    count = min(NEAR, len(gaussians.xyz))
    tree = KDTree(gaussians.xyz.cpu().numpy())
    _, near = tree.query(corners.mean(1).cpu().numpy(), k=count)
    near = torch.from_numpy(np.asarray(near).reshape(len(corners), count)).to(device)
    of_first, weights = texel_weights(atlas.cell)
    weights = weights.to(device)
    found = np.zeros((len(corners), atlas.cell**2, 3), np.uint8)
    for begin in range(0, len(corners), CHUNK):
        part = slice(begin, begin + CHUNK)
        odd = torch.arange(begin, min(begin + CHUNK, len(corners)), device=device) % 2
        points = weights[odd] @ corners[part]  # (t, X, 3)
        colors = seen_colors(points, normals[part], near[part], gaussians)
        found[part] = (colors * 255).round().to(torch.uint8).cpu().numpy()
    cell = atlas.cell
    across = math.ceil(math.sqrt(-(-len(corners) // 2)))
    cells = np.zeros((across * across, cell * cell, 3), np.uint8)
    for half in (0, 1):
        mine = found[half::2]
        cells[: len(mine)] = np.where(of_first[half][:, None], mine, cells[: len(mine)])
    picture = np.zeros((atlas.side, atlas.side, 3), np.uint8)
    used = across * cell
    picture[:used, :used] = cells.reshape(across, across, cell, cell, 3).swapaxes(1, 2).reshape(used, used, 3)
    return picture


def seen_colors(points: Tensor, normals: Tensor, near: Tensor, gaussians: CanonicalGaussians) -> Tensor:
    """points (t, X, 3) seen along -normals (t, 3), of the Gaussians near (t, G) -> (t, X, 3) in [0, 1].

    Splatting without perspective: along the normal a Gaussian is a Gaussian of two dimensions; front to back, and what
    shines through at the end is left out.
    """
    across = torch.nn.functional.normalize(torch.linalg.cross(normals, _any_other(normals)), dim=1)
    plane = torch.stack([across, torch.linalg.cross(normals, across)], 1)  # (t, 2, 3)
    centers = gaussians.xyz[near]  # (t, G, 3)
    height = ((centers - points.mean(1, keepdim=True)) @ normals[:, :, None])[..., 0]
    height, order = height.sort(1, descending=True)
    near = near.gather(1, order)
    centers = gaussians.xyz[near]
    factors = plane[:, None] @ covariance_factors(gaussians.quats, gaussians.scales)[near]  # (t, G, 2, 3)
    xx, xy, yy = (factors[..., i, :] * factors[..., j, :] for i, j in ((0, 0), (0, 1), (1, 1)))
    xx, xy, yy = xx.sum(-1) + THINNEST**2, xy.sum(-1), yy.sum(-1) + THINNEST**2
    determinant = (xx * yy - xy * xy).clamp_min(1e-30)
    offsets = (
        torch.einsum("tij,txj->txi", plane, points)[:, :, None]
        - torch.einsum("tij,tgj->tgi", plane, centers)[:, None]
    )
    dx, dy = offsets.unbind(-1)  # (t, X, G)
    power = (yy[:, None] * dx * dx - 2 * xy[:, None] * dx * dy + xx[:, None] * dy * dy) / determinant[:, None]
    opacity = gaussians.opacities[near] * (height.abs() < REACH)
    alphas = opacity[:, None] * torch.exp(-0.5 * power)
    through = torch.cumprod(1 - alphas.clamp_max(0.999), -1)
    shares = alphas * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
    seen = shares.sum(-1, keepdim=True)
    # Where nothing is seen the nearest stands in.
    alone = torch.nn.functional.one_hot((dx * dx + dy * dy).argmin(-1), alphas.shape[-1]).to(shares)
    shares = torch.where(seen > LEAST_ALPHA, shares / seen.clamp_min(LEAST_ALPHA), alone)
    x, y, z = normals[:, None, None].unbind(-1)
    sh = gaussians.sh[near]  # (t, G, 4, 3)
    colors = SH_DEGREE_0 * sh[:, :, 0] + SH_DEGREE_1 * (-y * sh[:, :, 1] + z * sh[:, :, 2] - x * sh[:, :, 3])
    return (shares @ (colors + 0.5).clamp_min(0)).clamp(0, 1)


def _any_other(normals: Tensor) -> Tensor:
    """(t, 3) along the axis that each normal is furthest from."""
    return torch.nn.functional.one_hot(normals.abs().argmin(1), 3).to(normals)
