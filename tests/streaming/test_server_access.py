"""Who may watch: hellos, tokens, and browsers with the pages they come from."""

import secrets
import socket
import time
from collections import Counter
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed

from mmlphuman.streaming import hub, messages
from mmlphuman.streaming.access import is_this_machine, refuse_headers
from mmlphuman.streaming.messages import Hello, Refused, Welcome
from mmlphuman.streaming.protocol import decode_server, encode
from mmlphuman.streaming.server import ViewerServer
from tests.streaming.viewers import (
    WELCOME,
    BareSocket,
    connected,
    next_frame,
    request,
    serving,
    viewer,
    wait_until,
)


def refusal(server, first: str | bytes) -> str:
    """Why a connection that begins with `first` is refused; that nothing else was said; and that it was closed."""
    with connected(server) as connection:
        connection.send(first)
        refused = decode_server(connection.recv(5))
        assert isinstance(refused, Refused)
        with pytest.raises(ConnectionClosed):
            connection.recv(5)
    return refused.reason


# --- handshake ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ('{"type": "hello", "protocol": 99, "tokens": ["new"]}', "version 3 of the protocol, the viewer 99; update"),
        (encode(Hello(protocol=0)), "update the viewer"),
        (encode(request(1)), "first message must be a hello"),
        (encode(Hello()).encode(), "text frame"),
        ("[[[", "JSON"),
        ('{"type": "hello"}', "protocol is missing"),
    ],
)  # fmt: skip
def test_who_does_not_say_hello_is_refused(first, words):
    with serving() as server:
        assert words in refusal(server, first)
        assert server.renderer.drawn == []


def test_who_says_nothing_is_sent_away(monkeypatch):
    monkeypatch.setattr(messages, "HELLO_SECONDS", 0.2)
    with serving() as server, connected(server) as connection:
        assert "no hello within 0.2 seconds" in decode_server(connection.recv(5)).reason
    with serving() as server, BareSocket(server.port) as silent:
        silent.send(b"GET / HTTP/1.1\r\n")
        assert silent.rest() == b""


def test_only_the_token_opens_the_door(monkeypatch):
    monkeypatch.setattr(hub, "GUESS_SECONDS", 0.05)
    token = secrets.token_urlsafe(8) + "ä"
    with serving(token=token) as server:
        for wrong in ("", token[:-1], token + "x", token.upper() + "!", "\ud800"):
            began = time.monotonic()
            assert "token" in refusal(server, encode(Hello(token=wrong)))
            assert time.monotonic() - began >= 0.05
            with connected(server) as connection:  # a request right behind a wrong hello
                connection.send(encode(Hello(token=wrong)))
                connection.send(encode(request(1)))
                assert isinstance(decode_server(connection.recv(5)), Refused)
                with pytest.raises(ConnectionClosed):
                    connection.recv(5)
        assert server.renderer.drawn == []
        with viewer(server) as connection:
            connection.send(encode(request(1)))
            assert next_frame(connection).id == 1


def test_other_addresses_need_a_token():
    inside, outside = ViewerServer(WELCOME), ViewerServer(WELCOME, host="0.0.0.0")
    assert inside.token == "" and inside.url == "http://127.0.0.1:23456/"
    assert len(outside.token) >= 16 and outside.url.endswith(f":23456/#token={outside.token}")
    assert outside.token != ViewerServer(WELCOME, host="0.0.0.0").token
    assert ViewerServer(WELCOME, token="a b").url.endswith("#token=a%20b")
    assert ViewerServer(WELCOME, host="::1").url == "http://[::1]:23456/"
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        assert is_this_machine(host)
    for host in (
        "",
        "::",
        "0.0.0.0",
        "192.168.1.1",
        "example.org",
        "127.0.0.1.example.org",
        "0",
        "2130706433",
    ):
        assert not is_this_machine(host)
    for token in ("", "x" * (messages.MAX_NAME + 1)):
        with pytest.raises(ValueError, match="^token: "):
            ViewerServer(WELCOME, token=token)


