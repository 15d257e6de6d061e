"""Starting, stopping, and viewers that are slow, greedy or gone: nobody else notices."""

import logging
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from mmlphuman.streaming import hub
from mmlphuman.streaming.messages import Hello
from mmlphuman.streaming.protocol import encode
from mmlphuman.streaming.server import ViewerServer
from tests.streaming.viewers import (
    PING,
    TEXT,
    WELCOME,
    BareSocket,
    GoodViewer,
    connected,
    frame_bytes,
    next_frame,
    request,
    serving,
    viewer,
    wait_until,
)

ROOT = Path(__file__).resolve().parent.parent.parent


# --- start and stop -------------------------------------------------------------------------------------------


def test_addresses_that_cannot_be_had_are_told_in_one_line():
    with serving() as server:
        for host, port, words in [
            ("127.0.0.1", server.port, f"port {server.port} on 127.0.0.1 is in use; "),
            ("no.such.host.invalid", 0, "host 'no.such.host.invalid' is unknown"),
            ("203.0.113.7", 0, "is no address of this machine"),
            ("127.0.0.1", 70000, "port 70000: "),
            ("127.0.0.1", -1, "port -1: "),
            ("a" * 300, 0, "is unknown"),
        ]:
            other = ViewerServer(WELCOME, host=host, port=port)
            with pytest.raises(ValueError, match=words) as error:
                other.start()
            assert "\n" not in str(error.value)
            other.stop()
            other.stop()
    with ViewerServer(WELCOME, port=server.port) as again:  # the port is free at once
        assert again.port == server.port


def test_stopping_says_goodbye_and_frees_who_waits():
    threads = threading.active_count()
    server = ViewerServer(WELCOME, port=0).start()
    with viewer(server) as connection, viewer(server) as other:
        waiting = threading.Thread(target=server.next_request, args=(None,))
        waiting.start()
        began = time.monotonic()
        server.stop()
        waiting.join(5)
        assert not waiting.is_alive() and time.monotonic() - began < hub.STOP_SECONDS
        for left in (connection, other):
            with pytest.raises(ConnectionClosed) as closed:
                left.recv(5)
            assert closed.value.rcvd.code == 1001
    server.stop()
    with pytest.raises(OSError):
        BareSocket(server.port)
    assert wait_until(lambda: threading.active_count() <= threads)


def test_stopping_waits_for_nobody_who_does_not_listen(monkeypatch):
    monkeypatch.setattr(hub, "CLOSE_SECONDS", 0.3)
    with serving(size=(1500, 2000)) as server:
        silent = BareSocket(server.port)
        silent.let_in()
        for number in range(3):
            silent.frame(TEXT, encode(request(number, encoding="raw")).encode())
        half_open = BareSocket(server.port)
        half_open.upgrade()
        assert wait_until(lambda: server.renderer.drawn)
        time.sleep(0.2)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        for left in (silent, half_open):
            left.rest()  # until the end, which comes
            left.close()


@pytest.mark.filterwarnings("error")
def test_whatever_comes_the_log_gets_short_lines_of_no_weight(caplog):
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        for garbage in (
            b"\x00" * 100,
            b"GET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02",
        ):
            with BareSocket(server.port) as bare:
                bare.send(garbage)
                bare.socket.shutdown(socket.SHUT_WR)
                bare.rest()
        BareSocket(server.port).cut()
        cut = BareSocket(server.port)
        cut.let_in()
        cut.cut()
        for _ in range(20):
            with BareSocket(server.port) as hasty:
                hasty.upgrade()
                hasty.frame(TEXT, encode(Hello()).encode())
                hasty.cut()
        bad = connected(server)
        bad.send(encode(Hello(client="name\nFORGED LINE \x1b[2J\ud800")))
        bad.recv(5)
        bad.close()
        assert wait_until(lambda: not server._hub._connections)
    records = [record for record in caplog.records if record.name.startswith("mmlphuman")]
    assert 30 < len(records) < 300
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert all(record.getMessage().isprintable() and len(record.getMessage()) < 300 for record in records)
    assert all(record.exc_info is None for record in records)


def test_a_fault_of_the_loop_is_one_line_and_the_server_goes_on(caplog):
    with serving() as server, viewer(server) as connection:
        server._loop.call_soon_threadsafe(lambda: 1 / 0)
        connection.send(encode(request(1)))
        assert next_frame(connection).id == 1
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert "division by zero" in record.getMessage() and record.exc_info is None


