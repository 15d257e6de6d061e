"""Optimisers and learning rates (paper sec. 4): Adam for what belongs to Gaussians and control points, AdamW
for the MLPs, every rate decaying exponentially over the run.

Data path: gradients of one pose or several -> [summed over the ranks] -> parameters, equal on all ranks.
"""

from __future__ import annotations

import math

import torch
from torch.optim import Adam, AdamW, Optimizer

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.config import Config
from mmlphuman.training.distributed import EXCHANGE_TYPES, Ranks, SumOverRanks
from mmlphuman.training.memory_layout import laid_out_like

BETAS = (0.9, 0.999)
EPS = 1e-15  # published; gradients of single Gaussians are tiny, since losses are means over the image

# Settings' name -> the avatar's parameter.
PARAMETERS = {
    "position": "control_offsets",
    "scaling": "log_scales",
    "rotation": "quats",
    "opacity": "opacity_logits",
    "color": "sh0",
    "sh1": "sh1",
    "xyz_offset": "xyz_offsets",
    "position_basis": "position_bases",
    "gsparam_basis": "property_bases",
    "sh1_basis": "sh1_bases",
}
SCALED_BY_SCENE = ("position", "position_basis")
PARTS = 4  # of the parameters, about equal: while one is stepped the gradients of the next are on their way


class Optimisers:
    """Both optimisers behind one step; their whole state is in `state_dict`."""

    def __init__(
        self,
        avatar: Avatar,
        config: Config,
        scene_scale: float,
        kernels: bool = False,
        ranks: Ranks | None = None,
        poses: int = 1,
    ):
        """kernels: step by a GPU kernel that reads and writes at the memory's speed; the same state and results.
        poses: whose mean gradient a step takes. With n times as many poses the mean has 1 / sqrt(n) of the noise, and
        Adam, which divides by the gradient's size, takes as much larger steps: the square-root rule."""
        self.iterations = config.iterations
        self.rate_factor = math.sqrt(poses)
        self.ranks = ranks or Ranks(avatar.xyz.device)
        self.exchange = EXCHANGE_TYPES[config.gradient_exchange]
        groups = []
        for name, parameter in PARAMETERS.items():
            scale = scene_scale if name in SCALED_BY_SCENE else 1.0
            groups.append(self._group([getattr(avatar, parameter)], name, config, scale))
        encoder = self._group(list(avatar.bank.parameters()), "encoder", config, 1.0)
        encoder["weight_decay"] = config.encoder_weight_decay
        self.optimisers: list[Optimizer] = [
            Adam(groups, betas=BETAS, eps=EPS, fused=not kernels),
            AdamW([encoder], betas=BETAS, eps=EPS, fused=not kernels),
        ]
        self.parts = parts_of(self.parameters(), PARTS if self.ranks.world > 1 else 1)
        self.kernel_steps = None
        if kernels:
            from mmlphuman.training.kernel_adam import KernelAdam  # needs Triton

            self.kernel_steps = [KernelAdam(self.optimisers, part) for part in self.parts]
        self.sums: dict[int, torch.Tensor] = {}  # of the gradients so far, by the parameter's number

    @staticmethod
    def _group(parameters: list, name: str, config: Config, scale: float) -> dict:
        rate = getattr(config, f"{name}_lr") * scale
        return {
            "params": parameters,
            "name": name,
            "first_lr": rate,
            "lr": rate,
            "decay": getattr(config.lr_decay, name),
        }

    def set_rates(self, iteration: int) -> None:
        progress = iteration / self.iterations
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate_factor * group["first_lr"] * group["decay"] ** progress

    def parameters(self) -> list[torch.nn.Parameter]:
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        return [parameter for group in groups for parameter in group["params"]]

    def keep_gradients(self) -> None:
        """Adds the gradients to those of the step's other poses, in memory of their own: a recorded backward pass
        writes each pose's gradients over the last one's."""
        for number, parameter in enumerate(self.parameters()):
            if parameter.grad is None:
                continue
            if number in self.sums:
                self.sums[number].add_(parameter.grad)
            else:
                self.sums[number] = parameter.grad.clone()
            parameter.grad = None

    def step(self) -> torch.Tensor:
        """One step by the gradients, and those kept, of all ranks together.

        Returns a number on the device that is not finite if any gradient was not; the same on all ranks.
        """
        if self.sums:
            parameters = self.parameters()
            for number, total in self.sums.items():
                parameters[number].grad = total
            self.sums.clear()
        several = self.ranks.world > 1  # alone there is nothing to lay out and to send
        sums = [
            SumOverRanks(self.ranks, lay_out_gradients(part) if several else [], self.exchange)
            for part in self.parts
        ]
        if self.kernel_steps is not None:
            return self._step_by_kernels(sums)
        for arriving in sums:
            arriving.wait()
        norm = self.gradient_norm()
        for optimiser in self.optimisers:
            optimiser.step()
        return norm

    def _step_by_kernels(self, sums: list[SumOverRanks]) -> torch.Tensor:
        finite = []
        for arriving, step in zip(sums, self.kernel_steps, strict=True):
            arriving.wait()
            finite.append(step())
        finite = [number for number in finite if number is not None]
        return finite[0] if len(finite) == 1 else torch.stack(finite).max()

    def zero_grad(self) -> None:
        self.sums.clear()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def gradient_norm(self) -> torch.Tensor:
        """Norm of all gradients; not finite if any of them is not. Stays on the device."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser in self.optimisers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Of either way to step."""
        for optimiser, state in zip(self.optimisers, states, strict=True):
            optimiser.load_state_dict(state)


def parts_of(parameters: list[torch.nn.Parameter], count: int) -> list[list[torch.nn.Parameter]]:
    """The parameters in their order, cut into at most `count` parts of about as many numbers each."""
    parts, numbers = [[]], 0
    total = sum(parameter.numel() for parameter in parameters)
    for parameter in parameters:
        if parts[-1] and numbers >= len(parts) * total / count:
            parts.append([])
        parts[-1].append(parameter)
        numbers += parameter.numel()
    return parts


@torch.no_grad()
def lay_out_gradients(parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Those that there are, laid out in memory as their parameters are: on every rank alike."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter in with_gradient:
        parameter.grad = laid_out_like(parameter.grad, parameter)
    return [parameter.grad for parameter in with_gradient]
