"""Ends this process soon after another process (rank) of the run is gone, where the main thread cannot notice.

A GPU waits within NCCL for a peer that is gone, and the main thread within C for that GPU: no exception reaches it.
The ranks therefore stand in a ring, by gloo connections of their own, and a thread of each waits for one word from the
rank before it: that the run is over, or that someone is lost. A connection that breaks says the latter too. The thread
passes that on at once, so that all know within milliseconds, and each ends its own process when its grace is over.
A killed process's connections break when its reading workers, which hold them too, have ended: some 5 s later.
Not noticed: a whole host that is gone without breaking its connections; NCCL's and gloo's own timeouts end that.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from mmlphuman.command import leave_at_once

LOST = "another process of this run has ended or does not answer; if it was killed, start again with --resume"
# For the main thread of each: rank 0 may be writing a checkpoint, which takes seconds on a local disk (one that takes
# longer is lost, the one before it is not); and one that notices the loss by itself, or has failed at the same time by
# itself, ends in better order and says it better.
GRACE_SECONDS = 10.0
MEETING = timedelta(minutes=1)  # for the ring to be made: all are there already
WHOLE_RUN = timedelta(days=365)  # no run is longer

_OVER, _LOST = 0, 1  # the words


class LostRankWatch:
    """One for each rank, made by all together once torch.distributed is there.

    says: whether this process prints the line. If one that would is itself the lost one, nobody on its host does.
    """

    def __init__(self, rank: int, world: int, says: bool):
        self._before, self._next, self._says = (rank - 1) % world, (rank + 1) % world, says
        self._ends_by_itself = threading.Event()
        self._connections = dist.new_group(backend="gloo", timeout=MEETING)
        self._thread = threading.Thread(target=self._watch, name="lost ranks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The run is over, for all: to be called by all together, before torch.distributed goes."""
        dist.send(torch.tensor(_OVER), self._next, self._connections)
        self._thread.join()

    def leave_it_to_the_main_thread(self) -> None:
        """It is about to end this process with an error."""
        self._ends_by_itself.set()

    def _watch(self) -> None:
        word = torch.tensor(_LOST)
        with suppress(RuntimeError):  # the connection broke; PyTorch tells of it in pages
            dist.irecv(word, self._before, self._connections).wait(WHOLE_RUN)
        if word == _OVER:
            return
        with suppress(RuntimeError):  # the next one may be the lost one
            passed_on = dist.isend(word, self._next, self._connections)  # noqa: F841  kept while it travels
        if self._ends_by_itself.wait(GRACE_SECONDS):
            return
        try:
            if self._says:
                print(f"\nerror: {LOST}", file=sys.stderr, flush=True)  # not in the row of a progress bar
        finally:
            leave_at_once()
