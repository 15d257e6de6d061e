"""Checkpoints: whole or absent, never half-written; and the one that a run goes on from, the newest whole one.

MODEL/checkpoints/iteration_00002000/
    avatar.pt     settings, avatar and pose space: all that rendering needs (model_folder reads it)
    training.pt   optimisers, sampler, random generator: what resuming needs besides
A checkpoint is written into a temporary folder, flushed to disk, and renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.model_folder import (
    AVATAR_FILE,
    FOLDER,
    FORMAT_VERSION,
    DamagedCheckpoint,
    check_file,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint_file,
)
from mmlphuman.processes import Ranks

UNFINISHED = ".unfinished-"
TRAINING_FILE = "training.pt"


def save_checkpoint(
    model_dir: Path, trained: TrainedAvatar, training_state: dict[str, Any], keep: int
) -> Path:
    """Writes the checkpoint of `trained.iteration`, then removes all but the newest `keep`.

    OSError where that is not possible, such as on a full disk: nothing of it stays, and nothing older is removed.
    """
    folder = model_dir / FOLDER
    final = folder / f"iteration_{trained.iteration:08d}"
    unfinished = folder / f"{UNFINISHED}{trained.iteration:08d}"
    if final.is_dir():
        return final  # the run was resumed at its end
    folder.mkdir(parents=True, exist_ok=True)
    if final.exists():  # somebody's file, in the way
        final.rename(final.with_name(f"{final.name}.stray"))
    for leftover in folder.glob(f"{UNFINISHED}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
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


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    return read_checkpoint_file(checkpoint / TRAINING_FILE)


def check_whole(checkpoint: Path) -> None:
    """Raises DamagedCheckpoint, one line, unless its files are there with the checksums that they were written with.

    Reads everything once, and so into the page cache, from where loading takes it.
    """
    for path in (checkpoint / AVATAR_FILE, checkpoint / TRAINING_FILE):
        check_file(path)


def newest_whole(model_dir: Path, say: Callable[[str], object] = print, skip: int = 0) -> Path:
    """The newest whole checkpoint before the newest `skip` whole ones, or the oldest; the only one in sight is taken.

    Newer ones are set aside, with a line for each damaged one: the run makes them again.
    ValueError if there is none, DamagedCheckpoint if none is whole; then nothing is touched.
    """
    newest_checkpoint(model_dir)  # raises for a folder without any
    checkpoints, whole, damaged = list_checkpoints(model_dir), [], {}
    for checkpoint in reversed(checkpoints):
        try:
            check_whole(checkpoint)
            whole.append(checkpoint)
        except DamagedCheckpoint as error:
            damaged[checkpoint] = error
        if len(whole) > skip:
            break
    if not whole:
        raise DamagedCheckpoint(
            f"{damaged[checkpoints[-1]]}, and no older checkpoint is whole; train again into another --out_dir"
        )
    chosen = whole[-1]
    for newer in checkpoints[checkpoints.index(chosen) + 1 :]:
        if newer in damaged:
            say(f"{damaged[newer]}; going on from {chosen.name} instead")
        set_aside(newer)
    return chosen


def agreed_whole(model_dir: Path, ranks: Ranks, say: Callable[[str], object] = print, skip: int = 0) -> Path:
    """`newest_whole` of rank 0, on every rank."""
    return model_dir / FOLDER / ranks.of_first(newest_whole(model_dir, say, skip).name if ranks.first else "")
