"""Being asked to stop: by a scheduler (SIGTERM, SIGUSR1) or by a person (Ctrl-C).

Data path: signal -> Preemption.asked_by -> loop: finishes its step, saves, ends -> train.py: exit status 75.
A signal raises nothing, so that it never falls into the middle of a step or of a checkpoint's write.
"""

from __future__ import annotations

import os
import signal
import sys
import time

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: not done, come again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# A terminal and a launcher may both pass on the same Ctrl-C; a person takes longer than that for the next.
SAME_INTERRUPT_SECONDS = 0.5


class Preemption:
    """Notes a request to stop while the block lasts. Ctrl-C a second time raises KeyboardInterrupt, at once.

    To be entered in the main thread. Not entered, it is a run that nobody asks to stop.
    """

    def __init__(self):
        self.asked_by: str | None = None  # the first signal's name
        self._interrupted: float | None = None  # when the first Ctrl-C came

    def __enter__(self) -> Preemption:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        """Once it was asked to, the process is about to end: no further signal changes its exit status."""
        for number, handler in self._before.items():
            signal.signal(number, handler if self.asked_by is None else signal.SIG_IGN)

    def _note(self, number: int, frame) -> None:
        first = self.asked_by is None
        self.asked_by = self.asked_by or signal.Signals(number).name
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            if first:  # not `print`: the signal may have come in the middle of one
                os.write(sys.stderr.fileno(), b"\nstopping after this step; Ctrl-C again quits at once\n")
        elif now - self._interrupted > SAME_INTERRUPT_SECONDS:
            raise KeyboardInterrupt
