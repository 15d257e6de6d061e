"""The DataLoader's processes, watched: one that hangs or dies is noticed, and told of in one line.

A DataLoader waits for ever for a process that hangs, and at several places, of which its own time limit bounds one.
"""

from __future__ import annotations

import mmap
import multiprocessing.connection
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess

SAMPLE_SECONDS = 300  # the longest that the next sample may take
ENDING_SECONDS = 1  # from a process's last words to its end


class Flag:
    """An event that its process and those forked off it may set and look at. Nobody waits for it, so it needs no lock,
    which one that is killed at the wrong moment would leave locked."""

    def __init__(self):
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


class WorkerContext(ForkContext):
    """For a DataLoader, which asks its event for the end also where it finds that a process of its was killed."""

    def Event(self) -> Flag:
        return Flag()


class WorkerWatch:
    """Of one DataLoader's processes. Waited for too long they are killed, of which it hears wherever it is."""

    def __init__(self, processes: Iterable[BaseProcess] = ()):
        self._processes = tuple(processes)
        self._waiting_since: float | None = None
        self._hung = False
        self._unwatched = threading.Event()
        if self._processes:
            threading.Thread(target=self._watch, name="worker-watch", daemon=True).start()

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def unwatch(self) -> None:
        self._unwatched.set()

    def problem(self) -> OSError | None:
        """If one has ended: why, in one line. It may be about to end."""
        sentinels = [process.sentinel for process in self._processes]
        ended = multiprocessing.connection.wait(sentinels, ENDING_SECONDS) if sentinels else []
        if not ended:
            return None
        for process in self._processes:
            if process.sentinel in ended:
                process.join(ENDING_SECONDS)  # until its exit status is known
        if self._hung:
            return OSError(
                f"no sample came within {SAMPLE_SECONDS} s: the processes that read the capture hang; look whether its "
                "disk or network folder answers, then go on with --resume"
            )
        ends = sorted({process.exitcode for process in self._processes if process.exitcode is not None})
        how = ", ".join(f"signal {-end}" if end < 0 else f"status {end}" for end in ends)
        return OSError(
            f"a process that reads samples has died ({how}); if memory ran out, lower num_workers, or give "
            "the machine or container more, then go on with --resume"
        )

    def _watch(self) -> None:
        while not self._unwatched.wait(SAMPLE_SECONDS / 20):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > SAMPLE_SECONDS:
                self._hung = True
                for process in self._processes:
                    process.kill()  # it may hear nothing else
                return
