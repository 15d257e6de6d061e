"""Sequences: the pictures are those of drawing by hand, in order, however many are in flight."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation import render_sequence as module
from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import make_shots
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.animation.render_sequence import Look, render_sequence
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import PYTORCH
from mmlphuman.config import default_config
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import Cameras, Pose
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

POSES = 6


@pytest.fixture(scope="module")
def trained(synthetic_body):
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    poses = torch.stack([random_pose(seed).joints for seed in range(20)])
    return TrainedAvatar(
        randomise(small_avatar(synthetic_body)), PoseSpace.fit(poses, 5), config, config.iterations
    )


@pytest.fixture(scope="module")
def sequence():
    joints = np.stack([random_pose(100 + seed).joints.numpy() for seed in range(POSES)])
    translations = 0.2 * np.random.default_rng(0).normal(size=(POSES, 3)).astype(np.float32)
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)
    return PoseSequence(joints, translations, turn, np.arange(POSES), 30.0, "any.npz")


@pytest.fixture(scope="module")
def shots(sequence):
    """Two cameras of different sizes."""
    w2c = look_at_origin(2.5, views=3).w2c.double().numpy()
    views = [CameraView(w2c[0], 50.0, 40, 48), CameraView(w2c[1], 35.0, 33, 21)]
    return make_shots(views, sequence, np.zeros(3))


def look(project_pose=False):
    return Look(torch.tensor([0.2, 0.6, 1.0]), PYTORCH, project_pose)


def by_hand(trained, sequence, view, index, project_pose):
    rotation = torch.from_numpy(sequence.rotation)
    pose = Pose(
        torch.from_numpy(sequence.poses[index]),
        rotation @ torch.from_numpy(sequence.translations[index]),
        rotation,
    )
    features = trained.pose_space.clamp(pose.features) if project_pose else None
    w2c, intrinsics = (torch.from_numpy(array).float()[None] for array in (view.w2c, view.intrinsics))
    with torch.no_grad():
        posed = trained.avatar(pose, trained.active, features).posed
        camera = Cameras(w2c, intrinsics, view.width, view.height)
        image = rasterize(posed, camera, look().background, PYTORCH).colors[0]
    return (image.numpy().clip(0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("project_pose", [False, True])
def test_pictures_are_those_drawn_by_hand(trained, sequence, shots, project_pose):
    frames = list(render_sequence(trained, sequence, shots, look(project_pose)))
    assert [(frame.index, frame.shot) for frame in frames] == [(i, s) for i in range(POSES) for s in (0, 1)]
    for frame in frames:
        view = shots[frame.shot].views[frame.index]
        assert frame.image.shape == (view.height, view.width, 3) and frame.image.dtype == np.uint8
        expected = by_hand(trained, sequence, view, frame.index, project_pose)
        assert np.array_equal(frame.image, expected)
        assert (expected != expected[0, 0]).any()  # somebody is in the picture


def test_projection_changes_the_pictures(trained, sequence, shots):
    plain, projected = (
        [frame.image for frame in render_sequence(trained, sequence, shots[:1], look(flag))]
        for flag in (False, True)
    )
    assert any((a != b).any() for a, b in zip(plain, projected, strict=True))


@pytest.mark.parametrize("in_flight", [0, 1, 4, 100])
def test_copies_that_take_their_time_change_nothing(trained, sequence, shots, monkeypatch, in_flight):
    """No copy is ever done before it is waited for, as on a slow bus: same pictures, same order, bounded number."""
    at_once = list(render_sequence(trained, sequence, shots, look()))
    counts, most, draw = Counter(), 0, module.draw

    def counted(*arguments):
        nonlocal most
        most = max(most, counts["drawn"] - counts["taken"])
        images = draw(*arguments)
        counts["drawn"] += len(images)
        return images

    monkeypatch.setattr(module, "draw", counted)
    monkeypatch.setattr(module._Download, "is_done", lambda self: False)
    late = []
    for frame in render_sequence(trained, sequence, shots, look(), in_flight):
        counts["taken"] += 1
        late.append(frame)
    assert most == min(in_flight, (POSES - 1) * len(shots))
    for a, b in zip(at_once, late, strict=True):
        assert (a.shot, a.index) == (b.shot, b.index) and np.array_equal(a.image, b.image)


def test_pictures_are_not_shared(trained, sequence, shots):
    """Who keeps them finds them unchanged while others are drawn."""
    copies, frames = [], []
    for frame in render_sequence(trained, sequence, shots, look()):
        frames.append(frame)
        copies.append(frame.image.copy())
    assert all(np.array_equal(frame.image, copy) for frame, copy in zip(frames, copies, strict=True))
    assert not any(np.shares_memory(a.image, b.image) for a, b in zip(frames[:-1], frames[1:], strict=True))


def test_a_camera_may_move_from_pose_to_pose(trained, sequence, shots):
    views = [shots[0].views[0], shots[1].views[0]] * (POSES // 2)
    moving = dataclasses.replace(shots[0], name="", views=views)
    for frame in render_sequence(trained, sequence, [moving], look()):
        expected = by_hand(trained, sequence, views[frame.index], frame.index, False)
        assert np.array_equal(frame.image, expected)


def test_some_of_the_poses_are_drawn_as_among_all(trained, sequence, shots):
    everything = {
        (frame.index, frame.shot): frame.image for frame in render_sequence(trained, sequence, shots, look())
    }
    frames = list(render_sequence(trained, sequence, shots, look(), indices=range(POSES)[1::3]))
    assert [(frame.index, frame.shot) for frame in frames] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    for frame in frames:
        assert np.array_equal(frame.image, everything[frame.index, frame.shot])


# --- whether the person is in the picture -------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_frames_out_of_the_picture_are_those_with_nobody_drawn(trained, sequence, shots, folded):
    """The person walks out sideways, and behind the second camera. Compared with the pictures themselves."""
    walk = np.outer([0, 0.5, 4, 0, -5, 0], [1.0, 0, 0]) + np.outer([0, 0, 0, 9, 0, 0.3], [0, 0, 1.0])
    walking = dataclasses.replace(sequence, translations=walk.astype(np.float32))
    if folded:
        walking = walking.about_pelvis(trained.avatar.joints[0].numpy())
    out = module.out_of_picture(trained, walking, shots)
    for number, hidden in enumerate(out):
        pictures = [
            frame.image for frame in render_sequence(trained, walking, shots, look()) if frame.shot == number
        ]
        empty = [bool((picture == picture[0, 0]).all()) for picture in pictures]
        assert 0 < sum(empty) < POSES and hidden.tolist() == empty
    lines = module.tell_out_of_picture(trained, walking, shots)
    missed = np.flatnonzero(out[0])
    assert f"cam000: the person is out of the picture in {len(missed)} of 6 frames ({missed[0]}" in lines[0]
    assert not module.tell_out_of_picture(trained, dataclasses.replace(walking, translations=0 * walk), shots)


def test_pictures_that_would_all_be_empty_are_refused(trained, sequence, shots):
    far = dataclasses.replace(sequence, translations=sequence.translations + np.float32([0, 30, 0]))
    with pytest.raises(
        ValueError, match=r"any.npz: the person is out of the picture in all 6 frames, about \("
    ):
        module.tell_out_of_picture(trained, far, shots)


def test_a_sequence_about_the_pelvis_draws_the_same_gaussians(trained, sequence):
    """Turned about the origin by EasyMocap's Rh and by the file's world, or in the root joint."""
    turns = Rotation.random(POSES, random_state=0).as_matrix().astype(np.float32)
    turned = dataclasses.replace(sequence, turns=turns)
    for form in (sequence, turned):
        about = form.about_pelvis(trained.avatar.joints[0].numpy())
        assert (about.rotation == np.eye(3)).all() and about.turns is None
        for index in range(POSES):
            one, other = trained.pose(form.pose(index)), trained.pose(about.pose(index))
            for field in ("xyz", "covariances", "opacities", "linear"):
                torch.testing.assert_close(getattr(one, field), getattr(other, field), atol=2e-5, rtol=1e-4)
    assert about.about_pelvis(np.ones(3)) is about
