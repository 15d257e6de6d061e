"""All that happens on the server's event loop: who is let in, what they ask, what they are told.

Data path: bytes of a socket -> Connection (a websocket) -> hello -> ConnectedViewer; its requests -> JobQueue; encoded
answers and the LatestState -> its link.

Connection sets the limits that websockets leaves open; a message to a ConnectedViewer is known to have arrived. Each
has three tasks: one keeps its newest message, one understands it, one tells the news. Each answer that is encoded and
sent is a task more, of which JobQueue allows few. They end with the connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from mmlphuman.streaming import messages
from mmlphuman.streaming.access import WebPage, WrongToken, check_hello
from mmlphuman.streaming.handover import Job, JobQueue, LatestState
from mmlphuman.streaming.messages import Hello, LossCurve, Problem, Refused, State, Welcome
from mmlphuman.streaming.protocol import ProtocolError, decode_client, decode_server, encode

MAX_VIEWERS = 16
MAX_STRANGERS = 64  # connections that have not said a valid hello yet; for more, others of them are cut
STRANGERS_OF_ADDRESS = 16  # of these; a browser opens six
MESSAGES_PER_SECOND = 500  # of one viewer that are understood; of those that come faster only the newest
BURST_SECONDS = 0.1  # of that rate which may come at once
GUESS_SECONDS = 0.5  # before a wrong token is refused
ALIVE_SECONDS = 20.0  # of silence, then a viewer is asked whether it is still there
FRAMES_PER_SECOND = 4000  # websocket frames that a client may send, its pongs among them; more is a flood
READ_SLICE = 4096  # bytes looked at before counting again
UNREAD_ANSWERS = 65_536  # bytes of pongs and the like that may pile up unread beside our own message
CLOSE_SECONDS = 2.0  # for a client to take its goodbye
STALL_SECONDS = 10.0  # for a message to arrive...
SLOWEST_LINK = 100_000  # ...and for each so many bytes of it another second
STOP_SECONDS = 3 * CLOSE_SECONDS
ENCODERS = 2  # threads
SHOWN_NAME = 40  # characters of what a viewer calls itself, in the log

log = logging.getLogger(__name__)


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
        self.silent = True  # not a byte has come yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.silent = False
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


class ConnectedViewer:
    """A viewer that was let in. `name` is for the log: printable, whatever it called itself."""

    def __init__(self, connection: Connection, name: str, history: LossCurve):
        self.connection, self.name, self.history = connection, name, history
        self.news = asyncio.Event()  # State has changed
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


class Hub:
    """Nothing of it may be touched but on its loop, except the number of `clients`."""

    def __init__(
        self,
        welcome: Welcome,
        queue: JobQueue[ConnectedViewer],
        latest_state: LatestState,
        page: WebPage,
        token: str,
    ):
        """Raises ValueError for a Welcome that viewers would not accept."""
        self.clients: set[ConnectedViewer] = set()
        self.stopping = asyncio.Event()
        self._welcome = encode(welcome)
        try:
            decode_server(self._welcome)
        except ProtocolError as error:
            raise ValueError(f"viewers would not accept this: {error}") from error
        self._queue, self._latest_state, self._page, self._token = queue, latest_state, page, token
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, str] = {}  # and their addresses, the oldest first
        self._state: State | None = None
        self._history = LossCurve()
        self._fault_level = logging.WARNING  # of the first picture that cannot be encoded
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="viewer-encoder")

    # --- life --------------------------------------------------------------------------------------------

    async def run(self, listening: socket.socket, started: Future[asyncio.AbstractEventLoop]) -> None:
        """Serves until `stopping` is set. `started` gets the loop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        self.spread()
        server = await serve(
            self._serve_connection,
            sock=listening,
            process_request=lambda _, request: self._page.answer(request, bool(self._token)),
            server_header=None,
            compression=None,  # pictures are compressed already, and a small message may not become a large one
            open_timeout=messages.HELLO_SECONDS,
            ping_interval=None,  # ConnectedViewer.send has its own
            close_timeout=CLOSE_SECONDS,
            max_size=messages.MAX_REQUEST_BYTES,
            logger=QuietLogger(log, {}),
            # Declared as a class, but only called.
            create_connection=partial(  # pyright: ignore[reportArgumentType]
                Connection, on_made=self._arrived, on_lost=self._lost
            ),
        )
        started.set_result(loop)
        await self.stopping.wait()
        server.close(code=CloseCode.GOING_AWAY, reason="the server was stopped")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await server.wait_closed()
        except TimeoutError:  # those that take no goodbye
            for connection in self._connections:
                connection.transport.abort()
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _arrived(self, connection: Connection) -> None:
        """Who has not shown the token shares a quota with its like, in which a newcomer takes an older one's place: one
        that has said nothing, of the address that has most of them. Connections kept open lock nobody out."""
        address = _host(connection)
        self._connections.add(connection)
        self._strangers[connection] = address
        counts = Counter(self._strangers.values())
        if counts[address] <= STRANGERS_OF_ADDRESS:
            if len(self._strangers) <= MAX_STRANGERS:
                return
            address = max(counts, key=lambda each: counts[each])
        others = [stranger for stranger, host in self._strangers.items() if host == address]
        oldest = min(
            others, key=lambda stranger: not stranger.silent
        )  # the first of the silent ones, or of all
        self._strangers.pop(oldest)
        oldest.transport.abort()

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._strangers.pop(connection, None)

    # --- a connection ------------------------------------------------------------------------------------

    async def _serve_connection(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)  # see create_connection
        try:
            hello = await self._receive_hello(connection)
            if hello is not None:
                await self._serve_client(connection, hello)
        except (ConnectionClosed, ConnectionAbortedError):
            pass  # gone, or cut

    async def _receive_hello(self, connection: Connection) -> Hello | None:
        """None: refused, which has been said."""
        try:
            async with asyncio.timeout(messages.HELLO_SECONDS):
                hello = check_hello(await connection.recv(), self._token)
            if len(self.clients) < MAX_VIEWERS:
                return hello
            reason = f"{MAX_VIEWERS} viewers are connected already; close one"
        except TimeoutError:
            reason = f"no hello within {messages.HELLO_SECONDS:g} seconds"
        except ProtocolError as error:
            reason = str(error)
            if isinstance(error, WrongToken):
                await asyncio.sleep(GUESS_SECONDS)
        log.info("%s: refused: %s", _address(connection), ascii(reason))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.send(encode(Refused(reason[: messages.MAX_TEXT])))
                await connection.close(CloseCode.POLICY_VIOLATION, "refused")
        except TimeoutError:
            connection.transport.abort()
        return None

    async def _serve_client(self, connection: Connection, hello: Hello) -> None:
        name = f"{_address(connection)} {ascii(hello.client[:SHOWN_NAME])}"
        client = ConnectedViewer(connection, name, LossCurve(self._history.points))
        self._strangers.pop(connection, None)
        self.clients.add(client)
        self._queue.admit(client)
        log.info("viewer %s: connected", name)
        try:
            self._start(client, self._tell_news(client))  # first the Welcome
            self._start(client, self._understand(client))
            async for message in connection:
                client.newest = message
                client.said.set()
        finally:
            self.clients.discard(client)
            self._queue.forget(client)
            for task in client.tasks:
                task.cancel()
            log.info("viewer %s: gone", name)

    def _start(self, client: ConnectedViewer, work: Coroutine[Any, Any, None]) -> None:
        async def until_gone() -> None:
            try:
                await work
            except (ConnectionClosed, ConnectionAbortedError) as error:
                log.debug("viewer %s: %s", client.name, error)

        task = asyncio.create_task(until_gone())
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)
        task.add_done_callback(lambda _: work.close())  # where it was cancelled before it began

    # --- what a client says ------------------------------------------------------------------------------

    async def _understand(self, client: ConnectedViewer) -> None:
        clock, due = asyncio.get_running_loop().time, 0.0
        while True:
            await client.said.wait()
            client.said.clear()
            message = client.newest
            try:
                if not isinstance(message, str):
                    raise ProtocolError("a viewer's messages are text frames")
                request = decode_client(message)
                if isinstance(request, Hello):
                    raise ProtocolError("hello: was said already")
                self._queue.put(client, request)
            except ProtocolError as error:
                await client.send(problem_text(str(error), _request_id(message)))
            due = max(due, clock() - BURST_SECONDS) + 1 / MESSAGES_PER_SECOND
            await asyncio.sleep(due - clock())  # not at all if there is time left

    # --- what a client is told ---------------------------------------------------------------------------

    def start_answer(self, job: Job[ConnectedViewer], encode_answer: Callable[[], str | bytes]) -> None:
        if self._queue.expects(job):
            self._start(job.client, self._answer(job, encode_answer))

    async def _answer(self, job: Job[ConnectedViewer], encode_answer: Callable[[], str | bytes]) -> None:
        try:
            loop = asyncio.get_running_loop()
            try:
                answer = await loop.run_in_executor(self._encoders, encode_answer)
            except Exception as error:  # of OpenCV, no memory, a NaN where a number belongs
                log.log(self._fault_level, "a picture could not be encoded", exc_info=error)
                self._fault_level = logging.DEBUG
                answer = problem_text(
                    "the picture could not be encoded; the program's log says more", job.request.id
                )
            await job.client.send(answer)
        finally:
            self._queue.release(job)

    def spread(self) -> None:
        """What is new of the run's state, to all clients."""
        state, points = self._latest_state.read()
        self._state = state or self._state
        self._history.add(points)
        for client in self.clients:
            client.history.add(points)
            client.news.set()

    async def _tell_news(self, client: ConnectedViewer) -> None:
        """Welcome, then always the newest State; between them, whether the client lives.

        Messages are read all the while: what says that one arrived may come behind a viewer's many requests.
        """
        await client.send(self._welcome)
        client.news.set()
        while True:
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await client.news.wait()
            except TimeoutError:
                await client.send(None)
                continue
            client.news.clear()
            if self._state is not None:
                state = replace(self._state, history=client.history.take(), viewers=len(self.clients))
                await client.send(encode(state))


def problem_text(text: str, request_id: int | None) -> str:
    """The text frame of a Problem in one line."""
    return encode(Problem(" ".join(text.split())[: messages.MAX_TEXT], request_id))


def _request_id(message: str | bytes) -> int | None:
    """The id of a request that is wrong otherwise, so that its viewer need not wait for an answer."""
    try:
        content = json.loads(message)
        value = content.get("id") if isinstance(content, dict) else None
    except (ValueError, RecursionError):
        return None
    return value if type(value) is int and 0 <= value <= messages.MAX_ID else None


def _address(connection: Connection) -> str:
    address = connection.remote_address  # None if the connection was lost at once
    return f"{address[0]}:{address[1]}" if address else "somebody"


def _host(connection: Connection) -> str:
    """Of IPv6 the network, of which one machine may take every address."""
    address = connection.remote_address
    host = address[0] if address else ""
    return ":".join(host.split(":")[:4]) if ":" in host and "." not in host else host


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of asyncio's tracebacks: connections break, which is no news; anything else is our fault."""
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
    log.log(level, "viewer server: %s (%r)", context.get("message"), error)
