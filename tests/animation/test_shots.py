"""Which camera sees which pose, and how the pictures are called."""

import numpy as np
import pytest

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import UP_ROTATIONS, PoseSequence
from mmlphuman.animation.shots import make_shots, mean_pelvis, nearest_axis

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