def test_there_is_room_for_so_many_viewers(monkeypatch):
    monkeypatch.setattr(hub, "MAX_VIEWERS", 2)
    with serving() as server, viewer(server), viewer(server) as second:
        assert server.viewers == 2
        assert "2 viewers are connected already" in refusal(server, encode(Hello()))
        second.close()
        assert wait_until(lambda: server.viewers == 1)
        viewer(server).close()


def test_strangers_are_limited_and_viewers_stay(monkeypatch):
    monkeypatch.setattr(hub, "MAX_STRANGERS", 5)
    with serving() as server, viewer(server) as connection:
        strangers = [BareSocket(server.port) for _ in range(20)]
        assert wait_until(lambda: len(list(cut_ones(strangers))) == 15)
        assert len(server._hub._connections) == 6
        connection.send(encode(request(1)))
        assert next_frame(connection).id == 1
        for stranger in strangers:
            stranger.close()
        assert wait_until(lambda: len(server._hub._connections) == 1)


@pytest.mark.parametrize("talking", [False, True])
def test_silent_connections_that_are_renewed_keep_no_viewer_out(monkeypatch, talking):
    """Each newcomer takes the place of an older one of its address; who talks is cut after who does not."""
    monkeypatch.setattr(hub, "STRANGERS_OF_ADDRESS", 4)
    with serving(token="word") as server:
        silent: list[BareSocket] = []

        def renew(count: int) -> None:
            silent.extend(BareSocket(server.port) for _ in range(count))

        renew(8)
        assert wait_until(lambda: len(server._hub._strangers) == 4)
        coming = connected(server) if talking else None
        renew(8)
        if coming is not None:  # before its hello, it has seen eight others come
            coming.send(encode(Hello(token="word")))
            assert isinstance(decode_server(coming.recv(5)), Welcome)
        first = viewer(server)
        renew(8)
        assert server.viewers == 1 + talking and len(server._hub._strangers) <= 4
        first.send(encode(request(1)))
        assert next_frame(first).id == 1
        for each in silent:
            each.close()
        assert wait_until(lambda: not server._hub._strangers)


def test_a_full_house_makes_room_where_most_come_from(monkeypatch):
    monkeypatch.setattr(hub, "MAX_STRANGERS", 6)
    monkeypatch.setattr(hub, "STRANGERS_OF_ADDRESS", 5)
    with serving() as server:
        addresses = {}
        monkeypatch.setattr(hub, "_host", lambda connection: addresses.get(connection.remote_address[1], "?"))

        def arrive(host: str) -> None:
            stranger = socket.socket()
            stranger.bind(("127.0.0.1", 0))
            addresses[stranger.getsockname()[1]] = host
            stranger.connect(("127.0.0.1", server.port))
            kept.append(stranger)
            time.sleep(0.02)

        kept: list[socket.socket] = []
        for host in ["alone", *["many"] * 5, "other", "third"]:
            arrive(host)

        def left() -> dict[str, int]:
            return dict(Counter(list(server._hub._strangers.values())))

        assert wait_until(lambda: left() == {"alone": 1, "many": 3, "other": 1, "third": 1}), left()
        for stranger in kept:
            stranger.close()


def cut_ones(strangers):
    for stranger in strangers:
        stranger.socket.settimeout(0.05)
        try:
            stranger.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        except ConnectionResetError:
            pass
        yield stranger


def test_a_welcome_nobody_would_accept_is_an_error_at_once():
    with pytest.raises(ValueError, match="title"):
        ViewerServer(replace(WELCOME, title="x" * 201))


def test_what_keeps_the_thread_from_starting_is_an_error_at_once(monkeypatch):
    """It would be waited for in vain."""

    def no_loop():
        raise OSError("Too many open files")

    server = ViewerServer(WELCOME, port=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="open files"):
        patch.setattr("asyncio.events.new_event_loop", no_loop)
        server.start()
    socket.create_server(("127.0.0.1", server.port)).close()  # the port is free again
    server.stop()


