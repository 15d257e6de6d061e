"""TensorBoard's event files, written at once and in this thread.

Data path: Monitor -> EventLog -> MODEL/events.out.tfevents.* -> tensorboard.
TensorBoard's own writer has a thread of its own, in which a full disk ends with a traceback; here it is an OSError
of the call that met it.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

FLUSH_SECONDS = 10.0  # what a killed run may lose of its log


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
