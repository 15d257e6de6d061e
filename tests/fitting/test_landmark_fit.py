from __future__ import annotations

import numpy as np
import torch

from mmlphuman.fitting import landmark_fit
from mmlphuman.fitting.landmark_fit import (
    at_pictures,
    picture_terms,
    pose_state,
    shape_from_bones,
    start_from_points,
    time_basis,
    variables_at,
)
from mmlphuman.fitting.observations import LANDMARKS, Points, Rig
from mmlphuman.fitting.pose_prior import make_pose_prior
from mmlphuman.fitting.posed_body import landmark_source, read_fitted_body
from mmlphuman.fitting.triangulation import observe, triangulate
from tests.fitting.scene import make_scene, observed


def quiet(_):
    pass


def test_landmarks_are_those_of_the_body_by_name():
    assert landmark_source("left_hip") == (1, None)
    assert landmark_source("right_wrist") == (21, None)
    assert landmark_source("left_hand_index_1") == (25, None)
    assert landmark_source("right_hand_little_3") == (48, None)
    assert landmark_source("right_hand_thumb_2") == (53, None)
    sources = [landmark_source(name) for name in LANDMARKS]
    assert len({vertex for _, vertex in sources if vertex is not None}) == 21


def test_posed_landmarks_are_the_bodys_own(scene, body_path):
    variables = variables_at(scene.poses, scene.motion["transl"], scene.motion["betas"][0], "cpu")
    state = pose_state(read_fitted_body(body_path).frame(), variables)
    assert np.abs(state.landmarks.numpy() - scene.landmarks).max() < 1e-4
    assert np.abs(state.joints.numpy() - scene.joints).max() < 1e-4
    assert np.abs(variables.poses() - scene.poses).max() < 1e-4


def test_rebased_variables_are_the_same_state(scene):
    variables = variables_at(scene.poses, scene.motion["transl"], np.zeros(10), "cpu")
    variables.rebase()
    torch.manual_seed(0)
    for leaf in (*variables.motion(), variables.betas, variables.offsets):
        leaf += 0.1 * torch.randn(leaf.shape)
    before = variables.poses(), variables.translations().numpy(), variables.landmark_offsets().numpy()
    variables.rebase(smooth=False)
    after = variables.poses(), variables.translations().numpy(), variables.landmark_offsets().numpy()
    for a, b in zip(before, after, strict=True):
        assert np.abs(a - b).max() < 1e-5


def test_time_basis_makes_smooth_and_rough_changes_alike():
    frames, stiffness = 30, 7.0
    second = torch.diff(torch.eye(frames), n=2, dim=0)
    curvature = torch.eye(frames) + stiffness * second.T @ second
    basis = time_basis(frames, stiffness)
    eigenvalues = torch.linalg.eigvalsh(basis.T @ curvature @ basis)
    assert eigenvalues.max() / eigenvalues.min() < 4
    assert torch.linalg.cond(curvature) > 50


def test_between_two_frames_the_body_is_a_mixture():
    values = torch.arange(5.0)[:, None] ** 2
    assert torch.allclose(at_pictures(values, 0.25)[:4, 0], torch.tensor([0.25, 1.75, 5.25, 10.75]))
    assert torch.allclose(at_pictures(values, -1.0)[:, 0], torch.tensor([0.0, 0.0, 1.0, 4.0, 9.0]))
    assert at_pictures(values, 0) is values


def test_a_late_camera_is_compared_with_the_body_of_its_time(scene):
    shown = np.concatenate([scene.landmarks[1:], scene.landmarks[-1:]])  # picture f shows frame f + 1
    late = observed(shown, scene.cameras)
    rig = Rig(scene.cameras, np.ones(4))
    body = torch.from_numpy(scene.landmarks.astype(np.float32))
    for term in picture_terms(observe(late, rig.cameras), rig, "cpu"):
        assert (term.weights * term.across(body)).max() < 1e-6
        assert (term.weights[:-1] > 0).all()
        assert (term.weights[-1] == 0).all()  # taken after the last frame


