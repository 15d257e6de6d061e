"""Adam and AdamW for all parameters in a few kernel launches, reading and writing at the memory's speed.

Data path: PoseRows -> each parameter's gradient, which exists in registers alone -> parameters, averages.

Plain twin: torch.optim's own step; state and results are the same, so that either can resume the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from torch.optim import Optimizer

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.fused_tables import FusedTables
from mmlphuman.training.adam_kernels import adam_of_bases, adam_of_layer, adam_of_vectors
from mmlphuman.training.pose_rows import ADDED_TO, BIASES, INPUTS, PoseRows, active_bases

VECTOR_BLOCK = 1024  # numbers a program
LAYER_BLOCK, LAYER_WARPS = (8, 64), 2  # outputs and inputs that a program has at a time; measured on an H200
BASES_BLOCK, BASES_WARPS = 128, 4  # Gaussians a program; measured on an H200


@dataclass(frozen=True)
class _Stepped:
    """A parameter of this step with its averages, made here at its first step."""

    name: str  # of a layer's weights: its number
    parameter: Tensor
    averages: tuple[Tensor, Tensor]
    numbers: tuple[float, float, float, float]  # as the kernels read them

    def addresses(self) -> tuple[int, int, int]:
        return self.parameter.data_ptr(), self.averages[0].data_ptr(), self.averages[1].data_ptr()


class KernelAdam:
    """`step()` of several optimisers with the same betas and eps, whose parameters are one avatar's on one GPU."""

    def __init__(self, optimisers: Sequence[Optimizer], avatar: Avatar, tables: FusedTables):
        self.avatar, self.tables, self.named = avatar, tables, dict(avatar.named_parameters())
        self.owner = {  # and the number of the group: loading a state replaces the groups themselves
            id(parameter): (optimiser, number)
            for optimiser in optimisers
            for number, group in enumerate(optimiser.param_groups)
            for parameter in group["params"]
        }
        group = optimisers[0].param_groups[0]
        self.betas_eps = *group["betas"], group["eps"]
        self.layout: dict[str, tuple[int, int]] = {}  # of the rows that the next two are for
        self.blocks: tuple[Tensor, Tensor] | None = None  # of the launch for vectors
        self.channels: dict[str, Tensor] = {}  # of bases: where in a row the gradients of their numbers are

    @torch.no_grad()
    def __call__(self, poses: PoseRows) -> Tensor:
        """One step by the sum of the poses' gradients. Returns 1, or infinity if any gradient was not finite."""
        rows = poses.take()
        if poses.layout != self.layout:
            self.layout, self.blocks, self.channels = poses.layout, None, {}
        weights = self.avatar.bank.weights if f"{BIASES}.0" in self.layout else ()
        vectors = [self._advanced(name, p) for name, p in self.named.items() if name in self.layout]
        layers = [self._advanced(str(layer), weight) for layer, weight in enumerate(weights)]
        bases = [self._advanced(name, self.named[name]) for name in active_bases(poses.active)]
        numbers = _sent([each.numbers for each in (*vectors, *layers, *bases)], rows.device)
        not_finite = torch.zeros((), device=rows.device)
        given = rows, rows.shape[1], len(rows), not_finite  # as the kernels take them
        self._step_vectors(vectors, numbers, given)
        of_large = iter(numbers[len(vectors) :])
        for each in layers:
            self._step_layer(each, next(of_large), given)
        for each in bases:
            self._step_bases(each, next(of_large), given)
        return 1 / (1 - not_finite)

    def _step_vectors(self, stepped: list[_Stepped], numbers: Tensor, given: tuple) -> None:
        table = [(*each.addresses(), each.parameter.numel(), self.layout[each.name][0]) for each in stepped]
        if self.blocks is None:
            self.blocks = blocks_of(
                [each.parameter.numel() for each in stepped], VECTOR_BLOCK, numbers.device
            )
        adam_of_vectors[(len(self.blocks[0]),)](
            _sent(table, numbers.device), numbers, *self.blocks, *given, *self.betas_eps, BLOCK=VECTOR_BLOCK
        )

    def _step_layer(self, each: _Stepped, numbers: Tensor, given: tuple) -> None:
        anchors, outs, ins = each.parameter.shape
        inputs, count = self.layout[f"{INPUTS}.{each.name}"]
        own_inputs = 0 if count == ins else ins  # the first layer's are the pose, which all anchors share
        biases, _ = self.layout[f"{BIASES}.{each.name}"]
        block_o, block_i = LAYER_BLOCK
        adam_of_layer[(anchors, triton.cdiv(outs, block_o))](
            each.parameter, *each.averages, numbers, inputs, own_inputs, biases, *given, ins, outs, *self.betas_eps,
            BLOCK_O=block_o, BLOCK_I=block_i, num_warps=LAYER_WARPS,
        )  # fmt: skip

    def _step_bases(self, each: _Stepped, numbers: Tensor, given: tuple) -> None:
        count, bases, size = each.parameter.shape
        at_controls, bank = each.name == "position_bases", self.avatar.bank
        index, weight = self.tables.anchor_index, self.tables.anchor_weight
        first, _ = self.layout[f"{INPUTS}.{len(bank.weights)}"]
        if at_controls:
            index, weight = self.tables.control_anchor_index, self.tables.control_anchor_weight
            first += self.avatar.num_gsparam_bases
        if each.name not in self.channels:
            self.channels[each.name] = self._channels(ADDED_TO[each.name], count).to(numbers.device)
        adam_of_bases[(bases, triton.cdiv(count, BASES_BLOCK))](
            each.parameter, *each.averages, numbers, index, weight, first, bank.biases[-1].shape[1],
            self.channels[each.name], *given, count, *each.parameter.stride(), *self.betas_eps,
            D=size, BLOCK_D=triton.next_power_of_2(size), BLOCK=BASES_BLOCK, num_warps=BASES_WARPS,
        )  # fmt: skip

    def _channels(self, added_to: Sequence[str], count: int) -> Tensor:
        """(2, D) int32 for the kernel of bases."""
        begins, steps = [], []
        for name in added_to:
            begin, numbers = self.layout[name]
            size = numbers // count
            begins += range(begin, begin + size)
            steps += [size] * size
        return torch.tensor([begins, steps], dtype=torch.int32)

    def _advanced(self, name: str, parameter: Tensor) -> _Stepped:
        """The parameter's state as torch.optim makes it, one step on; the count of steps is on the CPU, where reading
        it waits for nobody."""
        optimiser, number = self.owner[id(parameter)]
        group, state = optimiser.param_groups[number], optimiser.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        (beta1, beta2), steps = group["betas"], state["step"].item()
        corrections = 1 - beta1**steps, math.sqrt(1 - beta2**steps)
        numbers = group["lr"], group["weight_decay"], *corrections
        return _Stepped(name, parameter, (state["exp_avg"], state["exp_avg_sq"]), numbers)


def blocks_of(counts: list[int], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which tensor each block of `size` numbers works on, and each tensor's first block."""
    blocks = torch.tensor([-(-count // size) for count in counts])
    tensor_of_block = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(blocks)
    return tensor_of_block.to(device), (blocks.cumsum(0) - blocks).int().to(device)


def _sent(table: list[tuple], device: torch.device) -> Tensor:
    return torch.tensor(table).to(device, non_blocking=True)
