"""The viewer's network thread, against the real server and against bad ones."""

from __future__ import annotations

import socket
import threading
import time

import cv2
import numpy as np
import pytest
from viewer_scenes import PaintingServer, a_welcome, paint, scripted_server, wait_until

from mmlphuman.streaming.messages import Frame, Problem, Refused, State, Welcome
from mmlphuman.streaming.protocol import decode_client, encode, encode_frame
from mmlphuman.streaming.server import ViewerServer
from viewer import client as client_module
from viewer.client import (
    CONNECTED,
    LOST_SECONDS,
    MAX_OUTSTANDING,
    WAITING,
    Client,
    Outstanding,
    Rate,
    ServerAddress,
)
from viewer.picture import decode_picture
from viewer.viewer_state import ViewerState, build_request


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(client_module, "REFUSED_PAUSE", 0.3)


@pytest.fixture
def connect():
    """ServerAddress -> a client that runs until the end of the test."""
    clients = []

    def start(port: int, token: str = "") -> Client:
        clients.append(Client(ServerAddress("127.0.0.1", port, token)))
        clients[-1].start()
        return clients[-1]

    yield start
    for client in clients:
        client.stop()
        assert not client._thread.is_alive()


def a_request(number: int):
    state = ViewerState(panel=(64, 48))
    state.take_welcome(a_welcome())
    return build_request(state, number)


def is_connected(client: Client) -> bool:
    return client.status.phase == CONNECTED


def test_a_picture_comes_back(connect):
    with PaintingServer(a_welcome()) as painting:
        client = connect(painting.server.port)
        wait_until(lambda: is_connected(client))
        (welcome,) = client.take_events()
        assert isinstance(welcome, Welcome) and welcome.title == "test/model"
        client.submit(a_request(5))
        picture = wait_until(client.take_picture)
        assert picture.frame.id == 5 and picture.frame.iteration == 7
        assert np.abs(picture.image.astype(int) - paint(a_request(5))).mean() < 8  # JPEG
        assert client.take_picture() is None and client.idle
        assert client.status.fps > 0 and client.status.megabytes > 0
        assert client.take_events() == []


def test_progress_comes_in_order_and_nothing_is_lost(connect):
    with ViewerServer(a_welcome(), port=0) as server:
        client = connect(server.port)
        wait_until(lambda: is_connected(client))
        events = []
        for number in range(1, 20):
            server.publish(State(iteration=number, iterations=20, history=((number, 1.0 / number),)))

        def all_there():
            events.extend(event for event in client.take_events() if isinstance(event, State))
            return events and events[-1].iteration == 19

        wait_until(all_there)
        points = [point for event in events for point in event.history]
        assert [iteration for iteration, _ in points] == list(range(1, 20))


def test_no_more_than_two_are_under_way_and_the_newest_is_next(connect):
    """A server of our own that answers when it is told to."""
    received, answer = [], threading.Semaphore(0)

    def script(connection):
        connection.recv()
        connection.send(encode(a_welcome()))

        def answer_on_demand():
            while answer.acquire(timeout=5):
                _, picture = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))
                connection.send(encode_frame(Frame(received[0].id, 4, 4, "png", picture.tobytes())))

        threading.Thread(target=answer_on_demand, daemon=True).start()
        for message in connection:
            received.append(decode_client(message))

    with scripted_server(script) as port:
        client = connect(port)
        wait_until(lambda: is_connected(client))
        for number in range(1, 10):
            client.submit(a_request(number))
            time.sleep(0.03)
        assert [request.id for request in received] == [1, 2]
        assert not client.idle
        answer.release()
        wait_until(lambda: len(received) == 3)
        assert received[-1].id == 9
        assert wait_until(client.take_picture).frame.id == 1


def test_only_the_newest_picture_is_kept(connect):
    with PaintingServer(a_welcome()) as painting:
        client = connect(painting.server.port)
        wait_until(lambda: is_connected(client))
        for number in range(1, 6):
            client.submit(a_request(number))
            wait_until(lambda: client.idle)
        wait_until(lambda: client.idle)
        assert client.take_picture().frame.id == 5
        assert client.take_picture() is None


def test_it_reconnects_by_itself(connect):
    with PaintingServer(a_welcome()) as painting:
        port = painting.server.port
        client = connect(port)
        wait_until(lambda: is_connected(client))
    wait_until(lambda: client.status.phase == WAITING)
    client.submit(a_request(1))  # nowhere to go: dropped
    assert client.idle
    with PaintingServer(a_welcome(title="again"), port=port):
        wait_until(lambda: is_connected(client))
        assert [event.title for event in client.take_events()] == ["test/model", "again"]
        client.submit(a_request(2))
        assert wait_until(client.take_picture).frame.id == 2


def test_the_pauses_between_attempts_grow(connect, monkeypatch):
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.4)
    with socket.socket() as closed:  # a port that nobody listens at
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        client = connect(port)
        pauses = []

        def four_pauses():
            status = client.status
            if status.phase == WAITING and status.retry_at not in pauses:
                pauses.append(status.retry_at)
            return len(pauses) == 5

        wait_until(four_pauses)
        gaps = np.diff(pauses)
        np.testing.assert_allclose(gaps, [0.2, 0.4, 0.4, 0.4], atol=0.15)
        assert client.status.text == f"no server listens at 127.0.0.1:{port}"


