"""The compact model: everything that animates an avatar in one safetensors file, nothing that only training needs.

Data path: (pruned) TrainedAvatar + Carried -> quantised tensors + metadata -> FILE.safetensors -> TrainedAvatar on the
CPU, in float32, to be drawn like any other; -> Carried: what commands look for in a model folder beside the avatar.

How things are stored (`fields_of`): MLP weights and Gaussians' bases as int8, each row with one half-precision scale;
properties, biases and interpolation weights in half precision; positions and the skeleton in float32, since half
precision would move a point of a person by half a millimetre; skinning weights as each Gaussian's strongest joints.
Training frames' poses are the pose space's. Cameras are metadata, which animation.camera_file reads.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, A anchors, K and
L bases of properties and positions, O = K + L, I inputs of an MLP among U numbers of a pose, J joints, S strongest
joints, F training poses, M components, V vertices and T triangles of the template.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import trimesh
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mmlphuman.animation.pose_file import MAX_TRANSLATION, PoseSequence
from mmlphuman.avatar.build import CONTROL_NEIGHBOURS, avatar_from_state
from mmlphuman.avatar.pose_inputs import EXPRESSION, NOTHING
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.state import (
    POINTS_AT,
    POSE_SPACE_SHAPES,
    TABLES,
    check_counts,
    check_finite,
    check_index,
    check_names,
    check_parents,
    check_shape,
    check_weights,
    known_sizes,
    state_shapes,
)
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import Config, config_of_saved
from mmlphuman.pose_layout import BODY_DIM, EXPRESSION_DIM, NUM_JOINTS, POSE_DIM
from mmlphuman.text import one_line

FORMAT = "mmlphuman compact avatar"
# 1: every MLP saw the body's 63 numbers, which were all that was kept of training poses. 2: no expression was.
# 3: nothing was carried but cameras.
FORMAT_VERSION = 4
MAX_INT8 = 127
NEGLIGIBLE_WEIGHT = 1e-3  # of skinning that a Gaussian's joints beyond the strongest may hold together
# By version, 3 and later ones alike: numbers kept of a training pose; indices that an MLP's inputs can have.
POSE_NUMBERS = {1: BODY_DIM, 2: POSE_DIM}
POSE_INDICES = {1: BODY_DIM, 2: NOTHING + 1}
SCALE = ".scale"  # name of the scales of an int8 tensor
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
)  # in single precision, with the light's and the pose space's


@dataclass(frozen=True)
class Field:
    """How a tensor is stored. `shape` has a letter or a number for each dimension."""

    shape: str
    kind: str = (
        "half"  # full: float32; half; int8: with scales; index: integers below `bound`; count: from 0 on
    )
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
    return {name: _field(name, shape) for name, shape in shapes.items()}


def _field(name: str, shape: str) -> Field:
    if bound := INDEX_OF.get(name):
        return Field(shape, "index", bound=bound)
    if name.startswith("bank.weights."):
        return Field(shape, "int8")
    if name in ("property_bases", "sh1_bases"):
        return Field(shape, "int8", row=1)  # a scale for each property
    if name == "parents":
        return Field(shape, "parents")
    if name == "frames.numbers":
        return Field(shape, "count")
    full = name in FULL or name.startswith((POSE_SPACE, "light."))
    return Field(shape, "full" if full else "half")


def pack(
    stored: dict[str, Tensor], trained: TrainedAvatar, record: dict, cameras: list[dict] | None = None
) -> bytes:
    """The file's content: what `encode` gave, and the settings.

    cameras: those of the capture's calibration, as cameras.json lists them, for animation.camera_file.
    record: what a reader may want to know about how it was made (versions, shares); anything that JSON holds.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "iteration": str(trained.iteration),
        "config": json.dumps(OmegaConf.to_container(OmegaConf.structured(trained.config))),
        "record": json.dumps(record),
    }
    if cameras is not None:
        metadata["cameras"] = json.dumps(cameras)
    return safetensors.torch.save(stored, metadata)


