"""What the server's loop and the threads that draw share, under locks: requests one way, progress the other.

Data path: Request of a viewer -> JobQueue -> Job -> whoever draws -> the server, which releases it; or back to the
queue, where the picture is drawn in parts. State -> LatestState -> the loop -> viewers.

Nothing piles up in either. Every method may be called from any thread and returns at once, except `JobQueue.take`,
which may wait.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from mmlphuman.streaming.messages import LossCurve, Point, RenderRequest, Request, State

Client = TypeVar("Client", bound=Hashable)

UNDER_WAY = 2  # one picture on the link, and the next one drawn meanwhile


@dataclass(eq=False)
class Job(Generic[Client]):
    """A request, answered once: by ViewerServer.deliver, reply or problem."""

    request: Request
    client: Client  # the server's own; whoever draws only hands it back
    drawing: Any = None  # of whoever draws: the unfinished picture, forgotten with the job


class JobQueue(Generic[Client]):
    """The newest request of each viewer, handed out in turns.

    A viewer has one place for a request that waits: a newer one takes it, the older is forgotten. UNDER_WAY of its
    requests may be on their way through drawing, encoding and the link; only then does the next one leave its place.
    So a slow link holds back its own viewer's requests, which stay fresh, and nothing of anybody else's.

    A turn is a part of a picture: a job that is put back comes again when all others that wait have had theirs. A
    viewer has one picture drawn at a time. A newer request ends it if it asks for fewer pixels: the view moves again,
    and the sharp picture of where it rested is not waited for. Otherwise the picture is finished first, so that a
    viewer who moves all the time sees something.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._turns: dict[Client, None] = {}  # who may be served, the longest waiting first
        self._waiting: dict[Client, Request] = {}
        self._unfinished: dict[Client, Job[Client]] = {}  # that was put back
        self._under_way: dict[Client, set[Job[Client]]] = {}  # of every client there is
        self._closed = False

    @property
    def busy(self) -> bool:
        """A request can be taken. Costs next to nothing: no lock."""
        return bool(self._turns)

    def admit(self, client: Client) -> None:
        with self._changed:
            self._under_way[client] = set()

    def forget(self, client: Client) -> None:
        """The client has gone; what is under way for it is no longer known."""
        with self._changed:
            for entries in (self._turns, self._waiting, self._unfinished, self._under_way):
                entries.pop(client, None)

    def put(self, client: Client, request: Request) -> None:
        """The client's newest request, in the place of its older one."""
        with self._changed:
            if client in self._under_way and not self._closed:
                self._waiting[client] = request
                self._give_turn(client)

    def take(self, timeout: float | None) -> Job | None:
        """The job of the client whose turn it is. None after `timeout` seconds, or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._closed, timeout)
            if self._closed or not self._turns:
                return None
            client = next(iter(self._turns))
            self._turns.pop(client)
            unfinished, newer = self._unfinished.pop(client, None), self._waiting.get(client)
            if unfinished is not None:
                if newer is None or not _ends(newer, unfinished.request):
                    self._give_turn(client)  # for the newer one, should this part be the last
                    return unfinished
                self._under_way[client].discard(unfinished)
            job = Job(self._waiting.pop(client), client)
            self._under_way[client].add(job)
            return job

    def put_back(self, job: Job) -> None:
        """The job's picture is drawn in part, and it is the others' turn."""
        with self._changed:
            if job in self._under_way.get(job.client, ()) and not self._closed:
                self._unfinished[job.client] = job
                self._turns.pop(job.client, None)  # of a request that came meanwhile
                self._give_turn(job.client)

    def expects(self, job: Job) -> bool:
        """False if the job was released, or its client has gone."""
        with self._changed:
            return job in self._under_way.get(job.client, ())

    def release(self, job: Job) -> None:
        """The job's picture has arrived, or never will."""
        with self._changed:
            if job.client in self._under_way:
                self._under_way[job.client].discard(job)
                self._give_turn(job.client)

    def close(self) -> None:
        """From now on there is nothing to take, and whoever waits in `take` returns."""
        with self._changed:
            self._closed = True
            for entries in (self._turns, self._waiting, self._unfinished):
                entries.clear()
            self._changed.notify_all()

    def _give_turn(self, client: Client) -> None:
        """Behind the others, if it has anything to be done and no turn yet."""
        may_start = client in self._waiting and len(self._under_way[client]) < UNDER_WAY
        if (may_start or client in self._unfinished) and client not in self._turns:
            self._turns[client] = None
            self._changed.notify()


def _ends(newer: Request, older: Request) -> bool:
    """Whether a request ends an older one's picture: it asks for fewer pixels. Questions wait until it is finished."""
    if not isinstance(newer, RenderRequest) or not isinstance(older, RenderRequest):
        return False
    pixels, before = (each.camera.width * each.camera.height for each in (newer, older))
    return pixels < before


class LatestState:
    """How far the run is. Several reports between two readings become one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._state: State | None = None
        self._points = LossCurve()
        self._reading_arranged = False

    def report(self, state: State) -> bool:
        """True if a reading has to be arranged: it has not been since the last one."""
        with self._lock:
            self._state = replace(state, history=())
            self._points.add(state.history)
            arranged, self._reading_arranged = self._reading_arranged, True
            return not arranged

    def read(self) -> tuple[State | None, tuple[Point, ...]]:
        """What is new since the last reading: the state, without its history, and the points of that."""
        with self._lock:
            state, self._state = self._state, None
            self._reading_arranged = False
            return state, self._points.take()
