"""What an avatar's saved tensors must be: shapes, types, numbers. Checkpoints and compact files are held to it alike.

Data path: file -> tensors -> `check_state` (compact files: piece by piece, as they are decoded) -> avatar_from_state.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, D of them with
neighbours (none in a compact avatar), A anchors, K and L bases of properties and positions, O = K + L, I inputs of an
MLP among U numbers of a pose, J joints, F training poses, M components.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mmlphuman.avatar.light import FUNCTIONS
from mmlphuman.avatar.pose_inputs import EXPRESSION
from mmlphuman.config import Config
from mmlphuman.pose_layout import BODY_DIM, EXPRESSION_DIM, NUM_JOINTS, POSE_DIM

# Of a Gaussian that bases change: degree-0 SH 3 | log-scale 3 | quaternion 4 | opacity logit 1.
PROPERTIES = 11
FORMER_POSES = (BODY_DIM, POSE_DIM)  # numbers of a training pose that former versions kept
MAX_WEIGHT_ERROR = 0.02  # weights sum to one but for half precision
TABLES = ("gaussian_to_anchor", "gaussian_to_control", "control_to_anchor")


def state_shapes(config: Config) -> dict[str, str]:
    """Tensor of an avatar's state -> a letter or a number for each dimension, in the order of checking."""
    bank = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(("I", *map(str, config.hidden_widths), "O"))):
        bank |= {f"bank.weights.{layer}": f"A {fan_out} {fan_in}", f"bank.biases.{layer}": f"A {fan_out}"}
    light = {
        "normals": "N 3",
        "light.coefficients": f"{FUNCTIONS[config.light]} 3",
        "light.lowest": "3",
        "light.highest": "3",
    }
    return {  # first what the settings decide most of
        "mlp_inputs": "A I" if config.pose_inputs == "local" else "I",
        **(light if config.light != "none" else {}),
        **bank,
        "xyz": "N 3",
        "xyz_offsets": "N 3",
        "sh0": "N 3",
        "sh1": "N 3 3",
        "log_scales": "N 3",
        "quats": "N 4",
        "opacity_logits": "N",
        "lbs_weights": "N J",
        "control_offsets": "C 3",
        "control_neighbours": "D 7",
        "gaussian_to_anchor.index": "P 3",
        "gaussian_to_anchor.weight": "P 3",
        "gaussian_to_control.index": "N 3",
        "gaussian_to_control.weight": "N 3",
        "control_to_anchor.index": "C 3",
        "control_to_anchor.weight": "C 3",
        "property_bases": f"P K {PROPERTIES}",
        "sh1_bases": "Q K 9",
        "position_bases": "C L 3",
        "joints": "J 3",
        "canonical_inverse": "J 4 4",
        "parents": "J",
    }


POSE_SPACE_SHAPES = {"mean": f"{BODY_DIM}", "components": f"M {BODY_DIM}", "sigmas": "M"}
POINTS_AT = {  # what a tensor of indices is an index of
    "gaussian_to_anchor.index": "A",
    "control_to_anchor.index": "A",
    "gaussian_to_control.index": "C",
    "control_neighbours": "C",
    "mlp_inputs": "U",
}


def known_sizes(config: Config) -> dict[str, int]:
    """The shape letters that the settings decide."""
    bases = {"K": config.num_gsparam_bases, "L": config.num_position_bases}
    return {
        "J": NUM_JOINTS,
        "A": config.num_features,
        "U": EXPRESSION.stop,
        "O": sum(bases.values()),
        **bases,
    }


def check_state(config: Config, state: Mapping[str, Any], pose_space: Mapping[str, Any]) -> None:
    """Raises ValueError, one line, for the first tensor of an avatar or pose space that could not have been saved."""
    shapes = state_shapes(config)
    check_names(set(shapes), set(state))
    sizes = known_sizes(config)
    for name, shape in shapes.items():
        index = name in POINTS_AT or name == "parents"
        check_shape(name, state[name], shape.split(), torch.int64 if index else torch.float32, sizes)
    check_counts(sizes)
    for name in shapes:
        if name == "parents":
            check_parents(name, state[name])
        elif name in POINTS_AT:
            check_index(name, state[name], sizes[POINTS_AT[name]])
        else:
            check_finite(name, state[name])
    for name in (*(f"{table}.weight" for table in TABLES), "lbs_weights"):
        check_weights(name, state[name])
    check_names({*POSE_SPACE_SHAPES, "training_poses"}, set(pose_space))
    width = _width(pose_space["training_poses"])
    numbers = width if width in FORMER_POSES else POSE_DIM + EXPRESSION_DIM
    for name, shape in (POSE_SPACE_SHAPES | {"training_poses": f"F {numbers}"}).items():
        check_shape(f"pose_space.{name}", pose_space[name], shape.split(), torch.float32, sizes)
        check_finite(f"pose_space.{name}", pose_space[name])
    if not sizes["F"]:
        raise ValueError("tensor pose_space.training_poses holds no pose")


def check_names(expected: set[str], found: set[str]) -> None:
    for problem, names in (("missing", expected - found), ("unknown", found - expected)):
        if names:
            raise ValueError(f"tensor {min(names, key=str)} is {problem}")


def check_shape(name: str, value: Any, letters: list[str], kind: torch.dtype, sizes: dict[str, int]) -> None:
    """A letter of which nothing is known yet gets its size here."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise ValueError(f"tensor {name} is {type(value).__name__}, expected {kind} numbers")
    if value.dim() == len(letters):
        for letter, size in zip(letters, value.shape, strict=True):
            if not letter.isdigit():
                sizes.setdefault(letter, size)
    wanted = tuple(int(letter) if letter.isdigit() else sizes.get(letter, letter) for letter in letters)
    if tuple(value.shape) != wanted or value.dtype != kind:
        raise ValueError(f"tensor {name} is {value.dtype} {tuple(value.shape)}, expected {kind} {wanted}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"tensor {name} repeats numbers: fewer are there than its shape {wanted} says")


def check_counts(sizes: dict[str, int]) -> None:
    if not (0 <= sizes["Q"] <= sizes["P"] <= sizes["N"] and sizes["N"] and sizes["C"]):
        raise ValueError("there are {Q} and {P} bases for {N} Gaussians, {C} control points".format(**sizes))


def check_finite(name: str, value: Tensor) -> None:
    if not value.isfinite().all():
        raise ValueError(f"tensor {name} holds numbers that are not finite")


def check_index(name: str, value: Tensor, count: int) -> None:
    if value.numel() and (int(value.min()) < 0 or int(value.max()) >= count):
        raise ValueError(f"tensor {name} points outside 0..{count - 1}")


def check_parents(name: str, value: Tensor) -> None:
    first, *others = value.tolist()
    if first != -1 or not all(0 <= parent < joint for joint, parent in enumerate(others, start=1)):
        raise ValueError(f"tensor {name} is no skeleton: a joint's parent must come before it")


def check_weights(name: str, weights: Tensor) -> None:
    """weights: (rows, k)."""
    if not weights.numel():
        return
    if float((weights.sum(1) - 1).abs().max()) > MAX_WEIGHT_ERROR:
        raise ValueError(f"tensor {name} holds weights that do not sum to one")
    if float(weights.min()) < -MAX_WEIGHT_ERROR:
        raise ValueError(f"tensor {name} holds negative weights")


def _width(value: Any) -> int:
    return value.shape[-1] if isinstance(value, Tensor) and value.dim() else 0