# --- the slow and the greedy ----------------------------------------------------------------------------------


def test_one_that_never_reads_holds_up_nobody(monkeypatch):
    """Pictures too large for the buffers of the system; the silent one is cut off, the others keep their rate."""
    monkeypatch.setattr(hub, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(hub, "SLOWEST_LINK", 1e9)
    with serving(seconds=0.002, size=(400, 600)) as server:
        good = [GoodViewer(server, rate=20) for _ in range(3)]
        for member in good:
            member.start()
        time.sleep(1)
        silent = BareSocket(server.port)
        silent.let_in()
        before = time.monotonic()
        data = frame_bytes(TEXT, encode(request(1, encoding="raw")).encode())
        asked = 0
        while server.viewers == 4 and time.monotonic() < before + 8:
            try:
                silent.send(data)
                asked += 1
            except OSError:
                break
            time.sleep(0.01)
        assert server.viewers == 3, "the silent one is still there"
        after = time.monotonic()
        silent.close()
        for member in good:
            member.leave()
        assert asked > 50 and after - before > 0.9
        for member in good:
            assert member.rate_between(before, after) > 0.4 * member.rate_between(before - 0.9, before)
            assert member.longest_gap() < 1
        assert server.renderer.longest_call < 0.2


def test_a_slow_link_is_behind_by_its_own_pictures_only():
    """Read at a tenth of the pace of asking: what arrives was asked for just before."""
    with serving() as server, viewer(server) as connection:
        newest, behind = 0, []
        stop = threading.Event()

        def ask():
            nonlocal newest
            while not stop.wait(0.005):
                newest += 1
                connection.send(encode(request(newest)))

        threading.Thread(target=ask, daemon=True).start()
        link = slow_pongs(connection, 0.05)
        for _ in range(20):
            asked = newest
            behind.append(asked - next_frame(connection).id)
        stop.set()
        link.set()
        assert max(behind[3:]) <= 35, behind  # two pictures of 50 ms are 20 requests


def slow_pongs(connection, seconds: float) -> threading.Event:
    """Makes a link of `connection` whose answers take `seconds`."""
    done = threading.Event()
    protocol, send = connection.protocol, connection.protocol.send_frame

    def late(frame):
        if frame.opcode == 10:
            done.wait(seconds)
        send(frame)

    protocol.send_frame = late
    return done


def test_floods_are_cut_or_thinned(caplog):
    with serving() as server:
        good = GoodViewer(server, rate=50)
        good.start()
        for flood in (frame_bytes(PING, b"x" * 100), frame_bytes(PING), frame_bytes(TEXT)):
            for come_in in (BareSocket.upgrade, BareSocket.let_in):
                with BareSocket(server.port) as flooding:
                    come_in(flooding)
                    assert len(server._hub._connections) == 2
                    with suppress(OSError):
                        for _ in range(100):
                            flooding.send(flood * 1000)
                    assert wait_until(lambda: len(server._hub._connections) == 1)
        many = viewer(server)
        text = encode(request(3))
        for _ in range(2000):
            many.send(text)
        many.send(encode(request(4)))
        while next_frame(many).id != 4:
            pass
        many.close()
        good.leave()
        assert good.longest_gap() < 1.5 and caplog.messages == []
        assert wait_until(lambda: not server._hub._connections)


def test_an_end_that_is_not_completed_is_completed_for_it(monkeypatch):
    monkeypatch.setattr(hub, "CLOSE_SECONDS", 0.2)
    with serving() as server:
        stubborn = BareSocket(server.port)
        stubborn.let_in()
        assert server.viewers == 1
        stubborn.frame(3, b"no such opcode")
        assert wait_until(lambda: server.viewers == 0 and not server._hub._connections, 3)
        stubborn.close()


def test_viewers_that_are_no_longer_there_are_noticed(monkeypatch):
    monkeypatch.setattr(hub, "ALIVE_SECONDS", 0.1)
    monkeypatch.setattr(hub, "STALL_SECONDS", 0.3)
    with serving() as server, viewer(server) as alive:
        dead = BareSocket(server.port)
        dead.let_in()
        assert wait_until(lambda: server.viewers == 1, 3)
        time.sleep(0.5)
        alive.send(encode(request(1)))
        assert next_frame(alive).id == 1
        dead.close()


def test_a_viewers_machine_and_the_server_need_no_torch():
    modules = "mmlphuman.streaming.server, mmlphuman.streaming.protocol"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
