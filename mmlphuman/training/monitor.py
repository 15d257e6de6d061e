"""What a person sees of a run: progress bar, TensorBoard, scores over training time.

Data path: loop -> Monitor -> MODEL/events.out.tfevents.* -> tensorboard; and MODEL/scores.csv.
TensorBoard's own writer has a thread of its own, in which a full disk ends with a traceback; the EventLog here writes
at once and in the calling thread, where that is an OSError of the call that met it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path

import torch
from tensorboard.compat.proto.event_pb2 import (  # protobuf makes the classes at import
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary
from tqdm import tqdm

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.backend import Backend
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.measures.comparison import paint, regions
from mmlphuman.measures.held_out_scores import FILE_NAME, HeldOutScore, scores_until, write_scores
from mmlphuman.render.rasterize import rasterize
from mmlphuman.text import one_line
from mmlphuman.types import Pose, Sample

HELD_OUT_SHOWN = 4  # (frame, camera) pairs, spread over the test selection
SMALLEST_ERROR = 1e-10  # mean square; equal pictures score 100 dB
FLUSH_SECONDS = 10.0  # what a killed run may lose of its log


class Monitor:
    """Progress bar, TensorBoard events and scores.csv of one run; a context manager.

    A run that goes on at `first_iteration` loses what was logged after it. A damaged scores.csv is put aside, and a
    line says so.
    A log that cannot be written (a full disk) ends no run: one line says so, and `reopen` tries again.
    """

    def __init__(self, model_dir: Path, first_iteration: int, iterations: int, quiet: bool = False):
        self.model_dir, self.scores_path = model_dir, model_dir / FILE_NAME
        try:
            self.scores = scores_until(self.scores_path, first_iteration)
        except (ValueError, OSError) as error:
            self.scores = []
            aside = self.scores_path.with_suffix(".csv.damaged")
            with suppress(OSError):
                self.scores_path.replace(aside)
            self.say(f"{one_line(error)}; kept as {aside.name}, a new one begins")
        self.events: EventLog | None = None
        self.reopen(first_iteration)
        self.bar = tqdm(
            total=iterations,
            initial=first_iteration,
            desc="training",
            unit="it",
            disable=quiet,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def say(self, text: str) -> None:
        """One line on stderr, above the progress bar."""
        with suppress(OSError):  # a file on the disk that is full, for example
            tqdm.write(text, file=sys.stderr)

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """values: the loss terms after `iteration` steps."""
        scalars = {f"loss/{name}": value for name, value in values.items()}
        if self.bar.format_dict["rate"]:
            scalars["speed/iterations_per_second"] = self.bar.format_dict["rate"]
        self._record(lambda events: [events.scalar(*scalar, iteration) for scalar in scalars.items()])
        self.bar.set_postfix(
            {name: f"{value:.4f}" for name, value in values.items() if name != "smooth"}, refresh=False
        )
        with suppress(OSError):
            self.bar.update(min(iteration, self.bar.total) - self.bar.n)  # the last step may go past it

    @torch.no_grad()
    def show_held_out(
        self,
        iteration: int,
        seconds: float,
        avatar: Avatar,
        dataset: CaptureDataset,
        active: ActiveParts,
        background: Tensor,
        backend: Backend,
        pose_of: Callable[[Sample], Pose] = attrgetter("pose"),
    ) -> None:
        """Draws a few test views into TensorBoard, ground truth beside render, and logs their scores.

        seconds: of training so far. pose_of: the pose of a sample, where training has corrected it.
        Scores are means over the views; a view without an inside has no such score.
        """
        pairs = dataset.pairs[:: max(1, len(dataset.pairs) // HELD_OUT_SHOWN)][:HELD_OUT_SHOWN]
        whole, inside = [], []
        for frame, camera in pairs:
            sample = dataset.sample(frame, (camera,))
            inner = torch.from_numpy(regions(sample.masks[0].numpy())[0]).to(background.device)
            sample = sample.to(background.device)
            truth = paint(sample.images.float() / 255, sample.masks, background)[0]
            render = rasterize(avatar(pose_of(sample), active).posed, sample.cameras, background, backend)
            image = render.colors[0].clamp(0, 1)
            errors = (image - truth).square().mean(-1)
            whole.append(errors.mean())
            if inner.any():
                inside.append(errors[inner].mean())
            shown = partial(EventLog.image, tag=f"held_out/camera_{camera}_frame_{frame}", step=iteration)
            self._record(partial(shown, image=torch.cat([truth, image], 1)))
        score = HeldOutScore(iteration, seconds, mean_psnr(whole), mean_psnr(inside) if inside else None)
        self._record(lambda events: log_score(events, score))
        self._keep_scores([*self.scores, score])

    def go_back(self, iteration: int) -> None:
        """The run has returned to `iteration`: what was logged of later ones goes."""
        self._record(lambda events: events.restart(iteration + 1))
        self._keep_scores([score for score in self.scores if score.iteration <= iteration])
        self.bar.n = self.bar.last_print_n = iteration

    def reopen(self, iteration: int) -> None:
        """Begins a new event file, unless one is being written."""
        if self.events is None:
            try:
                self.events = EventLog(self.model_dir, first_step=iteration + 1)
            except OSError as error:
                self._say_unlogged(error)

    def _keep_scores(self, scores: list[HeldOutScore]) -> None:
        self.scores = scores
        try:
            write_scores(self.scores_path, scores)
        except OSError as error:  # all of them are written again after the next test
            self.say(f"{self.scores_path} cannot be written ({error.strerror or error}); training goes on")

    def _record(self, write: Callable[[EventLog], object]) -> None:
        if self.events is None:
            return
        try:
            write(self.events)
        except OSError as error:
            self._close_events()
            self._say_unlogged(error)

    def _say_unlogged(self, error: OSError) -> None:
        self.say(
            f"TensorBoard events cannot be written to {self.model_dir} ({error.strerror or error}); training goes on, "
            "and the next checkpoint that can be written begins a new log"
        )

    def _close_events(self) -> None:
        events, self.events = self.events, None
        if events is not None:
            with suppress(OSError):  # what cannot be written is lost, and was said to be
                events.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):
            self.bar.close()
        self._close_events()


class NoMonitor:
    """Of the ranks that nobody looks at: they neither write nor test."""

    def say(self, *_) -> None: ...

    log = show_held_out = go_back = reopen = say

    def __enter__(self) -> NoMonitor:
        return self

    def __exit__(self, *_) -> None: ...


def log_score(events: EventLog, score: HeldOutScore) -> None:
    events.scalar("held_out/psnr", score.psnr, score.iteration)
    if score.psnr_inside is not None:
        events.scalar("held_out/psnr_inside", score.psnr_inside, score.iteration)
    events.scalar("held_out/seconds", score.seconds, score.iteration)


def mean_psnr(errors: list[Tensor]) -> float:
    """dB, mean over pictures, from the mean squared error of each."""
    return float(-10 * torch.stack(errors).clamp_min(SMALLEST_ERROR).log10().mean())


class EventLog:
    """One event file of a run. Every method may raise OSError; after that the file is to be given up."""

    def __init__(self, folder: Path, first_step: int):
        """What other files of the folder tell of `first_step` and later is hidden by every reader from now on."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # Readers take files in the order of their names: nanoseconds keep those of one process apart.
        name = f"events.out.tfevents.{int(now):010d}.{int(now * 1e9) % 10**9:09d}.{socket.gethostname()}"
        self._records = RecordWriter((folder / f"{name}.{os.getpid()}").open("xb"))
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))
        self.restart(first_step)

    def restart(self, first_step: int) -> None:
        """Hides what was logged of `first_step` and later: the run has gone back."""
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._write(Event(step=step, summary=summary.scalar(tag, value)))

    def image(self, tag: str, image: Tensor, step: int) -> None:
        """image: (H, W, 3) in [0, 1]."""
        self._write(Event(step=step, summary=summary.image(tag, image.cpu().numpy(), dataformats="HWC")))

    def flush(self) -> None:
        self._records.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()


class TrainingClock:
    """Wall time of training, over all parts of a resumed run, without what happens under `stopped`."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0  # up to when it last stood still

    @contextmanager
    def running(self) -> Iterator[None]:
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside `running`."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._wait()
        self._began = time.monotonic()

    def _stop(self) -> None:
        self._wait()
        self.seconds += time.monotonic() - self._began

    def _wait(self) -> None:
        """What is queued on the GPU belongs to the time before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
