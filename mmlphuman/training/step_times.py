"""Where a run's time goes: the loop's phases by the clock, the GPU's idle moments, a trace of some steps.

Data path: loop -> StepTimes -> the run's last line; train.py --profile N -> MODEL/profile/table.txt, trace.json.gz.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mmlphuman.files import atomic_write

FOLDER = "profile"
TABLE_ROWS = 60
SETTLED = 60  # steps before a trace begins: by then kernels are compiled and graphs recorded


class StepTimes:
    """What the host waits for or does, and how long the GPU had nothing to do between one step's work and the next's.

    Asks the GPU nothing: its moments are looked at when it has passed them.
    """

    def __init__(self, device: torch.device):
        self.device, self.steps = device, 0
        self.phases: dict[str, float] = {}  # seconds, of the host
        self.gpu_seconds, self.gpu_idle = 0.0, 0.0
        self.moments: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()  # a step's work begins, ends
        self.apart = True  # what follows is no gap between two steps

    @contextmanager
    def spent_on(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - began

    @contextmanager
    def step(self) -> Iterator[None]:
        """Round all that a step queues on the GPU."""
        self.steps += 1
        if self.device.type != "cuda":
            with self.spent_on("steps"):
                yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.apart:
            self._look(everything=True)
            self.moments.clear()
        begin.record()
        with self.spent_on("steps"):
            yield
        end.record()
        self.moments.append((begin, end))
        self.apart = False
        self._look()

    @contextmanager
    def interruption(self, phase: str) -> Iterator[None]:
        """Something else than steps: a test, a checkpoint."""
        self.apart = True
        with self.spent_on(phase):
            yield

    def _look(self, everything: bool = False) -> None:
        """At the gap after each step whose successor has begun."""
        if everything and self.moments:
            self.moments[-1][1].synchronize()
        while len(self.moments) > 1 and self.moments[1][1].query():
            (begin, end), (next_begin, _) = self.moments.popleft(), self.moments[0]
            self.gpu_seconds += begin.elapsed_time(next_begin) / 1000
            self.gpu_idle += max(end.elapsed_time(next_begin), 0.0) / 1000

    def gpu_busy(self) -> float | None:
        """Share of the time between the first step and the last, tests and checkpoints left out, in which the GPU had
        a step's work; None where there is no GPU, or too few steps."""
        self._look(everything=True)
        return 1 - self.gpu_idle / self.gpu_seconds if self.gpu_seconds > 0 else None

    def table(self, seconds: float, told: str = "") -> str:
        """seconds: of the process so far. told: of the steps, to stand below."""
        known = sum(self.phases.values())
        rows = [
            *sorted(self.phases.items(), key=lambda row: -row[1]),
            ("between and after", seconds - known),
        ]
        lines = [f"{'phase':<24}{'seconds':>10}{'share':>8}{'ms a step':>12}"]
        for phase, spent in rows:
            a_step = 1000 * spent / max(self.steps, 1)
            lines.append(f"{phase:<24}{spent:>10.2f}{spent / seconds:>8.1%}{a_step:>12.3f}")
        busy = self.gpu_busy()
        if busy is not None:
            lines.append(f"GPU busy between the first step and the last: {busy:.1%}")
        return "\n".join([*lines, told] if told else lines)


class Trace:
    """PyTorch's profiler over `steps` steps of a run, once it has settled; of 0 steps it writes nothing."""

    def __init__(self, steps: int = 0, all_steps: int = 0):
        """all_steps: that the run is about to take."""
        self.first = min(SETTLED, max(all_steps - steps, 0))
        self.last = self.first + steps
        self.profiler: torch.profiler.profile | None = None

    def before_step(self, step: int, model_dir: Path) -> None:
        if self.first < self.last and step == self.first:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self.profiler = torch.profiler.profile(activities=kinds)
            self.profiler.start()
        elif step == self.last:
            self._finish(model_dir)

    @contextmanager
    def written(self, model_dir: Path) -> Iterator[None]:
        """What was traced, if the run ends inside the trace."""
        yield
        self._finish(model_dir)

    def _finish(self, model_dir: Path) -> None:
        profiler, self.profiler = self.profiler, None
        if profiler is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        profiler.stop()
        folder = model_dir / FOLDER
        folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json.gz"))
        totals = profiler.key_averages()
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        with atomic_write(folder / "kernels.txt") as file:
            file.write(totals.table(sort_by=order, row_limit=TABLE_ROWS, max_name_column_width=80).encode())


def write_table(model_dir: Path, table: str) -> None:
    print(table)
    with atomic_write(model_dir / FOLDER / "table.txt") as file:
        file.write(f"{table}\n".encode())
