"""What several processes train in the time of one: steps of one pose each, together and each for itself.

Data path: as in training_step, on every rank -> Trainer of all ranks -> milliseconds a step, views a second.

Each rank for itself is what one process does on this machine while the others keep it as busy: the difference is the
exchange of gradients and waiting for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mmlphuman.benchmark.clock import wall_milliseconds
from mmlphuman.benchmark.subject import Subject
from mmlphuman.benchmark.training_step import ROUNDS, WARM_UP, make_trainer, training_capture
from mmlphuman.processes import Ranks
from mmlphuman.training.loop import Trainer

VIEWS = 4  # of a pose
ALONE = "each for itself"


def measure_parallel(subject: Subject, folder: Path, steps: int, ranks: Ranks) -> dict:
    """steps: in a row, timed several times in each way, by turns. folder: empty, this rank's own."""
    dataset = training_capture(subject, folder, subject.trained.config.edge_radius)
    trainers = {ALONE: make_trainer(subject, dataset, "auto", VIEWS, Ranks(ranks.device))}
    trainers["together"] = make_trainer(subject, dataset, "auto", VIEWS, ranks)
    runs = {name: steps_of(trainer) for name, trainer in trainers.items()}
    for run in runs.values():
        run(WARM_UP)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            ranks.barrier()
            times[name].append(wall_milliseconds(partial(run, steps), ranks.device) / steps)
    medians = {name: float(np.median(spent)) for name, spent in times.items()}
    return {
        "processes": ranks.world,
        "views": VIEWS,
        "ways": {
            name: {
                "step_ms": round(median, 4),
                "views_per_second": round(1000 * VIEWS * (1 if name == ALONE else ranks.world) / median, 2),
                "times_one": round((1 if name == ALONE else ranks.world) * medians[ALONE] / median, 4),
            }
            for name, median in medians.items()
        },
    }


def steps_of(trainer: Trainer) -> Callable[[int], None]:
    """What takes so many steps, on samples that are read before."""
    samples = [trainer.next_samples() for _ in range(2)]
    trainer.stream.close()

    def run(steps: int) -> None:
        for step in range(steps):
            trainer.step(*samples[step % len(samples)])

    return run
