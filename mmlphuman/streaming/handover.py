"""What the server's loop and the threads that draw share, under locks: requests one way, progress the other.

Data path: Request of a viewer -> JobQueue -> Job -> whoever draws -> the server, which releases it;
State -> LatestState -> the loop -> viewers.

Nothing piles up in either. Every method may be called from any thread and returns at once, except `JobQueue.take`,
which may wait.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mmlphuman.streaming.messages import LossCurve, Point, Request, State

Client = TypeVar("Client", bound=Hashable)

UNDER_WAY = 2  # one picture on the link, and the next one drawn meanwhile


@dataclass(frozen=True, eq=False)
class Job(Generic[Client]):
    """A request, answered once: by ViewerServer.deliver, reply or problem."""

    request: Request
    client: Client  # the server's own; whoever draws only hands it back


class JobQueue(Generic[Client]):
    """The newest request of each viewer, handed out in turns.

    A viewer has one place for a request that waits: a newer one takes it, the older is forgotten. UNDER_WAY of its
    requests may be on their way through drawing, encoding and the link; only then does the next one leave its place.
    So a slow link holds back its own viewer's requests, which stay fresh, and nothing of anybody else's.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._ready: dict[Client, Request] = {}  # who may be served, the longest waiting first
        self._held: dict[Client, Request] = {}  # who has UNDER_WAY under way
        self._under_way: dict[Client, set[Job[Client]]] = {}  # of every client there is
        self._closed = False

    @property
    def busy(self) -> bool:
        """A request can be taken. Costs next to nothing: no lock."""
        return bool(self._ready)

    def admit(self, client: Client) -> None:
        with self._changed:
            self._under_way[client] = set()

    def forget(self, client: Client) -> None:
        """The client has gone; what is under way for it is no longer known."""
        with self._changed:
            for entries in (self._ready, self._held, self._under_way):
                entries.pop(client, None)

    def put(self, client: Client, request: Request) -> None:
        """The client's newest request, in the place of its older one."""
        with self._changed:
            if client not in self._under_way or self._closed:
                return
            if len(self._under_way[client]) >= UNDER_WAY:
                self._held[client] = request
            else:
                self._ready[client] = request  # a dict keeps the turn of an entry that is replaced
                self._changed.notify()

    def take(self, timeout: float | None) -> Job | None:
        """The request of the client whose turn it is. None after `timeout` seconds, or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed, timeout)
            if self._closed or not self._ready:
                return None
            client = next(iter(self._ready))
            job = Job(self._ready.pop(client), client)
            self._under_way[client].add(job)
            return job

    def expects(self, job: Job) -> bool:
        """False if the job was released, or its client has gone."""
        with self._changed:
            return job in self._under_way.get(job.client, ())

    def release(self, job: Job) -> None:
        """The job's picture has arrived, or never will."""
        with self._changed:
            self._under_way.get(job.client, set()).discard(job)
            if job.client in self._held and len(self._under_way[job.client]) < UNDER_WAY:
                self._ready[job.client] = self._held.pop(job.client)
                self._changed.notify()

    def close(self) -> None:
        """From now on there is nothing to take, and whoever waits in `take` returns."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._held.clear()
            self._changed.notify_all()


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
