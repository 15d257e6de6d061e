"""What each pose adds to the gradients, in short: a row of numbers for the optimiser's kernels and for other processes.

For one pose the gradient of every large parameter is an outer product: of a layer's weights, what went into the layer
times its biases' gradient; of a basis, its coefficient times the gradient of what it is added to. 156 million numbers
thus follow from 5 million at the published scale, without rounding. Only these are kept of a pose and sent to other
processes: 22 MB for each pose of theirs, where gradients would be 620.

Data path: activations of the forward pass + gradients of the small parameters, a pose at a time -> one row
[-> all processes' rows] -> KernelAdam, which forms the outer products while it steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.processes import PendingExchange, Ranks

BIASES, INPUTS = "bank.biases", "inputs"  # with a layer's number: names of pieces of a row
ADDED_TO = {  # bases -> what their blend is added to, in the order of a basis's numbers
    "property_bases": ("sh0", "log_scales", "quats", "opacity_logits"),
    "sh1_bases": ("sh1",),
    "position_bases": ("control_offsets",),
}


def active_bases(active: ActiveParts) -> tuple[str, ...]:
    """Names of the bases that have a gradient."""
    on = {
        "property_bases": active.property_bases,
        "sh1_bases": active.property_bases and active.sh1,
        "position_bases": active.position_bases,
    }
    return tuple(name for name in ADDED_TO if on[name])


def pieces_of_row(parameters: Mapping[str, Tensor], activations: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """After a pose's backward pass: all that its gradients follow from, by name.

    parameters: the avatar's. activations: of its AvatarOutput, the coefficients last.
    """
    found = {f"{INPUTS}.{layer}": activation for layer, activation in enumerate(activations)}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            found[name] = parameter.grad
    return found


@dataclass(frozen=True)
class PoseRow:
    """Pieces one after the other."""

    numbers: Tensor  # (F,)
    layout: dict[str, tuple[int, int]]  # a piece's first number in the row, and how many it has

    @classmethod
    def of(cls, pieces: Mapping[str, Tensor], numbers: Tensor | None = None) -> PoseRow:
        """numbers: memory to write to, for a piece that was written there before."""
        layout, end = {}, 0
        for name, piece in pieces.items():
            layout[name] = end, piece.numel()
            end += piece.numel()
        parts = [piece.detach().reshape(-1) for piece in pieces.values()]
        if numbers is None:
            numbers = torch.empty(end, device=parts[0].device)
        return cls(torch.cat(parts, out=numbers), layout)


class PoseRows:
    """The rows of a step's poses, of all ranks in the order of the poses. A new layout when the schedule switches
    something on."""

    def __init__(self, ranks: Ranks, poses: int):
        self.ranks, self.own_poses = ranks, poses // ranks.world
        self.layout: dict[str, tuple[int, int]] = {}  # of all rows
        self.active: ActiveParts | None = None
        self.rows: Tensor | None = None  # (own poses, ranks, F)
        self.travelling: list[PendingExchange] = []

    @torch.no_grad()
    def add(self, row: PoseRow, active: ActiveParts) -> None:
        """This rank's next pose of the step; it is on its way to the others while this rank goes on.

        active: what was switched on, the same for all poses of a step.
        """
        if (row.layout, active) != (self.layout, self.active):
            assert not self.travelling, "the poses of a step differ in what is switched on"
            self.layout, self.active = row.layout, active
            numbers = row.numbers
            self.rows = torch.empty(self.own_poses, self.ranks.world, len(numbers), device=numbers.device)
        everyones = self.rows[len(self.travelling)]
        everyones[self.ranks.rank] = row.numbers
        self.travelling.append(self.ranks.gather_rows(everyones))

    def take(self) -> Tensor:
        """(B, F) of all poses, once they are here; on a GPU its stream waits, not this process."""
        assert len(self.travelling) == self.own_poses, "rows of all poses are not there yet"
        for each in self.travelling:
            each.wait()
        self.travelling = []
        return self.rows.flatten(0, 1)
