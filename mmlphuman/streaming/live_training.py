"""Watching a run: between two steps, pictures for the viewers, as many as a share of the run's time allows.

Data path: the loop, after each step -> LiveTraining -> a waiting request -> LiveScene -> server.

All drawing is done here, in the training's own thread and between its steps, so that no lock is needed and the
avatar is never seen half updated. The loop goes on whatever happens to viewers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.streaming.live_scene import Answers, LiveScene, scene_of_run, title_of
from mmlphuman.streaming.messages import MAX_HISTORY, Point, State
from mmlphuman.streaming.server import ListenAddress, ViewerServer, announce
from mmlphuman.text import one_line

if TYPE_CHECKING:
    from mmlphuman.training.loop import Trainer

STATE_SECONDS = 1.0  # between two messages about the run's progress
BURST_SECONDS = 0.25  # of drawing that may be saved up, so that a viewer who moves is answered at once
MIN_SECONDS = 1e-3  # between two looks at the clock, for a rate that stays finite


class DrawingBudget:
    """How long may be drawn now: a share of the time that somebody watched, less what drawing took.

    Saved-up time is limited to BURST_SECONDS. A picture is begun while there is any, and what it takes too much is
    owed: in the long run drawing never takes more than the share.
    """

    def __init__(self, share: float, now: float):
        self.share, self.seconds = share, BURST_SECONDS
        self._counted_until = now

    def count(self, now: float, watched: bool) -> None:
        """The time since the last call earns its share if somebody watched."""
        if watched:
            earned = self.share * (now - self._counted_until)
            self.seconds = min(self.seconds + earned, BURST_SECONDS)
        self._counted_until = now

    def spend(self, seconds: float) -> None:
        self.seconds -= seconds


class LiveTraining:
    """The loop's Watcher.

    avatar_of_now: the avatar as it stands, with its iteration, on the scene's device.
    """

    def __init__(
        self,
        server: ViewerServer,
        scene: LiveScene,
        avatar_of_now: Callable[[], TrainedAvatar],
        iterations: int,
        share: float,
    ):
        self.server, self.scene, self.iterations = server, scene, iterations
        self.avatar_of_now = avatar_of_now
        self.answers = Answers(server, scene)
        self.points: list[Point] = []  # of the loss curve, not published yet
        now = time.monotonic()
        self.budget = DrawingBudget(share, now)
        self._published = (now, scene.trained.iteration)
        self._next_state = now

    def note_loss(self, iteration: int, loss: float) -> None:
        """A point of the loss curve, read already for the log."""
        self.points.append((iteration, loss))

    def after_step(self, iteration: int) -> None:
        """Draws at most one picture, and once a second tells how far the run is. Next to nothing otherwise."""
        now = time.monotonic()
        try:
            if now >= self._next_state:
                self._publish(iteration, now)
            if self.server.busy:
                self._draw(now)
        except Exception as error:  # of the server; pictures that fail are dealt with in Answers
            self.answers.log_once(error)

    def _publish(self, iteration: int, now: float) -> None:
        self._next_state = now + STATE_SECONDS
        viewers = self.server.viewers
        self.budget.count(now, watched=viewers > 0)
        (then, iteration_then), self._published = self._published, (now, iteration)
        rate = (iteration - iteration_then) / max(now - then, MIN_SECONDS)
        points, self.points = tuple(self.points[-MAX_HISTORY:]), []
        self.server.publish(State(iteration, self.iterations, rate, points, viewers))

    def _draw(self, now: float) -> None:
        self.budget.count(now, watched=True)
        if self.budget.seconds <= 0:
            return  # the request waits; a newer one of the same viewer takes its place
        job = self.server.next_request(timeout=0)
        if job is None:
            return
        device = self.scene.trained.device
        synchronise(device)  # what is queued is training's, not the picture's
        began = time.monotonic()
        self.scene.trained = self.avatar_of_now()
        self.answers.answer(job)
        synchronise(device)
        self.budget.spend(time.monotonic() - began)


@contextmanager
def live_training(trainer: Trainer, model_dir: Path, address: ListenAddress) -> Iterator[LiveTraining | None]:
    """Serves the run while the block lasts.

    The run needs no viewer: where nobody asked for this address, and neither it nor one beside it can be had, None,
    with a line that says why; an address that was asked for raises ValueError.
    """
    config = trainer.config
    try:
        scene = scene_of_run(trainer, title_of(model_dir))
        server = address.serve(scene.welcome(training=True))
    except (ValueError, OSError) as error:
        if address.asked_for:
            raise
        announce(f"no live viewer: {one_line(error)}")
        yield None
        return
    try:
        yield LiveTraining(server, scene, trainer.trained, config.iterations, config.viewer_budget)
    finally:
        server.stop()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
