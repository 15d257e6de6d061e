"""Gradients of the avatar's large parameters from the rows of poses: what KernelAdam forms in registers, in plain
PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.gpu.pose_rows import ADDED_TO, BIASES, INPUTS, PoseRows, active_bases


def outer_products(avatar: Avatar, poses: PoseRows) -> dict[str, Tensor]:
    """By the parameters' names. poses: taken."""
    rows, weights, gradients = poses.rows.flatten(0, 1), avatar.bank.weights, {}

    def piece(name: str) -> Tensor:
        begin, count = poses.layout[name]
        return rows[:, begin : begin + count]

    for layer, weight in enumerate(weights if f"{BIASES}.0" in poses.layout else ()):
        anchors, outs, ins = weight.shape
        inputs = piece(f"{INPUTS}.{layer}").unflatten(1, (-1, ins)).expand(-1, anchors, ins)
        biases = piece(f"{BIASES}.{layer}").unflatten(1, (anchors, outs))
        gradients[f"bank.weights.{layer}"] = torch.einsum("bai,bao->aoi", inputs, biases)
    for name in active_bases(poses.active):
        bases, controls = getattr(avatar, name), name == "position_bases"
        table = avatar.control_to_anchor if controls else avatar.gaussian_to_anchor
        first = avatar.num_gsparam_bases if controls else 0
        coefficients = piece(f"{INPUTS}.{len(weights)}").unflatten(1, (len(weights[0]), -1))
        each = torch.stack(
            [table(own[:, first : first + bases.shape[1]].contiguous()) for own in coefficients]
        )
        grads = torch.cat([piece(part).unflatten(1, (len(bases), -1)) for part in ADDED_TO[name]], 2)
        gradients[name] = torch.einsum("bnk,bnd->nkd", each, grads)
    return gradients


def all_gradients(avatar: Avatar, poses: PoseRows) -> dict[str, Tensor]:
    """Of every parameter that has one, by its name."""
    rows, gradients = poses.rows.flatten(0, 1), outer_products(avatar, poses)
    for name, parameter in avatar.named_parameters():
        if name in poses.layout:
            begin, count = poses.layout[name]
            gradients[name] = rows[:, begin : begin + count].sum(0).view(parameter.shape)
    return gradients
