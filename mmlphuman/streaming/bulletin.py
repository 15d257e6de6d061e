"""What is being served and how far it is: written by whoever draws, read by the server's loop. Has a lock.

Data path: Welcome, State -> Bulletin -> the loop -> viewers.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from mmlphuman.streaming.fields import ProtocolError
from mmlphuman.streaming.loss_curve import LossCurve, Point
from mmlphuman.streaming.messages import State, Welcome
from mmlphuman.streaming.protocol import decode_server, encode


@dataclass(frozen=True)
class News:
    """What has changed since the last reading; None and () stand for no change."""

    greeting: str | None
    state: State | None  # without its history
    points: tuple[Point, ...]


class Bulletin:
    """Several changes between two readings become one, so that nothing queues up.

    Writers get True if a reading has to be arranged: it has not been since the last one.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._greeting: str | None = None
        self._state: State | None = None
        self._points = LossCurve()
        self._reading_arranged = False

    def greet(self, welcome: Welcome) -> bool:
        """Raises ValueError for a Welcome that viewers would not accept."""
        greeting = encode(welcome)
        try:
            decode_server(greeting)
        except ProtocolError as error:
            raise ValueError(f"viewers would not accept this: {error}") from error
        with self._lock:
            self._greeting = greeting
            return self._arrange()

    def report(self, state: State) -> bool:
        with self._lock:
            self._state = replace(state, history=())
            self._points.add(state.history)
            return self._arrange()

    def read(self) -> News:
        with self._lock:
            news = News(self._greeting, self._state, self._points.take())
            self._greeting = self._state = None
            self._reading_arranged = False
            return news

    def _arrange(self) -> bool:
        arranged, self._reading_arranged = self._reading_arranged, True
        return not arranged
