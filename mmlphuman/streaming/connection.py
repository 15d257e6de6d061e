"""One viewer's connection: limits that websockets leaves open, and messages that are known to have arrived.

Data path: bytes of a socket -> Connection (a websocket) -> Client, which the server holds for whom it let in.

All of this lives on the server's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection

from mmlphuman.streaming.loss_curve import LossCurve

FRAMES_PER_SECOND = 4000  # websocket frames that a client may send, its pongs among them; more is a flood
READ_SLICE = 4096  # bytes looked at before counting again
UNREAD_ANSWERS = 65_536  # bytes of pongs and the like that may pile up unread beside our own message
CLOSE_SECONDS = 2.0  # for a client to take its goodbye
STALL_SECONDS = 10.0  # for a message to arrive...
SLOWEST_LINK = 100_000  # ...and for each so many bytes of it another second


class QuietLogger(logging.LoggerAdapter):
    """What websockets reports, as debug lines of one line: garbage from outside is no news and has no traceback."""

    def isEnabledFor(self, level: int) -> bool:  # at DEBUG it would write every frame
        return level > logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        if self.isEnabledFor(level):
            self.logger.debug(msg, *args)


class Connection(ServerConnection):
    """A websocket whose other side can make neither work nor memory grow without end.

    on_made, on_lost: told of every TCP connection, before anything is known about it.
    """

    def __init__(
        self,
        *args: Any,
        on_made: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._on_made, self._on_lost = on_made, on_lost
        self.unread_limit = UNREAD_ANSWERS
        self._frames_left, self._counted = float(FRAMES_PER_SECOND), self.loop.time()
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), READ_SLICE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + READ_SLICE])
            # Pings are answered without asking; who sends them and reads no answer would fill our memory.
            if self.transport.get_write_buffer_size() > self.unread_limit:
                self.transport.abort()
        if not self._ending and self.protocol.close_expected():
            self._ending = True  # an end that the other side may never complete
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def send_data(self) -> None:
        """In one piece, and not to somebody who has gone: asyncio would complain in the log of every piece."""
        pieces = self.protocol.data_to_send()
        if self.transport.is_closing():
            return
        if data := b"".join(pieces):
            self.transport.write(data)
        if b"" in pieces:  # the protocol's sign for the end
            self.transport.write_eof()

    def process_event(self, event: Any) -> None:
        now = self.loop.time()
        earned = FRAMES_PER_SECOND * (now - self._counted)
        self._frames_left, self._counted = min(FRAMES_PER_SECOND, self._frames_left + earned) - 1, now
        if self._frames_left < 0:
            self.transport.abort()
        super().process_event(event)


class Client:
    """A viewer that was let in. `name` is for the log: printable, whatever it called itself."""

    def __init__(self, connection: Connection, name: str, history: LossCurve):
        self.connection, self.name, self.history = connection, name, history
        self.news = asyncio.Event()  # State or Welcome has changed
        self.wants_welcome = True
        self.said = asyncio.Event()  # newest message has changed
        self.newest: str | bytes = ""
        self.tasks: set[asyncio.Task] = set()
        self._link = asyncio.Lock()
        self._sent = 0

    async def send(self, message: str | bytes | None) -> None:
        """Sends one message after those before it; returns when it has arrived. None: asks whether the viewer lives.

        A ping follows the message on the link, so its pong tells that all of the message is there, however many
        buffers lie between: the next picture is not sent into a queue, and a slow link is one picture behind.
        ConnectionAbortedError, and the connection is cut, if that takes longer than any usable link would.
        """
        async with self._link:
            size = len(message or b"")
            self.connection.unread_limit = UNREAD_ANSWERS + 4 * size  # bytes of a character, at most
            try:
                async with asyncio.timeout(STALL_SECONDS + size / SLOWEST_LINK):
                    if message is not None:
                        await self.connection.send(message)
                    self._sent += 1
                    # websockets' own choice of data would draw from the random numbers of a training run
                    arrived = await self.connection.ping(str(self._sent))
                    await arrived
            except TimeoutError:
                self.connection.transport.abort()
                raise ConnectionAbortedError(f"{self.name} has taken no message for too long") from None
            self.connection.unread_limit = UNREAD_ANSWERS
