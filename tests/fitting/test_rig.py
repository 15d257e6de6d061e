from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman.fitting.observations import Landmarks, Rig
from mmlphuman.fitting.rig import refine_rig
from tests.fitting.scene import disturbed, make_scene, observed

FRAMES, EXTRA = 40, 6


@pytest.fixture(scope="module")
def scene(synthetic_body):
    """Twice as fast as the motion is written: a person who moves, at 15 pictures a second."""
    return make_scene(synthetic_body, FRAMES + EXTRA, step=2)


def quiet(_):
    pass


def late(landmarks: Landmarks, shifts) -> Landmarks:
    """Camera v's picture f shows time f + shifts[v]; halves are the middle between two times."""
    places, confidence = [], []
    for view, shift in enumerate(shifts):
        low, share = int(np.floor(shift)), shift % 1
        rows = slice(low, low + FRAMES), slice(low + 1, low + 1 + FRAMES)
        places.append((1 - share) * landmarks.places[view, rows[0]] + share * landmarks.places[view, rows[1]])
        confidence.append(landmarks.confidence[view, rows[0]])
    return Landmarks(np.stack(places).astype(np.float32), np.stack(confidence))


def rig(cameras):
    return Rig(tuple(cameras), np.zeros(len(cameras)))


def misplaced(cameras, true):
    """Degrees and metres of each camera from where it truly is, the common motion of all taken out."""
    turns = [Rotation.from_matrix(a.R.T @ b.R) for a, b in zip(cameras, true, strict=True)]  # world to world
    common = Rotation.concatenate(turns).mean()
    centres, wanted = (np.stack([c.center for c in group]) for group in (cameras, true))
    moved = common.apply(wanted - wanted.mean(0)) - (centres - centres.mean(0))
    return np.rad2deg([(common.inv() * turn).magnitude() for turn in turns]), np.linalg.norm(moved, axis=1)


def test_disturbed_cameras_are_found(scene):
    rng = np.random.default_rng(0)
    landmarks = late(
        observed(scene.landmarks, scene.cameras, noise=1.0, outliers=0.03, missing=0.05), [0] * 4
    )
    wrong = [disturbed(camera, 0.3, 0.02, rng) for camera in scene.cameras]
    refined = refine_rig(landmarks, rig(wrong), quiet)
    degrees, metres = misplaced(refined.rig.cameras, scene.cameras)
    assert degrees.max() < 0.12
    assert metres.max() < 0.01
    assert (refined.rig.time_offsets == 0).all()
    assert refined.notes == ()
    for change in refined.changes:
        assert change.error_after < change.error_before


def test_true_cameras_stay(scene):
    landmarks = late(observed(scene.landmarks, scene.cameras, noise=1.0), [0] * 4)
    refined = refine_rig(landmarks, rig(scene.cameras), quiet)
    assert max(change.turned for change in refined.changes) < 0.07
    assert max(change.moved for change in refined.changes) < 0.006
    assert refined.notes == ()


def test_true_cameras_stay_exactly_where_landmarks_err_otherwise_from_each_side(scene):
    landmarks = late(observed(scene.landmarks, scene.cameras, noise=3.0), [0] * 4)
    of_side = 4 * np.random.default_rng(4).normal(size=(4, 1, landmarks.places.shape[2], 2))  # in all frames
    landmarks = replace(landmarks, places=(landmarks.places + of_side).astype(np.float32))
    refined = refine_rig(landmarks, rig(scene.cameras), quiet)
    assert refined.rig.cameras == scene.cameras
    assert all(change.turned < 1e-6 and change.moved < 1e-9 for change in refined.changes)
    assert all(change.error_after == change.error_before for change in refined.changes)


def test_mean_motion_of_all_is_none(scene):
    rng = np.random.default_rng(1)
    landmarks = late(observed(scene.landmarks, scene.cameras, noise=2.0), [0] * 4)
    wrong = [disturbed(camera, 0.3, 0.02, rng) for camera in scene.cameras]
    refined = refine_rig(landmarks, rig(wrong), quiet).rig.cameras
    moved = np.stack([a.center - b.center for a, b in zip(refined, wrong, strict=True)])
    assert np.linalg.norm(moved.mean(0)) < 0.1 * np.linalg.norm(moved, axis=1).mean()


def test_times_are_found_to_a_fraction_of_a_frame(scene):
    exact = observed(scene.landmarks, scene.cameras)
    shifted = late(exact, [0, 0.5, 0, 3])
    noise = np.random.default_rng(2).normal(size=shifted.places.shape)
    landmarks = replace(shifted, places=(shifted.places + noise).astype(np.float32))
    rng = np.random.default_rng(3)
    wrong = [disturbed(camera, 0.3, 0.02, rng) for camera in scene.cameras]
    refined = refine_rig(landmarks, rig(wrong), quiet)
    assert np.abs(refined.rig.time_offsets - [0, 0.5, 0, 3]).max() < 0.05
    degrees, metres = misplaced(refined.rig.cameras, scene.cameras)
    assert degrees.max() < 0.12
    assert metres.max() < 0.01
    assert len(refined.notes) == 2
    assert "camera 'cam3' took its pictures" in refined.notes[1]
    assert "after the others" in refined.notes[1]


def test_a_camera_of_another_place_is_named(scene):
    landmarks = late(observed(scene.landmarks, scene.cameras, noise=1.0), [0] * 4)
    cameras = [*scene.cameras[:3], disturbed(scene.cameras[3], 4.0, 0.0, np.random.default_rng(0))]
    notes = refine_rig(landmarks, rig(cameras), quiet).notes
    assert any("camera 'cam3' had to be turned" in note for note in notes)


def test_without_landmarks_in_common_the_cameras_stay(scene):
    landmarks = observed(scene.landmarks, scene.cameras)
    confidence = np.zeros_like(landmarks.confidence)
    confidence[0] = 1
    refined = refine_rig(replace(landmarks, confidence=confidence), rig(scene.cameras), quiet)
    assert refined.rig.cameras == scene.cameras
    assert "not checked" in refined.notes[0]
