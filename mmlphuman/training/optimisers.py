"""Optimisers and learning rates (paper sec. 4): Adam for what belongs to Gaussians and control points, AdamW
for the MLPs, every rate decaying exponentially over the run.

Data path: gradients of one pose or several -> [of all ranks] -> parameters, equal on all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch.optim import Adam, AdamW, Optimizer

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.config import Config
from mmlphuman.memory_layout import laid_out_like
from mmlphuman.processes import Ranks

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


class Stepper(Protocol):
    """Who steps in torch.optim's place, with its state and to the same results."""

    def add_pose(self, output: AvatarOutput, active: ActiveParts) -> None: ...

    def step(self) -> torch.Tensor: ...


class Optimisers:
    """Both optimisers behind one step; their whole state is in `state_dict`."""

    def __init__(
        self,
        avatar: Avatar,
        config: Config,
        scene_scale: float,
        stepper: Callable[..., Stepper] | None = None,
        ranks: Ranks | None = None,
        poses: int = 1,
    ):
        """stepper: (optimisers, avatar, ranks, poses) -> Stepper, of the avatar's backend; None: torch.optim steps.
        poses: whose mean gradient a step takes. With n times as many poses the mean has 1 / sqrt(n) of the noise, and
        Adam, which divides by the gradient's size, takes as much larger steps: the square-root rule."""
        self.iterations = config.iterations
        self.named = dict(avatar.named_parameters())
        self.rate_factor = math.sqrt(poses)
        self.ranks = ranks or Ranks(avatar.xyz.device)
        groups = []
        for name, parameter in PARAMETERS.items():
            scale = scene_scale if name in SCALED_BY_SCENE else 1.0
            groups.append(self._group([getattr(avatar, parameter)], name, config, scale))
        if avatar.light is not None:
            groups.append(self._group([avatar.light.coefficients], "light", config, 1.0))
        encoder = self._group(list(avatar.bank.parameters()), "encoder", config, 1.0)
        encoder["weight_decay"] = config.encoder_weight_decay
        self.optimisers: list[Optimizer] = [
            Adam(groups, betas=BETAS, eps=EPS, fused=stepper is None),
            AdamW([encoder], betas=BETAS, eps=EPS, fused=stepper is None),
        ]
        self.stepper = stepper and stepper(self.optimisers, avatar, self.ranks, poses)

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

    def add_pose(self, output: AvatarOutput, active: ActiveParts) -> None:
        """After the backward pass of each of this rank's poses: it is part of the step's gradient."""
        if self.stepper is not None:  # otherwise autograd has added it to the gradients of the others
            self.stepper.add_pose(output, active)

    def step(self) -> torch.Tensor:
        """One step by the gradients of all poses of all ranks together.

        Returns a number on the device that is not finite if any gradient was not; the same on all ranks.
        """
        if self.stepper is not None:
            return self.stepper.step()
        gradients = [parameter.grad for parameter in self.named.values() if parameter.grad is not None]
        self.ranks.sum_all(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        for optimiser in self.optimisers:
            optimiser.step()
        for parameter in self.named.values():
            parameter.grad = None
        return norm

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser in self.optimisers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Of either way to step. torch.optim would take over how the saved one stepped, and how its averages lie."""
        for optimiser, saved in zip(self.optimisers, states, strict=True):
            fused = optimiser.defaults["fused"]
            groups = [{**group, "fused": fused} for group in saved["param_groups"]]
            optimiser.load_state_dict({**saved, "param_groups": groups})
            for parameter, state in optimiser.state.items():
                if any(state[average].shape != parameter.shape for average in ("exp_avg", "exp_avg_sq")):
                    raise ValueError(f"averages of a parameter {tuple(parameter.shape)} have another shape")
                for average in ("exp_avg", "exp_avg_sq"):
                    state[average] = laid_out_like(state[average], parameter)
                if not fused:
                    state["step"] = state["step"].cpu()
