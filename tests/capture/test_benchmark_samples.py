"""script/benchmark_samples.py: real steps on real files, a table and JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "script" / "benchmark_samples.py"
    spec = importlib.util.spec_from_file_location("benchmark_samples_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


def test_pictures_are_like_those_of_a_capture(script):
    mask = script.person_mask((300, 410))
    assert 0.12 < (mask > 128).mean() < 0.25
    picture = script.photograph((300, 410), np.random.default_rng(0))
    assert picture.shape == (410, 300, 3) and picture.std() > 15
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, script.JPEG_QUALITY])[1]
    assert 0.15 < len(data) / (300 * 410) < 0.9  # bytes per pixel: neither a drawing nor pure noise


def test_measures_every_step(script, monkeypatch, capsys, tmp_path):
    out = tmp_path / "numbers.json"
    arguments = ["--size", "96", "128", "--samples", "4", "--workers", "0", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmark_samples.py", *arguments])
    script.main()
    printed = capsys.readouterr().out.strip().splitlines()
    results = json.loads(out.read_text())
    assert json.loads(printed[-1]) == results and [r["capture"] for r in results] == [
        "no distortion",
        "distortion",
    ]
    for result in results:
        assert result["size"] == [96, 128]
        times = result["cpu_ms_per_sample"]
        assert set(times) == set(script.STEPS) and times["total"] > 0
        assert all(rate > 0 for rate in result["samples_per_second"].values())


def test_measures_a_given_capture(script, small_capture, monkeypatch, capsys):
    arguments = [
        "--data_dir",
        str(small_capture),
        "--samples",
        "2",
        "--workers",
        "0",
        "--image_scaling",
        "0.5",
    ]
    monkeypatch.setattr(sys, "argv", ["benchmark_samples.py", *arguments])
    script.main()
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])[0]
    assert result["size"] == [24, 32] and result["cpu_ms_per_sample"]["scaling"] >= 0
