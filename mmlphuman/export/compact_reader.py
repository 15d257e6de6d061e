"""Reads compact models (export.compact, the form and the writer) of every version; nothing in a file is trusted.

Data path: FILE.safetensors -> streams (packing) -> whole steps -> numbers, each held to its shape and range ->
TrainedAvatar on the CPU, or Carried. Files of versions 1 to 4 have plain tensors instead of streams.

Shape letters: those of export.compact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import trimesh
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mmlphuman.animation.pose_file import MAX_TRANSLATION, PoseSequence
from mmlphuman.avatar.build import CONTROL_NEIGHBOURS, avatar_from_state
from mmlphuman.avatar.pose_inputs import EXPRESSION
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.state import (
    TABLES,
    check_counts,
    check_finite,
    check_index,
    check_names,
    check_parents,
    check_shape,
    check_weights,
    known_sizes,
)
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import Config, config_of_saved
from mmlphuman.export.compact import (
    FIRST_MISSING,
    FORMAT,
    FORMAT_VERSION,
    FRAMES,
    IN_METRES,
    OFFSET,
    POSE_INDICES,
    POSE_SPACE,
    SCALE,
    SHIFT,
    SHIFTED,
    TEMPLATE,
    TRAINING_POSES,
    Carried,
    Field,
    fields_of,
)
from mmlphuman.export.packing import unpacked
from mmlphuman.export.precision import MAX_SHIFT
from mmlphuman.pose_layout import NUM_JOINTS, POSE_DIM
from mmlphuman.text import one_line


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
    if missing := [key for key in ("config", "iteration") if key not in metadata]:
        raise ValueError(f"its metadata lack {' and '.join(missing)}")
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
    if name == "log_scales" and value.numel() and value.max() > math.log(MAX_TRANSLATION):
        raise ValueError(f"tensor {name} holds Gaussians of more than {MAX_TRANSLATION:g} m")


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
