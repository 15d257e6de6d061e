"""For tests of the browser's page: a server whose pictures are known, and what to look for in pictures and requests."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.streaming.handover import Job
from mmlphuman.streaming.messages import (
    CameraEntry,
    PathAnswer,
    PathQuestion,
    PointAnswer,
    PointQuestion,
    PoseAnswer,
    PoseQuestion,
    RenderRequest,
    Welcome,
)
from mmlphuman.streaming.server import ViewerServer
from tests.streaming.browser import Browser, wait_for
from tests.waiting import wait_until_still

RED, BLUE, GREEN, GREY = (200, 40, 40), (40, 40, 200), (40, 160, 60), (90, 90, 90)
JPEG_ERROR = 6  # levels of 256
MIDDLE, LEFT, RIGHT = (400, 300), (200, 300), (700, 300)  # of the window, on the picture
WINDOW = (1280, 720)
AT_REST = 0.6  # seconds without a request; MOVING_MS of viewer.js after the last movement comes the last one
POINT = (0.3, 1.2, -0.1)  # where the surface is


def training_camera(angle: float, distance: float) -> CameraView:
    """Not level, and not quite towards the centre."""
    c, s = np.cos(angle), np.sin(angle)
    w2c = np.eye(4)
    w2c[:3, :3] = cv2.Rodrigues(np.array([0.1, 0.0, 0.2]))[0] @ [[c, 0, -s], [0, -1, 0], [-s, 0, -c]]
    w2c[:3, 3] = 0.1, 0.9, distance
    return CameraView(w2c, 38.5, 300, 400)


WELCOME = Welcome(
    title="a test",
    gaussians=1234,
    training=False,
    cameras=tuple(CameraEntry(id, training_camera(id / 3, 3 + id / 10), id != 7) for id in (2, 5, 7)),
    frames=tuple(range(100, 140)),
    center=(0.1, 1.0, 0.05),
    floor=-1000.0,  # so far below that the grid crosses no pixel that is looked at
    light=True,
)


class Painter(threading.Thread):
    """Answers with red on the left and blue on the right, or green all over unless colours are asked for."""

    def __init__(self, server: ViewerServer):
        super().__init__(daemon=True)
        self.server, self.requests, self.questions = server, [], []
        self.seconds = 0.0  # that a picture takes

    def run(self):
        while (job := self.server.next_request(None)) is not None:
            request = job.request
            time.sleep(self.seconds)
            if not isinstance(request, RenderRequest):
                self.answer(job)
                continue
            image = np.full((request.camera.height, request.camera.width, 3), GREEN, np.uint8)
            if request.show == "color":
                image[:] = RED
                image[:, image.shape[1] // 2 :] = BLUE
            self.requests.append(request)
            if request.show == "anchors":
                self.server.problem(job, "no anchors here")
            else:
                self.server.deliver(job, image, 4321, 1234, 12.5, 3.5)

    def answer(self, job: Job) -> None:
        """A question, which is kept apart: a point where it is asked in the left half, a path that stays at its first
        key, the given pose itself, a photograph all grey."""
        request = job.request
        self.questions.append(request)
        if isinstance(request, PointQuestion):
            hit = request.column < request.camera.width // 2
            self.server.reply(job, PointAnswer(request.id, POINT if hit else None))
        elif isinstance(request, PathQuestion):
            self.server.reply(job, PathAnswer(request.id, request.keys[:1] * request.count))
        elif isinstance(request, PoseQuestion):
            self.server.reply(job, PoseAnswer(request.id, request.pose))
        else:
            size = (request.camera.height, request.camera.width, 3)
            self.server.deliver(job, np.full(size, GREY, np.uint8), 0, 0, 0.0, 0.0)

    @property
    def last(self):
        return self.requests[-1]


@contextmanager
def serving(welcome: Welcome = WELCOME, **options):
    with ViewerServer(welcome, **({"port": 0} | options)) as server:
        server.painter = Painter(server)
        server.painter.start()
        yield server


def painted(browser: Browser, x: int, y: int, color: tuple[int, int, int]) -> bool:
    """Whether a window's pixel has this colour."""
    return bool(np.abs(browser.pixel(x, y).astype(int) - color).max() <= JPEG_ERROR)


def after(painter: Painter, act) -> RenderRequest:
    """The first request that differs from the one before `act`."""
    before = replace(painter.last, id=0)
    begun = len(painter.requests)
    act()

    def changed():
        later = painter.requests[begun:]
        return [request for request in later if not same(replace(request, id=0), before)]

    return wait_for(changed)[0]


def settled(painter: Painter, act) -> RenderRequest:
    """The last request once `act` has had all its effect, the whole picture after smaller ones included."""
    after(painter, act)
    wait_until_still(lambda: len(painter.requests), pause=AT_REST)
    return painter.last


def same(first, second) -> bool:
    return repr(first) == repr(second)
