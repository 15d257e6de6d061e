"""Drawing for viewers: equal to drawing by hand, and nothing is disturbed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView, camera_to_json
from mmlphuman.animation.hands import hand_pose
from mmlphuman.animation.render_sequence import to_cameras
from mmlphuman.backend import PYTORCH
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.export import compact
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import to_bytes
from mmlphuman.streaming import live_scene as module
from mmlphuman.streaming.handover import JobQueue
from mmlphuman.streaming.live_scene import (
    PART_SECONDS,
    Answers,
    Drawing,
    LiveScene,
    Pace,
    scene_of_model,
    world_up,
)
from mmlphuman.streaming.messages import MAX_SIDE, RENDER_MODES, PoseRequest, RenderRequest
from mmlphuman.streaming.protocol import decode_server, encode
from mmlphuman.types import Pose
from tests.builders import random_pose
from tests.streaming.live_scenes import FRAMES, ask, view


@torch.no_grad()
def by_hand(trained, pose: Pose, request: RenderRequest) -> np.ndarray:
    output = trained.avatar(pose, trained.active, trained.features(pose, request.project))
    cameras = to_cameras(request.camera, "cpu")
    return to_bytes(rasterize(output.posed, cameras, torch.tensor(request.background)).colors[0]).numpy()


# --- poses and cameras -------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [False, True])
def test_a_training_frame_is_drawn_as_by_hand(scene, trained, project):
    request = ask(PoseRequest(frame=7), project=project, background=(0.2, 0.4, 0.9))
    pose = Pose(torch.from_numpy(scene.poses[7]), torch.from_numpy(scene.translations[7]), torch.eye(3))
    drawn = scene.draw(request)
    assert np.array_equal(drawn.image, by_hand(trained, pose, request))
    assert (drawn.iteration, drawn.gaussians) == (100, 600) and drawn.distance == pytest.approx(0, abs=1e-3)
    assert (drawn.image != drawn.image[0, 0]).any(), "the person is not in the picture"


def test_a_given_pose_is_turned_after_everything_else(scene, trained):
    joints = random_pose(50).joints.numpy().astype(np.float64)
    translation, rotation = np.array([0.1, 0.2, -0.1]), np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    request = ask(PoseRequest("given", joints=joints, translation=translation, rotation=rotation))
    pose = Pose(
        torch.from_numpy(joints).float(),
        torch.from_numpy(rotation @ translation).float(),
        torch.from_numpy(rotation).float(),
    )
    drawn = scene.draw(request)
    assert np.array_equal(drawn.image, by_hand(trained, pose, request))
    assert drawn.distance == pytest.approx(float(trained.pose_space.distance(pose.body))) and (
        drawn.distance > 1
    )


def test_named_poses_hands_and_translation(scene):
    assert not scene.pose(PoseRequest("t")).joints.any()
    assert torch.equal(scene.pose(PoseRequest("big")).joints, canonical_pose())
    for hands in ("relaxed", "fist"):
        pose = scene.pose(PoseRequest(frame=2, hands=hands))
        assert np.array_equal(pose.joints[75:].numpy(), hand_pose(hands))
        assert np.array_equal(pose.joints[:75].numpy(), scene.poses[2, :75])
    assert np.array_equal(scene.pose(PoseRequest(frame=2)).translation.numpy(), scene.translations[2])
    assert not scene.pose(PoseRequest(frame=2, use_translation=False)).translation.any()
    assert scene.poses[2, 75:].any(), "the training hands were to be seen"


def test_the_light_can_be_left_out(scene, trained):
    """The same picture as of the avatar that has none; it is not posed again."""
    assert trained.avatar.light is not None and scene.welcome(False).light
    lit = scene.draw(ask(PoseRequest(frame=3))).image
    posed = scene.posed
    unlit = scene.draw(ask(PoseRequest(frame=3), light=False)).image
    assert scene.posed is posed
    pose, light = scene.pose(PoseRequest(frame=3)), trained.avatar.light
    trained.avatar.light = None
    try:
        expected = by_hand(trained, pose, ask())
        assert not scene.welcome(False).light
    finally:
        trained.avatar.light = light
    assert np.array_equal(unlit, expected) and np.abs(lit.astype(int) - unlit).max() > 10
    assert np.array_equal(scene.draw(ask(PoseRequest(frame=3))).image, lit)


def upside_down(camera: CameraView) -> CameraView:
    return replace(camera, w2c=np.diag([-1.0, -1, 1, 1]) @ camera.w2c)


@pytest.mark.parametrize(
    ("camera", "up"),
    [
        (view(0.3), (0, 1, 0)),
        (upside_down(view(0.3)), (0, -1, 0)),
        (replace(view(), w2c=view().w2c @ np.eye(4)[[0, 2, 1, 3]] * [1, -1, 1, 1]), (0, 0, 1)),
    ],
)
def test_the_person_stands_up_where_the_cameras_do(trained, camera, up):
    poses, translations = np.zeros((2, 165)), np.array([[2.0, 3, 4], [2, 3, 6]])
    scene = LiveScene(trained, PYTORCH, poses, translations, range(2), {0: camera}, "")
    assert scene.welcome(False).up == up and tuple(world_up([camera])) == up
    root = trained.avatar.joints[0].numpy()
    np.testing.assert_allclose(scene.welcome(False).center, translations.mean(0) + root, atol=1e-6)
    pose = scene.pose(PoseRequest("t"))
    joints = trained.avatar.joints @ pose.rotation.T + pose.translation
    np.testing.assert_allclose(joints[0], scene.center, atol=1e-5)
    head = (joints[15] - joints[0]).numpy()
    assert head @ np.array(up) > 0.9 * np.linalg.norm(head)


def test_without_cameras_up_is_y():
    assert tuple(world_up([])) == (0, 1, 0)


def test_welcome_survives_the_wire(trained):
    wide = replace(view(), width=MAX_SIDE * 2, height=MAX_SIDE)
    scene = LiveScene(trained, PYTORCH, np.zeros((2, 165)), np.ones((2, 3)), [8, 5], {4: wide}, "some/model")
    welcome = decode_server(encode(scene.welcome(training=True)))
    assert (welcome.title, welcome.gaussians, welcome.training) == ("some/model", 600, True)
    assert welcome.frames == (8, 5) and [entry.id for entry in welcome.cameras] == [4]
    camera = welcome.cameras[0].camera
    assert (camera.width, camera.height, camera.fovx) == (MAX_SIDE, MAX_SIDE // 2, wide.fovx)


def test_held_out_cameras_come_last_and_are_told_apart(trained):
    cameras = {number: view(number / 3) for number in (5, 0, 2, 7)}
    scene = LiveScene(
        trained, PYTORCH, np.zeros((2, 165)), np.ones((2, 3)), range(2), cameras, "", held_out=[0, 5]
    )
    entries = decode_server(encode(scene.welcome(training=False))).cameras
    assert [(entry.id, entry.trained) for entry in entries] == [
        (2, True),
        (7, True),
        (0, False),
        (5, False),
    ]
    for entry in entries:
        np.testing.assert_allclose(entry.camera.w2c, cameras[entry.id].w2c)


def test_a_training_frame_that_is_refined_is_drawn_as_of_now(trained, scene):
    scene.refined = lambda position: (
        scene.poses[position] + np.float32(0.1),
        scene.translations[position] + 1,
    )
    pose = scene.pose(PoseRequest(frame=4, hands="relaxed"))
    np.testing.assert_allclose(pose.joints[:66].numpy(), scene.poses[4, :66] + 0.1, atol=1e-6)
    np.testing.assert_allclose(pose.translation, scene.translations[4] + 1, atol=1e-6)
    with pytest.raises(ValueError, match="position 12 does not exist"):
        scene.pose(PoseRequest(frame=12))


def test_a_compact_file_that_carries_no_frames_lends_its_pose_space(trained, tmp_path):
    path = tmp_path / "avatar.safetensors"
    path.write_bytes(
        compact.pack(compact.encode(trained), trained, {}, [{"id": 0, **camera_to_json(view())}])
    )
    scene = scene_of_model(path, trained, PYTORCH)
    welcome = scene.welcome(training=False)
    assert welcome.cameras == () and welcome.frames == tuple(
        range(FRAMES)
    )  # cameras look where nobody stands
    pose = scene.pose(PoseRequest(frame=3))
    training = trained.pose_space.training_poses[3]
    assert torch.equal(pose.joints[3:], training[3:165]) and training[:3].any()
    assert torch.equal(pose.expression, training[165:])
    assert not pose.joints[:3].any() and not pose.translation.any()  # upright, at the origin


def test_jaw_and_expression_count_where_the_avatar_has_learnt_them(trained):
    """Of a given pose and of training's; zero in the poses that have names."""
    joints, expression = random_pose(5).joints.numpy().astype(np.float64), np.linspace(-1, 1, 10)
    joints[66:69] = 0.2
    given = PoseRequest("given", 0, joints, expression, np.zeros(3), np.eye(3))
    expressions = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    for face in (False, True):
        with_face = replace(trained, config=replace(trained.config, face=face))
        scene = LiveScene(
            with_face, PYTORCH, np.zeros((2, 165)), np.ones((2, 3)), [8, 5], {}, "", expressions
        )
        pose, expected = scene.pose(given), joints.astype(np.float32)
        expected[66:69] *= face
        np.testing.assert_array_equal(pose.joints.numpy(), expected)
        np.testing.assert_allclose(pose.expression.numpy(), face * expression, atol=1e-7)
        np.testing.assert_array_equal(scene.pose(PoseRequest(frame=1)).expression.numpy(), expressions[1])
        assert not scene.pose(PoseRequest("t")).expression.any()


