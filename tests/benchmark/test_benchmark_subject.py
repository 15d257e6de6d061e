"""The untrained subject: nothing zero by chance, framed as stated, its load counted right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.benchmark.subject import COVERAGE, HIDDEN, TILE, tile_intersections, trained_subject, workload
from mmlphuman.types import PosedGaussians


def test_every_parameter_takes_part(subject):
    for name, parameter in subject.trained.avatar.named_parameters():
        assert parameter.isfinite().all() and parameter.std() > 0, name


def test_the_person_is_framed(subject):
    load = workload(subject)
    assert load["coverage"] == pytest.approx(COVERAGE, abs=0.02)
    assert (load["width"], load["height"], load["gaussians"]) == (96, 128, 600)
    assert load["visible"] / load["gaussians"] == pytest.approx(1 - HIDDEN, abs=0.05)
    assert load["tile_intersections"] >= load["visible"]
    for view in subject.ring(4):  # all look at the person from the same distance
        seen = view.w2c[:3, :3] @ subject.center + view.w2c[:3, 3]
        assert np.allclose(seen, [0, 0, seen[2]], atol=1e-9) and seen[2] > 1


def test_a_trained_model_takes_its_place(subject):
    model = trained_subject(subject.trained, (40, 40))
    assert len(model.sequence.frames) == len(subject.trained.pose_space.training_poses)
    assert workload(model)["coverage"] == pytest.approx(COVERAGE, abs=0.03)


def test_tiles_are_counted(subject):
    """One small Gaussian in the middle of a tile, one on a corner of four, one outside, one behind the camera."""
    view = CameraView(np.eye(4), 90.0, 4 * TILE, 4 * TILE)  # focal length of 32 pixels
    tile = TILE / 32  # metres at depth 1, from the middle of the picture
    xyz = torch.tensor([[0.5 * tile, 0.5 * tile, 1], [0, 0, 1], [9, 0, 1], [0, 0, -1]])
    covariances = torch.tensor([[1e-6, 0, 0, 1e-6, 0, 1e-6]]).expand(4, -1)
    posed = PosedGaussians(
        xyz, covariances, torch.full((4,), 0.9), torch.zeros(4, 4, 3), torch.eye(3).expand(4, 3, 3)
    )
    assert tile_intersections(posed, view) == (2, 5)
