"""Everything that must not hurt a server: broken HTTP, hellos, websocket frames and messages, made from a seed.

`handshake(port, random)` makes one connection and breaks one thing; `messages(random)` are texts for a viewer that was
let in; `SlowLoris` are connections that never come to an end.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading

import numpy as np

from mmlphuman.streaming.messages import (
    MAX_REQUEST_BYTES,
    Hello,
    PathQuestion,
    PhotographRequest,
    PointQuestion,
    PoseQuestion,
    PoseRequest,
    RenderRequest,
)
from mmlphuman.streaming.protocol import encode
from tests.streaming.viewers import (
    BINARY,
    CAMERA,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    BareSocket,
    frame_bytes,
)

POSE = PoseRequest("given", 0, np.zeros(165), np.zeros(10), np.zeros(3), np.eye(3))
REQUEST = json.loads(encode(RenderRequest(1, CAMERA, POSE)))
QUESTIONS = [
    json.loads(encode(question))
    for question in (
        PhotographRequest(1, CAMERA, 0, 0),
        PointQuestion(1, CAMERA, 0, 0, POSE),
        PathQuestion(1, (CAMERA,), 10),
        PoseQuestion(1, POSE),
    )
]
HELLO = json.loads(encode(Hello(token="wrong")))
VALUES = [
    None, True, -1, 0.5, 10**300, 2**63, 1e308, "", "x" * 3000, "\x00", "\ud800", "__class__", "../../etc/passwd",
    [], {}, [[]], [None] * 200, [0] * 4800, {"a": {"b": {}}}, float("nan"), float("inf"),
    [float("nan")] * 16, [1e308] * 16,
]  # fmt: skip
DEEP = ("[" * 400 + "]" * 400, "[" * 8000, '{"a":' * 900 + "1" + "}" * 900, "[" * 600 + "]" * 600)


# --- messages --------------------------------------------------------------------------------------------


def spoil(content: dict, rng: random.Random) -> dict:
    """A copy with one field, anywhere, missing, doubled in name, or of another value."""
    copy = json.loads(json.dumps(content))
    inner = copy
    while True:
        key = rng.choice(list(inner))
        if not isinstance(inner[key], dict) or rng.random() < 0.3:
            break
        inner = inner[key]
    how = rng.randrange(6)
    if how == 0:
        del inner[key]
    elif how == 1:
        inner[f"{key} "] = inner[key]
    elif how == 2 and isinstance(inner[key], list):
        inner[key][rng.randrange(len(inner[key]))] = rng.choice(VALUES)
    else:
        inner[key] = rng.choice(VALUES)
    return copy


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes turned, cut off, put in or repeated."""
    data = bytearray(data)
    at = rng.randrange(len(data))
    how = rng.randrange(4)
    if how == 0:
        data[at] = rng.randrange(256)
    elif how == 1:
        del data[at:]
    elif how == 2:
        data[at:at] = rng.choice(
            [b"NaN", b"-Infinity", b"1e999", b'"', b"{", b"\\", b"\x00", b"\xff\xfe", b"\r\n"]
        )
    else:
        data[at:at] = data[at : at + 100]
    return bytes(data)


def message(rng: random.Random, content: dict | None = None) -> str | bytes:
    """One that a viewer should not send; now and then it is right after all. content: spoiled, or a viewer's own."""
    content = content or rng.choice([REQUEST, REQUEST, *QUESTIONS])
    how = rng.randrange(10)
    if how < 5:
        return json.dumps(spoil(content, rng))
    if how == 5:
        return damage(json.dumps(content).encode(), rng).decode(errors="replace")[: MAX_REQUEST_BYTES // 4]
    if how == 6:
        key = rng.choice(list(content))
        return json.dumps(content | {key: "HERE"}).replace('"HERE"', rng.choice(DEEP))
    if how == 7:
        return rng.randbytes(rng.randrange(2000))
    if how == 8:
        return rng.randbytes(rng.randrange(500)).decode("latin-1")
    return rng.choice(["", "null", "[]", "{}", "0", '"', "{" * 50, '{"type":"render"}', '{"type":["render"]}',
                       '{"type":"welcome"}', '{"id":' + "9" * 5000 + "}"])  # fmt: skip


# --- handshakes ------------------------------------------------------------------------------------------


def handshake(port: int, rng: random.Random) -> None:
    """One connection with one thing wrong. Waits for the server's answer or its end about every second time."""
    attack = rng.choice([broken_http, broken_upgrade, broken_hello, broken_frames, half_open])
    try:
        with BareSocket(port, timeout=10) as bare:
            attack(bare, rng)
            if rng.random() < 0.5:
                bare.socket.shutdown(socket.SHUT_WR)
                bare.rest()
            elif rng.random() < 0.2:
                bare.cut()
    except OSError:
        pass  # the server has cut it off, as it may


def broken_http(bare: BareSocket, rng: random.Random) -> None:
    good = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{bare.port}\r\n\r\n".encode()
    bare.send(
        rng.choice([
            lambda: damage(good, rng),
            lambda: rng.randbytes(rng.randrange(3000)),
            lambda: b"GET /" + b"a" * rng.choice([8000, 9000, 100_000]) + b" HTTP/1.1\r\n\r\n",
            lambda: good[:-2] + b"A: b\r\n" * rng.choice([100, 1000]) + b"\r\n",
            lambda: good[:-2] + b"A: " + b"b" * 20_000 + b"\r\n\r\n",
            lambda: good[:-2] + b"Content-Length: 99999999999\r\n\r\n" + bytes(1000),
            lambda: good[:-2] + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),  # TLS
            lambda: good.replace(b"/ ", rng.choice([b"/../../etc/passwd ", b"/%00 ", b"//x ", b"\xff "])),
            lambda: good.replace(b"GET", rng.choice([b"POST", b"HEAD", b"TRACE", b"", b"\x00"])),
            lambda: good * 50,
            lambda: b"\r\n" * 2000,
        ])()
    )  # fmt: skip


