"""Timing of reading samples: real steps on real files."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.benchmark.capture_files import JPEG_QUALITY
from mmlphuman.benchmark.report import sample_table
from mmlphuman.benchmark.sample_reading import (
    STEPS,
    measure_samples,
    person_mask,
    photograph,
    single_threaded,
)


def test_pictures_are_like_those_of_a_capture():
    mask = person_mask((300, 410))
    assert 0.12 < (mask > 128).mean() < 0.25
    picture = photograph((300, 410), np.random.default_rng(0))
    assert picture.shape == (410, 300, 3) and picture.std() > 15
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    assert 0.15 < len(data) / (300 * 410) < 0.9  # bytes per pixel: neither a drawing nor pure noise


def test_measures_every_step():
    results = measure_samples(None, (96, 128), 1.0, 4, [0, 1])
    assert [result["capture"] for result in results] == ["no distortion", "distortion"]
    for result in results:
        assert result["size"] == [96, 128]
        times = result["cpu_ms_per_sample"]
        assert set(times) == set(STEPS) and times["total"] > 0
        assert all(rate > 0 for rate in result["samples_per_second"].values())
    table = sample_table(results)
    assert all(word in table for word in (*STEPS, "0 workers", "1 worker", "96x128"))


def test_measures_a_given_capture(tiny_capture, tmp_path):
    capture = shutil.copytree(tiny_capture, tmp_path / "capture")
    (result,) = measure_samples(capture, (1, 1), 0.5, 2, [0])
    assert result["size"] == [48, 48] and result["capture"] == "capture"
    assert result["cpu_ms_per_sample"]["scaling"] > 0


@pytest.mark.parametrize(("samples", "workers"), [(0, [0]), (2, [-1])])
def test_impossible_numbers(samples, workers):
    with pytest.raises(ValueError, match="--samples must be at least 1"):
        measure_samples(None, (96, 128), 1.0, samples, workers)


def test_threads_come_back():
    before = cv2.getNumThreads(), torch.get_num_threads()
    with single_threaded():
        assert torch.get_num_threads() == 1
    assert (cv2.getNumThreads(), torch.get_num_threads()) == before


def test_what_the_gpu_cannot_decode_is_said():
    results = measure_samples(None, (96, 128), 1.0, 2, [0])
    results[0]["gpu_decode"] = {"batch": 8, "wall_ms": 1.25, "cpu_ms": 0.5}
    results[1]["gpu_decode"] = {"batch": 8, "error": "not built in"}
    lines = sample_table(results).splitlines()
    assert any("JPEG on the GPU, ms" in line and "1.25" in line and "cannot" in line for line in lines)