def test_a_wrong_token_is_told_and_the_right_one_lets_in(connect):
    with PaintingServer(a_welcome(), token="secret") as painting:
        client = connect(painting.server.port, "wrong")
        wait_until(lambda: client.status.phase == WAITING)
        assert "token" in client.status.text
        client.reconnect(ServerAddress("127.0.0.1", painting.server.port, "secret"))
        wait_until(lambda: is_connected(client))


def test_reconnect_leaves_one_server_for_another(connect):
    with PaintingServer(a_welcome()) as first, PaintingServer(a_welcome(title="other")) as second:
        client = connect(first.server.port)
        wait_until(lambda: is_connected(client))
        client.reconnect(ServerAddress("127.0.0.1", second.server.port))
        wait_until(lambda: client.status.text.endswith("other"))
        wait_until(lambda: first.server.viewers == 0)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (encode(Refused("too many viewers")), "too many viewers"),
        (encode(a_welcome(protocol=99)), "protocol 99"),
        (encode(State(1, 2)), "welcome"),
        ('{"type": "welcome"}', "title is missing"),
        (b"\x80\x04binary", "binary"),
        ("[" * 10000, "JSON"),
    ],
)
def test_a_server_that_is_none_is_told(connect, first, told):
    def script(connection):
        connection.recv()
        connection.send(first)
        connection.recv()

    with scripted_server(script) as port:
        client = connect(port)
        wait_until(lambda: client.status.phase == WAITING)
        assert told in client.status.text and "\n" not in client.status.text
        assert client.take_picture() is None


def test_garbage_after_the_welcome_ends_the_connection_and_not_the_thread(connect):
    said = iter(["{}", b"garbage", b"MMLF\xff\xff\xff\xff", None])

    def script(connection):
        connection.recv()
        connection.send(encode(a_welcome()))
        message = next(said, None)
        if message is not None:
            connection.send(message)
        for _ in connection:
            pass

    with scripted_server(script) as port:
        client = connect(port)
        wait_until(lambda: sum(isinstance(event, Welcome) for event in tuple(client._events)) == 4)
        wait_until(lambda: is_connected(client))


def test_a_damaged_picture_is_a_problem_and_the_next_one_is_shown(connect):
    def script(connection):
        connection.recv()
        connection.send(encode(a_welcome()))
        for message in connection:
            request = decode_client(message)
            picture = b"no picture" if request.id == 1 else bytes(3 * 4 * 2)
            encoding = "jpeg" if request.id == 1 else "raw"
            connection.send(encode_frame(Frame(request.id, 4, 2, encoding, picture)))

    with scripted_server(script) as port:
        client = connect(port)
        wait_until(lambda: is_connected(client))
        client.take_events()
        client.submit(a_request(1))
        (problem,) = wait_until(client.take_events)
        assert isinstance(problem, Problem) and problem.id == 1
        assert client.idle
        client.submit(a_request(2))
        assert wait_until(client.take_picture).image.shape == (2, 4, 3)


def test_a_problem_makes_room_for_the_next_request(connect):
    with ViewerServer(a_welcome(), port=0) as server:
        client = connect(server.port)
        wait_until(lambda: is_connected(client))
        client.submit(a_request(1))
        server.problem(server.next_request(timeout=5), "no such frame")
        wait_until(lambda: client.idle)
        assert Problem("no such frame", 1) in client.take_events()


# --- parts -----------------------------------------------------------------------------------------------


def test_an_answer_settles_older_requests_and_lost_ones_are_given_up():
    outstanding = Outstanding()
    for number in range(1, MAX_OUTSTANDING + 1):
        assert outstanding.may_send(0.0)
        outstanding.add(number, 0.0)
    assert not outstanding.may_send(1.0)
    assert outstanding.may_send(LOST_SECONDS + 1)
    outstanding.add(3, 0.0)
    outstanding.add(4, 0.0)
    outstanding.settle(3)
    assert len(outstanding) == 1


def test_rates_are_of_the_last_seconds():
    rate = Rate()
    for number in range(100):
        rate.add(number / 10, 50_000)
    fps, megabytes = rate.measure(9.9)
    assert fps == pytest.approx(10) and megabytes == pytest.approx(0.5)
    assert rate.measure(100.0) == (0.0, 0.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses(host):
    assert ServerAddress(host, 5).uri in ("ws://127.0.0.1:5/", "ws://[::1]:5/")


def test_a_picture_of_another_size_than_announced_is_refused():
    _, data = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))
    assert decode_picture(Frame(1, 30, 20, "jpeg", data.tobytes())).shape == (20, 30, 3)
    for frame in (Frame(1, 20, 30, "jpeg", data.tobytes()), Frame(1, 30, 20, "png", b"")):
        with pytest.raises(ValueError, match="picture"):
            decode_picture(frame)
