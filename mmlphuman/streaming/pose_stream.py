"""Poses, not pictures: a websocket that sends the newest pose to pages that draw the avatar themselves (export.web).

Data path: whoever has poses (a file, an estimator) -> PoseStream.publish -> protocol.encode_live_pose -> every page
that was opened with ?poses=ws://HOST:PORT/. Pages send nothing.

A stream for this machine needs no token and is given to pages of this machine's servers only; one for others needs the
token as the address's path.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.streaming.access import choose_token, is_this_machine, listen
from mmlphuman.streaming.messages import DEFAULT_HOST, LivePose
from mmlphuman.streaming.protocol import encode_live_pose

DEFAULT_POSE_PORT = 23457
WAIT_SECONDS = 0.5  # asleep at a time while no pose comes


class PoseStream:
    """A server with start and stop; what comes too fast for a page is left out."""

    def __init__(self, host: str = DEFAULT_HOST, port: int = DEFAULT_POSE_PORT, token: str | None = None):
        """port 0: any that is free. Raises ValueError, one line, where it cannot be listened at."""
        self.host, self.token = host, choose_token(host, token)
        socket = listen(host, port)
        self.port = socket.getsockname()[1]
        self._newest: tuple[int, bytes] = (0, b"")  # how many there were, and the last
        self._changed = threading.Condition()
        self._stopped = False
        self._server = serve(
            self._send, sock=socket, process_request=self._refuse, compression=None, max_size=1024
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="poses", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What a page takes as its ?poses=."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{name}:{self.port}/{quote(self.token, safe='')}"

    def publish(self, pose: LivePose) -> None:
        """For all pages, and for those that come later. ProtocolError (a ValueError) for numbers that are no pose."""
        data = encode_live_pose(pose)
        with self._changed:
            self._newest = self._newest[0] + 1, data
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()

    def __enter__(self) -> PoseStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        given = unquote(request.path.partition("?")[0].removeprefix("/"))
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "the token is wrong; it ends the stream's address\n"
            )
        origins = request.headers.get_all("Origin")
        if not self.token and not all(is_this_machine(urlsplit(origin).hostname or "") for origin in origins):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "without a token only this machine's pages may watch\n"
            )
        return None

    def _send(self, connection: ServerConnection) -> None:
        sent = 0
        try:
            while not self._stopped:
                with self._changed:
                    if self._newest[0] == sent and not self._stopped:
                        self._changed.wait(WAIT_SECONDS)
                    count, data = self._newest
                if count != sent and not self._stopped:
                    connection.send(data)
                    sent = count
                elif connection.protocol.state.name != "OPEN":
                    return
        except ConnectionClosed:
            pass  # the page has gone


def play(
    sequence: PoseSequence, stream: PoseStream, wait: Callable[[float], bool], rounds: int | None = None
) -> None:
    """Publishes the frames in their time, again and again; about the pelvis (PoseSequence.about_pelvis).

    wait(seconds): sleeps, and tells whether to end. rounds: None: for ever.
    """
    number = 0
    while rounds is None or number < rounds * len(sequence):
        index = number % len(sequence)
        _, translation = sequence.placement(index)
        stream.publish(LivePose(number, sequence.poses[index], sequence.expression(index), translation))
        number += 1
        if wait(1 / sequence.playback_fps):
            return
