"""train.py under torchrun: several processes make one run, and one that is killed ends them all."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.commands.runs import start

SECONDS = 60  # to come to a checkpoint, on a machine that does other things
END_SECONDS = 30


def start_two(files, out_dir, *more):
    return start("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py",
                 "--config", files["endless"], "--data_dir", files["data"], "--out_dir", out_dir, "--no_viewer",
                 *more, start_new_session=True)  # fmt: skip


def processes_by_rank(launcher: int) -> dict[int, int]:
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        for variable in Path(f"/proc/{child}/environ").read_text().split("\0"):
            name, _, value = variable.partition("=")
            if name == "RANK":
                found[int(value)] = int(child)
    return found


def test_two_processes_make_one_run_and_end_when_one_is_killed(files, tmp_path):
    folder = tmp_path / "model"
    launcher = start_two(files, folder)
    try:
        deadline = time.monotonic() + SECONDS
        while not list(folder.glob("checkpoints/iteration_0000001*")):
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        ranks = processes_by_rank(launcher.pid)
        assert sorted(ranks) == [0, 1]
        os.kill(ranks[1], signal.SIGKILL)
        out, err = launcher.communicate(timeout=END_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.returncode != 0
    assert not any(Path(f"/proc/{process}").exists() for process in ranks.values())
    assert out.count("placing") == 1  # rank 0 alone speaks
    lines = [line for line in err.splitlines() if "error: " in line]
    assert len(lines) == 1 and "another process of this run has ended" in lines[0], err
    # Each step counts two poses: due every three, a checkpoint comes at the first even number from there on.
    numbers = [int(path.name[-8:]) for path in folder.glob("checkpoints/iteration_*")]
    assert numbers and all(number % 2 == 0 and number % 6 in (0, 4) for number in numbers)
