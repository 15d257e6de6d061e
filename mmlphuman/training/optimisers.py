"""Optimisers and learning rates (paper sec. 4): Adam for what belongs to Gaussians and control points, AdamW
for the MLPs, every rate decaying exponentially over the run."""

from __future__ import annotations

import torch
from torch.optim import Adam, AdamW, Optimizer

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.config import Config

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


class Optimisers:
    """Both optimisers behind one step; their whole state is in `state_dict`."""

    def __init__(self, avatar: Avatar, config: Config, scene_scale: float, kernels: bool = False):
        """kernels: step by a GPU kernel that reads and writes at the memory's speed; the same state and results."""
        self.iterations = config.iterations
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
        self.kernel_step = None
        if kernels:
            from mmlphuman.training.kernel_adam import KernelAdam  # needs Triton

            self.kernel_step = KernelAdam(self.optimisers)

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
                group["lr"] = group["first_lr"] * group["decay"] ** progress

    def step(self) -> torch.Tensor:
        """One step. Returns a number on the device that is not finite if any gradient was not."""
        if self.kernel_step is not None:
            return self.kernel_step()
        norm = self.gradient_norm()
        for optimiser in self.optimisers:
            optimiser.step()
        return norm

    def zero_grad(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def gradient_norm(self) -> torch.Tensor:
        """Norm of all gradients; not finite if any of them is not. Stays on the device."""
        gradients = [
            parameter.grad
            for optimiser in self.optimisers
            for group in optimiser.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        return torch.nn.utils.get_total_norm(gradients)

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser in self.optimisers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Of either way to step."""
        for optimiser, state in zip(self.optimisers, states, strict=True):
            optimiser.load_state_dict(state)
