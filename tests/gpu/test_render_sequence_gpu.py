"""Pictures copied beside the drawing arrive whole; the speed test runs on the GPU."""

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import make_shots
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.animation.render_sequence import Look, draw, render_sequence, to_cameras
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.config import default_config
from mmlphuman.evaluation.speed import STAGES, measure_speed
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

POSES = 24


@pytest.fixture(scope="module")
def trained(synthetic_body):
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    poses = torch.stack([random_pose(seed).joints for seed in range(20)])
    avatar = randomise(small_avatar(synthetic_body))
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 5), config, config.iterations).to("cuda")


@pytest.fixture(scope="module")
def sequence():
    joints = np.stack([random_pose(100 + seed).joints.numpy() for seed in range(POSES)])
    zero = np.zeros((POSES, 3), np.float32)
    return PoseSequence(joints, zero, np.eye(3, dtype=np.float32), np.arange(POSES), None, "any.npz")


@pytest.fixture(scope="module")
def shots(sequence):
    """Large pictures, so that a copy takes longer than queueing the next pose."""
    views = look_at_origin(2.5, views=3).w2c.double().numpy()
    return make_shots([CameraView(w2c, 50.0, 1500, 2048) for w2c in views[:2]], sequence, np.zeros(3))


def look(project_pose=False):
    return Look(torch.ones(3, device="cuda"), choose_backend("auto", "auto", "cuda"), project_pose)


@pytest.mark.parametrize("in_flight", [0, 4, 50])
def test_pictures_in_flight_are_those_drawn_one_by_one(trained, sequence, shots, in_flight):
    frames = list(render_sequence(trained, sequence, shots, look(), in_flight))
    assert [(frame.index, frame.shot) for frame in frames] == [(i, s) for i in range(POSES) for s in (0, 1)]
    for frame in frames:
        camera = to_cameras(shots[frame.shot].views[frame.index], "cuda")
        (image,) = draw(trained, sequence.pose(frame.index).to("cuda"), [camera], look())
        difference = np.abs(image.cpu().numpy().astype(int) - frame.image)
        assert difference.max() <= 1, (frame.index, frame.shot)
        assert (frame.image != 255).any()


@pytest.mark.parametrize("project_pose", [False, True])
def test_the_speed_test(trained, sequence, shots, project_pose):
    report = measure_speed(trained, sequence, shots[0].views[0], look(project_pose), frames=20, quiet=True)
    print(report.text())
    assert report.facts["device"] == torch.cuda.get_device_name()
    assert all(report.stages[name].median > 0 for name in STAGES)