def test_bone_lengths_tell_the_shape(scene, body_path):
    points = Points(
        scene.landmarks.astype(np.float32),
        np.ones(scene.landmarks.shape[:2], np.float32),
        np.zeros((1, *scene.landmarks.shape[:2]), np.float32),
    )
    body = read_fitted_body(body_path).frame()
    found = body.shaped(shape_from_bones(body, points)).joints
    true = body.shaped(torch.from_numpy(scene.motion["betas"][0])).joints
    mean = body.shaped(torch.zeros(10)).joints
    # Girths have no bones: what bones tell are lengths of limbs.
    for a, b in ((16, 18), (18, 20), (1, 4), (4, 7)):
        wanted = (true[a] - true[b]).norm()
        assert abs((found[a] - found[b]).norm() - wanted) < 0.004
    assert (found - true).norm() < (mean - true).norm()


def test_knees_and_elbows_bend_one_way():
    prior = make_pose_prior()
    for joint, axis, right_way in ((4, 0, 1), (5, 0, 1), (18, 1, -1), (19, 1, 1), (25, 2, -1), (40, 2, 1)):
        pose = torch.zeros(2, 54, 3)
        pose[0, joint - 1, axis], pose[1, joint - 1, axis] = right_way * 0.7, -right_way * 0.7
        allowed, refused = prior.penalty(pose)
        assert refused > allowed + 20


def test_prior_knows_no_side():
    prior = make_pose_prior()
    pose = 0.3 * torch.randn(4, 54, 3, generator=torch.Generator().manual_seed(0))
    twin = np.arange(55)
    for left in (1, 4, 7, 10, 13, 16, 18, 20, 23):
        twin[[left, left + 1]] = left + 1, left
    twin[25:40], twin[40:55] = np.arange(40, 55), np.arange(25, 40)
    mirrored = pose[:, twin[1:] - 1] * torch.tensor([1.0, -1, -1])
    assert torch.allclose(prior.penalty(pose), prior.penalty(mirrored), rtol=1e-4)


def test_hands_that_move_fast_are_followed(body_path, monkeypatch):
    """Frames so far apart that wrists leave their neighbours' middle by 7 times the usual acceleration, and more."""
    monkeypatch.setattr(landmark_fit, "POINT_STEPS", 80)
    scene = make_scene(body_path, 10, step=5)
    leaves = np.linalg.norm(scene.joints[2:] - 2 * scene.joints[1:-1] + scene.joints[:-2], axis=-1)[:, 20:22]
    assert leaves.max() > 7 * landmark_fit.ACCELERATION
    found = triangulate(observed(scene.landmarks, scene.cameras, noise=2.0), Rig(scene.cameras, np.zeros(4)))
    variables = start_from_points(read_fitted_body(body_path), found.points, "cpu")
    landmark_fit.fit_points(read_fitted_body(body_path), found.points, variables, progress=quiet)
    joints = pose_state(read_fitted_body(body_path).frame(), variables).joints.numpy()
    missed = np.linalg.norm(joints - scene.joints, axis=-1)
    assert missed[:, 20:22].mean() < 0.02 and missed[:, 20:22].max() < 0.05


def test_a_detector_that_is_known_to_be_off_misleads_no_shape(scene, body_path, monkeypatch):
    """Ankles and elbows that all cameras see 3 cm along the limb: told so, limbs keep their length."""
    monkeypatch.setattr(landmark_fit, "POINT_STEPS", 60)
    shifts = np.full((len(LANDMARKS), 3), np.nan)
    for name, shift in (("ankle", (0, 0.03, 0)), ("elbow", (0.03, 0, 0))):
        for side, sign in (("left", 1), ("right", -1)):
            shifts[LANDMARKS.index(f"{side}_{name}")] = np.array(shift) * (sign, 1, 1)
    body = read_fitted_body(body_path, shifts)
    true = variables_at(scene.poses, scene.motion["transl"], scene.motion["betas"][0], "cpu")
    seen = pose_state(body.frame(), true).landmarks.numpy()
    moved = np.linalg.norm(seen - scene.landmarks, axis=-1)
    assert np.allclose(moved, np.linalg.norm(np.nan_to_num(shifts), axis=1), atol=1e-4)
    points = Points(seen, np.ones(seen.shape[:2], np.float32), np.zeros((1, *seen.shape[:2]), np.float32))
    missed = []
    for known in (body, read_fitted_body(body_path)):
        variables = start_from_points(known, points, "cpu")
        landmark_fit.fit_points(known, points, variables, progress=quiet)
        joints = pose_state(known.frame(), variables).joints.numpy()
        missed.append(np.linalg.norm(joints - scene.joints, axis=-1)[:, [7, 8, 18, 19]].mean())
    assert missed[0] < 0.5 * missed[1]
