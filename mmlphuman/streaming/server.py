"""The server that viewers connect to: requests in, pictures and progress out. No torch; draws nothing itself.

Data path: websocket -> Request -> Job -> whoever draws (training between its steps, visualize.py) -> RGB picture ->
JPEG -> websocket; or a message in the place of the picture. Shapes: H, W pixels.

Threads, and what each may touch:
- Whoever draws calls the methods of ViewerServer, from any thread. Each returns at once, except `start`, `stop` and
  `next_request`, which may wait. They hand over through handover.py, which has locks, and through
  `loop.call_soon_threadsafe`.
- The loop's thread runs all that is in hub.py, and nobody else touches that. It never waits for a lock that is held
  for long, and never encodes.
- Encoding threads get a picture and return bytes. They know nothing else. OpenCV lets others work meanwhile.

Nothing grows with time or with what a viewer does: per viewer there are at most handover.UNDER_WAY pictures, one
request that waits, one message unread, and one curve of MAX_HISTORY points.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from tqdm import tqdm

from mmlphuman.streaming.access import PAGE_FOLDER, WebPage, choose_token, listen, page_address, player_path
from mmlphuman.streaming.handover import Job, JobQueue, LatestState
from mmlphuman.streaming.hub import STOP_SECONDS, Hub, problem_text
from mmlphuman.streaming.messages import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Answer,
    Frame,
    PhotographRequest,
    RenderRequest,
    State,
    Welcome,
)
from mmlphuman.streaming.protocol import encode, encode_frame

SPARE_PORTS = 10  # after the default one, for a program that starts beside another
PNG_COMPRESSION = 1  # of 9: who asks for exactness still looks at it live


class ViewerServer:
    """Serves `welcome` and the answers of whoever draws to all viewers. A context manager; started once.

    host: 127.0.0.1 is for this machine only; for any other address viewers must know `token`, which is made if none
    is given. port: 0 takes any that is free. page: folder of the browser's page. player: files of the page that draws
    by itself (export.web), served at `player_url`. ValueError for wrong settings.
    """

    def __init__(
        self,
        welcome: Welcome,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        token: str | None = None,
        page: Path | None = None,
        player: Mapping[str, bytes] | None = None,
    ):
        self.host, self.port = host, port
        self.token = choose_token(host, token)
        self._player_path = player_path(self.token)
        files = WebPage(page or PAGE_FOLDER, player, self._player_path)
        self._queue, self._latest_state = JobQueue(), LatestState()
        self._hub = Hub(welcome, self._queue, self._latest_state, files, self.token)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What a person opens in a browser, the token included."""
        return page_address(self.host, self.port, self.token)

    @property
    def player_url(self) -> str:
        """Of the page that draws by itself, where its files are served."""
        return page_address(self.host, self.port, "").removesuffix("/") + self._player_path

    @property
    def viewers(self) -> int:
        return len(self._hub.clients)

    @property
    def busy(self) -> bool:
        """A request waits. Costs next to nothing."""
        return self._queue.busy

    def start(self) -> ViewerServer:
        """Listens from now on; `port` is then the real one. ValueError if the address cannot be had."""
        if self._loop is not None:
            raise RuntimeError("a server is started once")
        listening = listen(self.host, self.port)
        self.port = listening.getsockname()[1]
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(listening, started), name="viewer-server", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        return self

    def stop(self) -> None:
        """Says goodbye to the viewers and ends the thread, within STOP_SECONDS. At any time, and twice, if need be."""
        self._queue.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._on_loop(self._hub.stopping.set)
            thread.join(STOP_SECONDS)

    def next_request(self, timeout: float | None) -> Job | None:
        """The newest request of the viewer whose turn it is; None after `timeout` seconds (None: no end), or stopped.

        Every job must be answered, by `deliver`, `reply` or `problem`, or put back: a viewer has handover.UNDER_WAY of
        them at a time.
        """
        return self._queue.take(timeout)

    def deliver(
        self,
        job: Job,
        image: np.ndarray,
        iteration: int,
        gaussians: int,
        distance: float,
        render_ms: float,
    ) -> None:
        """The picture (or photograph) that was asked for, RGB (H, W, 3) uint8, which nobody changes any more.

        distance: degrees from the training poses. Harmless if the viewer has gone, or the job was answered before.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture is RGB (H, W, 3) uint8, not {image.dtype} {image.shape}")
        assert isinstance(job.request, RenderRequest | PhotographRequest)
        facts = (iteration, gaussians, distance, render_ms)
        self._answer(job, partial(encode_picture, job.request, image, *facts))

    def reply(self, job: Job, answer: Answer) -> None:
        """The answer to a question."""
        self._answer(job, partial(encode, answer))

    def put_back(self, job: Job) -> None:
        """The picture is drawn in part: the job comes again when the other viewers have had their turn, unless its
        viewer has gone or wants a smaller picture."""
        self._queue.put_back(job)

    def problem(self, job: Job, text: str) -> None:
        """Tells the viewer, in one line, why there is no picture."""
        self._answer(job, partial(problem_text, text, job.request.id))

    def publish(self, state: State) -> None:
        """Progress, for all viewers. `history` holds the new points only; later viewers get the whole course."""
        if self._latest_state.report(state):
            self._on_loop(self._hub.spread)

    def __enter__(self) -> ViewerServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, listening: socket.socket, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._hub.run(listening, started))
        except BaseException as error:
            if started.done():
                raise
            listening.close()
            started.set_exception(error)  # `start` waits for it

    def _answer(self, job: Job, encode: Callable[[], str | bytes]) -> None:
        if self._queue.expects(job):
            self._on_loop(self._hub.start_answer, job, encode)

    def _on_loop(self, callback: Callable[..., object], *args: object) -> None:
        if self._loop is None:
            return  # the hub reads the latest state when it starts
        with suppress(RuntimeError):  # stopped: nobody is there any more
            self._loop.call_soon_threadsafe(callback, *args)


# --- a drawn picture -> the bytes of its Frame -------------------------------------------------------------


def compress(image: np.ndarray, encoding: str, quality: int) -> bytes:
    """RGB (H, W, 3) uint8 as "jpeg" (quality 1 to 100), "png" or "raw" (RGB, row by row). ValueError if it fails."""
    if encoding == "raw":
        return image.tobytes()
    suffix, options = {
        "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]),
        "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION]),
    }[encoding]
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise ValueError(f"OpenCV could not write a picture of {image.shape} as {encoding}")
    return data.tobytes()


def encode_picture(
    request: RenderRequest | PhotographRequest,
    image: np.ndarray,
    iteration: int,
    gaussians: int,
    distance: float,
    render_ms: float,
) -> bytes:
    """The binary frame that answers `request` with `image`, RGB (H, W, 3) uint8, and what is known about it."""
    began = time.perf_counter()
    picture = compress(image, request.encoding, request.quality)
    return encode_frame(
        Frame(
            id=request.id,
            width=image.shape[1],
            height=image.shape[0],
            encoding=request.encoding,
            picture=picture,
            iteration=int(iteration),
            gaussians=int(gaussians),
            distance=float(distance),
            render_ms=float(render_ms),
            encode_ms=(time.perf_counter() - began) * 1000,
        )
    )


# --- the flags of train.py and visualize.py, and the server they ask for -----------------------------------


@dataclass(frozen=True)
class ListenAddress:
    """Where viewers find the program."""

    host: str
    port: int  # 0: any that is free
    token: str | None
    asked_for: bool  # by the user, not a default that may be given up

    def check(self) -> None:
        """Before long work: ValueError, one line, if nobody can listen there now."""
        self._first_free().close()

    def serve(self, welcome: Welcome, player: Mapping[str, bytes] | None = None) -> ViewerServer:
        """Serves from now on, and says where. player: as ViewerServer has it. ValueError, one line, if it cannot."""
        with self._first_free() as found:
            port = found.getsockname()[1]
        server = ViewerServer(welcome, self.host, port, self.token, player=player).start()
        which = "" if server.port == DEFAULT_PORT else f" --port {server.port}"
        why = f" (port {self.port} is taken)" if self.port not in (0, server.port) else ""
        announce(f"watch: {server.url} or viewer/net_viewer.py{which}{why}")
        if player is not None:
            announce(f"drawn by the browser itself: {server.player_url}")
        return server

    def _first_free(self) -> socket.socket:
        """Listens at the port, or, where nobody asked for it, at one of the next. ValueError: of the first."""
        spare = 0 if self.asked_for or self.port == 0 else SPARE_PORTS
        try:
            return listen(self.host, self.port)
        except ValueError:
            for port in range(self.port + 1, self.port + 1 + spare):
                with suppress(ValueError):
                    return listen(self.host, port)
            raise


def announce(text: str) -> None:
    """One line on stdout, on a line of its own where a progress bar is shown."""
    tqdm.write(text)
    sys.stdout.flush()


def add_viewer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ip",
        help=f"address to serve viewers at (default {DEFAULT_HOST}: this machine only; others need a token)",
    )
    parser.add_argument(
        "--port", type=int, help=f"port to serve viewers at (default {DEFAULT_PORT}; 0: any that is free)"
    )
    parser.add_argument("--token", help="word that viewers must give (made and printed where one is needed)")


def viewer_address(args: argparse.Namespace) -> ListenAddress:
    given = (args.ip, args.port, args.token)
    return ListenAddress(
        host=DEFAULT_HOST if args.ip is None else args.ip,
        port=DEFAULT_PORT if args.port is None else args.port,
        token=args.token,
        asked_for=any(value is not None for value in given),
    )
