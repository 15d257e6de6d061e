"""What is under way between viewer and server, and how fast. No network: times are given."""

from __future__ import annotations

from collections import deque

MAX_OUTSTANDING = 2  # requests: one being drawn, one waiting or on its way
LOST_SECONDS = 20.0  # a request that was not answered by then no longer counts as outstanding
RATE_SECONDS = 2.0  # fps and MB/s are means over this long


class Rate:
    """Pictures and bytes a second, over the last RATE_SECONDS."""

    def __init__(self):
        self._arrivals: deque[tuple[float, int]] = deque()

    def add(self, now: float, size: int) -> None:
        self._arrivals.append((now, size))

    def measure(self, now: float) -> tuple[float, float]:
        """(pictures a second, megabytes a second)."""
        while self._arrivals and self._arrivals[0][0] <= now - RATE_SECONDS:
            self._arrivals.popleft()
        size = sum(size for _, size in self._arrivals)
        return len(self._arrivals) / RATE_SECONDS, size / RATE_SECONDS / 1e6


class Outstanding:
    """Requests that are on their way. An answer also settles all older ones: the server leaves out stale ones."""

    def __init__(self):
        self._sent: dict[int, float] = {}  # id -> when

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, request_id: int, now: float) -> None:
        self._sent[request_id] = now

    def settle(self, request_id: int) -> None:
        self._sent = {other: sent for other, sent in self._sent.items() if other > request_id}

    def may_send(self, now: float) -> bool:
        self._sent = {other: sent for other, sent in self._sent.items() if sent > now - LOST_SECONDS}
        return len(self._sent) < MAX_OUTSTANDING