def broken_upgrade(bare: BareSocket, rng: random.Random) -> None:
    name = rng.choice(["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Host", "Origin",
                       "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"])  # fmt: skip
    value = rng.choice(["", "x", "\xe9" * 5, "A" * 5000, "websocket, h2c", "99", ";;;===,,,", "http://evil.example",
                        "permessage-deflate; client_max_window_bits=99"])  # fmt: skip
    bare.upgrade(**{name: value})


def broken_hello(bare: BareSocket, rng: random.Random) -> None:
    bare.upgrade()
    text = message(rng, HELLO)
    text = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    bare.frame(rng.choice([TEXT, TEXT, TEXT, BINARY]), text)


def broken_frames(bare: BareSocket, rng: random.Random) -> None:
    """A websocket, let in or not, whose frames break RFC 6455, or bend it as far as it goes."""
    bare.let_in() if rng.random() < 0.5 else bare.upgrade()
    text = json.dumps(REQUEST).encode()
    for _ in range(rng.randint(1, 3)):
        bare.send(
            rng.choice([
                lambda: frame_bytes(rng.choice([3, 4, 7, 11, 15]), text),
                lambda: frame_bytes(TEXT, text, first=0x80 | rng.choice([0x10, 0x20, 0x40])),
                lambda: frame_bytes(TEXT, text, masked=False),
                lambda: frame_bytes(TEXT, text, length=rng.choice([MAX_REQUEST_BYTES + 1, 2**31, 2**63, 2**64 - 1])),
                lambda: frame_bytes(TEXT, bytes(MAX_REQUEST_BYTES + 1)),
                lambda: frame_bytes(PING, bytes(126)),
                lambda: frame_bytes(PING, b"a", first=0),
                lambda: frame_bytes(PING, b"a" * 100) * 50,
                lambda: frame_bytes(PONG, rng.randbytes(4)) * 10,
                lambda: frame_bytes(TEXT, b"\xff\xfe\xc3"),
                lambda: frame_bytes(TEXT, text, first=0) + frame_bytes(CONTINUATION, b"\xc3"),
                lambda: frame_bytes(TEXT, text, first=0) * 2,
                lambda: frame_bytes(CONTINUATION, text),
                lambda: frame_bytes(TEXT, b"", first=0) + frame_bytes(CONTINUATION, b"", first=0) * 500,
                lambda: frame_bytes(TEXT, b"a" * 8000, first=0) + frame_bytes(CONTINUATION, b"b" * 9000, first=0),
                lambda: frame_bytes(TEXT, text[:9], first=0) + frame_bytes(PING) + frame_bytes(CONTINUATION, text[9:]),
                lambda: frame_bytes(CLOSE, rng.choice([b"", b"\x03", b"\x00\x01", b"\x03\xe8\xff", bytes(130)])),
                lambda: frame_bytes(CLOSE, b"\x03\xe8") + frame_bytes(TEXT, text),
                lambda: frame_bytes(TEXT, text)[: rng.randrange(2, 200)],
                lambda: rng.randbytes(rng.randrange(1, 3000)),
            ])()
        )  # fmt: skip


def half_open(bare: BareSocket, rng: random.Random) -> None:
    """Left at some step of the way in, with something on its way."""
    if rng.random() < 0.3:
        return
    bare.upgrade() if rng.random() < 0.5 else bare.let_in()
    bare.send(frame_bytes(TEXT, json.dumps(REQUEST).encode())[: rng.randrange(1, 3000)])
    bare.cut()
    raise OSError("cut")


class SlowLoris(threading.Thread):
    """Some connections that send a byte now and then, as long as it goes on; cut ones are replaced."""

    def __init__(self, port: int, count: int, pause: float = 0.2):
        super().__init__(daemon=True)
        self.port, self.pause = port, pause
        self.sockets: list[BareSocket | None] = [None] * count
        self.opened = 0
        self._leaving = threading.Event()

    def run(self):
        while not self._leaving.wait(self.pause):
            for i, bare in enumerate(self.sockets):
                try:
                    if bare is None:
                        self.sockets[i] = bare = BareSocket(self.port)
                        self.opened += 1
                        if i % 2:  # one of two is slow after the handshake
                            bare.upgrade()
                            bare.send(frame_bytes(TEXT, b"", length=1000))
                    bare.send(os.urandom(1) if i % 2 else b"G")
                except OSError:
                    if bare is not None:
                        bare.close()
                    self.sockets[i] = None

    def leave(self) -> None:
        self._leaving.set()
        self.join()
        for bare in self.sockets:
            if bare is not None:
                bare.close()
