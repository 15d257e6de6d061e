"""script/gen_weight_volume.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

from mmlphuman.body.weight_volume import WeightVolume

ROOT = Path(__file__).resolve().parent.parent.parent


def call(*words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "gen_weight_volume.py", *map(str, words)],
        cwd=ROOT / "script",  # published usage: from within the folder
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_makes_measures_and_keeps(tiny_capture, synthetic_body, tmp_path):
    path = tmp_path / "volume.npz"
    command = ("--data_dir", tiny_capture, "--smpl_path", synthetic_body, "--resolution", 16, "--out", path)
    first = call(*command)
    assert first.returncode == 0, first.stderr
    assert WeightVolume.load(path).grid.shape[0] == 16
    for expected in (
        "making the skinning weight volume",
        "raw weights sum to 1.0",
        "peak memory",
        "2 cm outside",
    ):
        assert expected in first.stdout
    before = path.read_bytes()
    assert "making" not in call(*command).stdout and path.read_bytes() == before


def test_mistakes_are_one_line(tiny_capture, synthetic_body, tmp_path):
    bad_resolution = ("--data_dir", tiny_capture, "--smpl_path", synthetic_body, "--resolution", 3)
    no_body = ("--data_dir", tiny_capture, "--smpl_path", tmp_path / "absent.npz")
    no_capture = ("--data_dir", tmp_path / "absent", "--smpl_path", synthetic_body)
    for words, expected in ((bad_resolution, "resolution"), (no_body, "absent.npz"), (no_capture, "absent")):
        result = call(*words, "--out", tmp_path / "volume.npz")
        assert result.returncode == 1 and expected in result.stderr
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "volume.npz").exists()