@pytest.mark.parametrize("frame", [FRAMES, 2**53 - 1])
def test_a_frame_that_does_not_exist_is_one_line(scene, frame):
    with pytest.raises(ValueError, match=f"position {frame} does not exist.*0 to 11") as error:
        scene.draw(ask(PoseRequest(frame=frame)))
    assert "\n" not in str(error.value)
    scene.draw(ask())  # and the next is drawn


def test_a_picture_too_large_for_a_cpu_is_refused(scene):
    with pytest.raises(ValueError, match="4096 x 4096 pixels"):
        scene.draw(ask(camera=view(size=4096)))


# --- one viewer's large pictures and the others' time -------------------------------------------------------


class FakeClock:
    """In place of the module `time`, for a machine that takes `load_seconds` for a unit of Picture.loads."""

    def __init__(self, monkeypatch, load_seconds: float):
        self.now, self.load_seconds = 50.0, load_seconds
        monkeypatch.setattr(module, "time", self)

    def perf_counter(self) -> float:
        return self.now


class FakePicture:
    """Takes time in proportion to its rows' loads, and looks like their numbers."""

    width, row_height = 256, 16

    def __init__(self, clock: FakeClock, loads):
        self.clock, self.loads, self.picture, self.parts = clock, tuple(loads), self, []

    def draw(self, top: int, bottom: int) -> torch.Tensor:
        load = sum(self.loads[top:bottom])
        self.clock.now += self.clock.load_seconds * load
        self.parts.append((bottom - top, self.clock.load_seconds * load))
        rows = torch.arange(top, bottom).repeat_interleave(self.row_height) / 255
        return rows[:, None, None].expand(-1, self.width, 3)


