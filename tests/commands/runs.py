"""Running the commands: as a user does, in a process of their own; in a fork of this one, which has loaded torch; or in
this one itself. One test of every command runs it as a user does."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import runpy
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn
from unittest import mock

import cv2
import torch
import torch._dynamo  # A run loads it in a thread; of a fork meanwhile nobody would ever end that.
from tqdm import tqdm

from mmlphuman.export import pruning

ROOT = Path(__file__).resolve().parent.parent.parent


def start(*words, **options) -> subprocess.Popen:
    command = [sys.executable, *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **{"cwd": ROOT, **options})  # fmt: skip


def start_fork(*words, **options) -> subprocess.Popen:
    """As `start`, in a fork of this process: memory, streams, signals and locks are its own, and torch is loaded, which
    takes longer than what most runs do. Where there is a GPU torch refuses gradients in forks: `start`."""
    if torch.cuda.is_available():
        return start(*words, **options)
    script, *others = (str(word) for word in words)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen([script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: _run_and_exit(script, others, environment),
                            **{"cwd": ROOT, **options})  # fmt: skip


def _run_and_exit(script: str, words: list[str], environment: dict[str, str]) -> NoReturn:
    """What a fork does instead of becoming another program."""
    status = 1
    try:
        gc.freeze()  # nothing of the test's is closed on the way: its numbers of files are ours now
        gc.enable()
        os.closerange(
            3, os.sysconf("SC_OPEN_MAX")
        )  # the test's, and the pipe by which Popen waits for a program
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(1)  # a fork has no other threads of the pools
        cv2.setNumThreads(0)
        tqdm.set_lock(threading.RLock())  # the other one is shared with forks that may have been killed
        sys.argv = [script, *words]
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = open(number, "w", buffering=1, closefd=False)  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def call(*words, start=start, **options) -> tuple[int, str, str]:
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def call_fork(*words, **options) -> tuple[int, str, str]:
    return call(*words, start=start_fork, **options)


def call_here(script, *words) -> tuple[int, str, str]:
    """For commands that end by themselves and leave nothing behind: a run that trains keeps its folder locked, which
    `call_fork` is for."""
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


def train(files, out_dir, *more, run=call_fork):
    return run("train.py", "--config", files["short"], "--data_dir", files["data"], "--out_dir", out_dir,
               "--no_viewer", *more)  # fmt: skip


def render(files, model_dir, out_dir, *more, run=call_here):
    return run("test.py", "--config", files["short"], "--model_dir", model_dir, "--out_dir", out_dir,
               "--data_dir", files["data"], *more)  # fmt: skip


def make_compact(model: Path, out: Path, *more) -> tuple[Path, str]:
    """A compact file of the model, and what was said."""
    words = ("--model_dir", model, "--out", out, "--device", "cpu", *more)
    with mock.patch.object(pruning, "PROBE_SIZE", 32):  # small pictures: what is kept counts for no test here
        status, said, err = call_here("script/compact.py", *words)
    assert status == 0, err
    return out, said


def one_error_line(result, *parts):
    status, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert status != 0
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert part in lines[0], lines[0]
