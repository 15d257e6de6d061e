"""The numbers of training steps on their way from the device: for the log, and for an early end where one is broken.

Nothing in a step waits for them: they are sent every few steps and looked at one step later, when they have arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """A loss or gradient became NaN or infinite."""


@dataclass(frozen=True)
class Logged:
    iteration: int  # steps done by then
    terms: dict[str, float]  # the loss terms of the last of them


@dataclass(frozen=True)
class _Sent:
    numbers: Tensor  # on the CPU, (steps * 2 + terms,)
    arrived: torch.cuda.Event | None
    steps: list[tuple[int, str]]
    names: list[str]


class StepNumbers:
    """Collects each step's loss and gradient norm on the device, at most `capacity` of them between two checks."""

    def __init__(self, capacity: int, device: torch.device):
        self.values = torch.zeros(capacity, 2, device=device)
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

    def send(self) -> None:
        """Starts the way to the CPU of all that was noted; what was sent before must have been received."""
        assert self.sent is None and self.steps, "nothing noted, or the last numbers were not received"
        noted = self.values[: len(self.steps)].flatten()
        numbers, arrived = torch.cat([noted, torch.stack(list(self.terms.values()))]), None
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
        rows, terms = sent.numbers.split([2 * len(sent.steps), len(sent.names)])
        for (iteration, sample), finite in zip(sent.steps, rows.view(-1, 2).isfinite().tolist(), strict=True):
            if not all(finite):
                what = "gradient" if finite[0] else "loss"
                raise NonFiniteError(
                    f"the {what} is not finite at iteration {iteration} on {sample}; look at that sample's image, "
                    "mask and pose; the last good checkpoint is kept, resume from it with --resume"
                )
        return Logged(sent.steps[-1][0] + 1, dict(zip(sent.names, terms.tolist(), strict=True)))

    def check(self) -> Logged | None:
        """All that was noted, now. Returns and raises as `receive`."""
        logged = self.receive()
        if self.steps:
            self.send()
            logged = self.receive()
        return logged
