"""The words of the commands for own captures: what is wrong ends at once, in one line, and nothing is made."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIT = ("fit_capture.py", "--data_dir", "{here}", "--body", "{here}/body.npz")
BOARD = ("calibrate_cameras.py", "--data_dir", "{here}", "--board", "9x6", "--square", "0.03")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("fit_capture.py", "--data_dir", "{here}/none", "--out", "{out}"), "--data_dir .*: no such folder"),
        (("fit_capture.py", "--data_dir", "{here}", "--body", "no.npz", "--out", "{out}"), "make_body.py"),
        ((*FIT, "--out", "{out}", "--calibration", "{here}/none"), "--calibration .*: no such file"),
        ((*FIT, "--out", "{out}", "--scale", "2"), "--scale 2: above 0 and at most 1"),
        ((*FIT, "--out", "{out}", "--unit", "nan"), "--unit nan: a positive factor"),
        ((*FIT, "--out", "{out}", "--refine", "--frames", "0:9"), "--frames says nothing with --refine"),
        ((*BOARD, "--out", "{here}/folder.json"), "name a file that ends in .json"),
        ((*BOARD, "--out", "{out}.json", "--floor", "-1"), "--floor -1: frames are numbered from 0"),
        (("make_body.py", "--out", "{here}/folder.npz", "--replace"), "name a file that ends in .npz"),
        (("run_real.py", "--out_dir", "{out}", "--scale", "3"), "--scale 3: above 0 and at most 1"),
    ],
)
def test_wrong_words_end_at_once(words, told, tmp_path):
    (tmp_path / "body.npz").touch()
    for name in ("folder.json", "folder.npz"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.iterdir())
    script, *rest = (word.format(here=tmp_path, out=tmp_path / "made") for word in words)
    command = [sys.executable, str(ROOT / "script" / script), *rest]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert re.search(told, ended.stderr), ended.stderr
    assert sorted(tmp_path.iterdir()) == before
