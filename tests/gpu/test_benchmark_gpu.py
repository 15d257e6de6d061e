"""The benchmark on a GPU: rows of kernels and plain, pictures compared, memory and stages measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlphuman.benchmark.rendering import measure_rendering
from mmlphuman.benchmark.subject import untrained_subject
from mmlphuman.benchmark.training_step import FEWEST_STEADY, measure_steadiness, measure_training
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.synthetic.motion import BETAS, make_motion

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def subject(synthetic_body, tmp_path_factory):
    config = default_config(init_num_gs=5000, num_verts=500, num_features=20, weight_volume_resolution=16)
    path = tmp_path_factory.mktemp("motion") / "smpl_params.npz"
    joints = load_body(synthetic_body, BETAS[0]).joints.double().numpy()
    np.savez(path, **make_motion(joints, 40, 0, 0))
    return untrained_subject(config, synthetic_body, path, (240, 320), torch.device("cuda"))


def test_drawing(subject):
    rows = {row.name: row for row in measure_rendering(subject, 10, keep=0.3)}
    assert list(rows) == ["kernels", "kernels, --test", "plain", "compact", "kernels, still pose"]
    assert rows["kernels"].psnr > 45 and rows["compact"].psnr > 35
    assert all(0 < row.frame.median <= row.frame.p95 for row in rows.values())


def test_training(subject, tmp_path):
    rows = measure_training(subject, tmp_path, 8)
    assert [(row.name, row.views) for row in rows] == [
        ("kernels", 1),
        ("plain", 1),
        ("kernels", 4),
        ("plain", 4),
    ]
    for row in rows:
        assert "lpips" in row.losses and row.peak_gib > 0
        total = sum(stage.median for stage in row.stages.values())
        if row.name == "plain":
            assert total == pytest.approx(row.step.median, rel=0.5)
        else:  # the step is recorded, its stages are not
            assert total > 0.5 * row.step.median


def test_memory_stays(subject, tmp_path):
    result = measure_steadiness(subject, tmp_path, 4 * FEWEST_STEADY)
    assert result["late"]["memory_bytes"] == pytest.approx(result["early"]["memory_bytes"], rel=0.02)
