"""The mesh's texture: places that do not touch, the right point for each texel, colours as a camera sees them."""

import numpy as np
import pytest
import torch

from mmlphuman.export.texture import BETWEEN, MARGIN, Atlas, bake, make_atlas, texel_weights
from mmlphuman.types import SH_DEGREE_0, SH_DEGREE_1, CanonicalGaussians


def gaussians_at(
    xyz: torch.Tensor, colors: torch.Tensor, opacity: float = 0.95, size: float = 0.02
) -> CanonicalGaussians:
    """Round and without view dependence."""
    count = len(xyz)
    sh = torch.zeros(count, 4, 3)
    sh[:, 0] = (colors - 0.5) / SH_DEGREE_0
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    return CanonicalGaussians(xyz, torch.full((count, 3), size), quats, torch.full((count,), opacity), sh)


def sampled(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear, as a GPU does: texel i's middle is at (i + 0.5) / S. uv (..., 2) -> (..., 3)."""
    at = uv * len(picture) - 0.5
    low = np.floor(at).astype(int)
    part = (at - low)[..., None]
    x, y, fx, fy = low[..., 0], low[..., 1], part[..., 0, :], part[..., 1, :]
    values = picture.astype(float)
    return (values[y, x] * (1 - fx) + values[y, x + 1] * fx) * (1 - fy) + (
        values[y + 1, x] * (1 - fx) + values[y + 1, x + 1] * fx
    ) * fy


@pytest.mark.parametrize("triangles", [1, 2, 7, 30])
def test_triangles_have_places_of_their_own_with_a_margin(triangles, monkeypatch):
    monkeypatch.setattr("mmlphuman.export.texture.SIZES", (64,))
    atlas = make_atlas(triangles, 100)
    assert atlas.uv.shape == (triangles, 3, 2) and (atlas.uv > 0).all() and (atlas.uv < 1).all()
    owner = np.full((64, 64), -1)
    y, x = np.mgrid[:64, :64] + 0.5
    for triangle in range(triangles):
        to_barycentric = np.linalg.inv(np.concatenate([atlas.uv[triangle].T * 64.0, np.ones((1, 3))]))
        for dx, dy in np.stack(np.meshgrid([-0.99, 0, 0.99], [-0.99, 0, 0.99]), -1).reshape(-1, 2):
            # A texel takes part in bilinear filtering at points less than one texel away in x and in y.
            inside = (np.stack([x + dx, y + dy, 1 + 0 * x], -1) @ to_barycentric.T >= 0).all(-1)
            assert np.isin(owner[inside], [-1, triangle]).all(), "two triangles meet in a texel"
            owner[inside] = triangle
    assert len(np.unique(owner)) == triangles + 1


def test_a_texels_point_is_where_its_place_is():
    cell, atlas = 12, Atlas(20, 20, small_uv(20, 20))
    _, weights = texel_weights(atlas.cell)
    for half in (0, 1):
        places = weights[half].double().numpy() @ (atlas.uv[half].astype(float) * atlas.side)
        y, x = np.divmod(np.arange(atlas.cell**2), atlas.cell)
        assert np.allclose(places, np.stack([x, y], 1) + 0.5, atol=1e-2)
    first, weights = texel_weights(cell)
    assert first.sum() == cell * cell and not (first[0] & first[1]).any()
    inside = (weights >= 0).all(2).numpy()
    assert (first[0] | ~inside[0]).all() and (first[1] | ~inside[1]).all(), "each has all of its own texels"


def test_the_pattern_of_gaussians_is_found_on_the_mesh_wherever_it_is_sampled():
    """A plane of red that becomes green along x; the triangles' corners lie in any order."""
    side = torch.linspace(-0.02, 0.02, 11)
    x, y = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    colors = torch.stack([0.5 - 15 * x, 0.5 + 15 * x, 0.25 + 0 * x], 1)
    gaussians = gaussians_at(torch.stack([x, y, 0 * x], 1), colors, size=0.003)
    square = [[-0.01, -0.01, 0], [0.01, -0.01, 0], [0.01, 0.01, 0], [-0.01, 0.01, 0]]
    corners = torch.tensor([[square[0], square[1], square[2]], [square[2], square[3], square[0]]])
    atlas = Atlas(32, 32, small_uv(32, 32))
    picture = bake(corners, gaussians, atlas)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    for triangle in (0, 1):
        found = sampled(picture, weights @ atlas.uv[triangle]) / 255
        at = weights @ corners[triangle].numpy()
        truth = np.stack([0.5 - 15 * at[:, 0], 0.5 + 15 * at[:, 0], np.full(200, 0.25)], 1)
        assert np.abs(found - truth).max() < 0.03


def small_uv(cell: int, side: int) -> np.ndarray:
    """As make_atlas lays out two triangles, in a picture small enough for a quick test."""
    leg = cell - 2 * MARGIN - BETWEEN
    first = MARGIN + leg * np.array([[0, 0], [1, 0], [0, 1]])
    return (np.stack([first, cell - first]) / side).astype(np.float32)


def one_cell(gaussians: CanonicalGaussians, corners: torch.Tensor) -> np.ndarray:
    """The middle of the first triangle's colour."""
    atlas = Atlas(16, 16, small_uv(16, 16))
    picture = bake(corners, gaussians, atlas)
    return sampled(picture, atlas.uv[0].mean(0)) / 255


CORNERS = torch.tensor([[[-0.01, -0.01, 0], [0.02, -0.01, 0], [-0.01, 0.02, 0]]])


def test_what_is_in_front_hides_what_is_behind_and_the_far_side_is_another_part():
    xyz = torch.tensor([[0.0, 0, 0.004], [0, 0, -0.004], [0, 0, -0.06], [0, 0, 0.06]])
    colors = torch.eye(3)[[0, 1, 2, 2]] * 0.8 + 0.1
    both = one_cell(gaussians_at(xyz, colors), CORNERS)
    assert np.allclose(both, [0.95 * 0.8 + 0.1, 0.05 * 0.8 + 0.1, 0.1], atol=0.02)
    from_behind = one_cell(gaussians_at(xyz, colors), CORNERS.flip(1))
    assert np.allclose(from_behind, [0.05 * 0.8 + 0.1, 0.95 * 0.8 + 0.1, 0.1], atol=0.02)


def test_colours_are_those_seen_from_in_front():
    gaussians = gaussians_at(torch.zeros(1, 3), torch.full((1, 3), 0.5))
    gaussians.sh[0, 2] = torch.tensor([0.4, 0.0, -0.4])  # along z
    shade = SH_DEGREE_1 * 0.4
    assert np.allclose(one_cell(gaussians, CORNERS), [0.5 + shade, 0.5, 0.5 - shade], atol=0.01)
    assert np.allclose(one_cell(gaussians, CORNERS.flip(1)), [0.5 - shade, 0.5, 0.5 + shade], atol=0.01)


def test_where_no_gaussian_reaches_the_nearest_stands_in():
    xyz = torch.tensor([[0.5, 0.0, 0.0], [-0.4, 0.0, 0.0]])
    found = one_cell(gaussians_at(xyz, torch.tensor([[1.0, 0, 0], [0, 0, 1]]), size=0.001), CORNERS)
    assert np.allclose(found, [0, 0, 1], atol=0.01)


def test_too_many_triangles_are_one_clear_line():
    with pytest.raises(ValueError, match="has too many for a texture; give a coarser --template"):
        make_atlas(3_000_000, 1000)