@torch.no_grad()
def encode(trained: TrainedAvatar, carried: Carried | None = None) -> dict[str, Tensor]:
    """The tensors to store, on the CPU. Raises ValueError if the avatar has numbers that half precision cannot hold.

    carried.frames: as many as the pose space has.
    """
    avatar = trained.avatar
    state = dict(avatar.state_dict())
    # The free offset never changes again: it is part of the place.
    state["xyz"] = avatar.xyz + avatar.xyz_offset_range * torch.tanh(avatar.xyz_offsets)
    state["lbs_weights.index"], state["lbs_weights.weight"] = strongest_joints(avatar.lbs_weights)
    state |= {POSE_SPACE + name: value for name, value in trained.pose_space.state_dict().items()}
    bounds = {"J": len(avatar.joints), "C": len(avatar.control_offsets), "A": len(avatar.bank.weights[0])}
    bounds["U"] = EXPRESSION.stop
    if carried is not None and carried.frames is not None:
        state["frames.numbers"] = torch.from_numpy(carried.frames.frames)
        state["frames.translations"] = torch.from_numpy(carried.frames.translations)
    if carried is not None and carried.template is not None:
        state["template.vertices"] = torch.from_numpy(np.array(carried.template.vertices))
        state["template.faces"] = torch.from_numpy(np.array(carried.template.faces))
        bounds["V"] = len(carried.template.vertices)
    stored = {}
    for name, field in fields_of(trained.config, names=state).items():
        value = state[name].cpu()
        if field.kind == "int8":
            stored[name], stored[name + SCALE] = quantise(value, field.row)
        else:
            stored[name] = value.to(stored_type(field, bounds))
        last = stored.get(name + SCALE, stored[name])
        if last.is_floating_point() and not last.isfinite().all():
            raise ValueError(
                f"the avatar's {name} holds numbers that are not finite, or too large for this format"
            )
    return {name: value.contiguous() for name, value in stored.items()}


def stored_type(field: Field, sizes: dict[str, int]) -> torch.dtype:
    if field.kind == "index":  # the narrowest that holds it
        bound = sizes[field.bound]
        return torch.uint8 if bound <= 2**8 else torch.uint16 if bound <= 2**16 else torch.int32
    return {
        "full": torch.float32,
        "half": torch.float16,
        "int8": torch.int8,
        "parents": torch.int16,
        "count": torch.int32,
    }[field.kind]


