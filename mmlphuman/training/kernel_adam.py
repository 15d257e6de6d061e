"""Adam and AdamW for all parameters in one kernel launch, reading and writing at the memory's speed.

Plain twin: torch.optim's own step; state and results are the same, so that either can resume the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from mmlphuman.training.kernels import adam_step
from mmlphuman.training.memory_layout import laid_out_like

BLOCK = 1024  # numbers a program


class KernelAdam:
    """`step()` of several optimisers with the same betas and eps, whose parameters are on one GPU.

    parameters: those that it steps, if not all.
    """

    def __init__(self, optimisers: Sequence[Optimizer], parameters: Sequence[Tensor] | None = None):
        self.optimisers = optimisers
        self.chosen = None if parameters is None else {id(parameter) for parameter in parameters}
        self.layout: tuple[int, ...] | None = None  # sizes that `tensor_of_block` and `first_block` are for
        self.tensor_of_block = self.first_block = None

    @torch.no_grad()
    def __call__(self) -> Tensor:
        addresses, counts, numbers = [], [], []
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                beta1, beta2 = group["betas"]
                for parameter in group["params"]:
                    if parameter.grad is None or (
                        self.chosen is not None and id(parameter) not in self.chosen
                    ):
                        continue
                    state = _state_of(optimiser, parameter)
                    state["step"] += 1
                    steps, grad = state["step"].item(), laid_out_like(parameter.grad, parameter)
                    parameter.grad = grad  # keeps it alive until the kernel has read it
                    tensors = (parameter, grad, state["exp_avg"], state["exp_avg_sq"])
                    addresses.append([tensor.data_ptr() for tensor in tensors])
                    counts.append(parameter.numel())
                    corrections = 1 - beta1**steps, math.sqrt(1 - beta2**steps)
                    numbers.append((group["lr"], group["weight_decay"], *corrections))
                    device = parameter.device
        if not addresses:
            return None
        self._lay_out(tuple(counts), device)
        table, rates = torch.tensor(addresses), torch.tensor(numbers, dtype=torch.float32)
        not_finite = torch.zeros((), device=device)
        adam_step[(len(self.tensor_of_block),)](
            table.to(device, non_blocking=True), self.counts, rates.to(device, non_blocking=True),
            self.tensor_of_block, self.first_block, not_finite, beta1, beta2, group["eps"], BLOCK=BLOCK,
        )  # fmt: skip
        return 1 / (1 - not_finite)  # 1, or infinite

    def _lay_out(self, counts: tuple[int, ...], device: torch.device) -> None:
        """Which block works on which tensor; parameters join only now and then."""
        if counts == self.layout:
            return
        blocks = torch.tensor([-(-count // BLOCK) for count in counts])
        self.layout, self.counts = counts, torch.tensor(counts).to(device)
        self.tensor_of_block = (
            torch.arange(len(counts), dtype=torch.int32).repeat_interleave(blocks).to(device)
        )
        self.first_block = (blocks.cumsum(0) - blocks).int().to(device)


def _state_of(optimiser: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """As torch.optim makes it, with the step count on the CPU, where reading it waits for nobody."""
    state = optimiser.state[parameter]
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    if state["step"].device.type != "cpu":
        state["step"] = state["step"].cpu()
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = laid_out_like(state[name], parameter)
    return state
