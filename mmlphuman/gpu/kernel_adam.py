"""Adam and AdamW for all parameters in a few kernel launches, reading and writing at the memory's speed.

Data path: PoseRows -> each parameter's gradient, which exists in registers alone -> parameters, averages.

Plain twins: torch.optim's own step, and the outer products in tests/outer_products.py; tests/gpu compares both. State
and results are torch.optim's, so that either can resume the other.

Shape letters: B poses of the step, each a row of F numbers; T tensors of a launch; A anchors, I and O a layer's inputs
and outputs; N Gaussians or control points, K bases of each, D numbers of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.optim import Optimizer

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.gpu.interpolation import coefficient, three
from mmlphuman.gpu.pose_rows import ADDED_TO, BIASES, INPUTS, PoseRow, PoseRows, active_bases, pieces_of_row
from mmlphuman.gpu.tables import FusedTables
from mmlphuman.processes import Ranks

VECTOR_BLOCK = 1024  # numbers a program
LAYER_BLOCK, LAYER_WARPS = (8, 64), 2  # outputs and inputs that a program has at a time; measured on an H200
BASES_BLOCK, BASES_WARPS = 128, 4  # Gaussians a program; measured on an H200


@triton.jit
def _step(parameter, average, square, at, inside, g, numbers, beta1, beta2, eps):
    """torch.optim.AdamW (Adam for decay 0) of the numbers at `at`, whose gradient is g.

    numbers (4): rate, weight decay, and the corrections 1 - beta1^step and the root of 1 - beta2^step.
    """
    rate, decay = tl.load(numbers), tl.load(numbers + 1)
    correction1, correction2_root = tl.load(numbers + 2), tl.load(numbers + 3)
    m = tl.load(average + at, inside, 0.0)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * tl.load(square + at, inside, 0.0) + (1 - beta2) * g * g
    tl.store(average + at, m, inside)
    tl.store(square + at, v, inside)
    p = tl.load(parameter + at, inside, 0.0) * (1 - rate * decay)
    tl.store(parameter + at, p - rate / correction1 * m / (tl.sqrt(v) / correction2_root + eps), inside)


@triton.jit
def _pointer(table, entry):
    return tl.load(table + entry).to(tl.pointer_type(tl.float32))


@triton.jit
def adam_of_vectors(
    table, numbers, tensor_of_block, first_block,  # (T, 5), (T, 4), (blocks), (T)
    rows, F, B,  # (B, F)
    not_finite,  # () set to 1 if any gradient is not finite
    beta1, beta2, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    """Parameters whose gradient is in the rows.

    table: addresses of parameter, average and average square; how many numbers; where in a row their gradient begins.
    """
    block = tl.program_id(0)
    tensor = tl.load(tensor_of_block + block)
    entry = 5 * tensor
    at = (block - tl.load(first_block + tensor)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.load(table + entry + 3)
    of_row = rows + tl.load(table + entry + 4) + at
    g = tl.zeros([BLOCK], tl.float32)
    for _ in range(B):
        g += tl.load(of_row, inside, 0.0)
        of_row += F
    if tl.sum(((g - g) != 0).to(tl.int32), 0) > 0:
        tl.store(not_finite, 1.0)
    _step(
        _pointer(table, entry), _pointer(table, entry + 1), _pointer(table, entry + 2), at, inside, g,
        numbers + 4 * tensor, beta1, beta2, eps,
    )  # fmt: skip


@triton.jit
def adam_of_layer(
    parameter, average, square, numbers,  # (A, O, I) thrice; (4)
    inputs, own_inputs, biases,  # where in a row they begin; the inputs that are each anchor's own: I, or 0 if shared
    rows, F, B, not_finite,  # as above
    ins, outs, beta1, beta2, eps, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """A layer's weights in the MLP bank: for each pose what went into the layer times its biases' gradient."""
    anchor = tl.program_id(0)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    own = o < outs
    for start in range(0, ins, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        inside = own[:, None] & (i < ins)[None, :]
        g = tl.zeros([BLOCK_O, BLOCK_I], tl.float32)
        for b in range(B):
            x = tl.load(rows + b * F + inputs + anchor * own_inputs + i, i < ins, 0.0)
            d = tl.load(rows + b * F + biases + anchor * outs + o, own, 0.0)
            g += d[:, None] * x[None, :]
        if tl.sum(tl.sum(((g - g) != 0).to(tl.int32), 1), 0) > 0:
            tl.store(not_finite, 1.0)
        first = anchor.to(tl.int64) * outs * ins
        at = (o * ins)[:, None] + i[None, :]
        _step(
            parameter + first, average + first, square + first, at, inside, g, numbers, beta1, beta2, eps
        )  # fmt: skip


@triton.jit
def adam_of_bases(
    parameter, average, square, numbers,  # (N, K, D) with the strides below, thrice; (4)
    index, weight, coefficients, width,  # (3, N), (3, N): of anchors; where in a row those of (A, width) begin
    channels,  # (2, D): where in a row the gradient of each of the D numbers begins, and its step from n to n + 1
    rows, F, B, not_finite,
    N, basis_n, basis_k, basis_d, beta1, beta2, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bases: for each pose their coefficient times the gradient of what they are added to. A program takes basis k of
    some n; those of the same n follow each other, for they read the same gradients."""
    k = tl.program_id(0)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    own, known = n < N, d < D
    inside = known[:, None] & own[None, :]
    i0, i1, i2 = three(index + n, N, own)
    i0, i1, i2 = i0 * width, i1 * width, i2 * width
    w0, w1, w2 = three(weight + n, N, own)
    at_row = (
        tl.load(channels + d, known, 0)[:, None] + tl.load(channels + D + d, known, 0)[:, None] * n[None, :]
    )
    g = tl.zeros([BLOCK_D, BLOCK], tl.float32)
    for b in range(B):
        a = coefficient(rows + b * F + coefficients, i0, i1, i2, w0, w1, w2, k, own)
        g += a[None, :] * tl.load(rows + b * F + at_row, inside, 0.0)
    if tl.sum(tl.sum(((g - g) != 0).to(tl.int32), 1), 0) > 0:
        tl.store(not_finite, 1.0)
    at = (n * basis_n)[None, :] + (d * basis_d)[:, None] + k * basis_k
    _step(parameter, average, square, at, inside, g, numbers, beta1, beta2, eps)


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
    """Steps for several optimisers with the same betas and eps, whose parameters are one avatar's on one GPU."""

    def __init__(
        self, optimisers: Sequence[Optimizer], avatar: Avatar, ranks: Ranks, poses: int, tables: FusedTables
    ):
        """poses: of a step, of all ranks. tables: of the FusedAvatar that poses the avatar."""
        self.avatar, self.tables, self.named = avatar, tables, dict(avatar.named_parameters())
        self.rows = PoseRows(ranks, poses)
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

    def add_pose(self, output: AvatarOutput, active: ActiveParts) -> None:
        """The pose's gradients become a row; a recorded backward pass would write over them."""
        self.add_row(PoseRow.of(pieces_of_row(self.named, output.activations)), active)
        for parameter in self.named.values():
            parameter.grad = None

    def add_row(self, row: PoseRow, active: ActiveParts) -> None:
        """Of a pose whose gradients nobody else keeps."""
        self.rows.add(row, active)

    @torch.no_grad()
    def step(self) -> Tensor:
        """One step by the sum of the poses' gradients. Returns 1, or infinity if any gradient was not finite."""
        poses, rows = self.rows, self.rows.take()
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
        own_inputs = 0 if count == ins else ins  # the first layer's are shared where all anchors see the same
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
