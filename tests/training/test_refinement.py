"""Corrections of the capture: bounded, by their own rows alone, told by the picture's gradient, carried by a run."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import read_pose_file
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.model_folder import REFINED_POSES, load_avatar, newest_checkpoint
from mmlphuman.processes import Ranks
from mmlphuman.render.rasterize import rasterize
from mmlphuman.training.guarding import go_back
from mmlphuman.training.refinement import (
    CameraColors,
    LearntRows,
    PoseRefinement,
    bounded,
    turning,
    within_half_a_turn,
)
from mmlphuman.types import Pose, Render
from tests.builders import look_at_origin, random_layout, random_poses, small_avatar
from tests.training.test_loop import fresh, run

CPU = torch.device("cpu")
ALONE = Ranks(CPU)
FRAMES = [3, 4, 8]
REFINE = {"refine_poses": True, "refine_camera_colors": True}


def some_poses(count: int = 10, size: float = 0.3) -> SmplParams:
    places = torch.randn(count, 3, generator=torch.Generator().manual_seed(5))
    return SmplParams(np.zeros(10, np.float32), random_poses(count, size=size).numpy(), places.numpy())


def of_frames(poses: SmplParams | None = None, **settings) -> PoseRefinement:
    return PoseRefinement(poses or some_poses(), FRAMES, default_config(**settings), CPU)


class Seen:
    """What of a sample is looked at."""

    def __init__(self, frame: int):
        self.frame, self.pose = frame, Pose(torch.zeros(165), torch.zeros(3), torch.eye(3))


def test_no_correction_reaches_its_bound_and_small_ones_are_what_they_say():
    generator = torch.Generator().manual_seed(0)
    wild = 10 ** (6 * torch.rand(200, 1, generator=generator) - 3) * torch.randn(200, 3, generator=generator)
    assert torch.linalg.vector_norm(bounded(wild), dim=1).max() <= 1
    torch.testing.assert_close(bounded(1e-3 * wild[:1] / wild[:1].norm()), 1e-3 * wild[:1] / wild[:1].norm())

    refinement = of_frames()
    with torch.no_grad():
        refinement.learnt.values.copy_(1e4 * torch.randn(3, 23, 3, generator=generator))
    turned, moved = refinement.moved()
    assert turned.max() == pytest.approx(5, abs=1e-3) and moved.max() == pytest.approx(6, abs=1e-3)
    shift = refinement.refined().translations[FRAMES] - some_poses().translations[FRAMES]
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), 0.06, rtol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.5, 2.0, 3.1])
def test_numbers_change_as_turning_about_the_joint_s_own_axes_changes_them(angle):
    axis = np.array([0.6, -0.64, 0.48])
    turn = 1e-3 * np.array([0.5, 1.0, -0.7])
    changed = angle * axis + turning(torch.tensor(angle * axis)).numpy() @ turn
    expected = Rotation.from_rotvec(angle * axis) * Rotation.from_rotvec(turn)
    assert (expected.inv() * Rotation.from_rotvec(changed)).magnitude() < 3e-6


def test_roots_turned_by_more_than_half_a_turn_are_the_same_rotations_with_smaller_numbers():
    poses = random_poses(6, size=0.5).numpy()
    poses[2, :3] = [0.0, 5.5, 1.0]
    found = within_half_a_turn(poses)
    same = Rotation.from_rotvec(found[2, :3]).inv() * Rotation.from_rotvec(poses[2, :3])
    assert same.magnitude() < 1e-6 and np.linalg.norm(found[2, :3]) < np.pi
    assert np.array_equal(np.delete(found, 2, 0), np.delete(poses, 2, 0))
    assert np.array_equal(found[2, 3:], poses[2, 3:])


def test_at_the_start_every_pose_is_the_capture_s_bit_for_bit():
    poses, refinement = some_poses(), of_frames()
    for frame in FRAMES:
        pose = refinement.pose(Seen(frame))
        assert np.array_equal(pose.joints.detach().numpy(), poses.poses[frame])
        assert np.array_equal(pose.translation.detach().numpy(), poses.translations[frame])
    assert np.array_equal(refinement.refined().poses, poses.poses)


def test_the_gradient_through_skinning_is_the_finite_differences():
    """Of centres and covariances, in double precision; what the MLPs see sends none back."""
    avatar = Avatar(
        random_layout(torch.Generator().manual_seed(0)), 4, num_gsparam_bases=2, num_position_bases=1,
        hidden_widths=(8, 7), light="place",
    ).double()  # fmt: skip
    refinement = of_frames()
    joints, place, turn = (
        part[1].double() for part in (refinement.joints, refinement.translations, refinement.turning)
    )
    features = joints.clone()

    def posed(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pose = Pose(*refinement.corrected(joints, place, turn, values), torch.eye(3, dtype=torch.double))
        found = avatar(pose, features=features).posed
        return found.xyz, found.covariances

    values = 0.5 * torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    values.requires_grad_()
    assert torch.autograd.gradcheck(posed, (values,), atol=1e-7, fast_mode=True)
    with_own_numbers = avatar(
        Pose(*refinement.corrected(joints, place, turn, values), torch.eye(3, dtype=torch.double))
    )
    assert torch.autograd.grad(with_own_numbers.posed.opacities.sum(), values, allow_unused=True)[0] is None
    assert torch.autograd.grad(with_own_numbers.posed.xyz.sum(), values)[0].any()


def test_a_step_moves_the_rows_that_were_used_by_adam_of_their_own():
    """Written out: averages and count of each row, the square's over a group."""
    rows, generator = LearntRows(3, 2, CPU), torch.Generator().manual_seed(0)
    value, mean, square = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1)
    for step in range(1, 7):
        used = (1,) if step % 2 else (1, 2)
        gradients = {row: 1e-3 * torch.randn(2, 3, generator=generator) for row in used}
        sum((rows.use(row) * gradient).sum() for row, gradient in gradients.items()).backward()
        rows.step(0.1, ALONE)
        mean = 0.9 * mean + 0.1 * gradients[1]
        square = 0.99 * square + 0.01 * gradients[1].square().mean(1, keepdim=True)
        value = value - 0.1 * (mean / (1 - 0.9**step)) / (square / (1 - 0.99**step)).sqrt()
    torch.testing.assert_close(rows.values[1].detach(), value)
    assert not rows.values[0].any() and rows.values[2].any()
    assert rows.steps.flatten().tolist() == [0, 6, 3] and not rows.used.any() and rows.values.grad is None
    rows.use(0).sum().mul(float("nan")).backward()
    assert not rows.step(0.1, ALONE).isfinite()


