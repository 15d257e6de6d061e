from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.fitting import body_fit, landmark_fit
from mmlphuman.fitting.body_fit import doubts, fit_body
from mmlphuman.fitting.landmark_fit import pose_state, start_from_points, variables_at
from mmlphuman.fitting.observations import LANDMARKS, Points, Rig
from mmlphuman.fitting.posed_body import read_fitted_body
from mmlphuman.fitting.report import write_contact_sheet, write_report
from mmlphuman.fitting.rig import CameraChange
from mmlphuman.fitting.silhouettes import draw_silhouette, masks_in
from mmlphuman.fitting.triangulation import triangulate
from mmlphuman.fitting.writing import read_fit, read_rig, write_capture, write_fit, write_points
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.synthetic.motion import plant_pose_errors
from tests.fitting.scene import FRAMES, SIZE, biased, observed, picture_places


def quiet(_):
    pass


@pytest.fixture
def few_steps(monkeypatch):
    """Enough to see that they lead the right way."""
    monkeypatch.setattr(body_fit, "SHAPE_ROUNDS", 1)
    monkeypatch.setattr(body_fit, "SURFACE_ROUNDS", 1)
    monkeypatch.setattr(body_fit, "ROUND_STEPS", 15)
    monkeypatch.setattr(landmark_fit, "LANDMARK_STEPS", 20)


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
        patch.setattr(landmark_fit, "POINT_STEPS", 60)
        patch.setattr(landmark_fit, "LANDMARK_STEPS", 20)
        person = fit_body(
            body_path, rig, found.landmarks, found.points, masks_in(masks, scene.cameras), progress=quiet
        )
    return rig, found, person


def test_a_body_is_found_from_noisy_landmarks_and_masks(scene, body_path, fitted):
    errors = joint_errors(scene, fitted[2].fit, body_path)
    assert errors.mean() < 0.015  # what four cameras are to reach
    assert errors[:, :22].mean() < 0.015
    assert np.nanmean(fitted[2].fit.overlap) > 0.92  # after half of the rounds
    assert np.abs(fitted[2].fit.normal_offsets).mean() < 0.002  # the mask is this body's own
    assert fitted[2].notes == ()


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
    write_fit(tmp_path / "fit.npz", person.fit)
    write_points(tmp_path / "points.npz", found.points)
    again = {"fit": vars(read_fit(tmp_path / "fit.npz")), "points": np.load(tmp_path / "points.npz")}
    for name, value in (("fit", person.fit), ("points", found.points)):
        for part, array in vars(value).items():
            assert np.array_equal(again[name][part], array, equal_nan=True)
    with pytest.raises(ValueError, match="points.npz: array 'betas' is missing"):
        read_fit(tmp_path / "points.npz")


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


def test_report_says_which_cameras_were_checked(fitted, tmp_path):
    _, _, person = fitted
    errors = (7.0, 4.0), (3.0, 3.0), (np.nan, np.nan), (3.0, 2.5)
    changes = [
        CameraChange(f"cam{k}", 0, 0, 0.5 * (k == 3), *of_camera) for k, of_camera in enumerate(errors)
    ]
    changes[0] = CameraChange("cam0", 0.3, 0, 0, *errors[0])
    write_report(tmp_path / "report.md", person.fit, changes, person.landmark_errors, [], FRAMES)
    text = (tmp_path / "report.md").read_text()
    assert "| cam0 | 0.30° | 0.0 cm | 0.00 frames | 7.0 px |" in text
    assert "| cam1 | as given | as given | 0.00 frames | 3.0 px |" in text
    assert "| cam2 | not checked | - | - | - |" in text
    assert "| cam3 | as given | as given | 0.50 frames |" in text


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


def test_masks_change_no_shape_that_a_known_detector_tells(scene, body_path, masks, few_steps):
    """Masks show clothes: a shape that fills them has its spine and hips elsewhere."""
    start = scene.poses, scene.motion["transl"], scene.motion["betas"][0] + 0.3
    rig, find = Rig(scene.cameras, np.zeros(4)), masks_in(masks, scene.cameras)
    landmarks, known = observed(scene.landmarks, scene.cameras), np.zeros((len(LANDMARKS), 3))
    betas = [
        fit_body(
            body_path, rig, landmarks, None, masks_or_none, start, progress=quiet, shifts=shifts
        ).fit.betas
        for masks_or_none, shifts in ((find, known), (None, known), (find, None), (None, None))
    ]
    assert np.array_equal(betas[0], betas[1])
    assert np.abs(betas[2] - betas[3]).max() > 0.01


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