def drawing_of(picture: FakePicture, pace: Pace) -> Drawing:
    return Drawing(picture, PYTORCH, pace, 1, 1, torch.tensor(0.0), 0.0)


@pytest.mark.parametrize("speed", [1e-8, 1e-6, 1e-5])
def test_parts_keep_to_their_time_on_any_machine(monkeypatch, speed):
    """Also where an empty sky is followed by rows that hold a thousand times as much."""
    clock, pace = FakeClock(monkeypatch, speed), Pace()
    loads = [10] * 40 + [int(0.05 / speed)] * 40 + [1] * 40
    for _ in range(2):  # the first one learns
        picture = FakePicture(clock, loads)
        drawing = drawing_of(picture, pace)
        while (drawn := drawing.advance()) is None:
            pass
        assert np.array_equal(drawn.image[::16, 0, 0], np.arange(len(loads)))
        assert drawn.render_ms == pytest.approx(1000 * speed * sum(loads))
    assert all(took <= PART_SECONDS * 1.01 or rows == 1 for rows, took in picture.parts)
    assert len(picture.parts) <= 2 * 40 * 0.05 / PART_SECONDS, "and are no smaller than need be"


def test_small_pictures_are_one_part(monkeypatch):
    """Whatever a hiccup of the machine has done to the pace."""
    pace = Pace()
    pace.note(1, 3.0)
    picture = FakePicture(FakeClock(monkeypatch, 1e-6), [100])
    assert drawing_of(picture, pace).advance() is not None


