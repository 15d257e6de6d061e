"""Servers and scenes for the viewer's tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from websockets.sync.server import ServerConnection, serve

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.streaming.messages import CameraEntry, RenderRequest, Welcome
from mmlphuman.streaming.server import ViewerServer

RED, GREEN, BLUE = (220, 40, 40), (40, 200, 60), (40, 60, 220)
CENTER = (0.2, 1.0, -0.3)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> object:
    """What `condition` returns as soon as it is true; an assertion fails if it never is."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
    return result


def looking_at(center, position, width=300, height=400, fovx=40.0, roll=0.0) -> CameraView:
    """A camera at `position` that looks at `center`, y up, turned about its line of sight by `roll` radians."""
    forward = np.subtract(center, position) / np.linalg.norm(np.subtract(center, position))
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    cos, sin = np.cos(roll), np.sin(roll)
    w2c = np.eye(4)
    w2c[:3, :3] = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ rotation
    w2c[:3, 3] = -w2c[:3, :3] @ np.asarray(position, float)
    return CameraView(w2c, fovx, width, height)


def a_welcome(**changes) -> Welcome:
    """Three cameras, of which the last does not look at the centre; twelve training frames."""
    cameras = (
        looking_at(CENTER, (0.2, 1.2, 2.7)),
        looking_at(CENTER, (2.4, 1.5, 1.0), fovx=35.0),
        looking_at((0.6, 1.4, 0.1), (-2.0, 0.7, 1.5), fovx=50.0, roll=0.3),
    )
    fields = {
        "title": "test/model",
        "gaussians": 1234,
        "training": False,
        "cameras": tuple(CameraEntry(10 + number, camera) for number, camera in enumerate(cameras)),
        "frames": tuple(range(100, 160, 5)),
        "center": CENTER,
    }
    return Welcome(**{**fields, **changes})


def paint(request: RenderRequest) -> np.ndarray:
    """(H, W, 3) uint8: red and green above, blue and the request's background below."""
    width, height = request.camera.width, request.camera.height
    image = np.empty((height, width, 3), np.uint8)
    above, left = slice(None, height // 2), slice(None, width // 2)
    below, right = slice(height // 2, None), slice(width // 2, None)
    image[above, left], image[above, right], image[below, left] = RED, GREEN, BLUE
    image[below, right] = np.rint(np.multiply(request.background, 255))
    return image


class PaintingServer:
    """The real server, with a thread that answers by `paint`; keeps every request it was asked to draw."""

    def __init__(self, welcome: Welcome, port: int = 0, token: str | None = None):
        self.server = ViewerServer(welcome, port=port, token=token)
        self.requests: list[RenderRequest] = []
        self.seconds = 0.0  # that a picture takes
        self._painting = True
        self._painter = threading.Thread(target=self._paint, daemon=True)

    @property
    def last(self) -> RenderRequest:
        return self.requests[-1]

    def __enter__(self) -> PaintingServer:
        self.server.start()
        self._painter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._painting = False
        self.server.stop()
        self._painter.join(5)

    def _paint(self) -> None:
        while self._painting:
            job = self.server.next_request(timeout=0.1)
            if job is not None:
                self.requests.append(job.request)
                time.sleep(self.seconds)
                self.server.deliver(job, paint(job.request), 7, 1234, 3.5, 2.0)


@contextmanager
def scripted_server(script: Callable[[ServerConnection], None]) -> Iterator[int]:
    """A websocket server that does what `script` says to every connection -> its port."""
    with serve(script, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(5)
