"""Model folders: which checkpoints one holds, the trained avatar in them, the frames and the template that it was
trained on; loaded without unpickling.

Data path: MODEL/checkpoints/iteration_00002000/avatar.pt, or a compact file -> TrainedAvatar, on the CPU -> rendering,
evaluation, export, viewers; and a run that goes on. training/checkpoint.py writes checkpoints.
Wherever a model's path is asked for it may be a model folder, one checkpoint's folder in it, or a compact file.
A checkpoint's files are zip archives with a checksum of every tensor, which loading leaves alone and `check_file`
compares.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf.errors import OmegaConfBaseException
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import PoseOptions, PoseSequence, read_pose_file
from mmlphuman.avatar.build import avatar_from_state
from mmlphuman.avatar.pose_inputs import body_inputs
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.state import check_state
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.config import Config, change_config, config_of_saved, differences, saved_config
from mmlphuman.files import UNREADABLE_MEMBER, require_plain
from mmlphuman.pose_layout import BODY_POSE
from mmlphuman.resources import is_out_of_memory
from mmlphuman.text import one_line, ranges

FORMAT_VERSION = 2
FOLDER = "checkpoints"
COMPACT_SUFFIX = ".safetensors"
NAME = re.compile(r"iteration_(\d{8})")
AVATAR_FILE = "avatar.pt"
SETTINGS_FILE = "config.yaml"
POSES_FILE = "poses.npz"  # the frames that a run trains on, in the capture's poses
TEMPLATE_NAME = "template.ply"  # the surface that the Gaussians were placed on, in the canonical pose
# Of a run that refined the capture's: all frames, those of training corrected.
REFINED_POSES = "smpl_params.npz"

ROUNDED = 1e-4  # metres, radians: a step of a compact file is 1.2e-4, and nearest ones are half of it off
FURTHEST_MOVE, FURTHEST_TURN = 0.1, 0.15  # metres, radians of a joint; refinement moves nobody so far


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, truncated or altered."""


def list_checkpoints(model_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(
        path
        for path in (Path(model_dir) / FOLDER).glob("iteration_*")
        if NAME.fullmatch(path.name) and path.is_dir()
    )


def newest_checkpoint(model_dir: Path) -> Path:
    if Path(model_dir).is_file():
        raise ValueError(
            f"{model_dir} is a file; give the model folder, one checkpoint's folder, or a compact .safetensors file"
        )
    if not Path(model_dir).is_dir():
        raise ValueError(
            f"model folder {model_dir} does not exist; train one with train.py --out_dir {model_dir}"
        )
    found = list_checkpoints(model_dir)
    if not found:
        raise ValueError(
            f"{model_dir} holds no checkpoint (looked for {FOLDER}/iteration_*); is it a model folder?"
        )
    return found[-1]


def load_model(path: str | Path) -> TrainedAvatar:
    """Loads what rendering needs, on the CPU, from a model folder (its newest checkpoint), one checkpoint's folder or
    avatar.pt, or a compact file."""
    path = Path(path)
    if path.name == AVATAR_FILE:
        path = path.parent
    if is_compact(path):
        # Only those who have such a file need safetensors.
        from mmlphuman.export.compact_reader import load_compact

        return load_compact(path)
    is_checkpoint = NAME.fullmatch(path.name) or (path / AVATAR_FILE).is_file()
    checkpoint = path if is_checkpoint else newest_checkpoint(path)
    try:
        check_file(checkpoint / AVATAR_FILE)
    except DamagedCheckpoint as error:
        others = [other for other in list_checkpoints(path) if other != checkpoint]
        hint = (
            f"take an older one, --model_dir {others[-1]}" if others else "use another checkpoint of the run"
        )
        raise ValueError(f"{error}; {hint}") from error
    return load_avatar(checkpoint)


def load_avatar(checkpoint: Path) -> TrainedAvatar:
    """Loads what rendering needs, on the CPU."""
    path = checkpoint / AVATAR_FILE
    content = read_checkpoint_file(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version}, this program reads "
            f"{FORMAT_VERSION}; use the program's version that wrote it"
        )
    with content_of(path):
        config, iteration = config_of_saved(content["config"]), content["iteration"]
        if type(iteration) is not int or iteration < 0:
            raise ValueError(f"iteration {iteration!r} is no count")
        state = {"mlp_inputs": body_inputs(), **content["avatar"]}  # former versions' saw all of the body
        check_state(config, state, content["pose_space"])
        avatar, pose_space = avatar_from_state(config, state), PoseSpace(**content["pose_space"])
    return TrainedAvatar(avatar, pose_space, config, iteration)


def settings_of(path: str | Path) -> Config | None:
    """Those in a model folder's config.yaml; None where there is none, as for a compact file: then those that the model
    was loaded with are its own."""
    file = Path(path) / SETTINGS_FILE
    return saved_config(file) if file.is_file() else None


