"""The numbers of training steps on their way from the device: for the log, and for an early end where one is broken.

Nothing in a step waits for them: they are sent every few steps and looked at one step later, when they have arrived.
Several processes (ranks) send them to each other first, so that all of them see the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.training.distributed import ErrorOfAll, Ranks


class Diverged(ErrorOfAll):
    """The run has left what training can mend; its last checkpoint has not."""


class NonFiniteError(Diverged):
    """A loss or gradient became NaN or infinite."""


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
