"""The checkpoint to go on from: the newest one that is whole.

Data path: MODEL/checkpoints -> newest_whole -> resume, or a run that goes back after its loss broke.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmlphuman.training.checkpoint import (
    FOLDER,
    DamagedCheckpoint,
    check_whole,
    list_checkpoints,
    newest_checkpoint,
    set_aside,
)
from mmlphuman.training.distributed import Ranks


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
