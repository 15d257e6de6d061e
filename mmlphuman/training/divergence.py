"""A run whose loss breaks: noticed, and taken back to its last good checkpoint with other samples.

Data path: StepNumbers -> LossGuard -> Diverged -> loop -> go_back.
Every rank sees the same numbers, so that all of them notice and go back together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mmlphuman.training.checkpoint import load_avatar, load_training_state
from mmlphuman.training.step_numbers import Diverged, Logged
from mmlphuman.training.whole_checkpoint import agreed_whole

if TYPE_CHECKING:
    from mmlphuman.training.loop import Trainer
    from mmlphuman.training.monitor import Monitor

RECENT = 20  # steps; one odd sample among them moves their median little


class LossExplosion(Diverged):
    """The loss is finite, and far above what the run had reached."""


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


def recover(trainer: Trainer, model_dir: Path, monitor: Monitor, error: Diverged) -> None:
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


def go_back(trainer: Trainer, model_dir: Path, skip: int, say: Callable[[str], object]) -> None:
    """Parameters and optimisers become those of the newest whole checkpoint but `skip`.

    Samples and random draws go on from where they are, so that others come than those that led here.
    """
    checkpoint = agreed_whole(model_dir, trainer.ranks, say, skip)
    saved = load_avatar(checkpoint)
    trainer.avatar.load_state_dict(saved.avatar.state_dict())
    trainer.optimisers.load_state_dict(load_training_state(checkpoint)["optimisers"])
    trainer.iteration = saved.iteration
