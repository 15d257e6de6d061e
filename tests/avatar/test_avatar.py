"""Properties of the avatar: canonical pose, rigid motion, neutral start, gradients, what the MLPs see."""

import copy
from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.avatar.build import avatar_from_state
from mmlphuman.body.kinematics import canonical_pose, rotation_matrices
from mmlphuman.config import config_of_saved, default_config
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import view_colors
from mmlphuman.types import Pose, symmetric_matrices, upper_triangles
from tests.builders import canonical_of, look_at_origin, random_pose, randomise, small_avatar

SIZES = {"init_num_gs": 600, "num_verts": 120, "num_features": 10}
PUBLISHED = {"pose_inputs": "body", "hidden_widths": [512, 256, 256, 256], "light": "none"}


@pytest.fixture(scope="module")
def avatar(synthetic_body):
    """Without a light, so that a rigid motion changes no colour (test_light)."""
    return randomise(small_avatar(synthetic_body, light="none"))


@pytest.fixture(scope="module")
def published(synthetic_body):
    return randomise(small_avatar(synthetic_body, **PUBLISHED))


def test_canonical_pose_gives_the_rest_gaussians(synthetic_body):
    fresh = small_avatar(synthetic_body)
    pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3))
    output = fresh(pose, ActiveParts(position_bases=False, property_bases=False))
    torch.testing.assert_close(output.posed.xyz, fresh.xyz, atol=2e-6, rtol=0)
    torch.testing.assert_close(output.posed.linear, torch.eye(3).expand(600, 3, 3), atol=2e-6, rtol=0)
    scales = fresh.log_scales.exp()
    squares = upper_triangles(torch.diag_embed(scales**2))
    torch.testing.assert_close(output.posed.covariances, squares, atol=1e-8, rtol=1e-4)
    torch.testing.assert_close(output.posed.opacities, torch.full((600,), 0.8))
    torch.testing.assert_close(view_colors(output.posed, look_at_origin()), torch.full((1, 600, 3), 0.5))


def move_rigidly(pose: Pose, rotation: torch.Tensor, translation: torch.Tensor) -> Pose:
    """The same pose after the world turned by `rotation` and moved by `translation`."""
    return replace(
        pose, rotation=rotation @ pose.rotation, translation=rotation @ pose.translation + translation
    )


def test_rigid_motion_moves_gaussians_and_covariances_and_changes_no_colour(avatar):
    pose = random_pose(1)
    turn, shift = rotation_matrices(torch.tensor([0.4, -1.0, 0.3])), torch.tensor([0.5, -0.2, 1.0])
    still, moved = avatar(pose).posed, avatar(move_rigidly(pose, turn, shift)).posed
    torch.testing.assert_close(moved.xyz, still.xyz @ turn.T + shift, atol=1e-5, rtol=1e-5)
    expected = turn @ symmetric_matrices(still.covariances) @ turn.T
    torch.testing.assert_close(symmetric_matrices(moved.covariances), expected, atol=1e-7, rtol=1e-3)
    cameras = look_at_origin(views=3)
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, shift
    along = replace(cameras, w2c=cameras.w2c @ motion.inverse())
    torch.testing.assert_close(view_colors(moved, along), view_colors(still, cameras), atol=1e-5, rtol=1e-4)
    white = torch.ones(3)
    torch.testing.assert_close(
        rasterize(moved, along, white).colors, rasterize(still, cameras, white).colors, atol=2e-3, rtol=0
    )


def test_turning_the_root_joint_is_a_rigid_motion_too(avatar):
    """Through the skinning this time: the root's axis-angle, which the MLPs do not see."""
    pose = replace(random_pose(2), translation=torch.zeros(3))
    axis_angle = torch.tensor([0.2, 0.9, -0.4])
    at_rest = replace(pose, joints=torch.cat([torch.zeros(3), pose.joints[3:]]))
    turned = replace(pose, joints=torch.cat([axis_angle, pose.joints[3:]]))
    turn, root = rotation_matrices(axis_angle), avatar.joints[0]
    before, after = avatar(at_rest).posed, avatar(turned).posed
    torch.testing.assert_close(after.xyz, (before.xyz - root) @ turn.T + root, atol=1e-5, rtol=1e-5)
    expected = turn @ symmetric_matrices(before.covariances) @ turn.T
    torch.testing.assert_close(symmetric_matrices(after.covariances), expected, atol=1e-7, rtol=1e-3)


def test_highlights_follow_the_body(avatar):
    """Degree-1 colours seen from a direction fixed to a bone do not change when the bone turns."""
    posed = avatar(random_pose(3)).posed
    cameras = look_at_origin()
    away = 0.1 * torch.randn(len(posed), 3)
    near = replace(posed, xyz=cameras.centers - away)
    unturned = (away[:, None] @ posed.linear)[:, 0]
    turned = replace(near, linear=torch.eye(3).expand(600, 3, 3), xyz=cameras.centers - unturned)
    torch.testing.assert_close(view_colors(near, cameras), view_colors(turned, cameras), atol=1e-4, rtol=1e-3)


def test_degree_one_is_silent_until_switched_on(avatar):
    off = avatar(random_pose(4), ActiveParts(sh1=False)).posed
    assert off.sh[:, 1:].abs().max() == 0
    assert avatar(random_pose(4)).posed.sh[:, 1:].abs().max() > 0


