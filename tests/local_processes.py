"""For tests that start several processes: what torchrun tells each of them, and ranks forked off the test."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from mmlphuman.command import run_command
from mmlphuman.processes import Ranks


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment_of_rank(rank: int, world: int, port: int) -> dict[str, str]:
    """Of one of `world` processes on this host that meet at `port`."""
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_PORT": port,
    }
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


START_SECONDS = 60  # for ranks to meet on a machine that does other things


@dataclass(frozen=True)
class Ended:
    statuses: list[int]  # by rank, negative: the signal that killed it
    errors: list[str]  # what each wrote to stderr
    seconds: float


def run_ranks(
    world: int, work: Callable[[Ranks], None], folder: Path, seconds: float = 60, began: Path | None = None
) -> Ended:
    """`work` on every rank, as a command. folder: for what they write to stderr.

    seconds: for all to end, from the start or, if given, from when the file `began` is there: a busy machine may
    take long to start processes, which is not what a test with a short limit is about.
    """
    context, start = multiprocessing.get_context("fork"), time.monotonic()
    port = free_port()
    logs = [folder / f"stderr_{rank}" for rank in range(world)]
    processes = [
        context.Process(target=_rank, args=(rank, world, port, work, logs[rank])) for rank in range(world)
    ]
    for process in processes:
        process.start()
    while began is not None and not began.exists() and time.monotonic() - start < START_SECONDS:
        time.sleep(0.01)
    latest = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, latest - time.monotonic()))
    ended = Ended(
        [process.exitcode for process in processes],
        [log.read_text() for log in logs],
        time.monotonic() - start,
    )
    for process in processes:
        process.kill()
        process.join()
    return ended


def run_all(world: int, work: Callable[[Ranks], None], folder: Path) -> None:
    """`run_ranks` that must go well."""
    ended = run_ranks(world, work, folder)
    assert ended.statuses == [0] * world, ended


def _rank(rank: int, world: int, port: int, work: Callable[[Ranks], None], log: Path) -> None:
    os.environ |= environment_of_rank(rank, world, port)
    torch.set_num_threads(1)  # a forked process has no other threads of the pool
    cv2.setNumThreads(0)
    sys.stderr = log.open("w", buffering=1)

    def main() -> None:
        with Ranks.from_environment("cpu") as ranks:
            work(ranks)

    run_command(main)
