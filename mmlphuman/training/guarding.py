"""What turns a run back or ends it early: broken numbers, an exploding loss, a request to stop.

Data path: a step's numbers -> StepNumbers -> LossGuard -> Diverged -> loop -> recover, to the last good checkpoint;
signal of a scheduler, a person or a terminal that has gone (SIGNALS) -> Preemption.asked_by -> loop: finishes its
step, saves, ends -> train.py: exit status 75. A signal raises nothing, so that it never falls into the middle of a step
or of a checkpoint's write.

Nothing in a step waits for its numbers: they are sent every few steps and looked at one step later, when they have
arrived. Several processes (ranks) send them to each other first: all see the same, notice and go back together.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.config import Config
from mmlphuman.model_folder import load_avatar
from mmlphuman.processes import ErrorOfAll, Ranks
from mmlphuman.training.checkpoint import agreed_whole, load_training_state
from mmlphuman.training.monitor import Monitor, NoMonitor
from mmlphuman.training.optimisers import Optimisers
from mmlphuman.training.refinement import Refinement

RECENT = 20  # steps; one odd sample among them moves their median little
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: not done, come again
# Of a scheduler, a person, a terminal that has gone, a limit on the processor's time.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGXCPU,
)
# A terminal and a launcher may both pass on the same Ctrl-C; a person takes longer than that for the next.
SAME_INTERRUPT_SECONDS = 0.5


class Diverged(ErrorOfAll):
    """The run has left what training can mend; its last checkpoint has not."""


class NonFiniteError(Diverged):
    """A loss or gradient became NaN or infinite."""


class LossExplosion(Diverged):
    """The loss is finite, and far above what the run had reached."""


@dataclass(frozen=True)
class Logged:
    iteration: int  # steps done by then
    terms: dict[str, float]  # the loss terms of the last of them
    totals: tuple[float, ...]  # the loss of each step since the last look, mean over the ranks
    stop: bool  # some rank was asked to stop


@dataclass(frozen=True)
class _Sent:
    numbers: Tensor  # on the CPU, (steps * 2 + terms,)
    arrived: torch.cuda.Event | None
    steps: list[tuple[int, str]]
    names: list[str]


class StepNumbers:
    """Collects each step's loss and gradient norm on the device, at most `capacity` of them between two checks.

    All ranks send together and get the same numbers, their means: what they decide by them, they decide together.
    """

    def __init__(self, capacity: int, ranks: Ranks, poses: int = 1):
        """poses: of a step, over all ranks."""
        self.ranks, self.poses = ranks, poses
        self.values = torch.zeros(capacity, 2, device=ranks.device)
        self.steps: list[tuple[int, str]] = []  # iteration and sample of each row
        self.terms: dict[str, Tensor] = {}
        self.sent: _Sent | None = None

    def note(self, iteration: int, sample: str, terms: dict[str, Tensor], gradient_norm: Tensor) -> None:
        """terms: the loss's, with their "total"."""
        if len(self.steps) == len(self.values):
            self.check()
        torch.stack((terms["total"], gradient_norm), out=self.values[len(self.steps)])
        self.steps.append((iteration, sample))
        self.terms = terms

    def send(self, stop: bool = False) -> None:
        """Starts the way to the CPU of all that was noted; what was sent before must have been received.

        stop: this rank was asked to; the others hear of it here.
        """
        assert self.sent is None and self.steps, "nothing noted, or the last numbers were not received"
        noted = self.values[: len(self.steps)].flatten()
        asked = torch.full((1,), float(stop), device=noted.device)
        numbers, arrived = torch.cat([noted, torch.stack(list(self.terms.values())), asked]), None
        numbers /= self.ranks.world
        self.ranks.sum_all([numbers])
        if numbers.device.type == "cuda":
            host = torch.empty(numbers.shape, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            numbers = host
        self.sent = _Sent(numbers, arrived, self.steps, list(self.terms))
        self.steps = []

    def receive(self) -> Logged | None:
        """What was sent, None if nothing was. Raises NonFiniteError naming the first bad step's sample."""
        sent, self.sent = self.sent, None
        if sent is None:
            return None
        if sent.arrived is not None:
            sent.arrived.synchronize()
        rows, terms, asked = sent.numbers.split([2 * len(sent.steps), len(sent.names), 1])
        rows = rows.view(-1, 2)
        for (iteration, sample), finite in zip(sent.steps, rows.isfinite().tolist(), strict=True):
            if not all(finite):
                what = "gradient" if finite[0] else "loss"
                samples = " or ".join(self.ranks.gather(sample))
                raise NonFiniteError(f"the {what} is not finite at iteration {iteration} on {samples}")
        terms = dict(zip(sent.names, terms.tolist(), strict=True))
        return Logged(sent.steps[-1][0] + self.poses, terms, tuple(rows[:, 0].tolist()), bool(asked))

    def check(self) -> Logged | None:
        """All that was noted, now. Returns and raises as `receive`."""
        logged = self.receive()
        if self.steps:
            self.send()
            logged = self.receive()
        return logged


class LossGuard:
    """Raises LossExplosion when the median loss of the last RECENT steps is more than `factor` times the lowest such
    median so far.

    It begins anew whenever a loss term joins or leaves, and with every process. factor: 0 guards nothing.
    """

    def __init__(self, factor: float):
        self.factor = factor
        self.terms: set[str] = set()
        self.forget()

    def forget(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.lowest = math.inf

    def look(self, logged: Logged) -> None:
        """logged: the next steps' numbers, none left out."""
        if set(logged.terms) != self.terms:
            self.terms = set(logged.terms)
            self.forget()
            return  # some of these steps may be from before
        for loss in logged.totals:
            self.recent.append(loss)
            if len(self.recent) < RECENT:
                continue
            now = median(self.recent)
            self.lowest = min(self.lowest, now)
            if self.factor > 0 and now > self.factor * self.lowest:
                self.recent.clear()
                raise LossExplosion(
                    f"the loss exploded before iteration {logged.iteration}: its median over {RECENT} steps is "
                    f"{now:.4g}, it has been {self.lowest:.4g} (divergence_factor: {self.factor:g})"
                )


class CanGoBack(Protocol):
    """What of the loop's Trainer goes back with it."""

    config: Config
    ranks: Ranks
    avatar: Avatar
    optimisers: Optimisers
    refinement: Refinement
    iteration: int
    divergences: int  # of the whole run
    divergences_since_save: int


def recover(trainer: CanGoBack, model_dir: Path, monitor: Monitor | NoMonitor, error: Diverged) -> None:
    """Takes the run back to its last good checkpoint, with a note; raises `error` where that was done often enough.

    If that checkpoint led here again, it is the one before it.
    """
    retries = trainer.config.divergence_retries
    if trainer.divergences >= retries:
        raise type(error)(
            f"{error}; look at such a sample's image, mask and pose, or lower the learning rates; the last good "
            "checkpoint is kept, resume from it with --resume"
        ) from error
    go_back(trainer, model_dir, trainer.divergences_since_save, monitor.say)
    trainer.divergences += 1
    trainer.divergences_since_save += 1
    monitor.go_back(trainer.iteration)
    monitor.say(
        f"{error}; back to iteration {trainer.iteration}, going on with other samples "
        f"({trainer.divergences} of at most {retries} times)"
    )


def go_back(trainer: CanGoBack, model_dir: Path, skip: int, say: Callable[[str], object]) -> None:
    """Parameters, corrections and optimisers become those of the newest whole checkpoint but `skip`.

    Samples and random draws go on from where they are, so that others come than those that led here.
    """
    checkpoint = agreed_whole(model_dir, trainer.ranks, say, skip)
    saved = load_avatar(checkpoint)
    trainer.avatar.load_state_dict(saved.avatar.state_dict())
    state = load_training_state(checkpoint)
    trainer.optimisers.load_state_dict(state["optimisers"])
    trainer.refinement.load_state_dict(state.get("refinement", {}))  # older ones have none
    trainer.iteration = saved.iteration


class Preemption:
    """Notes a request to stop while the block lasts. Ctrl-C a second time raises KeyboardInterrupt, at once.

    To be entered in the main thread. Not entered, it is a run that nobody asks to stop.
    """

    def __init__(self):
        self.asked_by: str | None = None  # the first signal's name
        self._interrupted: float | None = None  # when the first Ctrl-C came

    def __enter__(self) -> Preemption:
        # nohup starts a run that ignores its terminal's end, and goes on.
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_) -> None:
        """Once it was asked to, the process is about to end: no further signal changes its exit status."""
        for number, handler in self._before.items():
            signal.signal(number, handler if self.asked_by is None else signal.SIG_IGN)

    def _note(self, number: int, frame) -> None:
        first = self.asked_by is None
        self.asked_by = self.asked_by or signal.Signals(number).name
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            if first:  # not `print`: the signal may have come in the middle of one
                os.write(sys.stderr.fileno(), b"\nstopping after this step; Ctrl-C again quits at once\n")
        elif now - self._interrupted > SAME_INTERRUPT_SECONDS:
            raise KeyboardInterrupt
