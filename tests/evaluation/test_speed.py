"""The speed test: stages are the real path, counts are as asked, each stage has its own time."""

import json

import numpy as np
import pytest
import torch

from mmlphuman.animation import render_sequence
from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.animation.render_sequence import Look, draw, to_cameras
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import PYTORCH, Backend
from mmlphuman.config import default_config
from mmlphuman.evaluation import speed
from mmlphuman.evaluation.speed import STAGES, Timing, measure_speed
from mmlphuman.render.rasterize import rasterize
from tests.builders import look_at_origin, random_pose, randomise, small_avatar


@pytest.fixture(scope="module")
def trained(synthetic_body):
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    poses = torch.stack([random_pose(seed).joints for seed in range(20)])
    avatar = randomise(small_avatar(synthetic_body))
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 5), config, config.iterations)


def sequence(count=3):
    joints = np.stack([random_pose(100 + seed).joints.numpy() for seed in range(count)])
    return PoseSequence(
        joints, np.zeros((count, 3), np.float32), np.eye(3, dtype=np.float32), np.arange(count), None, "any"
    )


def view():
    return CameraView(look_at_origin(2.5).w2c[0].double().numpy(), 45.0, 40, 32)


def look(project_pose=True):
    return Look(torch.ones(3), PYTORCH, project_pose)


class FakeClock:
    """In place of the module `time`: a unit of work takes as many milliseconds as it is told."""

    def __init__(self, monkeypatch):
        self.now = 50.0
        monkeypatch.setattr(speed, "time", self)

    def perf_counter(self) -> float:
        return self.now

    def taking(self, milliseconds: float, work):
        """`work`, in so much time."""

        def timed(*arguments):
            self.now += milliseconds / 1000
            return work(*arguments)

        return timed


def test_every_stage_is_timed_and_the_numbers_are_json(trained, monkeypatch):
    clock = FakeClock(monkeypatch)
    spent = {"features": 1, "bank": 2, "blend": 4, "skinning": 8, "rasterise": 16, "convert": 32}
    monkeypatch.setattr(TrainedAvatar, "features", clock.taking(1, TrainedAvatar.features))
    monkeypatch.setattr(Avatar, "coefficients", clock.taking(2, Avatar.coefficients))
    monkeypatch.setattr(Avatar, "canonical_gaussians", clock.taking(4, Avatar.canonical_gaussians))
    monkeypatch.setattr(Avatar, "pose_gaussians", clock.taking(8, Avatar.pose_gaussians))
    for module in (speed, render_sequence):
        monkeypatch.setattr(module, "rasterize", clock.taking(16, rasterize))
    monkeypatch.setattr(Backend, "to_bytes", clock.taking(32, Backend.to_bytes))

    report = measure_speed(trained, sequence(), view(), look(), frames=12, quiet=True)
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(content["stages_ms"]) == list(STAGES)
    assert content["stages_ms"] == {name: {"median": ms, "p95": ms} for name, ms in spent.items()}
    assert content["frame_ms"] == {"median": sum(spent.values()), "p95": sum(spent.values())}
    assert content["fps"]["median"] == pytest.approx(1000 / sum(spent.values()), rel=0.01)
    assert (content["frames"], content["poses"], content["projected"]) == (12, 3, True)
    sizes = {"gaussians": 600, "control_points": 120, "anchors": 10, "width": 40, "height": 32}
    assert content.items() >= sizes.items() and 0 < content["visible"] <= 1
    for word in (*STAGES, "whole frame", "600 Gaussians"):
        assert word in report.text()


def test_the_stages_together_are_the_real_path(trained, monkeypatch):
    """The last stage's picture is the one that drawing gives, projected or not."""
    pictures, staged, to_bytes = [], [], Backend.to_bytes

    def noted(backend, image):
        pictures.append(to_bytes(backend, image))
        return pictures[-1]

    monkeypatch.setattr(Backend, "to_bytes", noted)
    pose, camera = sequence().pose(1), to_cameras(view(), "cpu")
    for project_pose in (False, True):
        with torch.no_grad():
            speed._time_stages(trained, pose, camera, look(project_pose))
        staged.append(pictures[-1])
        assert torch.equal(staged[-1], draw(trained, pose, [camera], look(project_pose))[0])
    assert not torch.equal(*staged)


@pytest.mark.parametrize(
    ("poses", "wanted", "expected"), [(3, None, 50), (70, None, 70), (230, None, 200), (3, 7, 7)]
)
def test_the_number_of_frames(trained, monkeypatch, poses, wanted, expected):
    timed = []
    monkeypatch.setattr(speed, "WARM_UP", 2)
    monkeypatch.setattr(speed, "_time_frame", lambda *arguments: timed.append(arguments[1]) or 1.0)
    stages = dict.fromkeys(STAGES, 1.0)
    posed = trained.avatar(random_pose()).posed
    monkeypatch.setattr(speed, "_time_stages", lambda *arguments: (stages, posed))
    report = measure_speed(trained, sequence(poses), view(), look(), wanted, quiet=True)
    assert len(timed) == 2 + expected and report.facts["frames"] == expected
    assert report.facts["poses"] == min(poses, expected)


def test_no_frames_cannot_be_measured(trained):
    with pytest.raises(ValueError, match="--speed_frames: 0 frames cannot be measured"):
        measure_speed(trained, sequence(), view(), look(), frames=0)


def test_median_and_percentile():
    timing = Timing.of([5.0] * 90 + [100.0] * 10)
    assert timing.median == 5 and timing.p95 == 100
