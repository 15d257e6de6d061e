"""The compact model: everything that animates an avatar in one safetensors file, nothing that only training needs.

Data path: (pruned) TrainedAvatar + Carried -> whole steps (precision) -> streams (packing) + metadata ->
FILE.safetensors, which compact_reader reads. Carried: what commands look for in a model folder beside the avatar.

Each tensor of the file is a stream of bytes; the metadata say what array it is. Of the avatar's numbers it holds whole
multiples of a step; weights that sum to one lack the first. docs/compact_file.md describes every field for those who
read it by other means. Training frames' poses are the pose space's. Cameras are metadata, which animation.camera_file
reads.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, A anchors, K and
L bases of properties and positions, O = K + L, I inputs of an MLP among U numbers of a pose, J joints, S strongest
joints, R = S - 1, F training poses, M components, V vertices and T triangles of the template.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.torch
import torch
import trimesh
from omegaconf import OmegaConf
from smplx.joint_names import JOINT_NAMES
from torch import Tensor

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.avatar import COLOR, LOG_SCALE, OPACITY, QUAT
from mmlphuman.avatar.pose_inputs import NOTHING
from mmlphuman.avatar.state import (
    POINTS_AT,
    POSE_SPACE_SHAPES,
    state_shapes,
)
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import Config
from mmlphuman.export.packing import Packed, packed
from mmlphuman.export.precision import Steps, even_steps
from mmlphuman.pose_layout import BODY_DIM, EXPRESSION_DIM, NUM_JOINTS, POSE_DIM

FORMAT = "mmlphuman compact avatar"
# 1: every MLP saw the body's 63 numbers, which were all that was kept of training poses. 2: no expression was.
# 3: nothing was carried but cameras. 4: tensors were plain, in int8, half or single precision.
FORMAT_VERSION = 5
STRONGEST = 4  # joints of a Gaussian, at most
NEGLIGIBLE_WEIGHT = 1e-3  # of skinning that a Gaussian's joints beyond the strongest may hold together
WEIGHT_STEP = 1 / 255  # of all that sum to one
POSE_STEP = 2.0**-13  # radians of training poses; metres of frames' places and the template
BIAS_STEPS = 2**15 - 1  # of an MLP's largest bias
# By version, 3 and later ones alike: numbers kept of a training pose; indices that an MLP's inputs can have.
POSE_NUMBERS = {1: BODY_DIM, 2: POSE_DIM}
POSE_INDICES = {1: BODY_DIM, 2: NOTHING + 1}
SCALE, OFFSET = ".scale", ".offset"  # names of what a tensor of steps is multiplied by, and what is added
SHIFT = "shift"
FIRST_MISSING = ("gaussian_to_anchor", "gaussian_to_control", "control_to_anchor", "lbs_weights")
SHIFTED = ("sh0", "sh1", "log_scales", "quats", "opacity_logits", "property_bases", "sh1_bases")
POSE_SPACE = "pose_space."
TRAINING_POSES = POSE_SPACE + "training_poses"
# Carried of a model folder, each line as a whole or not at all.
FRAMES = {"frames.numbers": "F", "frames.translations": "F 3"}
TEMPLATE = {"template.vertices": "V 3", "template.faces": "T 3"}
IN_METRES = ("frames.translations", "template.vertices")
INDEX_OF = POINTS_AT | {
    "lbs_weights.index": "J",
    "template.faces": "V",
}  # what a tensor of indices is an index of
FULL = (
    "xyz",
    "joints",
    "canonical_inverse",
    *IN_METRES,
)  # in single precision, with the light's and the pose space's; of them steps since version 5: places, training poses
PROPERTY_OF = {"sh0": COLOR, "log_scales": LOG_SCALE, "quats": QUAT, "opacity_logits": OPACITY}


@dataclass(frozen=True)
class Field:
    """How a tensor is stored. `shape` has a letter or a number for each dimension."""

    shape: str
    # full: float32; steps: whole multiples of SCALE, after OFFSET if there is one; index: integers below `bound`;
    # count: from 0 on; parents. Of former versions: half; int8, with scales.
    kind: str
    row: int = -1  # of int8: the dimension whose numbers share a scale
    bound: str = ""  # of index: the letter of what it points at


@dataclass(frozen=True)
class Carried:
    """What a compact file has of a model folder besides avatar and cameras; None: the folder did not have it."""

    frames: PoseSequence | None = None  # those of training, in the poses that it used
    template: trimesh.Trimesh | None = None


def fields_of(config: Config, version: int = FORMAT_VERSION, names: Collection[str] = ()) -> dict[str, Field]:
    """Every tensor of a file with these settings: an avatar's (avatar.state), of its skinning weights the largest; and
    of what is carried that which has one of its tensors among `names`."""
    unstored = {"xyz_offsets", "control_neighbours", "lbs_weights"}
    if version == 1:
        unstored.add("mlp_inputs")
    shapes = {name: shape for name, shape in state_shapes(config).items() if name not in unstored}
    if version == 1:
        shapes["bank.weights.0"] = shapes["bank.weights.0"].replace("I", str(BODY_DIM))
    shapes |= {"lbs_weights.index": "N S", "lbs_weights.weight": "N S"}
    shapes |= {POSE_SPACE + name: shape for name, shape in POSE_SPACE_SHAPES.items()}
    shapes[TRAINING_POSES] = f"F {POSE_NUMBERS.get(version, POSE_DIM + EXPRESSION_DIM)}"
    for group in (FRAMES, TEMPLATE):
        if version > 3 and not group.keys().isdisjoint(names):
            shapes |= group
    if version > 4:
        for table in FIRST_MISSING:
            shapes[f"{table}.weight"] = shapes[f"{table}.weight"].replace("3", "2").replace("S", "R")
    return {name: _field(name, shape, version) for name, shape in shapes.items()}


def _field(name: str, shape: str, version: int) -> Field:
    if bound := INDEX_OF.get(name):
        return Field(shape, "index", bound=bound)
    if name == "parents":
        return Field(shape, "parents")
    if name == "frames.numbers":
        return Field(shape, "count")
    if version > 4:
        stepped = name in (TRAINING_POSES, *IN_METRES) or not (
            name in FULL or name.startswith((POSE_SPACE, "light."))
        )
        return Field(shape, "steps" if stepped or name == "xyz" else "full")
    if name.startswith("bank.weights."):
        return Field(shape, "int8")
    if name in ("property_bases", "sh1_bases"):
        return Field(shape, "int8", row=1)  # a scale for each property
    return Field(shape, "full" if name in FULL or name.startswith((POSE_SPACE, "light.")) else "half")


def pack(
    stored: dict[str, Packed],
    trained: TrainedAvatar,
    record: dict,
    cameras: list[dict] | None = None,
    view: dict | None = None,
) -> bytes:
    """The file's content: what `encode` gave, and the settings.

    cameras: those of the capture's calibration, as cameras.json lists them, for animation.camera_file.
    view: one such camera, for a first look.
    record: what a reader may want to know about how it was made (versions, shares); anything that JSON holds.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "iteration": str(trained.iteration),
        "config": json.dumps(OmegaConf.to_container(OmegaConf.structured(trained.config))),
        "record": json.dumps(record),
        "tensors": json.dumps({name: packed.entry() for name, packed in stored.items()}),
        "units": "metres, radians",
        "axes": "right-handed; the body's own: x to its left, y up, z to its front",
        "joints": json.dumps(JOINT_NAMES[:NUM_JOINTS]),
    }
    if cameras is not None:
        metadata["cameras"] = json.dumps(cameras)
    if view is not None:
        metadata["view"] = json.dumps(view)
    streams = {
        name: torch.frombuffer(bytearray(packed.data), dtype=torch.uint8) for name, packed in stored.items()
    }
    return safetensors.torch.save(streams, metadata)


