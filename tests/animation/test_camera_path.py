"""Camera paths and turntables as geometry, and which camera sees which pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import (
    camera_path,
    held,
    make_shots,
    mean_pelvis,
    nearest_axis,
    smoothed,
    turntable,
)
from mmlphuman.animation.pose_file import UP_ROTATIONS, PoseSequence

CENTER = np.array([0.2, 1.0, -0.1])
UP = np.array([0.0, 1.0, 0.0])


def looking_at(center: np.ndarray, position: np.ndarray, fovx: float = 40.0, roll: float = 0.0) -> CameraView:
    """Upright but for `roll`, `center` in the middle of the picture."""
    forward = (center - position) / np.linalg.norm(center - position)
    right = np.cross(forward, UP) / np.linalg.norm(np.cross(forward, UP))
    rotation = np.stack([right, np.cross(forward, right), forward])
    w2c = np.eye(4)
    w2c[:3, :3] = Rotation.from_rotvec([0, 0, roll]).as_matrix() @ rotation
    w2c[:3, 3] = -w2c[:3, :3] @ position
    return CameraView(w2c, fovx, 320, 240)


def ring(angles: list[float], distance: float = 3.0, **settings) -> list[CameraView]:
    """Degrees about the upright axis through CENTER -> cameras, a little above it."""
    positions = [[np.sin(a) * distance, 0.4, np.cos(a) * distance] for a in np.deg2rad(angles)]
    return [looking_at(CENTER, CENTER + position, **settings) for position in positions]


def in_picture(view: CameraView, point: np.ndarray) -> np.ndarray:
    """(2,) pixels from the middle."""
    projected = view.intrinsics @ (view.w2c[:3, :3] @ point + view.w2c[:3, 3])
    return projected[:2] / projected[2] - [view.width / 2, view.height / 2]


def steps(views: list[CameraView]) -> np.ndarray:
    """Degrees turned from each view to the next."""
    rotations = Rotation.from_matrix([view.w2c[:3, :3] for view in views])
    return np.rad2deg((rotations[1:] * rotations[:-1].inv()).magnitude())


def assert_rigid(views: list[CameraView]) -> None:
    for view in views:
        rotation = view.w2c[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) > 0
        np.testing.assert_array_equal(view.w2c[3], [0, 0, 0, 1])


# --- turntable ----------------------------------------------------------------------------------------------


def test_turntable_closes_and_looks_at_the_centre_all_along():
    view = ring([20])[0]
    views = turntable(view, CENTER, UP, 36)
    np.testing.assert_allclose(views[0].w2c, view.w2c, atol=1e-12)
    assert_rigid(views)
    np.testing.assert_allclose([in_picture(v, CENTER) for v in views], 0, atol=1e-9)
    np.testing.assert_allclose(steps([*views, view]), 10, atol=1e-6)  # the last step leads to the first view
    around = np.array([v.center - CENTER for v in views])
    np.testing.assert_allclose(around[:, 1], 0.4, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(around, axis=1), np.hypot(3, 0.4))
    np.testing.assert_allclose(around.mean(0), [0, 0.4, 0], atol=1e-9)  # all the way round


def test_turntable_keeps_how_the_camera_is_held():
    """Not aimed at the centre, rolled, about an axis that is not y: each view sees the axis as the first does."""
    view = looking_at(CENTER + [0.3, 0.2, 0], CENTER + [1, 2, 2], roll=0.3)
    up = np.array([0.0, 3.0, 4.0])
    for other in turntable(view, CENTER, up, 7, turns=-0.6):
        for distance in (0, 0.5):
            point = CENTER + distance * up / 5
            np.testing.assert_allclose(in_picture(other, point), in_picture(view, point), atol=1e-8)


def test_direction_and_turns():
    quarter = turntable(ring([0])[0], CENTER, UP, 2, turns=0.5)[1]
    # Counter-clockwise from above.
    np.testing.assert_allclose(quarter.center, ring([90])[0].center, atol=1e-9)
    back = turntable(ring([0])[0], CENTER, UP, 2, turns=-0.5)[1]
    np.testing.assert_allclose(back.center, ring([-90])[0].center, atol=1e-9)


@pytest.mark.parametrize("up", [[0, 0, 0], [0, np.nan, 0], [0, np.inf, 0]])
def test_turntable_needs_an_axis(up):
    with pytest.raises(ValueError, match="turntable: .*up"):
        turntable(ring([0])[0], CENTER, np.array(up), 5)


# --- path through cameras -----------------------------------------------------------------------------------


def mixed_views() -> list[CameraView]:
    views = ring([0, 50, 120, 110, 250], distance=2.5)
    views[2] = looking_at(CENTER, CENTER + [0.5, 2.5, 0.2], fovx=70, roll=1.0)
    return [replace(view, fovx=view.fovx + 3 * number) for number, view in enumerate(views)]


def test_path_passes_through_its_cameras_at_equal_times():
    keys = mixed_views()
    views = camera_path(keys, 10 * (len(keys) - 1) + 1, CENTER, UP)
    assert_rigid(views)
    for key, view in zip(keys, views[::10], strict=True):
        np.testing.assert_allclose(view.w2c, key.w2c, atol=1e-9)
        assert view.fovx == pytest.approx(key.fovx)
    assert {(view.width, view.height) for view in views} == {(320, 240)}
    fovs = np.array([view.fovx for view in views])
    assert fovs.min() >= min(key.fovx for key in keys) and fovs.max() <= max(key.fovx for key in keys)


def test_path_is_smooth_in_the_cameras_as_well():
    """Speed does not jump: with steps ten times as fine, its largest change from step to step is a tenth."""

    def largest_change(count: int) -> np.ndarray:
        views = camera_path(mixed_views(), count, CENTER, UP)
        centers = np.stack([view.center for view in views])
        moved = Rotation.from_matrix([view.w2c[:3, :3] for view in views])
        turned = (moved[1:] * moved[:-1].inv()).as_rotvec()
        fovs = np.array([view.fovx for view in views])[:, None]
        # Rotation vectors are in each camera's own axes, which turn little from step to step.
        return np.array(
            [
                np.abs(np.diff(x, axis=0)).max() * count
                for x in (np.diff(centers, axis=0), turned, np.diff(fovs, axis=0))
            ]
        )

    assert (largest_change(4001) < 0.15 * largest_change(401)).all()


def test_path_on_a_ring_keeps_the_person_in_the_picture_and_never_flips():
    views = camera_path(ring([0, 45, 90, 135, 180, 225, 270, 315, 360]), 200, CENTER, UP)
    offsets = np.linalg.norm([in_picture(view, CENTER) for view in views], axis=1)
    assert offsets.max() < 0.05 * 320
    distances = np.linalg.norm([view.center - CENTER for view in views], axis=1)
    assert distances.min() > 0.95 * distances[0] and distances.max() < 1.05 * distances[0]
    assert steps(views).max() < 1.5 * 360 / 199
    assert all(view.w2c[1, 1] < -0.9 for view in views), "y of the camera points down all along"


def test_path_between_opposite_cameras_goes_round_the_person():
    """Not through the middle: distance and height stay, and the person stays in the middle of the picture."""
    views = camera_path(ring([0, 180, 350]), 101, CENTER, UP)
    around = np.array([view.center - CENTER for view in views])
    np.testing.assert_allclose(np.hypot(around[:, 0], around[:, 2]), 3, atol=1e-9)
    np.testing.assert_allclose(around[:, 1], 0.4, atol=1e-9)
    np.testing.assert_allclose([in_picture(view, CENTER) for view in views], 0, atol=1e-7)


@pytest.mark.parametrize("radius", [0.0, 1e-12])
def test_a_camera_above_the_person_is_on_the_way(radius):
    """On the axis a camera has no angle: it is reached all the same, and left on the side of the next."""
    above = looking_at(CENTER, CENTER + [radius, 2.5, 1e-13])
    keys = [ring([0])[0], replace(above, w2c=camera_above()), ring([90])[0]]
    views = camera_path(keys, 21, CENTER, UP)
    assert_rigid(views)
    for key, view in zip(keys, views[::10], strict=True):
        np.testing.assert_allclose(view.w2c, key.w2c, atol=1e-7)


def camera_above() -> np.ndarray:
    w2c = np.eye(4)
    w2c[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # looks straight down
    w2c[:3, 3] = -w2c[:3, :3] @ (CENTER + [0, 2.5, 0])
    return w2c


def test_path_takes_the_short_way_through_half_a_turn():
    """Quaternions and angles change sign here; a camera must not."""
    views = camera_path(ring([160, 175, 190, 205]), 91, CENTER, UP)
    assert steps(views).max() < 1.0


def test_path_between_equal_cameras_stands_still():
    view = mixed_views()[2]
    for other in camera_path([view, view, view], 7, CENTER, UP):
        np.testing.assert_allclose(other.w2c, view.w2c, atol=1e-12)


def test_one_camera_is_held_and_one_frame_is_the_first_camera():
    view, other = mixed_views()[:2]
    assert camera_path([view], 4, CENTER, UP) == held(view, 4) == [view] * 4
    np.testing.assert_allclose(camera_path([view, other], 1, CENTER, UP)[0].w2c, view.w2c, atol=1e-12)


def test_calibrated_cameras_keep_their_principal_point():
    K = np.array([[500.0, 0, 150], [0, 510, 130], [0, 0, 1]])
    keys = [replace(view, K=K + shift * np.eye(3, k=2)) for shift, view in enumerate(mixed_views())]
    views = camera_path(keys, 9, CENTER, UP)
    np.testing.assert_allclose(views[4].intrinsics, keys[2].K)
    assert 150 < views[1].intrinsics[0, 2] < 151
    assert turntable(keys[0], CENTER, UP, 3)[2].intrinsics is keys[0].K


def test_cameras_of_different_sizes_make_no_path():
    views = ring([0, 10, 20])
    views[2] = replace(views[2], width=640)
    with pytest.raises(ValueError, match="camera 2 is of 640x240 pixels but camera 0 of 320x240"):
        camera_path(views, 10, CENTER, UP)
    with pytest.raises(ValueError, match="at least one camera"):
        camera_path([], 10, CENTER, UP)


@pytest.mark.parametrize(
    "path",
    [
        held,
        lambda view, count: camera_path([view], count, CENTER, UP),
        lambda view, count: turntable(view, CENTER, UP, count),
    ],
)
def test_no_frames_make_no_path(path):
    with pytest.raises(ValueError, match="0 frames"):
        path(ring([0])[0], 0)


PELVIS = np.array([0.1, -0.3, 0.05])


def sequence(count=7, up="y"):
    translations = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    rotation = np.array(UP_ROTATIONS[up], np.float32)
    return PoseSequence(
        np.zeros((count, 165), np.float32), translations, rotation, np.arange(20, 20 + count), None, "x.npz"
    )


def camera(tilt=20.0, distance=3.0, size=(64, 48)):
    """In front of the origin, looking down a little, upright in a y-up world."""
    angle = np.radians(tilt)
    down = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    w2c = np.eye(4)
    w2c[:3, :3] = down @ np.diag([1.0, -1, -1])
    w2c[2, 3] = distance
    return CameraView(w2c, 40.0, *size)


def test_held_cameras_see_every_pose_under_names_of_their_own():
    shots = make_shots([camera(), camera(tilt=5)], sequence(), PELVIS)
    assert [len(shot.views) for shot in shots] == [7, 7]
    names = {shot.picture(frame).as_posix() for shot in shots for frame in (1, 12)} | {
        shot.video for shot in shots
    }
    assert len(names) == 6 and {"render/cam001_frame00000012.png", "cam001.mp4"} <= names
    (only,) = make_shots([camera()], sequence(), PELVIS)
    assert only.picture(12).as_posix() == "render/frame00000012.png" and only.video == "video.mp4"


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_turntable_keeps_the_person_where_it_was_in_the_picture(up):
    """Whatever the camera's place, its distance to the pelvis and the pelvis's pixel never change."""
    poses = sequence(up=up)
    (shot,) = make_shots([camera()], poses, PELVIS, "turntable")
    center = mean_pelvis(poses, PELVIS)
    world = [poses.rotation @ (PELVIS + translation) for translation in poses.translations]
    np.testing.assert_allclose(center, np.mean(world, 0), atol=1e-6)
    seen = np.stack([view.w2c[:3, :3] @ center + view.w2c[:3, 3] for view in shot.views])
    np.testing.assert_allclose(seen, seen[:1].repeat(7, 0), atol=1e-9)
    heights = [view.center[1] for view in shot.views]
    np.testing.assert_allclose(heights, heights[0], atol=1e-9)  # round +y, though the camera is tilted
    assert len({tuple(view.center.round(6)) for view in shot.views}) == 7
    first, second = (view.center - center for view in shot.views[:2])
    assert np.cross(first, second)[1] > 0  # counter-clockwise seen from above


def walking(count: int = 60, up: str = "y") -> PoseSequence:
    """A metre a second along x and a little up and down, from far away on."""
    poses = sequence(count, up)
    way = np.stack([5 + np.arange(count) / 30, 0.01 * np.sin(np.arange(count)), np.full(count, 2.0)], 1)
    return replace(poses, translations=(way @ poses.rotation).astype(np.float32))


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_camera_that_follows_keeps_the_person_in_place(up):
    poses = walking(up=up)
    start = poses.rotation @ (PELVIS + poses.translations[0])
    view = looking_at(start, start + [0, 0.3, 3])
    (shot,) = make_shots([view], poses, PELVIS, follow=True)
    places = [poses.rotation @ (PELVIS + translation) for translation in poses.translations]
    seen = np.array([in_picture(view, place) for view, place in zip(shot.views, places, strict=True)])
    assert np.abs(seen - seen[30]).max() < 4
    (still,) = make_shots([view], poses, PELVIS)
    assert max(abs(in_picture(view, place)[0]) for view, place in zip(still.views, places, strict=True)) > 160
    assert all(np.array_equal(view.w2c[:3, :3], shot.views[0].w2c[:3, :3]) for view in shot.views)
    np.testing.assert_allclose(shot.views[0].w2c, view.w2c, atol=1e-12)
    heights = np.array([view.center[1] for view in shot.views])
    assert np.ptp(heights[15:45]) < 0.002, "of two centimetres up and down in every six frames"


@pytest.mark.parametrize("count", [1, 2, 16])
def test_a_runner_is_followed_from_the_first_frame_to_the_last(count):
    """Of a clip much shorter than what is smoothed over."""
    way = np.outer(np.arange(count), [0.3, 0.1, -0.2]) + 5
    np.testing.assert_allclose(smoothed(way, 30), way, atol=1e-9)


def test_turntable_and_path_follow_too():
    poses = walking()
    cameras = [looking_at(PELVIS, PELVIS + place) for place in ([0, 0.3, 3], [3, 0.3, 0])]
    for motion, used in (("turntable", cameras[:1]), ("path", cameras)):
        (held_shot,) = make_shots(
            used, replace(poses, translations=np.zeros_like(poses.translations)), PELVIS, motion
        )
        start = replace(poses, translations=poses.translations - poses.translations[0])
        (following,) = make_shots(used, start, PELVIS, motion, follow=True)
        offsets = np.array(
            [a.center - b.center for a, b in zip(following.views, held_shot.views, strict=True)]
        )
        np.testing.assert_allclose(offsets[30], [1, 0, 0], atol=0.02)
        assert (np.diff(offsets[:, 0]) > 0).all()


def test_the_axis_is_signed():
    assert nearest_axis(np.array([0.2, -0.9, 0.3])).tolist() == [0, -1, 0]
    assert nearest_axis(np.array([0.2, 0.3, 0.9])).tolist() == [0, 0, 1]


def test_a_path_begins_and_ends_at_saved_cameras():
    cameras = [camera(tilt) for tilt in (0, 30, 10)]
    (shot,) = make_shots(cameras, sequence(), PELVIS, "path")
    for index, saved in ((0, 0), (3, 1), (6, 2)):
        np.testing.assert_allclose(shot.views[index].w2c, cameras[saved].w2c, atol=1e-9)


def test_too_few_or_many_cameras_are_one_line():
    with pytest.raises(ValueError, match="--turntable .* one camera, but --cam_path names 2"):
        make_shots([camera(), camera()], sequence(), PELVIS, "turntable")
    with pytest.raises(ValueError, match="--camera_path .* two or more"):
        make_shots([camera()], sequence(), PELVIS, "path")
    with pytest.raises(ValueError, match="one size"):
        make_shots([camera(), camera(size=(32, 32))], sequence(), PELVIS, "path")
