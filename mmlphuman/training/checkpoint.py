"""Checkpoints: whole or absent, never half-written; and the one that a run goes on from, the newest whole one.

MODEL/checkpoints/iteration_00002000/
    avatar.pt     settings, avatar and pose space: all that rendering needs (model_folder reads it)
    training.pt   optimisers, sampler, random generator: what resuming needs besides
A checkpoint is written into a temporary folder, flushed to disk, and renamed; from a copy in the host's memory, so that
a run can go on meanwhile (CheckpointWriter).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.model_folder import (
    AVATAR_FILE,
    FOLDER,
    FORMAT_VERSION,
    DamagedCheckpoint,
    check_file,
    list_checkpoints,
    load_avatar,
    newest_checkpoint,
    read_checkpoint_file,
)
from mmlphuman.processes import Ranks

UNFINISHED = ".unfinished-"
TRAINING_FILE = "training.pt"


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint's files, in the host's memory: nothing of it changes when training goes on."""

    iteration: int
    avatar: dict[str, Any]
    training: dict[str, Any] | None  # None: the avatar alone, nothing to go on from

    @classmethod
    def of(cls, trained: TrainedAvatar, training_state: dict[str, Any] | None) -> Snapshot:
        avatar = {
            "format_version": FORMAT_VERSION,
            "iteration": trained.iteration,
            "config": OmegaConf.to_container(OmegaConf.structured(trained.config)),
            "avatar": trained.avatar.state_dict(),
            "pose_space": trained.pose_space.state_dict(),
        }
        return cls(trained.iteration, _on_host(avatar), _on_host(training_state))


def _on_host(content: Any) -> Any:
    """Copies, with the same memory layouts."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: _on_host(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_on_host(value) for value in content)
    return content


def write_snapshot(model_dir: Path, snapshot: Snapshot, keep: int) -> Path:
    """Writes the checkpoint, then removes all but the newest `keep`.

    OSError where that is not possible, such as on a full disk: nothing of it stays, and nothing older is removed.
    """
    folder = model_dir / FOLDER
    final = folder / f"iteration_{snapshot.iteration:08d}"
    unfinished = folder / f"{UNFINISHED}{snapshot.iteration:08d}"
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
    try:
        unfinished.mkdir()
        _save_flushed(snapshot.avatar, unfinished / AVATAR_FILE)
        if snapshot.training is not None:
            _save_flushed(snapshot.training, unfinished / TRAINING_FILE)
        _flush_folder(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(final)
    _flush_folder(folder)
    for old in list_checkpoints(model_dir)[:-keep]:
        shutil.rmtree(set_aside(old))
    return final


class CheckpointWriter:
    """Writes snapshots while training goes on, one at a time; the process does not end before that is done."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[Path] | None = None
        self.iteration: int | None = None  # of what is being written

    @property
    def done(self) -> bool:
        """Whether `finish` has something to tell and would not wait."""
        return self._written is not None and self._written.done()

    def begin(self, model_dir: Path, snapshot: Snapshot, keep: int) -> None:
        assert self._written is None, "the one before was not finished"
        self._written = self._thread.submit(write_snapshot, model_dir, snapshot, keep)
        self.iteration = snapshot.iteration

    def finish(self) -> None:
        """Waits for what was begun, if anything was. OSError where it could not be written."""
        written, self._written, self.iteration = self._written, None, None
        if written is not None:
            written.result()


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
    ValueError if there is none, or if the run has ended with the avatar alone; DamagedCheckpoint if none is whole; then
    nothing is touched.
    """
    _refuse_without_optimisers(newest_checkpoint(model_dir), model_dir)
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


def _refuse_without_optimisers(newest: Path, model_dir: Path) -> None:
    """ValueError, one line, where the run has ended and was told to keep the avatar alone."""
    if (newest / TRAINING_FILE).exists():
        return
    try:
        saved = load_avatar(newest)
    except ValueError:
        return  # damaged; an older one may be whole
    if saved.iteration >= saved.config.iterations and not saved.config.resumable_at_end:
        raise ValueError(
            f"{model_dir} has ended and holds the avatar alone (resumable_at_end: false): it cannot go on, and "
            f"--init_from {model_dir} begins a new run with it"
        )


def agreed_whole(model_dir: Path, ranks: Ranks, say: Callable[[str], object] = print, skip: int = 0) -> Path:
    """`newest_whole` of rank 0, on every rank."""
    return model_dir / FOLDER / ranks.of_first(newest_whole(model_dir, say, skip).name if ranks.first else "")
