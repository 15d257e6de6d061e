from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.fitting import body_fit
from mmlphuman.fitting.body_fit import (
    at_pictures,
    doubts,
    fit_body,
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
from mmlphuman.fitting.report import write_contact_sheet, write_report
from mmlphuman.fitting.rig import CameraChange
from mmlphuman.fitting.silhouettes import draw_silhouette, masks_in
from mmlphuman.fitting.triangulation import observe, triangulate
from mmlphuman.fitting.writing import (
    read_fit,
    read_landmarks,
    read_points,
    read_rig,
    write_capture,
    write_fit,
    write_landmarks,
    write_points,
)
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.synthetic.motion import plant_pose_errors
from tests.fitting.scene import SIZE, biased, make_scene, observed, picture_places, small_body

FRAMES = 3


def quiet(_):
    pass


@pytest.fixture(scope="module")
def body_path(synthetic_body, tmp_path_factory):
    return small_body(synthetic_body, tmp_path_factory.mktemp("body") / "SMPLX_NEUTRAL.npz")


@pytest.fixture(scope="module")
def scene(body_path):
    return make_scene(body_path, FRAMES, step=2)


@pytest.fixture
def few_steps(monkeypatch):
    """Enough to see that they lead the right way."""
    monkeypatch.setattr(body_fit, "SHAPE_ROUNDS", 1)
    monkeypatch.setattr(body_fit, "SURFACE_ROUNDS", 1)
    monkeypatch.setattr(body_fit, "ROUND_STEPS", 15)
    monkeypatch.setattr(body_fit, "LANDMARK_STEPS", 20)


@pytest.fixture(scope="module")
def masks(scene, tmp_path_factory):
    """Folder of masks as the distorted cameras see the body, by OpenCV's projection."""
    folder = tmp_path_factory.mktemp("masks")
    for camera in scene.cameras:
        (folder / camera.name).mkdir()
        for frame, vertices in enumerate(scene.vertices):
            depth = (vertices @ camera.R.T + camera.T)[:, 2]
            mask = draw_silhouette(picture_places(camera, vertices), depth, scene.body.faces.numpy(), SIZE)
            cv2.imwrite(str(folder / camera.name / f"{frame:08d}.png"), mask.astype(np.uint8) * 255)
    return folder


def joint_errors(scene, fit, body_path):
    """(F, 55) metres of the fitted skeleton, from the file that was written."""
    params_body = read_fitted_body(body_path)
    variables = variables_at(fit.poses, fit.translations, fit.betas, "cpu")
    joints = pose_state(params_body.frame(), variables).joints.numpy()
    return np.linalg.norm(joints - scene.joints, axis=-1)


@pytest.fixture(scope="module")
def fitted(scene, body_path, masks):
    landmarks = observed(biased(scene, 0.015), scene.cameras, noise=3.0, outliers=0.03, missing=0.08)
    rig = Rig(scene.cameras, np.zeros(4))
    found = triangulate(landmarks, rig)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_fit, "SHAPE_ROUNDS", 2)
        patch.setattr(body_fit, "SURFACE_ROUNDS", 1)
        patch.setattr(body_fit, "POINT_STEPS", 60)
        patch.setattr(body_fit, "LANDMARK_STEPS", 20)
        person = fit_body(
            body_path, rig, found.landmarks, found.points, masks_in(masks, scene.cameras), progress=quiet
        )
    return rig, found, person


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


def test_a_body_is_found_from_noisy_landmarks_and_masks(scene, body_path, fitted):
    errors = joint_errors(scene, fitted[2].fit, body_path)
    assert errors.mean() < 0.015  # what four cameras are to reach
    assert errors[:, :22].mean() < 0.015
    assert np.nanmean(fitted[2].fit.overlap) > 0.92  # after half of the rounds
    assert np.abs(fitted[2].fit.normal_offsets).mean() < 0.002  # the mask is this body's own
    assert fitted[2].notes == ()


def test_hands_that_move_fast_are_followed(body_path, monkeypatch):
    """Frames so far apart that wrists leave their neighbours' middle by 7 times the usual acceleration, and more."""
    monkeypatch.setattr(body_fit, "POINT_STEPS", 80)
    scene = make_scene(body_path, 10, step=5)
    leaves = np.linalg.norm(scene.joints[2:] - 2 * scene.joints[1:-1] + scene.joints[:-2], axis=-1)[:, 20:22]
    assert leaves.max() > 7 * body_fit.ACCELERATION
    found = triangulate(observed(scene.landmarks, scene.cameras, noise=2.0), Rig(scene.cameras, np.zeros(4)))
    variables = start_from_points(read_fitted_body(body_path), found.points, "cpu")
    body_fit.fit_points(read_fitted_body(body_path), found.points, variables, progress=quiet)
    joints = pose_state(read_fitted_body(body_path).frame(), variables).joints.numpy()
    missed = np.linalg.norm(joints - scene.joints, axis=-1)
    assert missed[:, 20:22].mean() < 0.02 and missed[:, 20:22].max() < 0.05


