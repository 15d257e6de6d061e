"""A pose file, or a folder of a file a frame -> its arrays by name, each read when it is asked for. Without torch.

Data path: npz, npy, JSON, folder -> Arrays -> motion_file.   Shape letter: F frames.

Names of a group, group/name or group.name, lose the group where only one holds poses. Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.files import npz_names, read_npy, read_npz, refuse_foreign
from mmlphuman.json_file import read_json

# What an array is <- its names. Of several the world's come first, where estimators give the camera's, too.
NAMES = {
    "whole": ("poses_world", "pose_world", "poses", "fullpose", "full_pose", "pose", "pose_aa", "smpl_poses",
              "pred_rotmat"),
    "root": ("global_orient", "root_orient", "root_pose", "smplx_root_pose"),
    "body": ("body_pose", "pose_body", "smplx_body_pose"),
    "left hand": ("left_hand_pose", "lhand_pose", "smplx_lhand_pose", "handl"),
    "right hand": ("right_hand_pose", "rhand_pose", "smplx_rhand_pose", "handr"),
    "hands": ("pose_hand", "hand_pose"),
    "jaw": ("jaw_pose", "pose_jaw", "smplx_jaw_pose"),
    "translation": ("trans_world", "transl_world", "translations", "transl", "trans", "translation", "smpl_trans",
                    "root_trans", "pred_trans", "Th"),
    "turn": ("Rh",),
    "betas": ("betas", "shapes", "shape", "betas_world", "smplx_shape"),
    "expression": ("expression", "expressions", "expr", "smplx_expr"),
    "rate": ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate", "framerate"),
    "scale": ("smpl_scaling",),
    "frames": ("frames",),
}  # fmt: skip
ROLE_OF = {name: role for role, names in NAMES.items() for name in names}
WORLD = ("poses_world", "pose_world", "trans_world", "transl_world")
POSITIONS = ("joints", "joints3d", "joints_3d", "keypoints3d", "keypoints", "positions", "kp3d")
ACCEPTED = (
    "read are smpl_params.npz of a capture or a video estimator (global_orient, body_pose, transl, ...), AMASS (poses, "
    "trans), EasyMocap (Rh, Th, poses), poses.npz of a model folder; as npz, JSON, or a folder of a file a frame"
)


@dataclass(frozen=True)
class Arrays:
    """A file's arrays by their names, read when they are asked for."""

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    frames: np.ndarray | None = None  # (F,) from the names of a folder's files

    @staticmethod
    def of(arrays: Mapping[str, np.ndarray], frames: np.ndarray | None = None) -> Arrays:
        return Arrays(tuple(arrays), arrays.__getitem__, frames)


def open_arrays(path: Path) -> Arrays:
    """What the file or folder holds; an array without a name is called ''.

    Raises FileNotFoundError, or ValueError that names the file and says what it is or what is wrong."""
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".json":
        return _json_arrays(path)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                return Arrays.of({"": read_npy(path)})
    return Arrays(npz_names(path), lambda name: read_npz(path, (name,))[name])


def _read_folder(folder: Path) -> Arrays:
    """A file a frame, in the order of the numbers in their names."""
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    kinds = sorted({file.suffix.lower() for file in files} & {".npz", ".json"})
    if not kinds:
        for file in sorted(files)[:1]:
            refuse_foreign(file)  # names what it is, such as a pickle
        raise ValueError(f"{folder}: a folder without .npz or .json files; {ACCEPTED}")
    if len(kinds) > 1:
        raise ValueError(f"{folder}: holds {' and '.join(kinds)} files; which are the frames? keep one kind")
    files = sorted((file for file in files if file.suffix.lower() == kinds[0]), key=lambda file: file.name)
    numbers = _frame_numbers(folder, files)
    order = np.argsort(numbers, kind="stable")
    frames = [_frame_of(files[index]) for index in order]
    return Arrays.of(_stacked([files[index] for index in order], frames), numbers[order])


