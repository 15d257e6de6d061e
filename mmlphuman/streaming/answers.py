"""What becomes of one request: a picture, or a Problem for the viewer who asked. The program goes on either way.

Data path: Job of the server -> LiveScene -> server, which encodes and sends.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mmlphuman.streaming.messages import MAX_TEXT
from mmlphuman.streaming.scene import LiveScene

if TYPE_CHECKING:
    from mmlphuman.streaming.server import Job, ViewerServer

log = logging.getLogger(__name__)


class Answers:
    def __init__(self, server: ViewerServer, scene: LiveScene):
        self.server, self.scene = server, scene
        self._logged: set[type] = set()

    def answer(self, job: Job) -> None:
        """Draws and delivers. Nothing but KeyboardInterrupt and its like comes out of here."""
        try:
            drawn = self.scene.draw(job.request)
        except ValueError as error:  # what was asked for cannot be: one line for who asked
            self.server.problem(job, " ".join(str(error).split())[:MAX_TEXT])
        except Exception as error:  # a fault of ours, or no memory left for so large a picture
            self.log_once(error)
            self.server.problem(
                job, f"the picture could not be drawn: {type(error).__name__}; the program's log says more"
            )
        else:
            self.server.deliver(
                job, drawn.image, drawn.iteration, drawn.gaussians, drawn.distance, drawn.render_ms
            )

    def log_once(self, error: Exception) -> None:
        """The first of every kind of exception, with where it came from."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.warning("live viewer: %s; the run goes on", error, exc_info=error)