class FakeServer:
    """The queue, with the time at which each viewer got its picture."""

    def __init__(self, clock: FakeClock):
        self.queue, self.clock = JobQueue(), clock
        self.waits = {"far": [], "near": []}
        self.asked_at = {}

    def ask(self, client: str) -> None:
        self.asked_at[client] = self.clock.now
        self.queue.put(client, ask(show="alpha" if client == "near" else "color"))

    def put_back(self, job) -> None:
        self.queue.put_back(job)

    def deliver(self, job, *_) -> None:
        self.waits[job.client].append(self.clock.now - self.asked_at[job.client])
        self.queue.release(job)
        self.ask(job.client)


def test_nobody_waits_for_another_viewers_close_up(monkeypatch, scene):
    """One picture of 30 s after another; beside it somebody's pictures of 0.15 s wait for a part, and not for it."""
    clock = FakeClock(monkeypatch, 1e-6)
    loads = {"near": [60_000] * 500, "far": [15_000] * 10}
    monkeypatch.setattr(
        scene,
        "begin",
        lambda request: drawing_of(
            FakePicture(clock, loads["near" if request.show == "alpha" else "far"]), scene.pace
        ),
    )
    server = FakeServer(clock)
    answers = Answers(server, scene)
    for client in ("near", "far"):
        server.queue.admit(client)
        server.ask(client)
    while clock.now < 200:
        answers.answer(server.queue.take(0))
    assert len(server.waits["near"]) >= 2, "the close-up is drawn all the same"
    assert len(server.waits["far"]) > 300
    assert max(server.waits["far"]) <= PART_SECONDS + 0.15 + 0.01


# --- what is kept, and what is left alone -------------------------------------------------------------------


def test_a_still_pose_is_posed_once_while_the_camera_moves(scene, trained):
    calls = []
    hook = trained.avatar.register_forward_hook(lambda *_: calls.append(1))
    for angle in (0, 0.5, 1):
        scene.draw(ask(camera=view(angle), show="depth" if angle else "color"))
    assert len(calls) == 1
    scene.draw(ask(PoseRequest(frame=1)))
    scene.draw(ask(PoseRequest(frame=1), project=True))
    scene.draw(ask(PoseRequest(frame=1, hands="fist"), project=True))
    assert len(calls) == 4
    scene.trained = replace(trained, iteration=101)
    moved = scene.draw(ask(PoseRequest(frame=1, hands="fist"), project=True))
    assert len(calls) == 5 and moved.iteration == 101
    hook.remove()


def test_the_kept_pose_is_drawn_like_a_new_one(scene, trained):
    scene.draw(ask(PoseRequest(frame=4), show="distance"))
    kept = scene.draw(ask(PoseRequest(frame=4), view(0.7), gaussian_scale=0.5)).image
    scene.posed = None
    assert np.array_equal(kept, scene.draw(ask(PoseRequest(frame=4), view(0.7), gaussian_scale=0.5)).image)


@pytest.mark.parametrize("show", RENDER_MODES)
def test_drawing_disturbs_nothing(scene, trained, show):
    before = {name: value.clone() for name, value in trained.avatar.state_dict().items()}
    state, mode = torch.get_rng_state(), trained.avatar.training
    drawn = scene.draw(ask(show=show, project=True, gaussian_scale=0.7))
    assert drawn.image.shape == (64, 64, 3) and drawn.image.dtype == np.uint8
    assert torch.equal(state, torch.get_rng_state()) and trained.avatar.training == mode
    assert all(torch.equal(before[name], value) for name, value in trained.avatar.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in trained.avatar.parameters())
    assert torch.is_grad_enabled()
