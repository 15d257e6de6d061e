"""Garbage by the thousand, and a crowd of which one never reads, beside viewers that behave.

Short by default. A thorough run, with its figures printed:
    MMLPHUMAN_TEST_FAULTS=20000 MMLPHUMAN_TEST_SECONDS=600 pytest -s tests/streaming/test_server_fuzz.py
"""

import gc
import os
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from mmlphuman.streaming import messages
from mmlphuman.streaming.messages import Problem
from mmlphuman.streaming.protocol import encode
from tests.streaming.garbage import SlowLoris, handshake, message
from tests.streaming.viewers import (
    TEXT,
    BareSocket,
    GoodViewer,
    frame_bytes,
    next_message,
    request,
    serving,
    viewer,
    wait_until,
)

FAULTS = int(os.environ.get("MMLPHUMAN_TEST_FAULTS", "1500"))  # malformed messages and handshakes
SECONDS = float(os.environ.get("MMLPHUMAN_TEST_SECONDS", "3"))
HANDSHAKES = 0.25  # of the faults; the others are messages of viewers that were let in
WARM = 0.3  # of a run, before memory is counted
GROWTH = 8 * 2**20  # bytes: allocators keep a little; a leak of 1 kB a fault would show in the long form
LORISES = 10  # connections that send a byte now and then
RATE = 20  # pictures a second that a viewer asks for


def resident() -> int:
    """Bytes of memory that the process holds now; 0 where the system does not tell."""
    gc.collect()
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


class Attack:
    """`count` faults in two threads, so that they also meet each other."""

    def __init__(self, server, count: int, seed: int):
        self.handshakes, self.messages, self.refused = int(count * HANDSHAKES), 0, 0
        self.errors: list[BaseException] = []
        shares = [(self.knock, self.handshakes), (self.talk, count - self.handshakes)]
        threads = [
            threading.Thread(target=self.guarded, args=(work, server, share, random.Random(seed + i)))
            for i, (work, share) in enumerate(shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.errors, self.errors

    def guarded(self, work, *args):
        try:
            work(*args)
        except BaseException as error:
            self.errors.append(error)

    def knock(self, server, count: int, rng: random.Random):
        for _ in range(count):
            handshake(server.port, rng)

    def talk(self, server, count: int, rng: random.Random):
        """Each message gets its Problem, or it is right after all and gets its picture; none closes the connection."""
        connection = viewer(server)
        for _ in range(count):
            connection.send(message(rng))
            self.messages += 1
            if isinstance(answer := connection.recv(10), str):
                self.refused += '"problem"' in answer
        connection.send("{")
        next_message(connection, Problem)
        connection.close()


def test_garbage_hurts_nobody(monkeypatch, caplog):
    monkeypatch.setattr(messages, "HELLO_SECONDS", 2.0)  # so that left-overs are gone soon
    with serving() as server:
        good, loris = GoodViewer(server, RATE), SlowLoris(server.port, LORISES)
        good.start()
        time.sleep(1)
        began = time.monotonic()
        loris.start()
        first = Attack(server, int(WARM * FAULTS), seed=1)
        assert wait_until(lambda: len(server._hub._connections) <= 1 + LORISES, 15)
        memory, known = resident(), objects()
        second = Attack(server, FAULTS - int(WARM * FAULTS), seed=100)
        ended = time.monotonic()
        assert wait_until(lambda: len(server._hub._connections) <= 1 + LORISES, 15)
        grown, more = resident() - memory, objects() - known
        loris.leave()
        assert wait_until(lambda: len(server._hub._connections) == 1 and server.viewers == 1, 15)
        good.leave()
        faults = sum(part.handshakes + part.messages for part in (first, second))
        alone, rate, gap = (
            good.rate_between(began - 1, began),
            good.rate_between(began, ended),
            good.longest_gap(),
        )
        report = (
            f"{faults} faults, {first.refused + second.refused} of them answered with a Problem, {loris.opened} slow"
            f" connections beside, in {ended - began:.1f} s; good viewer {rate:.1f}/s (before {alone:.1f}),"
            f" longest gap {gap:.2f} s; resident memory {grown / 2**20:+.2f} MiB of {memory / 2**20:.0f}, {more:+d}"
            f" objects of {known}"
        )
        print(report, file=sys.stderr)
        assert faults == FAULTS and second.refused > 0.9 * second.messages
        assert rate > 0.4 * alone > 0 and gap < 2, report
        assert grown < GROWTH, report
        assert more < 5000, report
        assert caplog.messages == []  # no warnings either


class NeverReads(threading.Thread):
    """Asks for large pictures and takes none; comes back whenever it is cut off."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.came, self._leaving = server, 0, threading.Event()

    def run(self):
        data = frame_bytes(TEXT, encode(request(1, encoding="raw")).encode())
        while not self._leaving.is_set():
            try:
                with BareSocket(self.server.port) as bare:
                    bare.let_in()
                    self.came += 1
                    while not self._leaving.wait(0.05):
                        bare.send(data)
            except OSError:
                pass

    def leave(self):
        self._leaving.set()
        self.join(10)


def test_a_crowd_of_which_one_never_reads():
    """Pictures of 1.4 MB raw: too large for what a system buffers, so the silent one is stuck, then cut off."""
    with serving(seconds=0.005, size=(600, 800)) as server:
        crowd, silent = [GoodViewer(server, RATE) for _ in range(3)], NeverReads(server)
        for member in crowd:
            member.start()
        time.sleep(2)
        began = time.monotonic()
        silent.start()
        time.sleep(SECONDS * WARM)
        memory = resident()
        assert server.viewers in (3, 4) and silent.came > 0
        time.sleep(SECONDS * (1 - WARM))
        grown, ended = resident() - memory, time.monotonic()
        silent.leave()
        for member in crowd:
            member.leave()
        alone = [member.rate_between(began - 1.5, began) for member in crowd]
        rates = [member.rate_between(began, ended) for member in crowd]
        gap = max(member.longest_gap() for member in crowd)
        report = (
            f"{ended - began:.0f} s, pictures a second {np.round(rates, 1)} (before {np.round(alone, 1)}), longest gap"
            f" {gap:.2f} s; the silent one came {silent.came} times; resident memory {grown / 2**20:+.2f} MiB of"
            f" {memory / 2**20:.0f}; deliver took at most {server.renderer.longest_call * 1000:.1f} ms"
        )
        print(report, file=sys.stderr)
        assert all(rate > 0.4 * before for rate, before in zip(rates, alone, strict=True)), report
        assert gap < 2, report
        assert grown < GROWTH, report


def test_the_server_of_a_good_viewer_that_is_killed_says_so():
    """The figures above mean something: a viewer without answers would have failed."""
    with serving() as server:
        good = GoodViewer(server, RATE)
        good.start()
        assert wait_until(lambda: len(good.times) > 2)
        server.stop()
        good.join(5)
        assert isinstance(good.error, ConnectionClosed)
        with pytest.raises(AssertionError):
            good.leave()
