"""All that happens on the server's event loop: who is let in, what they ask, what they are told.

Data path: Connection -> hello -> Client; its requests -> JobQueue; encoded answers and the Bulletin -> its link.

Each client has three tasks: one keeps its newest message, one understands it, one tells the news. Each answer that
is encoded and sent is a task more, of which JobQueue allows few. They end with the connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from mmlphuman.streaming import messages
from mmlphuman.streaming.access import WrongToken, check_hello
from mmlphuman.streaming.bulletin import Bulletin
from mmlphuman.streaming.connection import CLOSE_SECONDS, Client, Connection, QuietLogger
from mmlphuman.streaming.fields import ProtocolError
from mmlphuman.streaming.http_page import WebPage
from mmlphuman.streaming.job_queue import Job, JobQueue
from mmlphuman.streaming.loss_curve import LossCurve
from mmlphuman.streaming.messages import Hello, Problem, Refused
from mmlphuman.streaming.pictures import ENCODERS
from mmlphuman.streaming.protocol import decode_client, encode

MAX_VIEWERS = 16
MAX_STRANGERS = 64  # connections that have not said a valid hello yet
MESSAGES_PER_SECOND = 500  # of one viewer that are understood; of those that come faster only the newest
BURST_SECONDS = 0.1  # of that rate which may come at once
GUESS_SECONDS = 0.5  # before a wrong token is refused
ALIVE_SECONDS = 20.0  # of silence, then a viewer is asked whether it is still there
STOP_SECONDS = 3 * CLOSE_SECONDS
SHOWN_NAME = 40  # characters of what a viewer calls itself, in the log

log = logging.getLogger(__name__)


class Hub:
    """Nothing of it may be touched but on its loop, except the number of `clients`."""

    def __init__(self, queue: JobQueue, bulletin: Bulletin, page: WebPage, token: str):
        self.clients: set[Client] = set()
        self.stopping = asyncio.Event()
        self._queue, self._bulletin, self._page, self._token = queue, bulletin, page, token
        self._connections: set[Connection] = set()
        self._greeting, self._state, self._history = "", None, LossCurve()
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
            ping_interval=None,  # Client.send has its own
            close_timeout=CLOSE_SECONDS,
            max_size=messages.MAX_REQUEST_BYTES,
            logger=QuietLogger(log, {}),
            create_connection=partial(Connection, on_made=self._arrived, on_lost=self._connections.discard),
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
        self._connections.add(connection)
        if len(self._connections) - len(self.clients) > MAX_STRANGERS:
            connection.transport.abort()

    # --- a connection ------------------------------------------------------------------------------------

    async def _serve_connection(self, connection: Connection) -> None:
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
        client = Client(connection, name, LossCurve(self._history.points))
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

    def _start(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
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

    async def _understand(self, client: Client) -> None:
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

    def start_answer(self, job: Job, encode_answer: Callable[[], str | bytes]) -> None:
        if self._queue.expects(job):
            self._start(job.client, self._answer(job, encode_answer))

    async def _answer(self, job: Job, encode_answer: Callable[[], str | bytes]) -> None:
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
        """What is new in the bulletin, to all clients."""
        news = self._bulletin.read()
        self._greeting = news.greeting or self._greeting
        self._state = news.state or self._state
        self._history.add(news.points)
        for client in self.clients:
            client.history.add(news.points)
            client.wants_welcome |= news.greeting is not None
            client.news.set()

    async def _tell_news(self, client: Client) -> None:
        """Welcome, the newest State, and Welcome again if it is another; between them, whether the client lives.

        Messages are read all the while: what says that one arrived may come behind a viewer's many requests.
        """
        client.news.set()
        while True:
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await client.news.wait()
            except TimeoutError:
                await client.send(None)
                continue
            client.news.clear()
            if client.wants_welcome:
                client.wants_welcome = False
                await client.send(self._greeting)
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


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of asyncio's tracebacks: connections break, which is no news; anything else is our fault."""
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
    log.log(level, "viewer server: %s (%r)", context.get("message"), error)
