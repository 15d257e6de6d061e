"""script/benchmark.py as a user calls it, at its tiniest scale."""

from __future__ import annotations

import importlib.util
import json
import math
import sys

import pytest

from mmlphuman.benchmark import rendering, training_step
from mmlphuman.model_folder import newest_checkpoint
from tests.commands.runs import ROOT


def all_numbers(content):
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [number for item in content for number in all_numbers(item)]
    return [content] if isinstance(content, float) else []


@pytest.fixture
def benchmark(monkeypatch):
    """The command in this process, short: one round, few pictures to choose a compact model's bases by."""
    spec = importlib.util.spec_from_file_location("benchmark_script", ROOT / "script" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    for part, name, value in (
        (rendering, "PROBES", 2),
        (rendering, "ROUNDS", 1),
        (training_step, "ROUNDS", 1),
    ):
        monkeypatch.setattr(part, name, value)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, words)])
        module.main()

    yield run
    del sys.modules[spec.name]


def test_everything_at_the_tiny_scale(synthetic_body, benchmark, tmp_path, capsys):
    out = tmp_path / "benchmark.json"
    small = ("--scale", "tiny", "--size", 48, 64, "--smpl_path", synthetic_body, "--device", "cpu")
    few = ("--frames", 10, "--steps", 2, "--steady", 36, "--samples", 2, "--workers", 0)
    benchmark("--out", out, *small, *few)
    printed = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert set(content) == {"command", "machine", "samples", "subject", "render", "train", "steady"}
    assert content["subject"].items() >= {"gaussians": 600, "anchors": 8, "width": 48, "height": 64}.items()
    assert content["machine"]["packages"]["torch"] and content["machine"]["cores"] >= 1
    numbers = all_numbers({key: content[key] for key in ("render", "train", "steady", "subject")})
    assert len(numbers) > 50 and all(math.isfinite(number) and number >= 0 for number in numbers)
    assert [row["views"] for row in content["train"]] == [1, 4]
    for heading in ("Reading samples", "Drawing", "Training", "steps 15 to 25", "600 Gaussians"):
        assert heading in printed
    assert "{" not in printed  # the numbers for programs are in the file

    with pytest.raises(ValueError, match="exists; give --overwrite"):
        benchmark("--out", out, *small)


def test_a_model_is_drawn_and_not_trained(model, benchmark, tmp_path):
    out = tmp_path / "model.json"
    words = ("--out", out, "--model_dir", newest_checkpoint(model), "--size", 48, 64, "--device", "cpu")
    with pytest.raises(ValueError, match="--only render"):
        benchmark(*words)
    assert not out.exists()
    benchmark(*words, "--only", "render", "--frames", 10)
    content = json.loads(out.read_text())
    assert content["subject"]["gaussians"] == 400
    assert set(content) == {"command", "machine", "subject", "render"}
    compact = next(row for row in content["render"] if row["name"] == "compact")
    assert 20 < compact["psnr_to_plain"] <= rendering.SAME_PICTURE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frames", 9), "--frames 9: must be at least 10"),
        (("--steps", 0), "--steps 0: must be at least 1"),
        (("--size", 8, 64), "--size 8 64"),
        (("--steady", 5, "--only", "steady"), "--steady 5: at least 36"),
        (("--set", "frames=3", "--only", "render"), "frames"),
    ],
)
def test_what_cannot_be_measured(benchmark, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        benchmark("--out", tmp_path / "out.json", "--scale", "tiny", "--device", "cpu", *words)
    assert not list(tmp_path.iterdir())
