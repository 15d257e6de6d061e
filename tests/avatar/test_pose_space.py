"""Poses brought into the range or the space of the training poses, and how far they lie outside."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.avatar.neighbours import Interpolation, InterpolationTable
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import default_config
from mmlphuman.types import Pose
from tests.builders import random_pose, random_poses, small_trained

BODY = slice(3, 66)


def training_poses(frames: int = 60) -> torch.Tensor:
    """(F, 165); the body's 63 numbers move along five directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 63, generator=generator)
    poses = random_poses(frames)
    poses[:, BODY] = 0.2 + torch.randn(frames, 5, generator=generator) @ directions * 0.1
    return poses


def with_body(body: torch.Tensor) -> torch.Tensor:
    """(..., 63) -> (..., 165)."""
    return torch.nn.functional.pad(body, (3, 99))


def with_expression(joints: torch.Tensor) -> torch.Tensor:
    """(165,) -> (175,) of a blank face."""
    return torch.nn.functional.pad(joints, (0, 10))


def test_training_poses_near_the_mean_are_kept():
    poses = training_poses()
    space = PoseSpace.fit(poses, 5)
    inside = 0.5 * (poses[0] - poses.mean(0)) + poses.mean(0)
    torch.testing.assert_close(space.project(inside), inside, atol=1e-5, rtol=1e-4)


def test_projection_leaves_what_is_not_the_body_s():
    pose = 10 * random_poses(1, seed=5)[0]
    projected = PoseSpace.fit(training_poses(), 5).project(pose)
    assert projected.shape == (165,) and (projected != pose).sum() >= 60
    assert torch.equal(projected[:3], pose[:3]) and torch.equal(projected[66:], pose[66:])


def test_far_poses_come_back_to_two_sigma_and_projecting_again_changes_nothing():
    space = PoseSpace.fit(training_poses(), 5)
    projected = space.project(torch.full((165,), 3.0))
    coefficients = space.components @ (projected[BODY] - space.mean)
    assert (coefficients.abs() <= 2 * space.sigmas * (1 + 1e-4)).all()
    torch.testing.assert_close(space.project(projected), projected, atol=1e-5, rtol=1e-4)


def test_sigmas_are_standard_deviations_of_the_coefficients():
    poses = training_poses(200)
    space = PoseSpace.fit(poses, 5)
    coefficients = (poses[:, BODY] - space.mean) @ space.components.T
    torch.testing.assert_close(coefficients.std(0), space.sigmas, rtol=1e-3, atol=1e-5)


def test_too_few_frames_is_said():
    with pytest.raises(
        ValueError, match="pca_components: 20 needs more than 20 training frames, but there are 20"
    ):
        PoseSpace.fit(training_poses(20), 20)


def test_distance_is_the_angle_to_the_nearest_training_pose():
    """One joint turned by 21 degrees about an axis: 21 / sqrt(21) over the joints, whatever the other poses are."""
    near = torch.zeros(63)
    near[9:12] = torch.tensor([0.3, 0, 0])
    space = PoseSpace.fit(torch.cat([with_body(near)[None], 1 + training_poses(30)]), 5)
    assert space.distance(near) < 1e-3
    turned = near.clone()
    turned[9] += torch.deg2rad(torch.tensor(21.0))
    torch.testing.assert_close(space.distance(turned), torch.tensor(21 / 21**0.5), rtol=1e-4, atol=0)
    expected = torch.zeros(21)
    expected[3] = 21
    torch.testing.assert_close(space.joint_angles(turned)[0], expected, atol=1e-3, rtol=1e-4)


def test_a_full_turn_is_no_distance():
    """Axis-angle numbers far apart may be the same rotation."""
    poses = training_poses()
    space = PoseSpace.fit(poses, 5)
    pose = poses[7, BODY].clone()
    axis = pose[:3] / pose[:3].norm()
    pose[:3] += 2 * torch.pi * axis
    assert space.distance(pose) < 0.05


def test_what_training_never_moved_stays_unmoved():
    """Eight components of poses that move along five directions: the other three hold still."""
    poses = training_poses()
    space, bodies = PoseSpace.fit(poses, 8), poses[:, BODY]
    basis = torch.linalg.svd(bodies - bodies.mean(0), full_matrices=False)[2][:5]
    away = space.project(torch.full((165,), 3.0))[BODY] - bodies.mean(0)
    assert (away - away @ basis.T @ basis).norm() < 1e-4


@pytest.mark.parametrize("sigmas", [0.5, 2.0])
def test_a_trained_avatar_projects_by_its_settings(sigmas):
    space = PoseSpace.fit(training_poses(), 5)
    trained = TrainedAvatar(None, space, default_config(pca_sigmas=sigmas, novel_poses="pca"), 0)
    pose = Pose(torch.full((165,), 3.0), torch.zeros(3), torch.eye(3))
    assert torch.equal(trained.features(pose, project=False), pose.features)
    coefficients = space.components @ (trained.features(pose, project=True)[BODY] - space.mean)
    farthest = (coefficients.abs() / space.sigmas).max().item()
    assert farthest == pytest.approx(sigmas, rel=1e-3)


def test_clamping_keeps_each_number_within_its_range_in_training():
    """Number by number: those inside as they are, the others at the nearer end."""
    poses = training_poses()
    space, pose = PoseSpace.fit(poses, 5), random_poses(1, seed=1, size=1.0)[0]
    clamped = space.clamp(with_expression(pose))
    moved = 0
    for number in range(165):
        lowest, highest = min(poses[:, number].tolist()), max(poses[:, number].tolist())
        value = pose[number].item()
        assert clamped[number].item() == (lowest if value < lowest else highest if value > highest else value)
        moved += not lowest <= value <= highest
    assert 30 < moved < 135
    assert torch.equal(space.clamp(clamped), clamped)