def quantise(values: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """int8 values and their half-precision scales, one for all numbers along dimension `row` (which becomes 1)."""
    if not values.numel():
        return values.to(torch.int8), values.narrow(row, 0, 1).half()
    scale = (values.abs().amax(row, keepdim=True) / MAX_INT8).half()
    steps = values / torch.where(scale > 0, scale, torch.ones_like(scale)).float()
    return steps.round().clamp(-MAX_INT8, MAX_INT8).to(torch.int8), scale


def strongest_joints(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(N, J) skinning weights -> (N, S) joints and weights; S is the least that neglects little of any Gaussian."""
    values, joints = weights.sort(1, descending=True)
    beyond = weights.sum(1, keepdim=True) - values.cumsum(1)
    count = int((beyond > NEGLIGIBLE_WEIGHT).any(0).sum()) + 1
    return joints[:, :count], values[:, :count]


def load_compact(path: str | Path) -> TrainedAvatar:
    """A compact model, on the CPU, without gradients; it can be drawn and exported, not trained.

    Raises FileNotFoundError, or ValueError naming the file and what is wrong in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a compact model is made by script/compact.py")
    stored, metadata = _read(path)
    try:
        config, iteration, version = _read_metadata(metadata)
        fields = fields_of(config, version, stored)
        state = _avatar_of(_decode(stored, fields, _check_shapes(stored, fields, config, version)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; make the file anew with script/compact.py") from error
    pose_space = {
        name.removeprefix(POSE_SPACE): state.pop(name) for name in fields if name.startswith(POSE_SPACE)
    }
    avatar = avatar_from_state(config, state).requires_grad_(False).eval()
    return TrainedAvatar(avatar, PoseSpace(**pose_space), config, iteration)


def load_carried(path: str | Path) -> Carried:
    """What a compact model carries besides the avatar, which is not read. Raises as `load_compact` does."""
    path = Path(path)
    stored, metadata = _read(path, {*FRAMES, *TEMPLATE, TRAINING_POSES})
    try:
        config, _, version = _read_metadata(metadata)
        carried = {TRAINING_POSES, *FRAMES, *TEMPLATE}
        fields = {
            name: field for name, field in fields_of(config, version, stored).items() if name in carried
        }
        check_names(set(fields), set(stored))
        sizes: dict[str, int] = {}
        _check_fields(stored, fields, sizes)
        state = _decode(stored, fields, sizes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; make the file anew with script/compact.py") from error
    frames, template = None, None
    if "frames.numbers" in state:
        poses = state[TRAINING_POSES].numpy()
        frames = PoseSequence(
            poses=poses[:, :POSE_DIM],
            translations=state["frames.translations"].numpy(),
            rotation=np.eye(3, dtype=np.float32),
            frames=state["frames.numbers"].numpy(),
            fps=None,
            source=str(path),
            expressions=poses[:, POSE_DIM:],
        )
    if "template.faces" in state:
        vertices, faces = state["template.vertices"].numpy(), state["template.faces"].numpy()
        template = trimesh.Trimesh(vertices, faces, process=False)
    return Carried(frames, template)


def _read(path: Path, wanted: Collection[str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, by default all, and metadata."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if wanted is None or name in wanted]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError:
        raise
    except Exception as error:  # damage surfaces as any of the library's and torch's types
        raise ValueError(f"{path}: not a readable safetensors file (truncated or another format)") from error


def _read_metadata(metadata: dict[str, str]) -> tuple[Config, int, int]:
    """Settings, iteration, version of the format."""
    if metadata.get("format") != FORMAT:
        raise ValueError("a safetensors file of something else, not a compact avatar")
    version = metadata.get("format_version", "?")
    if version not in map(str, range(1, FORMAT_VERSION + 1)):
        raise ValueError(f"format version {version}, this program reads 1 to {FORMAT_VERSION}")
    try:
        config = config_of_saved(json.loads(metadata["config"]))
        iteration = int(metadata["iteration"])
    except (KeyError, ValueError, TypeError, RecursionError, OmegaConfBaseException) as error:
        raise ValueError(f"its settings do not fit this program: {one_line(error)}") from error
    if iteration < 0:
        raise ValueError(f"iteration {iteration} is negative")
    return config, iteration, int(version)


def _check_shapes(
    stored: dict[str, Tensor], fields: dict[str, Field], config: Config, version: int
) -> dict[str, int]:
    """What each shape letter stands for. ValueError names the first tensor that is missing, unknown or disagrees."""
    int8 = {name + SCALE for name, field in fields.items() if field.kind == "int8"}
    check_names(set(fields) | int8, set(stored))
    sizes = known_sizes(config) | {"U": POSE_INDICES.get(version, EXPRESSION.stop)}
    sizes["C"] = len(stored["control_offsets"]) if stored["control_offsets"].dim() else 0
    _check_fields(stored, fields, sizes)
    check_counts(sizes)
    if not (sizes["S"] and sizes["F"]):
        raise ValueError("there are no skinning weights, or no training poses")
    return sizes


def _check_fields(stored: dict[str, Tensor], fields: dict[str, Field], sizes: dict[str, int]) -> None:
    """A letter of which nothing is known yet gets its size here."""
    for name, field in fields.items():
        letters = field.shape.split()
        check_shape(name, stored[name], letters, stored_type(field, sizes), sizes)
        if field.kind == "int8":
            letters[field.row] = "1"
            check_shape(name + SCALE, stored[name + SCALE], letters, torch.float16, sizes)
    if 0 in (sizes.get("F"), sizes.get("T")):
        raise ValueError("there are no training poses, or a template without triangles")


def _decode(stored: dict[str, Tensor], fields: dict[str, Field], sizes: dict[str, int]) -> dict[str, Tensor]:
    """What is stored, in float32 and int64. ValueError for numbers that cannot be used."""
    state = {}
    for name, field in fields.items():
        value = stored[name]
        if field.kind == "index":
            value = value.long()
            check_index(name, value, sizes[field.bound])
        elif field.kind == "parents":
            value = value.long()
            check_parents(name, value)
        elif field.kind == "count":
            value = value.long()
            check_index(name, value, 2**31)
        else:
            value = value.float() * stored[name + SCALE].float() if field.kind == "int8" else value.float()
            check_finite(name, value)
        if name in IN_METRES and value.numel() and value.abs().max() > MAX_TRANSLATION:
            raise ValueError(f"tensor {name} holds places more than {MAX_TRANSLATION:g} m from the origin")
        state[name] = value
    return state


def _avatar_of(decoded: dict[str, Tensor]) -> dict[str, Tensor]:
    """The avatar's and the pose space's state, once it is seen that weights sum to one."""
    state = {name: value for name, value in decoded.items() if name not in {*FRAMES, *TEMPLATE}}
    for table in (*TABLES, "lbs_weights"):
        state[f"{table}.weight"] = _normalised(f"{table}.weight", state[f"{table}.weight"])
    joints, weights = state.pop("lbs_weights.index"), state.pop("lbs_weights.weight")
    state["lbs_weights"] = torch.zeros(len(joints), NUM_JOINTS).scatter_add_(1, joints, weights)
    state["xyz_offsets"] = torch.zeros_like(state["xyz"])  # folded into xyz
    state["control_neighbours"] = torch.zeros(0, CONTROL_NEIGHBOURS, dtype=torch.long)  # for training only
    return state


def _normalised(name: str, weights: Tensor) -> Tensor:
    """Rows that sum to one exactly again, after half precision."""
    check_weights(name, weights)
    return weights / weights.sum(1, keepdim=True)