@torch.no_grad()
def encode(
    trained: TrainedAvatar, carried: Carried | None = None, steps: Steps | None = None
) -> dict[str, Packed]:
    """The tensors to store. Raises ValueError if the avatar has numbers that are not finite or fit no whole steps.

    carried.frames: as many as the pose space has. steps: of this avatar; without them short ones for all, which take
    more space than need be.
    """
    avatar = trained.avatar
    steps = steps or even_steps(avatar)
    state = dict(avatar.state_dict())
    # The free offset never changes again: it is part of the place.
    state["xyz"] = avatar.xyz + avatar.xyz_offset_range * torch.tanh(avatar.xyz_offsets)
    state["lbs_weights.index"], state["lbs_weights.weight"] = strongest_joints(avatar.lbs_weights)
    state |= {POSE_SPACE + name: value for name, value in trained.pose_space.state_dict().items()}
    for table in FIRST_MISSING:
        state[f"{table}.weight"] = state[f"{table}.weight"][:, 1:]
    if carried is not None and carried.frames is not None:
        state["frames.numbers"] = torch.from_numpy(carried.frames.frames)
        state["frames.translations"] = torch.from_numpy(carried.frames.translations)
    if carried is not None and carried.template is not None:
        state["template.vertices"] = torch.from_numpy(np.array(carried.template.vertices))
        state["template.faces"] = torch.from_numpy(np.array(carried.template.faces))
    stored = {SHIFT: packed(steps.shift.cpu().numpy())}
    for name, field in fields_of(trained.config, names=state).items():
        value = state[name].detach().cpu()
        if not value.isfinite().all():
            raise ValueError(f"the avatar's {name} holds numbers that are not finite")
        try:
            if field.kind == "steps":
                stored |= _stepped(name, value.double(), steps)
            else:
                stored[name] = packed(value.numpy())
        except ValueError as error:
            raise ValueError(f"the avatar's {name} is too large for this format: {error}") from error
    return stored


