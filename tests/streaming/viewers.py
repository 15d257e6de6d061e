"""For tests of the server: a viewer that behaves, one of bare sockets, and a renderer of plain colours."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager

import numpy as np
from websockets.sync.client import ClientConnection, connect

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.streaming.messages import (
    Frame,
    Hello,
    PhotographRequest,
    PointAnswer,
    RenderRequest,
    Welcome,
)
from mmlphuman.streaming.protocol import decode_frame, decode_server, encode
from mmlphuman.streaming.server import ViewerServer

WELCOME = Welcome(title="test", gaussians=7, training=False)
WIDTH, HEIGHT = 64, 48
CAMERA = CameraView(np.eye(4), 50.0, WIDTH, HEIGHT)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def request(number: int, **more) -> RenderRequest:
    return RenderRequest(id=number, camera=CAMERA, **more)


class Renderer(threading.Thread):
    """Answers every job with a picture of one colour, its request's id, or with nothing hit; keeps the ids in the order
    of drawing."""

    def __init__(self, server: ViewerServer, seconds: float = 0.0, size: tuple[int, int] = (HEIGHT, WIDTH)):
        super().__init__(daemon=True)
        self.server, self.seconds, self.size = server, seconds, size
        self.drawn: list[int] = []
        self.longest_call = 0.0  # seconds that deliver took at most

    def run(self):
        while (job := self.server.next_request(None)) is not None:
            time.sleep(self.seconds)
            self.drawn.append(job.request.id)
            if not isinstance(job.request, RenderRequest | PhotographRequest):
                self.server.reply(job, PointAnswer(job.request.id, None))
                continue
            image = np.full((*self.size, 3), job.request.id % 256, np.uint8)
            before = time.perf_counter()
            self.server.deliver(job, image, 5, 7, 1.5, 2.5)
            self.longest_call = max(self.longest_call, time.perf_counter() - before)


@contextmanager
def serving(seconds: float = 0.0, size: tuple[int, int] = (HEIGHT, WIDTH), **options):
    """A started server on any free port with a Renderer."""
    with ViewerServer(WELCOME, port=0, **options) as server:
        server.renderer = Renderer(server, seconds, size)
        server.renderer.start()
        yield server


def connected(server: ViewerServer, **options) -> ClientConnection:
    address = f"ws://127.0.0.1:{server.port}/"
    return connect(
        address, max_size=None, compression=None, proxy=None, close_timeout=1, **options
    ).__enter__()


def viewer(server: ViewerServer, hello: Hello | None = None) -> ClientConnection:
    """One that was let in; its Welcome has been read."""
    connection = connected(server)
    connection.send(encode(hello or Hello(token=server.token)))
    assert isinstance(decode_server(connection.recv(5)), Welcome)
    return connection


def next_frame(connection: ClientConnection, timeout: float = 5) -> Frame:
    """The next picture; what comes between is left out."""
    while isinstance(message := connection.recv(timeout), str):
        pass
    return decode_frame(message)


def next_message(connection: ClientConnection, kind: type, timeout: float = 5):
    """The next control message of `kind`."""
    end = time.monotonic() + timeout
    while True:
        message = connection.recv(max(0, end - time.monotonic()))
        if isinstance(message, str) and isinstance(read := decode_server(message), kind):
            return read


class GoodViewer(threading.Thread):
    """Asks for one picture after the other, at most `rate` a second, until `leave`; notes when each came."""

    def __init__(self, server: ViewerServer, rate: float = 50):
        super().__init__(daemon=True)
        self.connection, self.rate = viewer(server), rate
        self.times: list[float] = []
        self.error: Exception | None = None
        self._leaving = threading.Event()

    def run(self):
        number = 0
        try:
            while not self._leaving.wait(1 / self.rate):
                number += 1
                self.connection.send(encode(request(number)))
                assert next_frame(self.connection, 20).id == number
                self.times.append(time.monotonic())
            self.connection.close()
        except Exception as error:
            self.error = error

    def leave(self) -> None:
        self._leaving.set()
        self.join(30)
        assert self.error is None, repr(self.error)

    def rate_between(self, begin: float, end: float) -> float:
        return sum(begin <= moment < end for moment in self.times) / (end - begin)

    def longest_gap(self) -> float:
        return float(np.diff(self.times).max())


class BareSocket:
    """TCP, with a websocket's handshake and frames written by hand, rightly or wrongly."""

    def __init__(self, port: int, timeout: float = 5):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, headers: dict[str, str] | None = None, line: str = "GET / HTTP/1.1") -> bytes:
        """A request with these headers beside Host; the whole answer."""
        headers = {"Host": f"127.0.0.1:{self.port}"} | (headers or {})
        lines = [line, *(f"{key}: {value}" for key, value in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode())
        return self.until(b"\r\n\r\n") if "Upgrade" in headers else self.rest()

    def upgrade(self, **headers: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        standard = {
            "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
        }  # fmt: skip
        return self.request(standard | headers)

    def frame(self, opcode: int, payload: bytes = b"", **wrong) -> None:
        self.send(frame_bytes(opcode, payload, **wrong))

    def let_in(self, token: str = "") -> None:
        """The whole way to the Welcome, which is acknowledged as the server wants it."""
        self.upgrade()
        self.frame(TEXT, encode(Hello(token=token)).encode())
        data = b""
        while b'"welcome"' not in data or (at := data.find(b"\x89")) < 0 or len(data) < at + 2 + data[at + 1]:
            data += self.some()
        self.frame(PONG, data[at + 2 : at + 2 + data[at + 1]])

    def some(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed")
        return data

    def until(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            data += self.some()
        return data

    def rest(self) -> bytes:
        """Everything until the server closes; b"" if it cut the connection."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data

    def close(self) -> None:
        self.socket.close()

    def cut(self) -> None:
        """Without goodbye: the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def frame_bytes(
    opcode: int, payload: bytes = b"", first: int = 0x80, masked: bool = True, length: int | None = None
) -> bytes:
    """One frame of a websocket; `first` holds the bits FIN and RSV, `length` is what the header claims."""
    length = len(payload) if length is None else length
    mask = os.urandom(4) if masked else b""
    flag = 0x80 if masked else 0
    if length < 126:
        header = struct.pack("!BB", first | opcode, flag | length)
    elif length < 1 << 16:
        header = struct.pack("!BBH", first | opcode, flag | 126, length)
    else:
        header = struct.pack("!BBQ", first | opcode, flag | 127, length)
    if masked:
        repeated = np.resize(np.frombuffer(mask, np.uint8), len(payload))
        payload = (np.frombuffer(payload, np.uint8) ^ repeated).tobytes()
    return header + mask + payload


def wait_until(condition, seconds: float = 5) -> bool:
    """Whether `condition()` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
