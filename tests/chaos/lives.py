"""One start of train.py until its end, and everything that can happen to it in between.

A life runs in a process of its own with its output in files, so that nobody waits for it; its progress is what its
progress bar has shown.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXIT_SECONDS = 60  # for a process to end once it was told to
POLL_SECONDS = 0.002
MARK = "MMLPHUMAN_CHAOS"  # in the environment of every process of a life
BAR = re.compile(r"(\d+)/\d+ \[")
QUOTA = 4 << 20  # bytes a file; a checkpoint is larger
FREE_BYTES = 1 << 20  # left on a full disk
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@dataclass(frozen=True)
class Place:
    """Where a campaign's runs happen."""

    config: Path
    capture: Path
    folder: Path  # of models; a disk of its own if it is to be filled up
    log: Path  # what the running life says


class Life:
    """`train.py --resume auto`, started. launcher: words between python and train.py, such as torchrun's."""

    def __init__(self, place: Place, model: Path, launcher: tuple[str, ...] = (), quota: int | None = None):
        self.place, self.model, self.ranks = place, model, 2 if launcher else 1
        command = [sys.executable, *launcher, "train.py", "--config", place.config, "--data_dir", place.capture,
                   "--out_dir", model, "--resume", "auto", "--no_viewer"]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", MARK: str(place.folder)}
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (quota, -1))) if quota else None
        with place.log.open("wb") as log:
            self.process = subprocess.Popen([str(word) for word in command], cwd=ROOT, env=environment, stdout=log,
                                            stderr=log, preexec_fn=limit, start_new_session=True)  # fmt: skip

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def text(self) -> str:
        return self.place.log.read_text(errors="replace")

    def trainers(self) -> list[int]:
        """The processes that run train.py and answer signals already, in order of their numbers."""
        candidates = [self.process.pid] if self.ranks == 1 else children(self.process.pid)
        return sorted(pid for pid in candidates if answers(pid, signal.SIGUSR1))

    def wait_until(self, reached: Callable[[], object], seconds: float = EXIT_SECONDS) -> bool:
        """False if the life ended before, or the time did."""
        end = time.monotonic() + seconds
        while not self.over and time.monotonic() < end:
            if reached():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def wait_until_it_answers(self) -> bool:
        return self.wait_until(lambda: len(self.trainers()) == self.ranks)

    def send(self, number: int) -> None:
        if not self.over:
            self.process.send_signal(number)

    def end(self) -> int:
        try:
            return self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it did not end within {EXIT_SECONDS} s:\n{self.text()[-3000:]}") from None

    def progress(self) -> int:
        """Iterations that it has surely done."""
        return max(map(int, BAR.findall(self.text())), default=0)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def survivors(place: Place) -> list[int]:
    """Processes of any life at this place, their workers included."""
    mark, found = f"{MARK}={place.folder}\0".encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


def answers(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False
    return bool(int(caught[1], 16) >> (number - 1) & 1)


# Each fault below happens to a life at a random moment; what may come of it is in FAULTS.


def pause(rng: random.Random, longest: float) -> None:
    time.sleep(rng.uniform(0, longest))


def kill_any_time(life: Life, rng: random.Random) -> None:
    pause(rng, 7)
    life.send(signal.SIGKILL)


def kill_while_training(life: Life, rng: random.Random) -> None:
    life.wait_until_it_answers()
    pause(rng, 4)
    life.send(signal.SIGKILL)


def ask(number: int) -> Callable[[Life, random.Random], None]:
    def fault(life: Life, rng: random.Random) -> None:
        life.wait_until_it_answers()
        pause(rng, 4)
        life.send(number)

    return fault


def interrupt_twice(life: Life, rng: random.Random) -> None:
    life.wait_until_it_answers()
    pause(rng, 3)
    life.send(signal.SIGINT)
    time.sleep(0.6)
    life.send(signal.SIGINT)


def while_writing(number: int) -> Callable[[Life, random.Random], None]:
    def fault(life: Life, rng: random.Random) -> None:
        life.wait_until_it_answers()
        folder = life.model / "checkpoints"
        life.wait_until(lambda: folder.is_dir() and any(folder.glob(".unfinished-0*")), seconds=20)
        pause(rng, 0.05)
        life.send(number)

    return fault


def full_disk(life: Life, rng: random.Random) -> None:
    """Full for a while, in which checkpoints fail; then there is room, or the run is asked to stop before."""
    life.wait_until_it_answers()
    life.wait_until((life.model / "checkpoints").is_dir)
    pause(rng, 2)
    filler = life.place.folder / "filler"
    room = os.statvfs(life.place.folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - FREE_BYTES))
    life.wait_until(lambda: "cannot be written" in life.text(), seconds=20)
    pause(rng, 1)
    if rng.random() < 0.5:
        filler.unlink()
        pause(rng, 2)
    life.send(signal.SIGTERM)
    life.process.wait(EXIT_SECONDS)
    filler.unlink(missing_ok=True)


def quota(life: Life, rng: random.Random) -> None:
    """Started with a limit on the size of files: no checkpoint can be written."""
    life.wait_until(lambda: "cannot be written" in life.text(), seconds=20)
    pause(rng, 1)
    life.send(signal.SIGTERM)


def kill_one_rank(life: Life, rng: random.Random) -> None:
    life.wait_until_it_answers()
    pause(rng, 4)
    trainers = life.trainers()
    if trainers:
        os.kill(rng.choice(trainers), signal.SIGKILL)


def kill_a_reader(life: Life, rng: random.Random) -> None:
    """As the system does for want of memory."""
    life.wait_until_it_answers()
    pause(rng, 4)
    for reader in children(life.process.pid)[:1]:
        os.kill(reader, signal.SIGKILL)


@dataclass(frozen=True)
class Fault:
    happen: Callable[[Life, random.Random], None]
    statuses: tuple[int, ...]  # that may come of it, besides 0 for a run that was at its end before
    launcher: tuple[str, ...] = ()
    quota: int | None = None


FAULTS = {
    "SIGKILL, any time from the start": Fault(kill_any_time, (-9,)),
    "SIGKILL while training": Fault(kill_while_training, (-9,)),
    "SIGKILL while a checkpoint is written": Fault(while_writing(signal.SIGKILL), (-9,)),
    "SIGTERM": Fault(ask(signal.SIGTERM), (75,)),
    "SIGUSR1": Fault(ask(signal.SIGUSR1), (75,)),
    "Ctrl-C": Fault(ask(signal.SIGINT), (75,)),
    "Ctrl-C while a checkpoint is written": Fault(while_writing(signal.SIGINT), (75,)),
    "Ctrl-C twice": Fault(interrupt_twice, (75, 130)),
    "disk full": Fault(full_disk, (75, 1)),
    "limit on the size of files": Fault(quota, (75, 1), quota=QUOTA),
    "SIGKILL of a reading process": Fault(kill_a_reader, (1,)),
    "SIGKILL of one rank of two": Fault(kill_one_rank, (1,), LAUNCH),
    "SIGTERM to two ranks' torchrun": Fault(ask(signal.SIGTERM), (1, -15, 143), LAUNCH),
}