def _stepped(name: str, value: Tensor, steps: Steps) -> dict[str, Packed]:
    """value: float64. Steps and offsets are what float32 holds of them."""
    scale, offset = _scale_of(name, value, steps).float().double(), None
    if chosen := steps.bases.get(name):
        whole, offset = chosen.whole.cpu().double(), chosen.offset.cpu().double()
    elif name in SHIFTED:
        shift = steps.shift[: len(value)].cpu()
        divisor = scale * 2.0 ** shift.reshape(-1, *[1] * (value.dim() - 1))
        # Around the mean: training starts with the same bases for all, and an error that all share shows.
        offset = value.sum(0, keepdim=True) / max(len(value), 1)
        offset = offset.float().double()
        whole = ((value - offset) / divisor).round()
    else:
        whole = (value / scale).round()
    if whole.numel() and whole.abs().max() >= 2**31:
        raise ValueError("more than 2^31 steps")
    found = {
        name: packed(whole.long().numpy(), shifted=name in SHIFTED),
        name + SCALE: packed(scale.float().numpy()),
    }
    return found if offset is None else found | {name + OFFSET: packed(offset.float().numpy())}


def _scale_of(name: str, value: Tensor, steps: Steps) -> Tensor:
    """(1 or R, ...) as many dimensions as the value has."""
    level = steps.level
    if name in ("sh1", *PROPERTY_OF):
        of_numbers = steps.sh1 if name == "sh1" else steps.properties[PROPERTY_OF[name]]
        return of_numbers.cpu().double().reshape(1, *value.shape[1:])
    if name in ("property_bases", "sh1_bases"):
        return steps.of_bases(name).cpu().double()[None, None]
    if name.startswith("bank.weights."):
        return _few_digits(value.abs().amax(-1, keepdim=True) / level.weights)
    if name.startswith("bank.biases."):
        step = (value.abs().max() if value.numel() else value.new_zeros(())) / BIAS_STEPS
    elif name == "normals":
        step = 1 / level.normals
    elif name.endswith(".weight"):
        step = WEIGHT_STEP
    elif name in (TRAINING_POSES, "frames.translations", "template.vertices"):
        step = POSE_STEP
    else:  # places and their bases
        step = level.metres
    return torch.as_tensor(step, dtype=torch.float64).reshape([1] * value.dim())


def _few_digits(scale: Tensor) -> Tensor:
    """Rounded up to 8 significant bits, which half as many bytes hold; 1 where there is nothing to scale."""
    mantissa, exponent = torch.frexp(torch.where(scale > 0, scale, torch.ones_like(scale)))
    return torch.ldexp((mantissa * 2**8).ceil() / 2**8, exponent)


def strongest_joints(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(N, J) skinning weights -> (N, S) joints and weights that sum to one; S is the least that neglects little of any
    Gaussian, and at most STRONGEST. Joint 0 where a weight is zero."""
    values, joints = weights.sort(dim=1, descending=True, stable=True)
    beyond = weights.sum(1, keepdim=True) - values.cumsum(1)
    count = min(int((beyond > NEGLIGIBLE_WEIGHT).any(0).sum()) + 1, STRONGEST)
    joints, values = joints[:, :count], values[:, :count]
    values = values / values.sum(1, keepdim=True)
    return torch.where(values < WEIGHT_STEP / 2, 0, joints), values