def test_body_pose_drives_the_offsets_and_projection_replaces_only_what_the_mlps_see(avatar):
    pose, other = random_pose(5), random_pose(6)
    plain, projected = avatar(pose).posed, avatar(pose, features=other.joints).posed
    as_other = avatar(other).posed
    assert (plain.sh - as_other.sh).abs().max() > 1e-4
    torch.testing.assert_close(projected.sh, as_other.sh)
    torch.testing.assert_close(projected.linear, plain.linear)


def test_hands_and_root_do_not_reach_the_published_mlps(published):
    avatar = published
    pose = random_pose(7)
    changed = pose.joints.clone()
    changed[:3] += 0.5
    changed[66:] += 0.5
    same = avatar(replace(pose, joints=changed)).posed
    torch.testing.assert_close(same.sh, avatar(pose).posed.sh, rtol=0, atol=0)


def test_free_offset_stays_on_the_layer(synthetic_body):
    avatar = small_avatar(synthetic_body)
    with torch.no_grad():
        avatar.xyz_offsets.normal_(std=100)
    pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3))
    output = canonical_of(avatar, pose, ActiveParts(position_bases=False, property_bases=False))
    assert (output.xyz - avatar.xyz).abs().max() <= 0.008 + 1e-6


def test_bases_start_as_one_small_shared_vector(synthetic_body):
    avatar = small_avatar(synthetic_body)
    for bases in (avatar.property_bases, avatar.position_bases):
        assert (bases == bases[:1]).all()
        assert 0 < bases.abs().max() <= 0.002
        assert bases[0].unique(dim=0).shape[0] == 15  # each basis its own
    assert (avatar.sh1_bases == 0).all()


@pytest.mark.parametrize("light", ["none", "normal", "place"])
def test_every_parameter_gets_a_gradient(synthetic_body, light):
    avatar = randomise(small_avatar(synthetic_body, light=light))
    render = rasterize(avatar(random_pose(8)).posed, look_at_origin(views=4), torch.zeros(3))
    (render.colors * torch.rand_like(render.colors)).sum().backward()
    for name, parameter in avatar.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_switched_off_bases_get_no_gradient(avatar):
    avatar.zero_grad()
    output = avatar(random_pose(9), ActiveParts(position_bases=False, property_bases=False, sh1=False))
    output.posed.xyz.sum().backward()
    assert avatar.position_bases.grad is None and avatar.property_bases.grad is None
    assert all(parameter.grad is None for parameter in avatar.bank.parameters())


def test_gaussians_past_the_bases_stay_neutral(avatar):
    """A compact avatar: the first Gaussians vary as they did, those without bases do not."""
    compact = copy.deepcopy(avatar).requires_grad_(False)
    table = compact.gaussian_to_anchor
    table.index, table.weight = table.index[:200], table.weight[:200]
    compact.property_bases = torch.nn.Parameter(compact.property_bases[:200])
    compact.sh1_bases = torch.nn.Parameter(compact.sh1_bases[:50])
    pose, neutral = random_pose(10), ActiveParts(property_bases=False)
    ours, full = canonical_of(compact, pose), canonical_of(avatar, pose)
    rest = canonical_of(avatar, pose, neutral)
    for name in ("scales", "quats", "opacities"):
        torch.testing.assert_close(getattr(ours, name)[:200], getattr(full, name)[:200])
        assert torch.equal(getattr(ours, name)[200:], getattr(rest, name)[200:]), name
    torch.testing.assert_close(ours.sh[:50], full.sh[:50])
    assert torch.equal(ours.sh[50:, 1:], rest.sh[50:, 1:])
    assert (full.sh[200:] - rest.sh[200:]).abs().max() > 1e-3


def test_a_saved_state_makes_the_same_avatar(avatar):
    config = default_config(**SIZES, light="none")
    copied, pose = avatar_from_state(config, avatar.state_dict()), random_pose(11)
    assert torch.equal(copied(pose).posed.xyz, avatar(pose).posed.xyz)


@pytest.mark.parametrize("light", ["none", "normal", "place"])
@pytest.mark.parametrize("inputs", ["local", "body"])
def test_a_saved_state_brings_its_inputs_and_its_light(synthetic_body, inputs, light):
    settings = {"pose_inputs": inputs, "light": light, "hidden_widths": [9]}
    avatar = randomise(small_avatar(synthetic_body, **settings))
    copied, pose = (
        avatar_from_state(default_config(**SIZES, **settings), avatar.state_dict()),
        random_pose(12),
    )
    with torch.no_grad():
        for name, value in vars(avatar(pose).posed).items():
            ours = getattr(copied(pose).posed, name)
            assert ours is value is None or torch.equal(ours, value), name
    for name, value in avatar.state_dict().items():
        assert torch.equal(copied.state_dict()[name], value), name


def test_a_state_of_former_versions_is_that_of_the_published_method(published):
    """Without `mlp_inputs`; its settings were saved without the keys that say what this version does."""
    former = {name: value for name, value in published.state_dict().items() if name != "mlp_inputs"}
    assert not {name for name in former if "light" in name or "normal" in name}
    copied, pose = avatar_from_state(config_of_saved(SIZES), former), random_pose(13)
    with torch.no_grad():
        ours, theirs = copied(pose), published(pose)
    for name, value in vars(theirs.posed).items():
        assert name == "unlit" or torch.equal(getattr(ours.posed, name), value), name
    assert torch.equal(ours.control_offsets, theirs.control_offsets)
    assert copied.light is None and copied.mlp_inputs.tolist() == list(range(3, 66))
