"""Timing of training: real steps of the real Trainer, taken apart without changing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmlphuman.benchmark import training_step
from mmlphuman.benchmark.clock import wall_milliseconds
from mmlphuman.benchmark.training_step import (
    FEWEST_STEADY,
    STAGES,
    VIEWS,
    Run,
    make_trainer,
    measure_steadiness,
    measure_training,
    noted_moments,
    take_samples,
    training_capture,
)


@pytest.fixture(scope="module")
def dataset(subject, tmp_path_factory):
    return training_capture(subject, tmp_path_factory.mktemp("made"), edge_radius=1)


def test_samples_are_what_training_sees(subject, dataset):
    trainer = make_trainer(subject, dataset, "auto", 4)
    samples = take_samples(trainer)
    assert len(samples) == 2 and all(len(sample.images) == 4 for sample in samples)
    for sample in samples:
        height, width = sample.masks.shape[1:]
        assert sample.share == pytest.approx(width * height / (96 * 128)) and sample.share < 1  # cropped
        assert sample.masks.any(2).any(1).all() and not sample.masks.all()
        person = sample.images.float().std(3)[sample.masks]
        assert person.mean() > 5  # a coloured person, not a white wall
        assert (sample.images[~sample.masks & ~sample.edges].float().mean()) > 230


def test_a_timed_step_is_the_trainers_own(subject, dataset):
    """The same step with and without the clock, and nothing of the clock is left behind."""
    trainers = [make_trainer(subject, dataset, "plain", 1) for _ in range(2)]
    sample = take_samples(trainers[0])[0]
    expected, _ = trainers[0].step(sample)
    with noted_moments(trainers[1], torch.device("cpu")) as moments:
        timed, _ = trainers[1].step(sample)
    assert len(moments) == 6 and moments == sorted(moments)
    assert torch.equal(timed["total"], expected["total"])
    assert torch.equal(trainers[0].avatar.sh0, trainers[1].avatar.sh0)
    trainers[1].step(sample)
    assert len(moments) == 6
    assert not torch.equal(subject.trained.avatar.sh0, trainers[1].avatar.sh0)  # a copy was trained


def test_the_stages_make_the_step(subject, dataset):
    run = Run(subject, dataset, "auto", 1)
    run.measure(5)
    row = run.row().to_json()
    assert list(row["stages_ms"]) == list(STAGES) and row["losses"] == ["l1", "ssim", "smooth", "scaling"]
    assert row["back_to_back_ms"] > 0 and row["peak_gib"] is None

    shares, staged = [], {}
    for _ in range(10):  # a busy machine may take its turn in between, not every time
        whole = wall_milliseconds(lambda: staged.update(run.staged_step()), run.device)
        assert all(spent > 0 for spent in staged.values()) and sum(staged.values()) <= whole
        shares.append(sum(staged.values()) / whole)
    assert max(shares) > 0.8


def test_every_number_of_views_has_its_row(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "ROUNDS", 1)
    rows = measure_training(subject, tmp_path, 2)
    assert [(row.name, row.views) for row in rows] == [("plain", views) for views in VIEWS]
    for row in rows:
        assert row.to_json()["ms_per_view"] == pytest.approx(row.step.median / row.views, abs=1e-3)


def test_steadiness_compares_first_and_last(subject, tmp_path):
    result = measure_steadiness(subject, tmp_path, FEWEST_STEADY)
    assert result["early"]["steps"] == [15, 25] and result["late"]["steps"] == [26, 36]
    assert result["early"]["median_ms"] > 0 and result["late"]["median_ms"] > 0


def test_too_few_poses(subject, tmp_path):
    short = replace(subject.sequence, poses=subject.sequence.poses[:2], frames=subject.sequence.frames[:2])
    with pytest.raises(ValueError, match="2 poses are too few"):
        training_capture(replace(subject, sequence=short), tmp_path, 1)
