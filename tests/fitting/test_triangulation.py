from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmlphuman.fitting.observations import LANDMARKS, Landmarks, Rig
from mmlphuman.fitting.triangulation import (
    SWAP_GROUPS,
    at_frames,
    mend_swaps,
    nearest_points,
    observe,
    project,
    rays,
    slopes,
    swap_partners,
    triangulate,
    undistorted,
)
from tests.fitting.scene import make_scene, observed, picture_places, ring


@pytest.fixture(scope="module")
def scene(synthetic_body):
    return make_scene(synthetic_body, 12)


def rig(cameras, offsets=None):
    return Rig(cameras, np.zeros(len(cameras)) if offsets is None else np.asarray(offsets, float))


@pytest.mark.parametrize("half_pixel", [True, False])
def test_lens_is_undone_as_the_pictures_are(half_pixel):
    camera = replace(ring(1)[0], half_pixel=half_pixel)
    points = np.random.default_rng(0).uniform([-0.6, 0.2, -0.6], [0.6, 1.7, 0.6], (50, 3))
    ideal = undistorted(picture_places(camera, points), camera)
    pinhole, _ = project(camera, points)
    # Published calibrations take K for centres at +0.5 as it stands, and undo the lens with OpenCV's centres.
    expected = pinhole if half_pixel else pinhole + 0.5
    assert np.abs(ideal - expected).max() < 0.01


def test_linear_points_come_back_and_need_two_cameras(scene):
    places = observe(observed(scene.landmarks, scene.cameras), scene.cameras).places[:, 0]
    seen = np.stack([slopes(p, camera) for p, camera in zip(places, scene.cameras, strict=True)])
    weights = np.ones(seen.shape[:2])
    weights[:, 3] = [0, 0, 1, 0]
    found = nearest_points(seen, weights, scene.cameras)
    assert np.isnan(found[3]).all()
    assert np.abs(np.delete(found - scene.landmarks[0], 3, 0)).max() < 1e-3


def test_rays_point_where_the_camera_sees(scene):
    camera = scene.cameras[1]
    pixels, _ = project(camera, scene.landmarks[0])
    along = scene.landmarks[0] - camera.center
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    assert np.abs(rays(pixels, camera) - along).max() < 1e-6


def test_points_are_exact_without_noise(scene):
    found = triangulate(observed(scene.landmarks, scene.cameras), rig(scene.cameras))
    assert np.abs(found.points.places - scene.landmarks).max() < 1e-3
    assert np.nanmax(found.points.errors) < 0.1
    assert (found.points.confidence > 0.4).all()
    assert found.notes == ()


def test_outliers_are_left_out_and_gaps_have_no_confidence(scene):
    landmarks = observed(scene.landmarks, scene.cameras, noise=1.0, outliers=0.08, missing=0.1, seed=1)
    lost = landmarks.confidence.copy()
    lost[1:, 3, 9] = 0  # a single camera is left
    landmarks = replace(landmarks, confidence=lost)
    found = triangulate(landmarks, rig(scene.cameras)).points
    assert found.confidence[3, 9] == 0
    far = np.linalg.norm(found.places - scene.landmarks, axis=-1)
    assert np.median(far) < 0.005
    # A wrong observation among two or three right ones pulls the point, or is called doubtful.
    assert (far[found.confidence > 0.3] > 0.05).mean() < 0.02


@pytest.mark.parametrize("group", list(SWAP_GROUPS))
def test_swaps_in_single_pictures_are_mended_and_told(scene, group):
    landmarks = observed(scene.landmarks, scene.cameras, noise=1.5, seed=2)
    places, (left, right) = landmarks.places.copy(), swap_partners(group)
    both, exchanged = np.concatenate([left, right]), np.concatenate([right, left])
    for view, frame in ((0, 2), (2, 5), (1, 8), (2, 8)):  # in frame 8 in half of the cameras
        places[view, frame, both] = places[view, frame, exchanged]
    mended, notes = mend_swaps(Landmarks(places, landmarks.confidence), rig(scene.cameras))
    # In frame 8 camera 1 sees the head from its side: eyes and ears lie within 2 cm of each other's, and stay.
    undecided = 7 if group == "face" else 0  # pixels
    assert np.abs(mended.places - landmarks.places)[..., both, :].max() <= undecided
    assert len(notes) == 1
    assert f"of the {group} were exchanged in {3 if group == 'face' else 4} of 48" in notes[0]
    assert "camera 'cam2' in 2 (first in frame 5)" in notes[0]


def test_right_landmarks_are_not_exchanged(scene):
    landmarks = observed(scene.landmarks, scene.cameras, noise=4.0, outliers=0.05, missing=0.1)
    mended, notes = mend_swaps(landmarks, rig(scene.cameras))
    assert np.array_equal(mended.places, landmarks.places)
    assert notes == ()


def test_times_are_interpolated(scene):
    places = np.zeros((2, 6, len(LANDMARKS), 2), np.float32)
    places[..., 0] = 100 + 10 * np.arange(6)[:, None]
    landmarks = Landmarks(places, np.ones(places.shape[:3], np.float32))
    flat = tuple(replace(camera, dist=np.zeros(5)) for camera in scene.cameras[:2])
    moved = at_frames(observe(landmarks, flat), np.array([0.0, 1.5]))
    # Picture 0 of the second camera shows time 1.5: frame 2 is half a picture later.
    assert np.allclose(moved.places[1, 2:, :, 0], 105 + 10 * np.arange(4)[:, None])
    assert (moved.confidence[1, :2] == 0).all()
    assert (moved.confidence[1, 2:] == 1).all()
    assert np.array_equal(moved.places[0], places[0])


def test_a_single_camera_is_refused(scene):
    with pytest.raises(ValueError, match="two cameras"):
        triangulate(observed(scene.landmarks, scene.cameras[:1]), rig(scene.cameras[:1]))


def test_a_turned_camera_is_named(scene):
    landmarks = observed(scene.landmarks, scene.cameras)
    camera = scene.cameras[2]
    shifted = replace(camera, T=camera.T + np.array([0.05, 0, 0]))
    cameras = (*scene.cameras[:2], shifted, *scene.cameras[3:])
    notes = triangulate(landmarks, rig(cameras)).notes
    assert any("camera 'cam2'" in note for note in notes)


def test_a_camera_with_its_back_to_the_person_is_named(scene):
    landmarks = observed(scene.landmarks, scene.cameras)
    camera, half_turn = scene.cameras[1], np.diag([-1.0, 1, -1])
    away = replace(camera, R=half_turn @ camera.R, T=half_turn @ camera.T)
    notes = triangulate(landmarks, rig((scene.cameras[0], away, *scene.cameras[2:]))).notes
    assert any("camera 'cam1': the person stands behind it" in note for note in notes)
