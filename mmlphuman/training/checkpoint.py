"""Checkpoints: whole or absent, never half-written; loaded without unpickling.

MODEL/checkpoints/iteration_00002000/
    avatar.pt     settings, avatar and pose space: all that rendering needs
    training.pt   optimisers, sampler, random generator: what resuming needs besides
A checkpoint is written into a temporary folder, flushed to disk, and renamed. Its files are zip archives with a
checksum of every tensor, which loading leaves alone and `check_whole` compares.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mmlphuman.avatar.build import avatar_from_state
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import config_of_saved
from mmlphuman.files import UNREADABLE_MEMBER

FORMAT_VERSION = 2
FOLDER = "checkpoints"
NAME = re.compile(r"iteration_(\d{8})")
UNFINISHED = ".unfinished-"
AVATAR_FILE, TRAINING_FILE = "avatar.pt", "training.pt"


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, truncated or altered."""


def save_checkpoint(
    model_dir: Path, trained: TrainedAvatar, training_state: dict[str, Any], keep: int
) -> Path:
    """Writes the checkpoint of `trained.iteration`, then removes all but the newest `keep`.

    OSError where that is not possible, such as on a full disk: nothing of it stays, and nothing older is removed.
    """
    folder = model_dir / FOLDER
    final = folder / f"iteration_{trained.iteration:08d}"
    unfinished = folder / f"{UNFINISHED}{trained.iteration:08d}"
    if final.exists():
        return final  # the run was resumed at its end
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)
    avatar_file = {
        "format_version": FORMAT_VERSION,
        "iteration": trained.iteration,
        "config": OmegaConf.to_container(OmegaConf.structured(trained.config)),
        "avatar": trained.avatar.state_dict(),
        "pose_space": trained.pose_space.state_dict(),
    }
    try:
        unfinished.mkdir()
        _save_flushed(avatar_file, unfinished / AVATAR_FILE)
        _save_flushed(training_state, unfinished / TRAINING_FILE)
        _flush_folder(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(final)
    _flush_folder(folder)
    for old in list_checkpoints(model_dir)[:-keep]:
        shutil.rmtree(set_aside(old))
    return final


def unsaved(error: OSError, model_dir: Path, iteration: int) -> str:
    """One line about a checkpoint that could not be written."""
    kept = list_checkpoints(model_dir)
    return (
        f"the checkpoint of iteration {iteration} cannot be written to {model_dir} ({error.strerror or error}); "
        + (f"{kept[-1].name} is kept; " if kept else "")
        + "make room, and --resume goes on from what is kept"
    )


def set_aside(checkpoint: Path) -> Path:
    """Takes a checkpoint out of sight, as a whole and at once; the next one that is written removes it."""
    gone = checkpoint.with_name(f"{UNFINISHED}{checkpoint.name}")
    if gone.exists():
        shutil.rmtree(gone)
    return checkpoint.rename(gone)


def _save_flushed(content: dict, path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise _what_stopped(error) from None
        file.flush()
        os.fsync(file.fileno())


def _what_stopped(error: BaseException) -> BaseException:
    """torch.save raises a RuntimeError over whatever ended its writing: that itself, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError | KeyboardInterrupt):
        cause = cause.__context__
    return cause or error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_checkpoints(model_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(
        path for path in (Path(model_dir) / FOLDER).glob("iteration_*") if NAME.fullmatch(path.name)
    )


def newest_checkpoint(model_dir: Path) -> Path:
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
    """Loads what rendering needs, on the CPU, from a model folder (its newest checkpoint), one checkpoint's folder
    or a compact file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        from mmlphuman.export.compact import load_compact  # only those who have such a file need safetensors

        return load_compact(path)
    checkpoint = path if NAME.fullmatch(path.name) else newest_checkpoint(path)
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
    content = _load(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version}, this program reads "
            f"{FORMAT_VERSION}; use the program's version that wrote it"
        )
    try:
        config = config_of_saved(content["config"])
        avatar = avatar_from_state(config, content["avatar"])
        pose_space = PoseSpace(**content["pose_space"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path}: content does not fit this program: {' '.join(str(error).split())}"
        ) from error
    return TrainedAvatar(avatar, pose_space, config, content["iteration"])


def check_whole(checkpoint: Path) -> None:
    """Raises DamagedCheckpoint, one line, unless its files are there with the checksums that they were written with.

    Reads everything once, and so into the page cache, from where loading takes it.
    """
    for path in (checkpoint / AVATAR_FILE, checkpoint / TRAINING_FILE):
        check_file(path)


def check_file(path: Path) -> None:
    """Of a checkpoint; as `check_whole`."""
    try:
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{path} is missing") from error
    except UNREADABLE_MEMBER as error:
        raise DamagedCheckpoint(f"{path} is damaged ({' '.join(str(error).split())})") from error
    if altered is not None:
        raise DamagedCheckpoint(f"{path} is damaged (the checksum of {altered} is wrong)")


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    return _load(checkpoint / TRAINING_FILE)


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; the checkpoint is not complete, use another") from error
    except Exception as error:  # torch raises many types for a damaged file; all mean the same to the user
        raise ValueError(
            f"{path}: not a readable checkpoint (truncated or another format); use another "
            f"checkpoint of the run"
        ) from error


def refuse_occupied(model_dir: Path) -> None:
    """Raises ValueError where a new run would land on something: nothing is ever overwritten."""
    model_dir = Path(model_dir)
    if model_dir.exists() and (not model_dir.is_dir() or any(model_dir.iterdir())):
        hint = "continue it with --resume, or " if list_checkpoints(model_dir) else ""
        raise ValueError(f"--out_dir {model_dir} is not empty; {hint}choose another folder")


def create_model_folder(model_dir: Path, fill: Callable[[Path], None]) -> None:
    """Makes a new model folder that is complete from the moment it exists: `fill` writes into a temporary one."""
    model_dir = Path(model_dir)
    refuse_occupied(model_dir)
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    for leftover in model_dir.parent.glob(f".{model_dir.name}.unfinished-*"):
        shutil.rmtree(leftover)  # of a run that was killed in here
    temporary = model_dir.with_name(f".{model_dir.name}.unfinished-{os.getpid()}")
    temporary.mkdir()
    try:
        fill(temporary)
        temporary.rename(model_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