def test_capture_is_written_whole_and_read_back(scene, body_path, fitted, tmp_path):
    rig, _, person = fitted
    offsets = np.full_like(person.fit.normal_offsets, 0.01)
    fit = body_fit.BodyFit(**vars(person.fit) | {"normal_offsets": offsets})
    moved_rig = Rig(rig.cameras, np.array([0, 0.5, 0, -3.0]))
    body_file = write_capture(tmp_path, moved_rig, fit, body_path)
    params = read_smpl_params(tmp_path / "smpl_params.npz")
    assert np.allclose(params.poses, fit.poses)
    assert np.allclose(params.betas, fit.betas)
    assert np.allclose(params.translations, fit.translations)
    read = read_rig(tmp_path / "calibration.json")
    assert np.array_equal(read.time_offsets, moved_rig.time_offsets)
    assert all(np.allclose(a.R, b.R) and a.half_pixel for a, b in zip(read.cameras, rig.cameras, strict=True))
    # The file's surface stands off by a centimetre along the normals: its volume grows by area times that.
    betas, faces = torch.from_numpy(fit.betas), read_fitted_body(body_file).faces
    before, after = (read_fitted_body(path).vertices(betas).double() for path in (body_path, body_file))

    def volume(vertices):
        a, b, c = vertices[faces].unbind(1)
        return (a * torch.linalg.cross(b, c)).sum() / 6

    corners = before[faces]
    area = (
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum() / 2
    )
    assert float(volume(after) - volume(before)) == pytest.approx(0.01 * float(area), rel=0.2)
    assert torch.allclose((after - before).norm(dim=1), torch.tensor(0.01).double(), atol=1e-5)


def test_stages_can_be_taken_up_again(fitted, tmp_path):
    _, found, person = fitted
    for write, read, value in (
        (write_fit, read_fit, person.fit),
        (write_points, read_points, found.points),
        (write_landmarks, read_landmarks, found.landmarks),
    ):
        write(tmp_path / "stage.npz", value)
        again = read(tmp_path / "stage.npz")
        for name, array in vars(value).items():
            assert np.array_equal(getattr(again, name), array, equal_nan=True)
    with pytest.raises(ValueError, match="stage.npz: array 'betas' is missing"):
        read_fit(tmp_path / "stage.npz")


def test_report_and_sheet_show_every_camera(scene, body_path, fitted, tmp_path):
    rig, found, person = fitted
    pictures = {}
    for view, camera in enumerate(rig.cameras):
        pictures[view] = tmp_path / f"{camera.name}.png"
        cv2.imwrite(str(pictures[view]), np.full((SIZE[1], SIZE[0], 3), 60, np.uint8))
    sheet = tmp_path / "sheet.png"
    write_contact_sheet(
        sheet, rig, person.fit, body_path, lambda view, _: pictures[view], found.landmarks, [0, 2]
    )
    drawn = cv2.imread(str(sheet))
    # The outline's green in each of the 4 x 2 cells.
    green = (drawn[..., 1] > 180) & (drawn[..., 2] < 120)
    for row in np.array_split(green[70:], 2):
        assert all(cell.any() for cell in np.array_split(row, 4, axis=1))
    changes = [CameraChange(camera.name, 0.3, 0.02, 0.5, 7.0, 4.0) for camera in rig.cameras]
    write_report(tmp_path / "report.md", person.fit, changes, person.landmark_errors, ["look here"], FRAMES)
    text = (tmp_path / "report.md").read_text()
    assert "| cam2 | 0.30° | 2.0 cm | 0.50 frames | 7.0 px | 4.0 px |" in text
    assert "- look here" in text


@pytest.mark.parametrize("with_landmarks", [True, False])
def test_refine_improves_poses_that_are_off(scene, body_path, masks, few_steps, with_landmarks):
    wrong = plant_pose_errors(scene.motion | {"jaw_pose": np.zeros((FRAMES, 3))}, FRAMES, 3.0, 1.0, 0)
    poses = scene.poses.copy()
    poses[:, :3], poses[:, 3:66] = wrong["global_orient"], wrong["body_pose"]
    start = poses, wrong["transl"], wrong["betas"][0]
    rig = Rig(scene.cameras, np.zeros(4))
    landmarks = observed(scene.landmarks, scene.cameras, noise=3.0) if with_landmarks else None
    find = masks_in(masks, scene.cameras)
    person = fit_body(body_path, rig, landmarks, None, find, start, progress=quiet)
    before = body_fit.BodyFit(
        wrong["betas"][0], poses, wrong["transl"], person.fit.normal_offsets, person.fit.overlap
    )
    limbs = slice(0, 22)
    was = joint_errors(scene, before, body_path)[:, limbs].mean()
    now = joint_errors(scene, person.fit, body_path)[:, limbs].mean()
    assert now < (0.4 if with_landmarks else 0.6) * was
    assert np.nanmean(person.fit.overlap) > 0.93


def test_what_cannot_be_fitted_is_refused(scene, body_path):
    rig = Rig(scene.cameras, np.zeros(4))
    landmarks = observed(scene.landmarks, scene.cameras)
    with pytest.raises(ValueError, match="landmarks or masks"):
        fit_body(body_path, rig, None, None, None, progress=quiet)
    with pytest.raises(ValueError, match="poses to start from"):
        fit_body(body_path, rig, landmarks, None, None, progress=quiet)
    nothing = Points(
        np.zeros((FRAMES, len(LANDMARKS), 3), np.float32),
        np.zeros((FRAMES, len(LANDMARKS)), np.float32),
        np.full((4, FRAMES, len(LANDMARKS)), np.nan, np.float32),
    )
    with pytest.raises(ValueError, match="shoulders and hips"):
        start_from_points(read_fitted_body(body_path), nothing, "cpu")


def test_doubtful_frames_are_named():
    overlap, metres = np.full((2, 6), 0.9), np.full((2, 6, len(LANDMARKS)), 0.01)
    joints = np.zeros((6, 55, 3))
    assert doubts(overlap, metres, joints) == ()
    overlap[:, 2], metres[:, 4], joints[3:, 7, 0] = 0.5, 0.1, 0.4
    notes = doubts(overlap, metres, joints)
    assert "frames 2 (lowest 0.50" in notes[0]
    assert "frames 4;" in notes[1]
    assert "jumps in frames 2-3" in notes[2]
    assert doubts(np.full((2, 6), np.nan), metres * np.nan, np.zeros((6, 55, 3))) == ()
    assert POSE_DIM == 165
