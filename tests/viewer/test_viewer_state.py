"""What the state asks for, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from viewer_scenes import a_welcome, looking_at

from mmlphuman.animation.pose_file import UP_ROTATIONS, PoseSequence
from mmlphuman.streaming.messages import MAX_SIDE, RenderRequest
from mmlphuman.streaming.protocol import decode_client, encode
from viewer.viewer_state import (
    MOVING_SECONDS,
    Playback,
    Requester,
    ViewerState,
    build_request,
    build_screenshot,
    same_picture,
)


def a_sequence(frames: int = 5, fps: float | None = 60.0) -> PoseSequence:
    random = np.random.default_rng(2)
    return PoseSequence(
        poses=random.normal(size=(frames, 165)).astype(np.float32),
        translations=random.normal(size=(frames, 3)).astype(np.float32),
        rotation=np.array(UP_ROTATIONS["z"], np.float32),
        frames=np.arange(frames) * 2,
        fps=fps,
        source="walk.npz",
        expressions=random.normal(size=(frames, 10)).astype(np.float32),
    )


@pytest.fixture
def state() -> ViewerState:
    state = ViewerState(panel=(400, 300))
    state.take_welcome(a_welcome())
    return state


def over_the_wire(request: RenderRequest) -> RenderRequest:
    return decode_client(encode(request))


@pytest.mark.parametrize("panel", [(1, 1), (5, 900), (400, 300), (9000, 20), (5000, 8000)])
@pytest.mark.parametrize("resolution", [1.0, 0.25])
def test_every_panel_gives_a_request_that_the_server_accepts(state, panel, resolution):
    state.panel, state.resolution = panel, resolution
    camera = over_the_wire(build_request(state, 3)).camera
    assert max(camera.width, camera.height) <= MAX_SIDE
    if min(panel) > 100 and max(panel) <= MAX_SIDE:
        assert (camera.width, camera.height) == tuple(round(side * resolution) for side in panel)


def test_the_first_view_is_the_first_training_cameras(state):
    np.testing.assert_allclose(
        build_request(state, 1).camera.w2c, a_welcome().cameras[0].camera.w2c, atol=1e-12
    )


def test_cameras_are_jumped_to_round_and_round(state):
    for position, expected in ((1, 1), (3, 0), (-1, 2)):
        state.jump_to_camera(position)
        assert state.camera_position == expected
        expected_view = a_welcome().cameras[expected].camera
        state.panel = expected_view.width, expected_view.height
        camera = build_request(state, 1).camera
        np.testing.assert_allclose(camera.w2c, expected_view.w2c, atol=1e-12)
        assert camera.fovx == expected_view.fovx


def test_every_control_reaches_the_request(state):
    state.kind, state.frame, state.use_translation, state.hands = "training", 4, False, "fist"
    state.project, state.show, state.background = True, "normals", (0.25, 0.5, 1.0)
    state.gaussian_scale, state.quality, state.light = 0.5, 42, False
    request = over_the_wire(build_request(state, 9))
    assert (request.id, request.encoding, request.quality) == (9, "jpeg", 42)
    assert (request.pose.kind, request.pose.frame) == ("training", 4)
    assert (request.pose.use_translation, request.pose.hands) == (False, "fist")
    assert (request.project, request.show, request.background) == (True, "normals", (0.25, 0.5, 1.0))
    assert request.gaussian_scale == 0.5 and not request.light


def test_the_light_is_offered_where_there_is_one(state):
    assert state.light and not state.has_light() and not ViewerState().has_light()
    state.take_welcome(a_welcome(light=True))
    assert state.has_light() and over_the_wire(build_request(state, 1)).light


def test_a_pose_files_frame_is_sent_whole(state):
    sequence = a_sequence()
    state.take_sequence(sequence)
    state.set_position(3)
    pose = over_the_wire(build_request(state, 1)).pose
    assert pose.kind == "given"
    np.testing.assert_array_equal(pose.joints, sequence.poses[3])
    np.testing.assert_array_equal(pose.expression, sequence.expressions[3])
    np.testing.assert_array_equal(pose.translation, sequence.translations[3])
    np.testing.assert_array_equal(pose.rotation, sequence.rotation)


def test_a_file_without_expressions_sends_zeros(state):
    state.take_sequence(replace(a_sequence(), expressions=None))
    assert over_the_wire(build_request(state, 1)).pose.expression.tolist() == [0] * 10


@pytest.mark.parametrize("kind", ["t", "big", "given"])
def test_poses_without_frames(state, kind):
    state.kind = kind
    pose = over_the_wire(build_request(state, 1)).pose
    assert pose.kind == ("t" if kind == "given" else kind)  # no file was read
    state.set_position(3)
    assert state.frame_count() == 0 and state.position() == 0


def test_controls_beyond_the_limits_are_clamped_not_refused(state):
    state.gaussian_scale, state.quality, state.background = 100.0, 500, (1.2, -0.1, 0.5)
    request = over_the_wire(build_request(state, 1))
    assert request.background == (1.0, 0.0, 0.5)


def test_a_screenshot_is_lossless_and_in_full_size_and_changes_nothing(state):
    state.resolution = 0.25
    request = over_the_wire(build_screenshot(state, 5))
    assert (request.encoding, request.camera.width, request.camera.height) == ("png", 400, 300)
    assert state.resolution == 0.25


def test_the_same_scene_keeps_the_view_and_another_one_does_not(state):
    state.camera, state.frame = state.camera.orbit(0.3, 0.1), 5
    view = state.camera
    state.take_welcome(a_welcome(gaussians=99, training=True))
    assert state.camera is view and state.frame == 5
    state.take_welcome(a_welcome(title="another", frames=(1, 2)))
    assert state.camera is not view and state.frame == 0


def test_nobody_is_asked_before_the_welcome_and_a_run_is_then_shown_from_its_camera():
    state, requester = ViewerState(), Requester()
    assert requester.next_request(state, 1.0, idle=True) is None
    state.take_welcome(a_welcome(training=True))
    request = requester.next_request(state, 2.0, idle=True)
    assert request.pose.kind == "training"
    np.testing.assert_allclose(request.camera.w2c, a_welcome().cameras[0].camera.w2c, atol=1e-12)


def test_a_still_scene_is_asked_for_once(state):
    requester = Requester()
    first = requester.next_request(state, 0.0, idle=True)
    assert first is not None
    assert all(requester.next_request(state, now, idle=True) is None for now in np.arange(0, 5, 0.1))
    state.camera = state.camera.zoom(0.9)
    second = requester.next_request(state, 5.1, idle=False)  # a change does not wait for answers
    assert second.id > first.id and not same_picture(first, second)
    requester.forget()
    assert same_picture(second, requester.next_request(state, 5.2, idle=True))


def test_while_training_the_picture_is_renewed_at_the_rate_that_is_set(state):
    state.welcome, state.rate = replace(state.welcome, training=True), 5.0
    requester = Requester()
    asked = [now for now in np.arange(0, 4, 0.01) if requester.next_request(state, now, idle=True)]
    assert 19 <= len(asked) <= 21
    assert not any(requester.next_request(state, now, idle=False) for now in (5.0, 6.0))  # a slow server


def test_a_moving_view_is_asked_for_in_the_lower_resolution_and_then_in_full(state):
    requester, sizes = Requester(), []
    state.moving_resolution = 0.5
    requester.next_request(state, 0.0, idle=True)
    for now in np.arange(0, 2, 0.05):
        if now < 0.5:
            state.camera = state.camera.orbit(0.01, 0)
            requester.touch(now)
        request = requester.next_request(state, now, idle=True)
        if request:
            sizes.append((now, request.camera.width))
    assert {width for now, width in sizes[:-1]} == {200}
    last, width = sizes[-1]
    assert width == 400 and last == pytest.approx(0.45 + MOVING_SECONDS, abs=0.06)


@pytest.mark.parametrize(("kind", "fps"), [("given", 60.0), ("training", 30.0)])
def test_playing_takes_the_time_that_the_motion_took(state, kind, fps):
    state.take_sequence(a_sequence(1000))
    state.kind, state.speed, state.playing = kind, 0.5, True
    state.welcome = replace(state.welcome, frames=tuple(range(1000)))
    playback = Playback()
    for now in np.arange(0, 2.001, 0.013):  # the window's frames, not the motion's
        playback.advance(state, now)
    assert state.position() == pytest.approx(2 * 0.5 * fps, abs=1)


def test_playing_goes_round_and_pausing_holds(state):
    state.take_sequence(a_sequence(4, fps=None))  # 30 a second
    state.playing = True
    playback = Playback()
    seen = []
    for now in (1 / 30 + 1e-5) * np.arange(9):
        playback.advance(state, now)
        seen.append(state.position())
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    state.playing = False
    playback.advance(state, 2.0)
    held = state.position()
    state.playing = True
    playback.advance(state, 50.0)  # the pause itself is not played
    assert state.position() == held


def test_another_reading_of_the_same_file_keeps_the_frame(state):
    state.take_sequence(a_sequence(5))
    state.set_position(4)
    state.take_sequence(a_sequence(5))
    assert state.position() == 4
    state.take_sequence(a_sequence(2))
    assert state.position() == 1


def test_a_scene_seen_from_a_file_is_that_view(state):
    view = looking_at((0, 1, 0), (1, 2, 3), 640, 480, 30.0)
    state.take_view(view)
    state.panel = 640, 480
    np.testing.assert_allclose(build_request(state, 1).camera.w2c, view.w2c, atol=1e-12)
