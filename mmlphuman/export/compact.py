"""The compact model: everything that animates an avatar in one safetensors file, nothing that only training needs.

Data path: (pruned) TrainedAvatar + Carried -> whole steps (precision) -> streams (packing) + metadata ->
FILE.safetensors -> TrainedAvatar on the CPU, in float32, to be drawn like any other; -> Carried: what commands look for
in a model folder beside the avatar.

Each tensor of the file is a stream of bytes; the metadata say what array it is. Of the avatar's numbers it holds whole
multiples of a step; weights that sum to one lack the first. docs/compact_file.md describes every field for those who
read it by other means. Files of versions 1 to 4, whose tensors are plain, are read as well.
Training frames' poses are the pose space's. Cameras are metadata, which animation.camera_file reads.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, A anchors, K and
L bases of properties and positions, O = K + L, I inputs of an MLP among U numbers of a pose, J joints, S strongest
joints, R = S - 1, F training poses, M components, V vertices and T triangles of the template.
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
from smplx.joint_names import JOINT_NAMES
from torch import Tensor

from mmlphuman.animation.pose_file import MAX_TRANSLATION, PoseSequence
from mmlphuman.avatar.avatar import COLOR, LOG_SCALE, OPACITY, QUAT
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
from mmlphuman.export.packing import Packed, packed, unpacked
from mmlphuman.export.precision import MAX_SHIFT, Steps, even_steps
from mmlphuman.pose_layout import BODY_DIM, EXPRESSION_DIM, NUM_JOINTS, POSE_DIM
from mmlphuman.text import one_line

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
        if version > 4:
            state = _unpack(stored, metadata, fields, _sizes(config, version))
            state = _whole_weights(state)
        else:
            state = _decode(stored, fields, _check_shapes(stored, fields, config, version))
        state = _avatar_of(state)
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
    wanted = {*FRAMES, *TEMPLATE, TRAINING_POSES}
    stored, metadata = _read(path, wanted | {name + SCALE for name in wanted})
    try:
        config, _, version = _read_metadata(metadata)
        fields = {name: field for name, field in fields_of(config, version, stored).items() if name in wanted}
        sizes: dict[str, int] = {}
        if version > 4:
            state = _unpack(stored, metadata, fields, sizes, carried=True)
        else:
            check_names(set(fields), set(stored))
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


def _unpack(
    stored: dict[str, Tensor],
    metadata: dict[str, str],
    fields: dict[str, Field],
    sizes: dict[str, int],
    carried: bool = False,
) -> dict[str, Tensor]:
    """What a file of the present version says, in float32 and int64, held to its shapes; letters of which nothing is
    known yet get their sizes. carried: whether `fields` are a part that has no Gaussians."""
    stepped = {name for name, field in fields.items() if field.kind == "steps"}
    offsets = {name + OFFSET for name in stepped if name in SHIFTED}
    check_names(
        set(fields) | {name + SCALE for name in stepped} | offsets | (set() if carried else {SHIFT}),
        set(stored),
    )
    try:
        entries = json.loads(metadata.get("tensors", ""))
    except (ValueError, RecursionError) as error:
        raise ValueError("its metadata `tensors` are no JSON") from error
    if not isinstance(entries, dict):
        raise ValueError("its metadata `tensors` are no JSON object")

    def array(name: str, *kinds: str) -> Tensor:
        value = stored[name]
        if value.dtype != torch.uint8 or value.dim() != 1:
            raise ValueError(
                f"tensor {name} is {value.dtype} {tuple(value.shape)}, expected a stream of bytes"
            )
        try:
            found = unpacked(value.numpy().tobytes(), entries.get(name))
        except ValueError as error:
            raise ValueError(f"tensor {name}: {error}") from error
        if found.dtype.kind not in kinds:
            raise ValueError(f"tensor {name} is of type {entries[name]['type']}, which it cannot be")
        shifted = found.dtype.kind in "iu" and name in SHIFTED
        if entries[name]["shifted"] != shifted:
            raise ValueError(f"tensor {name}: its entry's shifted must be {str(shifted).lower()}")
        return torch.from_numpy(found.astype(np.float32 if found.dtype.kind == "f" else np.int64))

    state: dict[str, Tensor] = {}
    shift = torch.zeros(0) if carried else array(SHIFT, *"iu")
    for name, field in fields.items():
        value = array(name, "f") if field.kind == "full" else array(name, *"iu")
        if field.kind == "steps":
            value = _from_steps(
                name, value, array(name + SCALE, "f"), array(name + OFFSET, "f") if name + OFFSET in offsets else None,
                shift if name in SHIFTED else None,
            )  # fmt: skip
        kind = torch.float32 if field.kind in ("full", "steps") else torch.int64
        check_shape(name, value, field.shape.split(), kind, sizes)
        state[name] = value
    if not carried:
        sizes["C"] = len(state["control_offsets"])
        check_shape(SHIFT, shift, ["N"], torch.int64, sizes)
        check_index(SHIFT, shift, MAX_SHIFT + 1)
        if sizes["S"] != sizes["R"] + 1:
            raise ValueError("tensor lbs_weights.weight must have a column less than its index")
    _check_sizes(sizes, carried)
    for name, field in fields.items():
        _check_values(name, field, state[name], sizes)
    return state


def _from_steps(
    name: str, steps: Tensor, scale: Tensor, offset: Tensor | None, shift: Tensor | None
) -> Tensor:
    """value = offset + scale * steps * 2^shift."""
    for kind, factor in ((SCALE, scale), (OFFSET, offset)):
        if factor is not None and (
            factor.dim() != steps.dim()
            or any(size not in (1, wanted) for size, wanted in zip(factor.shape, steps.shape, strict=True))
        ):
            raise ValueError(
                f"tensor {name + kind} is {tuple(factor.shape)}, which does not fit {tuple(steps.shape)}"
            )
    value = steps.float() * scale
    if shift is not None:
        if steps.dim() == 0 or len(steps) > len(shift):
            raise ValueError(f"tensor {name} is for more Gaussians than there are")
        value = value * 2.0 ** shift[: len(steps)].clamp(0, MAX_SHIFT).reshape(-1, *[1] * (steps.dim() - 1))
    return value if offset is None else value + offset


def _whole_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the first of each row, which is what the others leave of one."""
    whole = {f"{table}.weight": state[f"{table}.weight"] for table in FIRST_MISSING}
    return state | {
        name: torch.cat([1 - others.sum(1, keepdim=True), others], 1) for name, others in whole.items()
    }