def with_settings(
    trained: TrainedAvatar, path: Path, files: Sequence[Path], overrides: list[str], deciding: Sequence[str]
) -> tuple[TrainedAvatar, Config, list[str]]:
    """The settings to draw or score a model by: its own, over them YAML files, over all `key=value`.

    path: as `load_model` took it. Returns the model with these settings' way of `--test`; the settings; and a line
    where some of `deciding` (keys of Config) are not the model's own.
    """
    own = settings_of(path) or trained.config
    config = change_config(own, overrides, str(path), files)
    changed = differences(own, config, deciding)
    notes = [f"not by {path}'s own settings: {', '.join(changed)}"] if changed else []
    return trained.with_novel_poses_of(config), config, notes


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """What a file that could be read lacks, or holds in place of what it should, is a ValueError, one line."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing; use another checkpoint of the run") from error
    except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, OmegaConfBaseException) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path}: content does not fit this program: {one_line(error)}; use another checkpoint of the run"
        ) from error


def is_compact(path: str | Path) -> bool:
    """Whether the path is a compact file's, by its name."""
    return Path(path).suffix == COMPACT_SUFFIX


def folder_of(path: str | Path) -> Path:
    """The model folder of a path that is no compact file."""
    path = Path(path)
    if path.name == AVATAR_FILE:
        path = path.parent
    is_checkpoint = NAME.fullmatch(path.name) or (path / AVATAR_FILE).is_file()
    return path.parent.parent if is_checkpoint else path


def training_frames(path: str | Path, config: Config) -> PoseSequence | None:
    """The frames that a model was trained on, in the poses that it was trained in: of a run that refined them, as they
    were at its last checkpoint. None where nothing tells: bare checkpoints, compact files of former versions.

    config: the model's. Raises ValueError for damaged files.
    """
    if is_compact(path):
        from mmlphuman.export.compact_reader import load_carried

        return load_carried(path).frames
    folder = folder_of(path)
    options = PoseOptions(face=config.face, units="m")
    if not (folder / POSES_FILE).is_file():
        return None
    frames = read_pose_file(folder / POSES_FILE, options)
    refined = folder / REFINED_POSES
    if not (config.refine_poses and refined.is_file()):
        return frames
    capture = read_pose_file(refined, options)
    if frames.frames.max() >= len(capture):
        raise ValueError(f"{refined}: has {len(capture)} poses, but training saw frame {frames.frames.max()}")
    return replace(
        frames, poses=capture.poses[frames.frames], translations=capture.translations[frames.frames]
    )


def poses_to_score(path: str | Path, config: Config, capture: SmplParams) -> tuple[SmplParams, list[str]]:
    """The poses of the capture that a model is scored on, and what to say of them.

    path: as `load_model` takes it. A model that refined the poses of the frames that it was trained on is drawn in
    them; another capture has its own.
    """
    if not config.refine_poses:
        return capture, []
    if is_compact(path):
        file, refined = Path(path), _with_frames(capture, training_frames(path, config))
    else:
        file = folder_of(path) / REFINED_POSES
        refined = read_smpl_params(file, config.face) if file.is_file() else None
    if refined is None:
        return capture, [
            f"{path} has no {REFINED_POSES} of refined poses: all frames are drawn in the capture's"
        ]
    if not _of_same_capture(refined, capture):
        return capture, [f"{file} is of another capture: all frames are drawn in this capture's poses"]
    # Compact files round both.
    moved, turned = (
        np.abs(getattr(refined, name) - getattr(capture, name)).max(1) > ROUNDED
        for name in ("translations", "poses")
    )
    moved |= turned
    if not moved.any():
        return capture, []
    return refined, [
        f"frames {ranges(moved.nonzero()[0].tolist())} are drawn in the poses that training refined, {file}; "
        "--capture_poses takes the capture's"
    ]


def _with_frames(capture: SmplParams, frames: PoseSequence | None) -> SmplParams | None:
    """The capture with these in the place of its own; with none of its own where it is too short to be theirs."""
    if frames is None:
        return None
    if frames.frames.max() >= len(capture):
        return replace(capture, poses=frames.poses, translations=frames.translations)
    poses, translations = capture.poses.copy(), capture.translations.copy()
    poses[frames.frames], translations[frames.frames] = frames.poses, frames.translations
    return replace(capture, poses=poses, translations=translations)


def _of_same_capture(refined: SmplParams, capture: SmplParams) -> bool:
    if len(refined) != len(capture) or (refined.betas != capture.betas).any():
        return False
    ours, theirs = (
        Rotation.from_rotvec(each.poses[:, : BODY_POSE.stop].reshape(-1, 3)) for each in (refined, capture)
    )
    moves = np.abs(refined.translations - capture.translations)
    return bool((moves < FURTHEST_MOVE).all() and ((ours.inv() * theirs).magnitude() < FURTHEST_TURN).all())


def check_file(path: Path) -> None:
    """Raises DamagedCheckpoint, one line, unless the file is there with the checksums that it was written with."""
    try:
        require_plain(path)
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{path} is missing") from error
    except UNREADABLE_MEMBER as error:
        raise DamagedCheckpoint(f"{path} is damaged ({one_line(error)})") from error
    if altered is not None:
        raise DamagedCheckpoint(f"{path} is damaged (the checksum of {altered} is wrong)")


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Its content, on the CPU. ValueError, one line, where it cannot be read."""
    try:
        require_plain(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; the checkpoint is not complete, use another") from error
    except Exception as error:  # torch raises many types for a damaged file; all mean the same to the user
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path}: not a readable checkpoint (truncated or another format); use another "
            f"checkpoint of the run"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, no checkpoint; use another checkpoint of the run"
        )
    return content