def test_clamping_keeps_new_combinations_of_what_training_has_shown():
    """One pose's left half with another's right half; projecting would blend it with the others."""
    poses = training_poses()
    space = PoseSpace.fit(poses, 5)
    both = torch.cat([poses[3, :80], poses[9, 80:]])
    for pose in (both, *poses):
        assert torch.equal(space.clamp(with_expression(pose)), with_expression(pose))


def test_a_trained_avatar_clamps_unless_it_projects():
    space, pose = PoseSpace.fit(training_poses(), 5), random_pose(4, size=2.0)
    trained = TrainedAvatar(None, space, default_config(), 0)
    both = torch.cat([pose.joints, pose.expression])
    assert torch.equal(trained.features(pose, project=True), space.clamp(both))
    assert torch.equal(trained.features(pose, project=False), both)
    assert not torch.equal(space.clamp(both)[:165], pose.joints)
    assert not space.clamp(both)[165:].any(), "training showed no expression"


def test_expressions_are_clamped_to_training_s_and_left_alone_by_projection():
    generator = torch.Generator().manual_seed(3)
    poses = torch.cat([training_poses(), torch.randn(60, 10, generator=generator)], 1)
    space, pose = PoseSpace.fit(poses, 5), replace(random_pose(1), expression=torch.linspace(-6, 6, 10))
    lowest, highest = poses[:, 165:].amin(0), poses[:, 165:].amax(0)
    expected = torch.maximum(torch.minimum(pose.expression, highest), lowest)
    assert torch.equal(space.clamp(pose.features)[165:], expected) and (expected != pose.expression).any()
    assert torch.equal(space.project(pose.features)[165:], pose.expression)
    joints_alone = PoseSpace.fit(poses[:, :165], 5)
    assert torch.equal(joints_alone.clamp(pose.features)[:165], space.clamp(pose.features)[:165])


def degrees_written_out(trained: TrainedAvatar, pose: Pose) -> np.ndarray:
    """(N,) the largest turn by test mode of a joint that an MLP sees, blended as tables say, one by one."""
    avatar, brought = trained.avatar, trained.features(pose, project=True)
    turns = [
        np.degrees((Rotation.from_rotvec(there).inv() * Rotation.from_rotvec(here)).magnitude())
        for here, there in zip(
            pose.joints.reshape(55, 3).numpy(), brought[:165].reshape(55, 3).numpy(), strict=True
        )
    ]
    inputs = avatar.mlp_inputs.expand(10, -1).tolist()
    anchors = [max(turns[number // 3] for number in seen if number < 165) for seen in inputs]

    def blended(table: InterpolationTable, values: list[float]) -> list[float]:
        return [
            sum(values[i] * w for i, w in zip(index, weight, strict=True))
            for index, weight in zip(table.index.tolist(), table.weight.tolist(), strict=True)
        ]

    found = np.array(blended(avatar.gaussian_to_control, blended(avatar.control_to_anchor, anchors)))
    led = blended(avatar.gaussian_to_anchor, anchors)
    found[: len(led)] = led
    return found


@pytest.mark.parametrize("novel_poses", ["clamp", "pca"])
@pytest.mark.parametrize("pose_inputs", ["local", "body"])
def test_a_gaussian_is_as_far_as_test_mode_turns_what_its_mlps_see(synthetic_body, pose_inputs, novel_poses):
    """Also of a compact avatar, some of whose Gaussians have no anchors."""
    trained = small_trained(synthetic_body, pose_inputs=pose_inputs, novel_poses=novel_poses)
    pose, table = random_pose(3, size=1.5), trained.avatar.gaussian_to_anchor
    for led in (600, 200):
        trained.avatar.gaussian_to_anchor = InterpolationTable(
            Interpolation(table.index[:led], table.weight[:led])
        )
        found = trained.distances(pose)
        assert found.shape == (600,) and found.max() > 10
        np.testing.assert_allclose(found.numpy(), degrees_written_out(trained, pose), rtol=1e-3, atol=1e-2)
        assert (found.max() - found.min() > 5) == (pose_inputs == "local"), "all see the same, or not"


def test_a_pose_within_range_is_no_distance_and_what_no_mlp_sees_does_not_count(synthetic_body):
    trained, pose = small_trained(synthetic_body), random_pose(3, size=1.5)
    within = replace(pose, joints=trained.features(pose, project=True)[:165])
    assert not trained.distances(within).any()
    joints = within.joints.clone()
    joints[:3] += 1
    joints[69:75] += 1  # the eyes
    assert not trained.distances(replace(within, joints=joints)).any()


def test_a_space_of_former_versions_holds_the_body_s_numbers_alone():
    poses = training_poses()
    now = PoseSpace.fit(poses, 5)
    former = PoseSpace(**now.state_dict() | {"training_poses": poses[:, BODY].clone()})
    assert torch.equal(former.training_poses, with_expression(with_body(poses[:, BODY])))
    pose = random_pose(2)
    assert torch.equal(former.project(pose.features), now.project(pose.features))
    between = PoseSpace(**now.state_dict() | {"training_poses": poses.clone()})  # all joints, no expression
    assert torch.equal(between.training_poses, now.training_poses) and now.training_poses.shape[1] == 175
    assert torch.equal(between.clamp(pose.features), now.clamp(pose.features))
    assert torch.equal(former.joint_angles(pose.body), now.joint_angles(pose.body))
    assert set(now.state_dict()) == {"mean", "components", "sigmas", "training_poses"}, "as they are saved"
