"""Where a new avatar's Gaussians, control points and anchors sit, against brute force."""

import math
from dataclasses import replace

import pytest
import torch
import trimesh

from mmlphuman.avatar.build import build_avatar, build_layout
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.config import default_config

JOINTS = 55


@pytest.fixture(scope="module")
def body() -> Body:
    """A skeleton is all that a layout takes from it."""
    joints = torch.randn(JOINTS, 3, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(0, 3)
    return Body(
        nothing, nothing, nothing.long(), joints, tuple(range(-1, JOINTS - 1)), torch.zeros(0, JOINTS)
    )


def layout_on(body: Body, size: float = 1.0, translations: torch.Tensor | None = None, **settings):
    grid = torch.rand(4, 4, 4, JOINTS, generator=torch.Generator().manual_seed(1))
    volume = WeightVolume(grid, torch.full((3,), -1.0), torch.full((3,), 1.0))
    config = default_config(init_num_gs=200, num_verts=40, num_features=12, **settings)
    template = trimesh.creation.icosphere(3, radius=0.8 * size)
    return config, build_layout(config, body, template, volume, translations)


def test_first_scales_are_the_root_mean_square_distance_to_three_neighbours(body):
    _, layout = layout_on(body)
    for n in range(200):
        distances = sorted((layout.xyz - layout.xyz[n]).double().norm(dim=1).tolist())[1:4]
        expected = math.log(math.sqrt(sum(d * d for d in distances) / 3))
        assert layout.initial_log_scales[n].item() == pytest.approx(expected, abs=1e-5)


def test_gaussians_that_coincide_start_a_tenth_of_a_millimetre_wide(body):
    _, layout = layout_on(body, size=1e-6)
    torch.testing.assert_close(layout.initial_log_scales, torch.full((200,), math.log(1e-4)))


def test_everything_is_interpolated_from_three_of_the_right_kind(body):
    _, layout = layout_on(body)
    for table, rows, others in (
        (layout.gaussian_to_anchor, 200, 12), (layout.gaussian_to_control, 200, 40), (layout.control_to_anchor, 40, 12)
    ):  # fmt: skip
        assert table.index.shape == table.weight.shape == (rows, 3)
        assert set(table.index.flatten().tolist()) == set(range(others))
        torch.testing.assert_close(table.weight.sum(1), torch.ones(rows))
        assert (table.weight.diff(dim=1) <= 0).all(), "nearest first"


def test_smoothness_sees_seven_control_points_itself_first(body):
    _, layout = layout_on(body)
    assert layout.control_neighbours.shape == (40, 7)
    assert layout.control_neighbours[:, 0].tolist() == list(range(40))


def test_gaussians_control_points_and_anchors_are_samples_of_their_own(body):
    """Two runs of different seeds share none either."""
    samples = [layout_on(body, seed=seed)[1].xyz for seed in (0, 1, 2)]
    assert torch.cdist(samples[0], samples[1]).min() > 0 and torch.cdist(samples[1], samples[2]).min() > 0


def test_on_the_body_s_own_mesh_weights_are_linear_within_its_triangles(body):
    """Weights that are linear in space come back at any point of the surface, of a mesh too coarse for a nearest
    vertex to do."""
    mesh = trimesh.creation.icosphere(1, radius=0.8)
    slopes = torch.rand(3, JOINTS, generator=torch.Generator().manual_seed(2)) - 0.5

    def linear(points: torch.Tensor) -> torch.Tensor:
        values = 1 + points @ (slopes - slopes.mean(1, keepdim=True))
        return values / JOINTS

    vertices = torch.from_numpy(mesh.vertices).float()
    own = replace(body, lbs_weights=linear(vertices))
    config = default_config(init_num_gs=200, num_verts=40, num_features=12)
    layout = build_layout(config, own, mesh, None)
    torch.testing.assert_close(layout.lbs_weights, linear(layout.xyz))
    assert layout.lbs_weights.dtype == torch.float32
    doubled = build_layout(config, replace(own, lbs_weights=2 * own.lbs_weights), mesh, None)
    torch.testing.assert_close(doubled.lbs_weights, layout.lbs_weights)


def test_settings_reach_the_avatar(body):
    config, layout = layout_on(body, num_gsparam_bases=3, num_position_bases=2, xyz_offset_range=0.5, seed=4)
    avatar = build_avatar(config, layout)
    assert avatar.property_bases.shape == (200, 3, 11) and avatar.position_bases.shape == (40, 2, 3)
    assert avatar.sh1_bases.shape == (200, 3, 9) and avatar.xyz_offset_range == 0.5
    assert [weight.shape for weight in avatar.bank.weights] == [(12, 64, 36), (12, 64, 64), (12, 5, 64)]
    torch.testing.assert_close(avatar.lbs_weights.sum(1), torch.ones(200))


def test_settings_of_the_published_method_reach_the_avatar(body):
    config, layout = layout_on(body, pose_inputs="body", hidden_widths=[512, 256, 256, 256], light="none")
    avatar = build_avatar(config, layout)
    assert avatar.bank.weights[0].shape == (12, 512, 63) and avatar.bank.weights[4].shape == (12, 30, 256)
    assert avatar.mlp_inputs.tolist() == list(range(3, 66)) and avatar.light is None


@pytest.mark.parametrize(("light", "functions"), [("normal", 8), ("place", 20)])
def test_the_light_knows_normals_of_the_surface_and_the_places_of_training(body, light, functions):
    """On a ball the normals lead away from its centre."""
    translations = torch.tensor([[0.0, 2, -1], [1, -3, -2], [0.5, 0, -4]]).double()
    config, layout = layout_on(body, translations=translations, light=light)
    avatar = build_avatar(config, layout)
    assert avatar.light.coefficients.shape == (functions, 3)
    assert avatar.light.lowest.tolist() == [0, -3, -4] and avatar.light.highest.tolist() == [1, 2, -1]
    assert avatar.normals.dtype == avatar.light.lowest.dtype == torch.float32
    torch.testing.assert_close(avatar.normals.norm(dim=1), torch.ones(200))
    outwards = torch.nn.functional.normalize(layout.xyz, dim=1)
    cosines = (avatar.normals * outwards).sum(1)
    assert cosines.min() > 0.9999
    unknown = build_avatar(config, layout_on(body, light=light)[1]).light
    assert unknown.lowest.tolist() == unknown.highest.tolist() == [0, 0, 0]
