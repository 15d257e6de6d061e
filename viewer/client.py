"""The network side of the desktop viewer: a thread that keeps one connection to the server alive.

Data path: RenderRequest -> websocket -> server; Frame -> ReceivedPicture -> the window.

The window never waits: `submit` replaces whatever request has not been sent yet, `take_picture` gives the newest
picture or None. At most two requests are under way, so a slow link lags by one picture and not by
ten. A lost connection is made anew, with growing pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from mmlphuman.streaming import messages
from mmlphuman.streaming.messages import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Frame,
    Hello,
    Problem,
    Refused,
    RenderRequest,
    ServerMessage,
    Welcome,
)
from mmlphuman.streaming.protocol import ProtocolError, decode_frame, decode_server, encode
from mmlphuman.text import one_line
from viewer.picture import decode_picture

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between attempts to connect; each is twice the one before
REFUSED_PAUSE = 10.0  # a server that said no is asked again, but not often
CONNECT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 10.0  # between pings: a dead link is noticed after at most two
KEPT_EVENTS = 1000  # messages that the window has not taken yet
MAX_OUTSTANDING = 2  # requests: one being drawn, one waiting or on its way
LOST_SECONDS = 20.0  # a request that was not answered by then no longer counts as outstanding
RATE_SECONDS = 2.0  # fps and MB/s are means over this long

# What the connection is doing.
CONNECTING, CONNECTED, WAITING, STOPPED = "connecting", "connected", "waiting", "stopped"


@dataclass(frozen=True)
class ServerAddress:
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str = ""

    @property
    def uri(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host  # IPv6
        return f"ws://{host}:{self.port}/"


@dataclass(frozen=True)
class Status:
    """The connection at one moment, in words that can be shown."""

    phase: str = STOPPED
    text: str = "not connected"
    retry_at: float = 0.0  # time.monotonic() of the next attempt, in phase WAITING
    fps: float = 0.0  # pictures a second that arrived
    megabytes: float = 0.0  # a second


@dataclass(frozen=True)
class ReceivedPicture:
    """A frame that arrived, decoded."""

    frame: Frame
    image: np.ndarray  # (H, W, 3) uint8 RGB


# --- what is under way, and how fast: times are given ----------------------------------------------------


class Rate:
    """Pictures and bytes a second, over the last RATE_SECONDS."""

    def __init__(self):
        self._arrivals: deque[tuple[float, int]] = deque()

    def add(self, now: float, size: int) -> None:
        self._arrivals.append((now, size))

    def measure(self, now: float) -> tuple[float, float]:
        """(pictures a second, megabytes a second)."""
        while self._arrivals and self._arrivals[0][0] <= now - RATE_SECONDS:
            self._arrivals.popleft()
        size = sum(size for _, size in self._arrivals)
        return len(self._arrivals) / RATE_SECONDS, size / RATE_SECONDS / 1e6


class Outstanding:
    """Requests that are on their way. An answer also settles all older ones: the server leaves out stale ones."""

    def __init__(self):
        self._sent: dict[int, float] = {}  # id -> when

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, request_id: int, now: float) -> None:
        self._sent[request_id] = now

    def settle(self, request_id: int) -> None:
        self._sent = {other: sent for other, sent in self._sent.items() if other > request_id}

    def may_send(self, now: float) -> bool:
        self._sent = {other: sent for other, sent in self._sent.items() if sent > now - LOST_SECONDS}
        return len(self._sent) < MAX_OUTSTANDING


# --- the connection --------------------------------------------------------------------------------------


class Client:
    """One connection, served by its own thread between `start` and `stop`. All methods return at once."""

    def __init__(self, address: ServerAddress):
        self.address = address
        self._lock = threading.Lock()  # guards what follows; held for assignments only
        self._status = Status()
        self._picture: ReceivedPicture | None = None
        self._events: deque[ServerMessage] = deque(maxlen=KEPT_EVENTS)
        self._request: RenderRequest | None = None  # the newest that was not sent yet
        self._outstanding = Outstanding()
        self._rate = Rate()
        self._stopping = False
        # Of the network thread's loop, set there.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None  # a request waits, or an answer made room for it
        self._restart: asyncio.Event | None = None  # reconnect at once, or stop
        self._thread = threading.Thread(target=self._run, name="viewer-network", daemon=True)

    # --- for the window ----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the connection and ends the thread."""
        self._stopping = True
        self._signal("_restart")
        if self._thread.is_alive():
            self._thread.join(timeout=CONNECT_SECONDS)

    def reconnect(self, address: ServerAddress) -> None:
        """Leaves the present connection, or the pause between two attempts, and connects to `address`."""
        self.address = address
        self._signal("_restart")

    def submit(self, request: RenderRequest) -> None:
        """Asks for a picture; replaces a request that has not been sent yet. Without a connection it is dropped."""
        with self._lock:
            if self._status.phase != CONNECTED:
                return
            self._request = request
        self._signal("_wake")

    def take_picture(self) -> ReceivedPicture | None:
        """The newest picture, if one has come since the last call."""
        with self._lock:
            picture, self._picture = self._picture, None
        return picture

    def take_events(self) -> list[ServerMessage]:
        """Welcome, Refused, State and Problem messages since the last call, in their order."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    @property
    def status(self) -> Status:
        with self._lock:
            fps, megabytes = self._rate.measure(time.monotonic())
            return replace(self._status, fps=fps, megabytes=megabytes)

    @property
    def idle(self) -> bool:
        """Nothing is asked for that has not been answered."""
        with self._lock:
            return self._request is None and not len(self._outstanding)

    # --- the network thread ------------------------------------------------------------------------------

    def _signal(self, name: str) -> None:
        loop, event = self._loop, getattr(self, name)
        if loop is not None and event is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed: nothing to wake
                loop.call_soon_threadsafe(event.set)

    def _run(self) -> None:
        asyncio.run(self._keep_connected())

    async def _keep_connected(self) -> None:
        self._wake, self._restart = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping:
            self._restart.clear()
            address = self.address
            self._set_status(CONNECTING, f"connecting to {address.host}:{address.port}")
            session = asyncio.create_task(self._session(address))
            restart = asyncio.create_task(self._restart.wait())
            await asyncio.wait((session, restart), return_when=asyncio.FIRST_COMPLETED)
            restart.cancel()
            if not session.done():
                session.cancel()
                await asyncio.wait((session,))
                pause = FIRST_PAUSE
                continue
            reason, was_welcome, was_refused = session.result()
            pause = REFUSED_PAUSE if was_refused else FIRST_PAUSE if was_welcome else pause
            self._set_status(WAITING, reason, retry_at=time.monotonic() + pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._restart.wait(), pause)
                pause = FIRST_PAUSE  # the user pressed the button
                continue
            pause = min(2 * pause, LONGEST_PAUSE)
        self._set_status(STOPPED, "not connected")

    async def _session(self, address: ServerAddress) -> tuple[str, bool, bool]:
        """One connection from beginning to end -> (why it ended, whether we were let in, whether we were refused)."""
        welcome = False
        try:
            async with connect(
                address.uri,
                max_size=messages.MAX_REPLY_BYTES,
                compression=None,  # pictures are compressed already
                proxy=None,  # tunnels and addresses are given by the user, not by the environment
                open_timeout=CONNECT_SECONDS,
                close_timeout=1,
                ping_interval=KEEP_ALIVE_SECONDS,
                ping_timeout=KEEP_ALIVE_SECONDS,
            ) as socket:
                await socket.send(encode(Hello(token=address.token, client=f"viewer on {platform.system()}")))
                first = decode_server(await _receive_text(socket))
                if isinstance(first, Refused):
                    return f"refused: {first.reason}", False, True
                if not isinstance(first, Welcome):
                    return "the server did not answer the greeting with a welcome", False, True
                if first.protocol != messages.PROTOCOL_VERSION:
                    ours = messages.PROTOCOL_VERSION
                    return f"the server speaks protocol {first.protocol}, this viewer {ours}", False, True
                welcome = True
                self._open(first)
                return await self._exchange(socket), True, False
        except asyncio.CancelledError:
            raise
        except ProtocolError as error:
            return f"no server of this project's viewers: {error}", welcome, True
        except (InvalidURI, InvalidHandshake) as error:
            return f"no viewer's server answers there: {one_line(error)}", welcome, True
        except TimeoutError:
            return f"{address.host}:{address.port} does not answer", welcome, False
        except WebSocketException as error:
            return f"connection lost: {one_line(error)}", welcome, False
        except ConnectionRefusedError:
            return f"no server listens at {address.host}:{address.port}", welcome, False
        except OSError as error:
            return f"{address.host}:{address.port}: {one_line(error)}", welcome, False
        finally:
            self._leave()

    async def _exchange(self, socket: ClientConnection) -> str:
        """Sends and receives until the connection ends -> why."""
        sending = asyncio.create_task(self._send_requests(socket))
        try:
            async for message in socket:
                reason = self._receive(message)
                if reason is not None:
                    return reason
            return f"the server has closed the connection{_because(socket)}"
        finally:
            sending.cancel()
            await asyncio.wait((sending,))

    async def _send_requests(self, socket: ClientConnection) -> None:
        # The receiving side tells that the connection has ended.
        with contextlib.suppress(WebSocketException):
            while True:
                # Not for ever: an unanswered request may have become too old meanwhile.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), 1)
                self._wake.clear()
                request = self._next_request()
                if request is not None:
                    await socket.send(encode(request))

    def _next_request(self) -> RenderRequest | None:
        now = time.monotonic()
        with self._lock:
            if self._request is None or not self._outstanding.may_send(now):
                return None
            request, self._request = self._request, None
            self._outstanding.add(request.id, now)
            return request

    def _receive(self, message: str | bytes) -> str | None:
        """Takes one message in; -> why the connection should end, if it should."""
        event = None
        if isinstance(message, bytes):
            frame = decode_frame(message)
            self._settle(frame.id, len(message))
            try:
                picture = ReceivedPicture(frame, decode_picture(frame))
            except ValueError as error:
                event = Problem(str(error), frame.id)
            else:
                with self._lock:
                    self._picture = picture
                return None
        else:
            event = decode_server(message)
            if isinstance(event, Problem) and event.id is not None:
                self._settle(event.id, 0)
        with self._lock:
            self._events.append(event)
        return f"refused: {event.reason}" if isinstance(event, Refused) else None

    def _settle(self, request_id: int, size: int) -> None:
        with self._lock:
            self._outstanding.settle(request_id)
            if size:
                self._rate.add(time.monotonic(), size)
        self._wake.set()  # there is room for the next

    def _open(self, welcome: Welcome) -> None:
        with self._lock:
            self._outstanding, self._request, self._picture = Outstanding(), None, None
            self._events.append(welcome)
        self._set_status(CONNECTED, f"connected to {welcome.title}")

    def _leave(self) -> None:
        with self._lock:
            self._outstanding, self._request = Outstanding(), None

    def _set_status(self, phase: str, text: str, retry_at: float = 0.0) -> None:
        with self._lock:
            self._status = Status(phase, text, retry_at)


async def _receive_text(socket: ClientConnection) -> str:
    message = await asyncio.wait_for(socket.recv(), CONNECT_SECONDS)
    if not isinstance(message, str):
        raise ProtocolError("it began with binary data")
    return message


def _because(socket: ClientConnection) -> str:
    return f" ({socket.close_reason})" if socket.close_reason else ""
