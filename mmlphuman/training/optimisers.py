"""Optimisers and learning rates (paper sec. 4): Adam for what belongs to Gaussians and control points, AdamW
for the MLPs, every rate decaying exponentially over the run.

Data path: gradients of one pose or several -> [of all ranks] -> parameters, equal on all ranks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.optim import Adam, AdamW, Optimizer

from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
from mmlphuman.config import Config
from mmlphuman.processes import Ranks
from mmlphuman.training.memory_layout import laid_out_like
from mmlphuman.training.pose_rows import PoseRows, pieces_of_row

if TYPE_CHECKING:
    from mmlphuman.avatar.fused_tables import FusedTables  # needs Triton

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

    def __init__(
        self,
        avatar: Avatar,
        config: Config,
        scene_scale: float,
        tables: FusedTables | None = None,
        ranks: Ranks | None = None,
        poses: int = 1,
    ):
        """tables: of the avatar's GPU kernels, if it was posed by them: then GPU kernels step, to the same results.
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
        encoder = self._group(list(avatar.bank.parameters()), "encoder", config, 1.0)
        encoder["weight_decay"] = config.encoder_weight_decay
        self.optimisers: list[Optimizer] = [
            Adam(groups, betas=BETAS, eps=EPS, fused=tables is None),
            AdamW([encoder], betas=BETAS, eps=EPS, fused=tables is None),
        ]
        self.rows, self.by_kernels = None, None
        if tables is not None:
            from mmlphuman.training.kernel_adam import KernelAdam  # needs Triton

            self.rows = PoseRows(self.ranks, poses)
            self.by_kernels = KernelAdam(self.optimisers, avatar, tables)

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
        if self.rows is None:
            return  # autograd has added it to the gradients of the others
        self.rows.add(pieces_of_row(self.named, output.activations), active)
        self.forget_gradients()  # the row has them; a recorded backward pass would write over them

    def step(self) -> torch.Tensor:
        """One step by the gradients of all poses of all ranks together.

        Returns a number on the device that is not finite if any gradient was not; the same on all ranks.
        """
        if self.by_kernels is not None:
            return self.by_kernels(self.rows)
        gradients = [parameter.grad for parameter in self.named.values() if parameter.grad is not None]
        self.ranks.sum_all(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        for optimiser in self.optimisers:
            optimiser.step()
        self.forget_gradients()
        return norm

    def forget_gradients(self) -> None:
        for parameter in self.named.values():
            parameter.grad = None

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser in self.optimisers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Of either way to step. torch.optim would take over how the saved one stepped, and how its averages lie."""
        for optimiser, saved in zip(self.optimisers, states, strict=True):
            fused = optimiser.defaults["fused"]
            groups = [{**group, "fused": fused} for group in saved["param_groups"]]
            optimiser.load_state_dict({**saved, "param_groups": groups})
            for parameter, state in optimiser.state.items():
                for average in ("exp_avg", "exp_avg_sq"):
                    state[average] = laid_out_like(state[average], parameter)
                if not fused:
                    state["step"] = state["step"].cpu()