# --- browsers -------------------------------------------------------------------------------------------------


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.mark.parametrize(
    ("host", "origin", "without_token", "with_token"),
    [
        ("localhost:{port}", None, 101, 101),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 101, 101),
        ("localhost:8080", "http://localhost:8080", 101, 101),  # another port at this end of a tunnel
        ("[::1]:{port}", "http://[::1]:{port}", 101, 101),
        ("LocalHost", "http://localhost", 101, 101),
        ("localhost", "http://localhost:80", 101, 101),
        ("localhost:{port}", "http://localhost:1", 403, 403),
        ("localhost:{port}", "https://localhost", 403, 403),
        ("localhost:{port}", "http://evil.example", 403, 403),
        ("localhost:{port}", "http://localhost.evil.example:{port}", 403, 403),
        ("localhost:{port}", "http://127.0.0.1:{port}", 403, 403),
        ("localhost:{port}", "null", 403, 403),
        ("localhost:{port}", "", 403, 403),
        ("localhost:{port}", "file:///page.html", 403, 403),
        ("localhost:{port}", "http://localhost:99999", 403, 403),
        ("localhost:{port}", "http://[::1", 403, 403),
        ("evil.example:{port}", "http://evil.example:{port}", 403, 101),  # a name that was made to point here
        ("evil.example", None, 403, 101),
        ("192.168.0.5:{port}", "http://192.168.0.5:{port}", 403, 101),
        ("localhost@evil.example", None, 403, 403),
        ("", None, 403, 403),
    ],
)
def test_browsers_of_other_pages_are_refused(tmp_path, host, origin, without_token, with_token):
    (tmp_path / "index.html").write_text("hello")
    for token, expected in ((None, without_token), ("secret", with_token)):
        with serving(token=token, page=tmp_path) as server:
            headers = {"Host": host.format(port=server.port)}
            if origin is not None:
                headers["Origin"] = origin.format(port=server.port)
            with BareSocket(server.port) as browser:
                answer = browser.upgrade(**headers)
                assert status(answer) == expected, answer
            with BareSocket(server.port) as browser:  # the page itself
                assert status(browser.request(headers)) == (200 if expected == 101 else 403)


def test_two_hosts_or_origins_are_none():
    assert refuse_headers(["localhost"], [], False) is None
    for hosts, origins in ([], []), (["localhost"] * 2, []), (["localhost"], ["http://localhost"] * 2):
        assert refuse_headers(hosts, origins, False) is not None


def test_the_page_and_its_neighbours(tmp_path):
    (tmp_path / "index.html").write_text("<p>page")
    (tmp_path / "viewer.js").write_text("let a")
    (tmp_path / "secret.txt").write_text("no")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "deep.html").write_text("no")
    with serving(page=tmp_path) as server:

        def get(
            path: str, method: str = "GET", version: str = "HTTP/1.1", **headers: str
        ) -> tuple[int, bytes, bytes]:
            with BareSocket(server.port) as browser:
                answer = browser.request(headers, f"{method} {path} {version}")
            head, _, body = answer.partition(b"\r\n\r\n")
            return status(answer), head.lower(), body

        for path in ("/", "/index.html", "/?a=b"):
            code, head, body = get(path)
            assert (code, body) == (200, b"<p>page") and b"text/html" in head
            for line in (
                b"default-src 'self'",
                b"nosniff",
                b"no-referrer",
                b"no-store",
                b"content-length: 7",
            ):
                assert line in head
            assert f"connect-src 'self' ws://127.0.0.1:{server.port} ".encode() in head
        assert get("/viewer.js")[::2] == (200, b"let a") and b"javascript" in get("/viewer.js")[1]
        for path in ("/secret.txt", "/below/deep.html", "/below", "/../secret.txt", "/%2e%2e/server.py", "//etc/passwd",
                     "/nothing.html", "index.html", "*", "/index.html/", "http://evil.example/"):  # fmt: skip
            assert get(path)[0] == 404, path
        assert get("/", "HEAD")[0] == 405 and get("/", "HEAD")[2] == b""
        for method in ("POST", "PUT", "OPTIONS", "get", "CONNECT"):
            assert get("/", method)[0] == 405 and b"allow: get" in get("/", method)[1]
        assert get("/", "POST", **{"Content-Length": "5"})[0] in (0, 400)
        assert get("/", "GET", "HTTP/9")[0] in (0, 400, 505)
        assert get("/", Upgrade="h2c", Connection="Upgrade")[0] in (400, 426)
    with serving(page=tmp_path / "none") as server, BareSocket(server.port) as browser:
        assert status(browser.request()) == 404
