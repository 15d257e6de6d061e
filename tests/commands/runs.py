"""Running the commands as a user does: in a process of their own, or in this one, which saves the start of another."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent.parent


def start(*words, **options) -> subprocess.Popen:
    command = [sys.executable, *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **{"cwd": ROOT, **options})  # fmt: skip


def call(*words, **options) -> tuple[int, str, str]:
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def call_here(script, *words) -> tuple[int, str, str]:
    """For commands that end by themselves and leave nothing behind: a run that trains keeps its folder locked."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(ROOT),
        mock.patch.object(sys, "argv", [script, *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    return status, out.getvalue(), err.getvalue()


def train(files, out_dir, *more, run=call):
    return run("train.py", "--config", files["short"], "--data_dir", files["data"], "--out_dir", out_dir,
               "--no_viewer", *more)  # fmt: skip


def render(files, model_dir, out_dir, *more, run=call):
    return run("test.py", "--config", files["short"], "--model_dir", model_dir, "--out_dir", out_dir,
               "--data_dir", files["data"], *more)  # fmt: skip


def one_error_line(result, *parts):
    status, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert status != 0
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert part in lines[0], lines[0]