def _sizes(config: Config, version: int) -> dict[str, int]:
    return known_sizes(config) | {"U": POSE_INDICES.get(version, EXPRESSION.stop)}


def _check_shapes(
    stored: dict[str, Tensor], fields: dict[str, Field], config: Config, version: int
) -> dict[str, int]:
    """Of former versions: what each shape letter stands for. ValueError names the first tensor that is missing, unknown
    or disagrees."""
    int8 = {name + SCALE for name, field in fields.items() if field.kind == "int8"}
    check_names(set(fields) | int8, set(stored))
    sizes = _sizes(config, version)
    sizes["C"] = len(stored["control_offsets"]) if stored["control_offsets"].dim() else 0
    _check_fields(stored, fields, sizes)
    _check_sizes(sizes)
    return sizes


def _check_fields(stored: dict[str, Tensor], fields: dict[str, Field], sizes: dict[str, int]) -> None:
    """A letter of which nothing is known yet gets its size here."""
    for name, field in fields.items():
        letters = field.shape.split()
        check_shape(name, stored[name], letters, stored_type(field, sizes), sizes)
        if field.kind == "int8":
            letters[field.row] = "1"
            check_shape(name + SCALE, stored[name + SCALE], letters, torch.float16, sizes)
    _check_sizes(sizes, carried=True)


def _check_sizes(sizes: dict[str, int], carried: bool = False) -> None:
    if 0 in (sizes.get("F"), sizes.get("T")):
        raise ValueError("there are no training poses, or a template without triangles")
    if not carried:
        check_counts(sizes)
        if not sizes["S"]:
            raise ValueError("there are no skinning weights")


def _decode(stored: dict[str, Tensor], fields: dict[str, Field], sizes: dict[str, int]) -> dict[str, Tensor]:
    """What a file of a former version says, in float32 and int64. ValueError for numbers that cannot be used."""
    state = {}
    for name, field in fields.items():
        value = stored[name]
        if field.kind in ("index", "parents", "count"):
            value = value.long()
        else:
            value = value.float() * stored[name + SCALE].float() if field.kind == "int8" else value.float()
        _check_values(name, field, value, sizes)
        state[name] = value
    return state


def _check_values(name: str, field: Field, value: Tensor, sizes: dict[str, int]) -> None:
    if field.kind == "index":
        check_index(name, value, sizes[field.bound])
    elif field.kind == "parents":
        check_parents(name, value)
    elif field.kind == "count":
        check_index(name, value, 2**31)
    else:
        check_finite(name, value)
    if name in IN_METRES and value.numel() and value.abs().max() > MAX_TRANSLATION:
        raise ValueError(f"tensor {name} holds places more than {MAX_TRANSLATION:g} m from the origin")


def stored_type(field: Field, sizes: dict[str, int]) -> torch.dtype:
    """Of former versions."""
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
    """Rows that sum to one exactly again, after rounding."""
    check_weights(name, weights)
    return weights / weights.sum(1, keepdim=True)
