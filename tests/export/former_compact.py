"""Writes compact files as version 4 did, to test reading them: plain tensors in int8, half and single precision."""

from __future__ import annotations

import json

import safetensors.torch
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmlphuman.avatar.pose_inputs import EXPRESSION
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact import FORMAT, Carried, fields_of
from mmlphuman.export.compact_reader import stored_type


def former_file(trained: TrainedAvatar, carried: Carried | None = None) -> bytes:
    """carried.frames and .template: both or none."""
    avatar = trained.avatar
    state = dict(avatar.state_dict())
    state["xyz"] = avatar.xyz + avatar.xyz_offset_range * torch.tanh(avatar.xyz_offsets)
    state["lbs_weights.weight"], state["lbs_weights.index"] = avatar.lbs_weights.sort(1, descending=True)
    state |= {f"pose_space.{name}": value for name, value in trained.pose_space.state_dict().items()}
    bounds = {"J": len(avatar.joints), "C": len(avatar.control_offsets), "A": len(avatar.bank.weights[0])}
    bounds["U"] = EXPRESSION.stop
    if carried is not None:
        state["frames.numbers"] = torch.from_numpy(carried.frames.frames)
        state["frames.translations"] = torch.from_numpy(carried.frames.translations)
        state["template.vertices"] = torch.from_numpy(carried.template.vertices.copy())
        state["template.faces"] = torch.from_numpy(carried.template.faces.copy())
        bounds["V"] = len(carried.template.vertices)
    stored = {}
    for name, field in fields_of(trained.config, 4, state).items():
        value = state[name].detach()
        if field.kind == "int8":
            stored[name], stored[name + ".scale"] = quantise(value, field.row)
        else:
            stored[name] = value.to(stored_type(field, bounds))
    metadata = {
        "format": FORMAT,
        "format_version": "4",
        "iteration": str(trained.iteration),
        "config": json.dumps(OmegaConf.to_container(OmegaConf.structured(trained.config))),
    }
    return safetensors.torch.save({name: value.contiguous() for name, value in stored.items()}, metadata)


def quantise(values: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """int8 values and half-precision scales, one for all numbers along dimension `row` (which becomes 1)."""
    if not values.numel():
        return values.to(torch.int8), values.narrow(row, 0, 1).half()
    scale = (values.abs().amax(row, keepdim=True) / 127).half()
    steps = values / torch.where(scale > 0, scale, torch.ones_like(scale)).float()
    return steps.round().clamp(-127, 127).to(torch.int8), scale
