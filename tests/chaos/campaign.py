"""Faults by the dozen over runs of a tiny capture, and what is to hold after each of them.

After every fault a newest whole checkpoint is there, not older than the one before the fault, and at most an interval
of checkpoints is lost; `--resume auto` goes on exactly from it; a run that has come to its end has the parameters of a
run that nothing happened to, and its log shows every step once.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmlphuman.config import save_config
from mmlphuman.model_folder import DamagedCheckpoint, list_checkpoints, load_avatar
from mmlphuman.training.checkpoint import check_whole, load_training_state
from tests.chaos.lives import FAULTS, Life, Place, survivors
from tests.tiny_run import tiny_settings

INTERVAL = 20  # iterations between checkpoints
ITERATIONS = 400
WORKER_SECONDS = 15  # for workers to notice that the process they worked for is gone
RESUMED = re.compile(r"^resuming \S+ at iteration (\d+)\b", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A fault, and what came of it."""

    fault: str
    status: int | None  # of the command; None for damage to files, which happens between two of them
    lost: int  # iterations at least, that have to be done again
    note: str = ""


def truncate(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def flip_bit(path: Path, rng: random.Random) -> None:
    """In the middle half, which is tensors: archives have room between them that means nothing."""
    where = rng.randrange(path.stat().st_size // 4, path.stat().st_size * 3 // 4)
    with path.open("r+b") as file:
        file.seek(where)
        byte = file.read(1)[0]
        file.seek(where)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


DAMAGE = {
    "truncated checkpoint file": truncate,
    "deleted checkpoint file": lambda path, rng: path.unlink(),
    "one bit of a checkpoint file flipped": flip_bit,
}


def whole_checkpoints(model: Path) -> list[Path]:
    """Oldest first."""
    whole = []
    for checkpoint in list_checkpoints(model):
        try:
            check_whole(checkpoint)
        except DamagedCheckpoint:
            continue
        whole.append(checkpoint)
    return whole


def iteration_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("iteration_"))


def newest(model: Path) -> int:
    """Iteration of the newest whole checkpoint; -1 if there is none."""
    return max(map(iteration_of, whole_checkpoints(model)), default=-1)


class Campaign:
    """Faults one after the other over runs of `place`, in `model_0`, `model_1`, ... reference: an undisturbed model."""

    def __init__(self, place: Place, reference: Path, seed: int):
        self.place, self.reference = place, reference
        self.rng, self.runs, self.rows = random.Random(seed), 0, []

    @property
    def model(self) -> Path:
        return self.place.folder / f"model_{self.runs}"

    def suffer(self, names: Iterable[str], say=print) -> None:
        """All of these faults, in this order, then the run's undisturbed end. AssertionError where anything breaks."""
        for name in names:
            row = self.damage(name) if name in DAMAGE else self.live(name)
            self.rows.append(row)
            say(f"{len(self.rows):4d} {row}")
        self.live(None)
        end = time.monotonic() + WORKER_SECONDS
        while survivors(self.place):
            assert time.monotonic() < end, f"workers outlive their run: {survivors(self.place)}"
            time.sleep(0.1)

    def live(self, name: str | None) -> Row:
        """One life with this fault, or to the run's end."""
        fault = FAULTS[name] if name else None
        if fault is not None and fault.quota and newest(self.model) < 0:
            self.live("SIGTERM")  # a run that cannot begin is nothing to go on from
        before = newest(self.model)
        life = Life(self.place, self.model, *((fault.launcher, fault.quota) if fault else ()))
        if fault is not None:
            fault.happen(life, self.rng)
        status = life.end()
        text, after = life.text(), newest(self.model)
        about = f"{name}, status {status}:\n{text[-4000:]}"
        resumed = RESUMED.search(text)
        if resumed is not None:
            assert int(resumed[1]) == before, (
                f"resumed at {resumed[1]}, the newest whole one was {before}; {about}"
            )
        assert status in (0, *(fault.statuses if fault else ())), about
        assert after >= before, about
        if life.ranks == 1:
            assert "Traceback" not in text, about
            assert status != 75 or "stopped by" in text, about
        lost = max(0, life.progress() - max(0, after))
        if status == 75 and "cannot be written" not in text:
            assert lost == 0, about
        if "cannot be written" not in text:
            assert lost <= INTERVAL + 2, f"lost {lost} iterations; {about}"
        if status == 0:
            self.check_finished()
        note = "run complete, as if undisturbed" if status == 0 else ""
        return Row(name or "none", status, lost, note)

    def damage(self, name: str) -> Row:
        """To the newest checkpoint; there is an older one to fall back to."""
        while len(whole := whole_checkpoints(self.model)) < 2:
            self.live("SIGTERM")
        DAMAGE[name](whole[-1] / self.rng.choice(("avatar.pt", "training.pt")), self.rng)
        assert whole_checkpoints(self.model) == whole[:-1], f"{name} was not noticed"
        return Row(name, None, iteration_of(whole[-1]) - iteration_of(whole[-2]))

    def check_finished(self) -> None:
        for ours, theirs in zip(parameters(self.model), parameters(self.reference), strict=True):
            assert torch.equal(ours, theirs), (
                f"{self.model} differs from an undisturbed run by {(ours - theirs).abs().max()}"
            )
        check_log(self.model)
        shutil.rmtree(self.model)
        self.runs += 1


def parameters(model: Path) -> list[torch.Tensor]:
    """Of the avatar and, moments, of its optimisers."""
    checkpoint = list_checkpoints(model)[-1]
    moments = [
        value
        for optimiser in load_training_state(checkpoint)["optimisers"]
        for state in optimiser["state"].values()
        for value in state.values()
    ]
    return [*load_avatar(checkpoint).avatar.state_dict().values(), *moments]


def check_log(model: Path) -> None:
    events = EventAccumulator(str(model), size_guidance={"scalars": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(set(steps)), f"{model}: {tag} shows steps twice: {steps}"
    scores = [int(line.split(",")[0]) for line in (model / "scores.csv").read_text().splitlines()[1:]]
    assert scores == sorted(set(scores)), scores


def write_config(path: Path, body: Path, iterations: int, poses: int) -> Path:
    settings = tiny_settings(
        body,
        test=dict(cam_ids=[3], num_frame=1),
        init_num_gs=200,
        num_verts=40,
        poses_per_step=poses,
        iterations=iterations,
        iteration_dxyz_basis=20,
        iteration_gsparam_basis=20,
        iteration_sh_degree=100,
        test_every=50,
        checkpoint_every=INTERVAL,
    )
    save_config(settings, path)
    return path


def table(rows: Sequence[Row]) -> str:
    """What was tried, how often, and what happened."""
    lines = [f"{'fault':42s} {'times':>5s}  {'exit status (times)':28s} {'most iterations lost':>20s}"]
    for name in dict.fromkeys(row.fault for row in rows):
        of_it = [row for row in rows if row.fault == name]
        statuses = [row.status for row in of_it if row.status is not None]
        shown = ", ".join(f"{status} ({statuses.count(status)})" for status in sorted(set(statuses))) or "-"
        lines.append(f"{name:42s} {len(of_it):5d}  {shown:28s} {max(row.lost for row in of_it):20d}")
    return "\n".join(lines)