def _frame_numbers(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """(F,) the one number in the names that changes from file to file."""
    found = [[int(number) for number in re.findall(r"\d{1,9}", file.stem)] for file in files]
    if len({len(numbers) for numbers in found}) > 1 or not found[0]:
        raise ValueError(
            f"{folder}: {files[0].name}, {files[-1].name}: a folder's files need names by frame number"
        )
    columns = np.array(found, np.int64).T
    varying = [column for column in columns if (column != column[0]).any()]
    if len(varying) > 1:
        raise ValueError(
            f"{folder}: the names' {len(varying)} numbers all change ({files[0].name} to {files[-1].name}); several "
            "persons or cameras? keep one's files"
        )
    numbers = varying[0] if varying else columns[-1]
    if len(set(numbers.tolist())) < len(numbers):
        raise ValueError(f"{folder}: a frame has several files; keep one person's, one a frame")
    return numbers


def _frame_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one frame's file that are known here."""
    arrays = one_group(path, open_arrays(path))
    return {name: arrays.read(name) for name in arrays.names if name in ROLE_OF}


def _stacked(where: Sequence[object], frames: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays (F, ...) of those of F frames, which may have an axis of their own for the frame."""
    stacked = {}
    for name in dict.fromkeys(name for frame in frames for name in frame):
        rows = []
        for place, frame in zip(where, frames, strict=True):
            if name not in frame:
                raise ValueError(f"{place}: '{name}' is missing, which other frames have")
            row = frame[name]
            while row.ndim > 1 and len(row) == 1:
                row = row[0]
            if rows and row.shape != rows[0].shape:
                raise ValueError(
                    f"{place}: '{name}' has shape {row.shape}, in {where[0]} it has {rows[0].shape}"
                )
            rows.append(row)
        stacked[name] = np.stack(rows)
    return stacked


def _json_arrays(path: Path) -> Arrays:
    """A motion's arrays; or a list, or an object by number, of frames."""
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("annots"), list):
        content = content["annots"]
    if isinstance(content, dict) and content and all(name.isdecimal() for name in content):
        content = [content[name] for name in sorted(content, key=int)]
    if isinstance(content, dict):
        return Arrays.of(_flat_json(path, content))
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{path}: holds no poses: an object of arrays, or a list of such objects is needed")
    persons = [entry.get("id") for entry in content]
    if len(content) > 1 and None not in persons and len({str(person) for person in persons}) > 1:
        raise ValueError(
            f"{path}: holds entries of several ids ({', '.join(map(str, persons[:3]))}, ...): persons of one frame? "
            "keep one person's entry"
        )
    frames = [_flat_json(path, entry) for entry in content]
    known = [{name: array for name, array in frame.items() if name in ROLE_OF} for frame in frames]
    return Arrays.of(_stacked([f"{path}: entry {index}" for index in range(len(known))], known))


def _flat_json(path: Path, content: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Numeric arrays by their names, of objects within objects as outer/inner; anything else is left out, unless its
    name says that it is needed."""
    arrays = {}
    for name, value in content.items():
        if isinstance(value, dict) and prefix.count("/") < 4:
            arrays |= _flat_json(path, value, f"{prefix}{name}/")
            continue
        try:
            array = np.array(value)
        except (ValueError, OverflowError, RecursionError):
            array = np.array("unequal lists")
        if array.dtype.kind in "iuf":
            arrays[prefix + name] = array
        elif ROLE_OF.get(name, "frames") not in ("frames", "rate", "betas", "jaw", "expression"):
            raise ValueError(f"{path}: '{prefix}{name}' must be numbers, in lists of equal length")
    return arrays


def one_group(path: str | Path, arrays: Arrays) -> Arrays:
    """Of arrays named group/name or group.name those of the group that holds poses, the world's before a camera's."""
    groups: dict[str, dict[str, str]] = {}
    for name in arrays.names:
        prefix, short = re.fullmatch(r"(?:(.*)[/.])?([^/.]*)", name, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
        groups.setdefault(prefix or "", {})[short] = name
    with_poses = [prefix for prefix, names in groups.items() if _roles(names) & {"whole", "body"}]
    if "" in with_poses or not with_poses:
        return arrays
    if len(with_poses) > 1:
        of_world = [prefix for prefix in with_poses if "global" in prefix or "world" in prefix]
        if len(of_world) != 1:
            raise ValueError(
                f"{path}: holds several motions, {', '.join(with_poses)}; save one of them alone"
            )
        with_poses = of_world
    names = {short: name for prefix in ("", *with_poses) for short, name in groups.get(prefix, {}).items()}
    return Arrays(tuple(names), lambda short: arrays.read(names[short]), arrays.frames)


def _roles(names: Iterable[str]) -> set[str]:
    return {ROLE_OF[name] for name in names if name in ROLE_OF}
