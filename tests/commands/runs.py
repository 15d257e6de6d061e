"""Running the commands as a user does, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def start(*words, **options) -> subprocess.Popen:
    command = [sys.executable, *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **options)  # fmt: skip


def call(*words) -> tuple[int, str, str]:
    process = start(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def train(files, out_dir, *more, config="short"):
    return call("train.py", "--config", files[config], "--data_dir", files["data"], "--out_dir", out_dir,
                "--no_viewer", *more)  # fmt: skip


def render(files, model_dir, out_dir, *more):
    return call("test.py", "--config", files["short"], "--model_dir", model_dir, "--out_dir", out_dir,
                "--data_dir", files["data"], *more)  # fmt: skip


def one_error_line(result, *parts):
    status, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert status != 0
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert part in lines[0], lines[0]