def test_the_penalty_is_about_neighbours_in_time_and_zero_and_pulls_its_own_frame_alone():
    refinement = of_frames(lambda_pose_smooth=0.3, lambda_pose_small=0.07)
    values = torch.randn(3, 23, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        refinement.learnt.values.copy_(values)

    def square(difference: torch.Tensor) -> float:
        return float((difference**2).sum() / 23)

    penalty = refinement.penalty(4)
    expected = 0.3 * square(values[1] - values[0]) + 0.3 / 4 * square(values[1] - values[2])
    assert penalty.item() == pytest.approx(expected + 0.07 * square(values[1]), rel=1e-5)
    penalty.backward()
    gradient = refinement.learnt.values.grad
    assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()


def test_camera_colours_touch_the_person_and_not_the_background_and_mean_nothing_on_average():
    colors = CameraColors([7, 2], CPU)
    assert colors.camera_ids == [2, 7]
    background = torch.tensor([0.2, 0.4, 0.9])
    alphas = torch.tensor([0.0, 0.25, 1.0]).expand(2, 1, 3)
    person = torch.tensor([0.5, 0.3, 0.1])
    picture = alphas[..., None] * person + (1 - alphas[..., None]) * background
    logs = torch.tensor([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
    with torch.no_grad():
        colors.learnt.values.copy_(logs[:, None])
    seen = colors.seen_by((7, 2), Render(picture, alphas), background).colors
    expected = (
        alphas[..., None] * person * logs.flip(0)[:, None, None].exp() + (1 - alphas[..., None]) * background
    )
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(seen[:, :, 0], background.expand(2, 1, 3))
    seen[0].sum().backward()
    colors.step(0.01, ALONE)
    torch.testing.assert_close(colors.factors().prod(0), np.ones(3, np.float32))
    gradient = person * logs[1].exp()  # of the one that was looked at; the mean takes half of its step
    step = 0.01 * gradient / gradient.square().mean().sqrt()
    assert colors.factors()[1] == pytest.approx((logs[1] - step / 2).exp().numpy(), rel=1e-4)


def test_a_planted_error_is_found_by_the_pictures(synthetic_body):
    """An avatar that is right, whose poses are off by 3 degrees and 2 cm: what is left of it after 25 looks."""
    avatar = small_avatar(synthetic_body, light="none")
    with torch.no_grad():
        avatar.sh0.copy_(torch.randn(avatar.sh0.shape, generator=torch.Generator().manual_seed(3)))
    avatar.requires_grad_(False)
    generator, true = torch.Generator().manual_seed(4), some_poses(9, 0.1)
    true.translations[:] = [0.0, 0.2, 0.0]
    wrong = replace(
        true, poses=true.poses.copy(), translations=true.translations + np.float32([0.012, -0.012, 0.012])
    )
    wrong.poses[:, :66] += np.deg2rad(3) / 3**0.5 * torch.randn(9, 66, generator=generator).numpy()
    refinement = of_frames(wrong, lambda_pose_smooth=0.0)
    cameras, white = look_at_origin(views=3, size=40), torch.ones(3)

    def centres(poses: SmplParams) -> torch.Tensor:
        return torch.stack([avatar(poses.pose(frame)).posed.xyz for frame in FRAMES])

    truths = {frame: rasterize(avatar(true.pose(frame)).posed, cameras, white).colors for frame in FRAMES}
    for look in range(25):
        for frame in FRAMES:
            picture = rasterize(avatar(refinement.pose(Seen(frame))).posed, cameras, white).colors
            loss = (picture - truths[frame]).abs().mean() + refinement.penalty(frame)
            loss.backward()
            refinement.learnt.step(0.1 * 0.1 ** (look / 25), ALONE)
    goal = centres(true)
    before, after = (
        float((centres(each) - goal).norm(dim=-1).mean()) for each in (wrong, refinement.refined())
    )
    assert after < 0.5 * before, (before, after)


def test_a_run_that_asks_for_nothing_is_as_if_there_was_nothing(tiny_config, capture, tmp_path):
    plain, refining = fresh(tiny_config, capture), fresh(replace(tiny_config, **REFINE), capture)
    sample = plain.next_samples()
    assert plain.refinement.pose(sample[0]) is sample[0].pose
    assert plain.refinement.state_dict() == {} and plain.refinement.report() == []
    terms = plain.step(*sample)[0], refining.step(*refining.next_samples())[0]
    assert terms[0].keys() == terms[1].keys()
    assert all(torch.equal(value, terms[1][name]) for name, value in terms[0].items()), "the first step's"
    plain.save(tmp_path)
    assert not (tmp_path / REFINED_POSES).exists()


def test_a_run_writes_what_it_learnt_and_its_pose_space_is_of_it(tiny_config, capture, tmp_path):
    trainer = run(fresh(replace(tiny_config, **REFINE), capture), tmp_path)
    fitted, refined = (
        read_smpl_params(capture / "smpl_params.npz"),
        read_smpl_params(tmp_path / REFINED_POSES),
    )
    frames = sorted({frame for frame, _ in trainer.scene.training.pairs})
    others = np.setdiff1d(np.arange(len(fitted)), frames)
    assert len(others) and np.array_equal(fitted.poses[others], refined.poses[others])
    seen = trainer.refinement.poses.learnt.steps.flatten() > 0
    moved = (fitted.poses != refined.poses)[frames].any(1)
    assert moved.sum() == seen.sum() > 5 and np.array_equal(moved, seen.numpy())
    assert np.array_equal(fitted.poses[:, 66:], refined.poses[:, 66:]), "hands are as fitted"
    with np.load(capture / "smpl_params.npz") as before, np.load(tmp_path / REFINED_POSES) as after:
        assert set(before) == set(after)
    assert len(read_pose_file(tmp_path / REFINED_POSES)) == len(fitted)
    space = load_avatar(newest_checkpoint(tmp_path)).pose_space
    assert np.array_equal(space.training_poses.numpy(), refined.features(frames))

    rows = list(csv.reader((tmp_path / "pose_refinement.csv").open()))
    place = rows[-1]
    assert len(rows) == 24 and place[0] == "place, cm" and float(place[2]) > 0
    shift = 100 * np.linalg.norm(refined.translations - fitted.translations, axis=1)
    assert float(place[2]) == pytest.approx(shift.max(), abs=1e-3) and int(place[3]) == shift.argmax()
    assert [row[0] for row in csv.reader((tmp_path / "camera_colors.csv").open())] == [
        "camera",
        "0",
        "1",
        "2",
    ]
    assert len(trainer.refinement.report()) == 2


def test_a_test_view_of_a_training_frame_is_posed_as_corrected(tiny_config, capture):
    trainer = fresh(replace(tiny_config, **REFINE), capture)
    sample = trainer.scene.held_out.sample(trainer.scene.held_out.pairs[0][0], (3,))
    assert torch.equal(trainer.refinement.pose_for_test(sample).joints, sample.pose.joints)
    with torch.no_grad():
        trainer.refinement.poses.learnt.values.fill_(0.2)
    assert not torch.equal(trainer.refinement.pose_for_test(sample).joints, sample.pose.joints)
    assert not trainer.refinement.poses.learnt.used.any(), "tests move nothing"
    assert trainer.refinement.pose_for_test(replace(sample, frame=999)) is sample.pose


def test_a_run_that_goes_back_takes_its_corrections_along(tiny_config, capture, tmp_path):
    trainer = fresh(replace(tiny_config, **REFINE), capture)
    trainer.step(*trainer.next_samples())
    trainer.save(tmp_path)
    saved = [
        part.learnt.values.detach().clone() for part in (trainer.refinement.poses, trainer.refinement.colors)
    ]
    assert all(part.any() for part in saved)
    with torch.no_grad():
        for part in (trainer.refinement.poses, trainer.refinement.colors):
            part.learnt.values.fill_(float("nan"))
    go_back(trainer, tmp_path, 0, lambda text: None)
    assert torch.equal(trainer.refinement.poses.learnt.values, saved[0])
    assert torch.equal(trainer.refinement.colors.learnt.values, saved[1])


def test_corrections_of_other_frames_are_refused():
    rows = LearntRows(4, 1, CPU)
    with pytest.raises(
        ValueError, match="for 3 frames or cameras, the capture has 4; resume with the capture"
    ):
        rows.load_state_dict(LearntRows(3, 1, CPU).state_dict())
