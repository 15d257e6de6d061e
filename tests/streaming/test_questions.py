"""What viewers ask besides pictures: surface points, camera paths, poses' numbers; joints turned by hand; the floor."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.camera_path import make_shots
from mmlphuman.animation.pose_file import PoseOptions, PoseSequence, read_pose_file
from mmlphuman.backend import PYTORCH
from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.streaming.handover import Job
from mmlphuman.streaming.live_scene import Answers, LiveScene
from mmlphuman.streaming.messages import (
    MAX_PATH,
    PathQuestion,
    PointQuestion,
    PoseQuestion,
    PoseRequest,
)
from mmlphuman.streaming.protocol import decode_server, encode
from tests.builders import random_pose
from tests.streaming.live_scenes import FRAMES, ask, view

UP = np.array([0.0, 1.0, 0.0])


# --- points ------------------------------------------------------------------------------------------------


def solid_pixels(scene, camera) -> np.ndarray:
    """(P, 2) rows and columns where nearly nothing shines through."""
    alpha = scene.draw(ask(camera=camera, show="alpha", encoding="raw")).image[..., 0]
    return np.argwhere(alpha > 250)


def test_a_point_is_seen_at_its_pixel_and_lies_on_the_person(scene):
    camera = replace(view(0.4, size=96), fovx=40.0)
    gaussians = scene._pose_avatar(scene.pose(PoseRequest()), False).gaussians.xyz.numpy()
    pixels = solid_pixels(scene, camera)
    for row, column in pixels[:: max(1, len(pixels) // 12)]:
        answer = scene.serve(PointQuestion(5, camera, int(column), int(row)))
        assert answer.id == 5
        point = np.array(decode_server(encode(answer)).point)
        seen = camera.w2c[:3, :3] @ point + camera.w2c[:3, 3]
        pixel = (camera.intrinsics @ seen / seen[2])[:2]
        assert pixel == pytest.approx([column + 0.5, row + 0.5], abs=1e-3)
        assert np.linalg.norm(gaussians - point, axis=1).min() < 0.1


def test_the_point_is_on_the_near_side(scene):
    """Seen from opposite sides, the person's thickness lies between the points."""
    front, back = (solid_pixels(scene, view(angle)) for angle in (0.0, np.pi))
    middle = [tuple(map(int, pixels[len(pixels) // 2])) for pixels in (front, back)]
    depths = []
    for angle, (row, column) in zip((0.0, np.pi), middle, strict=True):
        camera = view(angle)
        point = scene.serve(PointQuestion(1, camera, column, row)).point
        everything = scene._pose_avatar(scene.pose(PoseRequest()), False).gaussians.xyz.numpy()
        depth = (everything @ camera.w2c[2, :3]) + camera.w2c[2, 3]
        depths.append(camera.w2c[2, :3] @ point + camera.w2c[2, 3])
        assert depth.min() - 0.2 < depths[-1] < depth.max()


def test_beside_the_person_there_is_no_point(scene):
    assert scene.serve(PointQuestion(1, view(), 0, 0)).point is None
    away = replace(view(), w2c=np.diag([-1.0, 1, -1, 1]) @ view().w2c)  # looks the other way
    assert scene.serve(PointQuestion(1, away, 32, 32)).point is None


def test_a_point_of_the_largest_picture_is_cheap(scene):
    """Only its pixel is drawn: a size that no picture may have."""
    camera = replace(view(), width=4096, height=4096)
    assert scene.serve(PointQuestion(1, camera, 4095, 0)).point is None
    with pytest.raises(ValueError, match="too many"):
        scene.draw(ask(camera=camera))


# --- paths -------------------------------------------------------------------------------------------------


def test_the_path_is_that_of_test_py(scene):
    keys = (view(0.0), view(1.0, distance=2.0), view(2.5, fovx=30.0))
    sequence = PoseSequence(
        scene.poses, scene.translations, np.eye(3), np.arange(FRAMES), None, "the training frames"
    )
    (shot,) = make_shots(keys, sequence, scene.trained.avatar.joints[0].numpy(), "path")
    answer = decode_server(encode(scene.serve(PathQuestion(3, keys, FRAMES))))
    assert answer.id == 3 and len(answer.views) == FRAMES
    for ours, theirs in zip(answer.views, shot.views, strict=True):
        assert np.allclose(ours.w2c, theirs.w2c, atol=1e-6) and ours.fovx == pytest.approx(theirs.fovx)
    for key, place in ((0, 0), (2, FRAMES - 1)):
        assert np.allclose(answer.views[place].w2c, keys[key].w2c, atol=1e-9)


def test_one_key_and_equal_keys_are_held(scene):
    for keys in ((view(0.3),), (view(0.3), view(0.3)), (view(0.3),) * 3):
        answer = decode_server(encode(scene.serve(PathQuestion(1, keys, 7))))
        assert all(np.allclose(each.w2c, keys[0].w2c, atol=1e-9) for each in answer.views)


def test_the_longest_path_can_be_sent(scene):
    answer = scene.serve(PathQuestion(1, (view(0.0), view(1.0)), MAX_PATH))
    assert len(decode_server(encode(answer)).views) == MAX_PATH


def test_keys_of_two_sizes_are_refused(scene):
    with pytest.raises(ValueError, match="one size"):
        scene.serve(PathQuestion(1, (view(), view(size=32)), 5))


# --- poses -------------------------------------------------------------------------------------------------


def joint_rotation(joints, joint: int) -> np.ndarray:
    return rotation_matrices(torch.as_tensor(joints[3 * joint : 3 * joint + 3]).double()).numpy()


def test_joints_turn_about_their_own_axes(scene):
    angles = (0.3, -0.2, 0.5)
    before = scene.pose(PoseRequest(frame=4)).joints
    after = scene.pose(PoseRequest(frame=4, turns=((16, *angles), (0, 0.0, 1.0, 0.0)))).joints
    own = [
        Rotation.from_rotvec(angle * axis).as_matrix() for angle, axis in zip(angles, np.eye(3), strict=True)
    ]
    expected = joint_rotation(before, 16) @ own[0] @ own[1] @ own[2]
    assert np.allclose(joint_rotation(after, 16), expected, atol=1e-6)
    changed = np.flatnonzero((before != after).reshape(55, 3).any(1).numpy())
    assert changed.tolist() == [0, 16]


def test_turns_add_up_and_come_after_the_hands(scene):
    twice = scene.pose(PoseRequest("t", turns=((18, 0.2, 0, 0), (18, 0.3, 0, 0)))).joints
    assert np.allclose(twice[54:57], [0.5, 0, 0], atol=1e-6)
    fist = scene.pose(PoseRequest("t", hands="fist"))
    bent = scene.pose(PoseRequest("t", hands="fist", turns=((26, 0, 0, 0.4),)))
    expected = joint_rotation(fist.joints, 26) @ Rotation.from_rotvec([0, 0, 0.4]).as_matrix()
    assert np.allclose(joint_rotation(bent.joints, 26), expected, atol=1e-6)


def test_the_jaw_stays_shut_where_no_face_was_learnt(scene):
    assert not scene.pose(PoseRequest("t", turns=((22, 0.4, 0, 0),))).joints[66:69].any()


@pytest.mark.parametrize(
    "request_",
    [
        PoseRequest(frame=3, turns=((17, 0.1, 0.2, 0.3),)),
        PoseRequest("big", hands="fist"),
        PoseRequest(
            "given", 0, random_pose(8).joints.double().numpy(), np.zeros(10), np.array([0.1, 0.2, 0.3]),
            np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
        ),
    ],
)  # fmt: skip
def test_the_numbers_say_the_same_pose(scene, request_):
    answer = decode_server(encode(scene.serve(PoseQuestion(9, request_))))
    assert answer.id == 9
    meant, said = scene.pose(request_), scene.pose(answer.pose)
    for name in ("joints", "translation", "rotation", "expression"):
        assert torch.allclose(getattr(meant, name), getattr(said, name), atol=1e-6), name


def test_a_saved_pose_is_read_by_test_py(scene, tmp_path):
    """The page writes Rh, Th and poses, EasyMocap's form, which has room for all that a pose is."""
    joints, turn = random_pose(8).joints.double().numpy(), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    meant = scene.pose(PoseRequest("given", 0, joints, np.zeros(10), np.array([0.1, 0.2, 0.3]), turn))
    content = {
        "Rh": [Rotation.from_matrix(meant.rotation.numpy()).as_rotvec().tolist()],
        "Th": [meant.translation.tolist()],
        "poses": [meant.joints.tolist()],
    }
    file = tmp_path / "pose.json"
    file.write_text(json.dumps(content))
    read = read_pose_file(file, PoseOptions()).pose(0)
    keep = torch.ones(165, dtype=torch.bool)
    keep[66:75] = False  # jaw and eyes, which are read for faces only
    assert torch.allclose(read.joints[keep], meant.joints[keep], atol=1e-6)
    assert torch.allclose(read.rotation, meant.rotation, atol=1e-6)
    assert torch.allclose(read.translation, meant.translation, atol=1e-6)


# --- the floor ---------------------------------------------------------------------------------------------


def test_the_floor_is_below_the_feet_and_rises_with_the_person(trained):
    def floor(translation, camera):
        poses, translations = np.zeros((5, 165)), np.tile(translation, (5, 1))
        return LiveScene(trained, PYTORCH, poses, translations, range(5), {0: camera}, "").floor

    lowest = float(trained.avatar.joints[:, 1].min())
    assert floor([0.0, 0, 0], view()) == pytest.approx(lowest - 0.03, abs=1e-5)
    assert floor([3.0, 0.5, 2], view()) == pytest.approx(lowest + 0.47, abs=1e-5)


# --- what becomes of them ----------------------------------------------------------------------------------


class Server:
    def __init__(self):
        self.replies, self.problems, self.pictures = [], [], []

    def reply(self, job, answer):
        self.replies.append(answer)

    def problem(self, job, text):
        self.problems.append(text)

    def deliver(self, job, image, *facts):
        self.pictures.append(image)


def test_questions_are_answered_or_refused_in_one_line(scene):
    server = Server()
    answers = Answers(server, scene)
    for question in (
        ask(),
        PointQuestion(1, view(), 0, 0),
        PathQuestion(2, (view(), view(1.0)), 3),
        PoseQuestion(3),
        PoseQuestion(4, PoseRequest(frame=FRAMES)),
        PathQuestion(5, (view(), view(size=32)), 5),
    ):
        answers.answer(Job(question, "client"))
    assert len(server.pictures) == 1 and [answer.id for answer in server.replies] == [1, 2, 3]
    assert len(server.problems) == 2 and not any("\n" in text for text in server.problems)
