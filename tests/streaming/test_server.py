"""The server as viewers and the program meet it: requests and their pictures, whose turn it is, and progress."""

import json
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.streaming.handover import JobQueue
from mmlphuman.streaming.messages import (
    Hello,
    LossCurve,
    PathQuestion,
    PointQuestion,
    PoseQuestion,
    Problem,
    RenderRequest,
    State,
    Welcome,
)
from mmlphuman.streaming.protocol import encode
from mmlphuman.streaming.server import ViewerServer, compress
from tests.streaming.viewers import (
    CAMERA,
    HEIGHT,
    WELCOME,
    WIDTH,
    connected,
    next_frame,
    next_message,
    request,
    serving,
    viewer,
    wait_until,
)

# --- requests and pictures ------------------------------------------------------------------------------------


def test_a_request_comes_back_as_its_picture():
    with serving() as server, viewer(server) as connection:
        connection.send(encode(request(77, encoding="raw")))
        frame = next_frame(connection)
        assert (frame.id, frame.width, frame.height, frame.encoding) == (77, WIDTH, HEIGHT, "raw")
        assert (frame.iteration, frame.gaussians, frame.distance, frame.render_ms) == (5, 7, 1.5, 2.5)
        assert frame.picture == bytes([77]) * (WIDTH * HEIGHT * 3) and frame.encode_ms > 0


def test_encodings_keep_the_colours():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([x * 3, y * 4, 200 - x], -1).astype(np.uint8)  # red, green and blue differ

    def read(data: bytes) -> np.ndarray:
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    assert np.array_equal(read(compress(image, "png", 1)), image)
    assert compress(image, "raw", 1) == image.tobytes()
    good, bad = (compress(image, "jpeg", quality) for quality in (95, 10))
    assert np.abs(read(good).astype(int) - image).mean() < 3 and len(bad) < len(good)


def test_the_newest_request_wins():
    with serving(seconds=0.1) as server, viewer(server) as connection:
        for number in range(50):
            connection.send(encode(request(number)))
        frames = [next_frame(connection)]
        while frames[-1].id != 49:
            frames.append(next_frame(connection))
        assert [frame.id for frame in frames] == server.renderer.drawn == sorted(server.renderer.drawn)
        assert len(frames) < 10


def test_turns_go_round():
    queue = JobQueue()
    for client in "abc":
        queue.admit(client)
        queue.put(client, request(0))
    taken = []
    for number in range(1, 9):
        job = queue.take(0)
        taken.append(job.client)
        queue.release(job)
        queue.put(job.client, request(number))
        queue.put("c", request(number))  # who asks more often has no earlier turn
    assert "".join(taken) == "abcabcab"


def sized(number: int, pixels: int) -> RenderRequest:
    return replace(request(number), camera=CameraView(np.eye(4), 40.0, pixels, 1))


def test_a_picture_in_parts_lets_the_others_have_their_turns():
    """However long it goes on; and once it is finished its viewer's newest request is next."""
    queue = JobQueue()
    for client in "abc":
        queue.admit(client)
        queue.put(client, sized(0, 100))
    large, taken = queue.take(0), []
    queue.put("a", sized(1, 100))
    queue.put("a", sized(2, 100))
    for number in range(1, 7):
        queue.put_back(large)
        for _ in range(2):
            job = queue.take(0)
            taken.append(job.client)
            queue.release(job)
            queue.put(job.client, sized(number, 100))
        assert queue.take(0) is large
    assert "".join(taken) == "bc" * 6
    queue.release(large)
    assert [queue.take(0).client for _ in range(2)] == ["b", "c"]
    job = queue.take(0)
    assert (job.client, job.request.id) == ("a", 2) and not queue.busy


def test_a_smaller_picture_ends_the_one_in_the_making():
    """The view moves again: a sharp picture of where it rested would only be in the way. As large a one waits."""
    queue = JobQueue()
    queue.admit("a")
    queue.put("a", sized(1, 400))
    large = queue.take(0)
    queue.put_back(large)
    queue.put("a", sized(2, 400))
    assert queue.take(0) is large and queue.busy
    queue.put_back(large)
    queue.put("a", sized(3, 100))
    assert queue.take(0).request.id == 3 and not queue.expects(large) and not queue.busy
    queue.put_back(large)  # too late
    assert not queue.busy


def test_a_question_waits_until_the_picture_is_finished():
    """Questions have no size to be compared, and most no camera."""
    queue = JobQueue()
    queue.admit("a")
    queue.put("a", sized(1, 400))
    large = queue.take(0)
    for number, question in enumerate(
        (PathQuestion(2, (CAMERA,), 3), PoseQuestion(3), PointQuestion(4, CAMERA, 0, 0))
    ):
        queue.put_back(large)
        queue.put("a", question)
        assert queue.take(0) is large and queue.busy, number
    queue.release(large)
    assert queue.take(0).request.id == 4 and not queue.busy


def test_an_unfinished_picture_ends_with_its_viewer():
    queue = JobQueue()
    queue.admit("a")
    queue.put("a", sized(1, 400))
    job = queue.take(0)
    queue.put_back(job)
    queue.forget("a")
    queue.put_back(job)
    assert queue.take(0) is None and not queue.busy
    queue.close()


def test_viewers_take_turns():
    with serving(seconds=0.01) as server:
        viewers = [viewer(server) for _ in range(3)]
        for connection in viewers:
            threading.Thread(target=ask_without_end, args=(connection,), daemon=True).start()
        for connection in viewers:
            next_frame(connection)
        counts = [0] * len(viewers)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for i, connection in enumerate(viewers):
                next_frame(connection)
                counts[i] += 1
        drawn = len(server.renderer.drawn)
        for connection in viewers:
            connection.close()
        assert drawn <= 2 * sum(counts) and min(counts) > 5


def ask_without_end(connection):
    number = 0
    try:
        while True:
            number += 1
            connection.send(encode(request(number)))
            time.sleep(0.002)
    except ConnectionClosed:
        pass


def test_busy_tells_whether_somebody_waits_and_costs_nothing():
    with ViewerServer(WELCOME, port=0) as server, viewer(server) as connection:
        assert not server.busy and server.next_request(0) is None
        connection.send(encode(request(1)))
        assert wait_until(lambda: server.busy)
        job = server.next_request(0)
        assert job.request.id == 1 and not server.busy
        took = []
        for _ in range(10):  # a busy machine may take its turn in between, not every time
            began = time.perf_counter()
            for _ in range(100):
                _ = server.busy
            took.append(time.perf_counter() - began)
        assert min(took) < 100 * 50e-6


def test_a_viewer_has_two_jobs_at_a_time():
    with ViewerServer(WELCOME, port=0) as server, viewer(server) as connection:
        jobs = []
        for number in range(2):
            connection.send(encode(request(number)))
            jobs.append(server.next_request(5))
        connection.send(encode(request(9)))
        assert server.next_request(0.2) is None and not server.busy
        server.problem(jobs[0], "two\nlines")
        assert next_message(connection, Problem) == Problem("two lines", 0)
        assert server.next_request(5).request.id == 9
        server.problem(jobs[0], "again")  # answered already: nothing comes, and no third job
        connection.send(encode(request(10)))
        assert server.next_request(0.2) is None


def test_a_viewer_that_leaves_while_its_picture_is_drawn():
    with ViewerServer(WELCOME, port=0) as server:
        with viewer(server) as connection:
            connection.send(encode(request(1)))
            job = server.next_request(5)
            connection.send(encode(request(2)))
            assert wait_until(lambda: server.busy)
        assert wait_until(lambda: server.viewers == 0 and not server.busy)
        server.deliver(job, np.zeros((4, 4, 3), np.uint8), 1, 1, 0.0, 0.0)
        server.problem(job, "gone")
        with viewer(server) as connection:
            connection.send(encode(request(3)))
            assert server.next_request(5).request.id == 3


def test_what_cannot_be_encoded_is_a_problem_and_the_next_one_comes(caplog):
    with ViewerServer(WELCOME, port=0) as server, viewer(server) as connection:
        for number, distance in ((1, float("nan")), (2, 1.0)):
            connection.send(encode(request(number)))
            server.deliver(server.next_request(5), np.zeros((4, 4, 3), np.uint8), 1, 1, distance, 0.0)
            if number == 1:
                assert next_message(connection, Problem).id == 1
        assert next_frame(connection).id == 2
        with pytest.raises(ValueError, match=r"float64 \(4, 4\)"):
            server.deliver(None, np.zeros((4, 4)), 1, 1, 0.0, 0.0)


def test_wrong_messages_are_answered_and_the_connection_stays():
    with serving() as server, viewer(server) as connection:
        spoiled = json.loads(encode(request(12))) | {"quality": 101}
        for message, words, number in [
            ("{", "JSON", None),
            (json.dumps(spoiled), "quality", 12),
            (encode(Hello()), "hello", None),
            (b"\x00", "text frames", None),
        ]:
            connection.send(message)
            problem = next_message(connection, Problem)
            assert words in problem.message and problem.id == number
        connection.send(encode(request(5)))
        assert next_frame(connection).id == 5


# --- state ----------------------------------------------------------------------------------------------------


def test_progress_reaches_everybody_and_latecomers_get_the_whole_course():
    with serving() as server, viewer(server) as first:
        server.publish(State(1, 10, 2.0, ((0, 3.0), (1, 2.0))))
        state = next_message(first, State)
        assert (state.iteration, state.history, state.viewers) == (1, ((0, 3.0), (1, 2.0)), 1)
        server.publish(State(2, 10, 2.0, ((2, float("nan")), (3, 1.0))))
        assert next_message(first, State).history == ((3, 1.0),)
        with viewer(server) as second:
            state = next_message(second, State)
            assert (state.iteration, state.history) == (2, ((0, 3.0), (1, 2.0), (3, 1.0)))


def test_no_point_of_the_curve_is_lost_however_fast_they_come():
    with serving() as server, viewer(server) as connection:
        for i in range(500):
            server.publish(State(i, 500, 1.0, ((i, float(i)),)))
        points, states = [], 0
        while not points or points[-1][0] != 499:
            state = next_message(connection, State)
            points, states = [*points, *state.history], states + 1
        assert points == [(i, float(i)) for i in range(500)] and state.iteration == 499
        assert states < 400  # several in one


def test_before_the_start_and_after_the_end_nothing_fails():
    server = ViewerServer(WELCOME, port=0)
    server.publish(State(1, 2, 3.0, ((1, 1.0),)))
    with server, connected(server) as connection:
        connection.send(encode(Hello()))
        assert next_message(connection, Welcome) == WELCOME
        assert next_message(connection, State).history == ((1, 1.0),)
        connection.send(encode(request(1)))
        job = server.next_request(5)
    server.publish(State(1, 2))
    server.deliver(job, np.zeros((4, 4, 3), np.uint8), 1, 1, 0.0, 0.0)
    server.problem(job, "late")
    assert server.next_request(None) is None and not server.busy and server.viewers == 0


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_long_curves_are_thinned_evenly(step):
    curve = LossCurve(most=100)
    for i in range(5000):
        curve.add([(i * step, float(i))])
        assert len(curve.points) <= 100
    iterations = np.array([iteration for iteration, _ in curve.points])
    assert iterations[0] == 0 and iterations[-1] == 4999 * step and len(iterations) > 40
    gaps = np.diff(iterations)[:-1]  # the newest is kept wherever it is
    assert (gaps > 0).all() and gaps.max() <= 2 * gaps.min()
    assert LossCurve([(3, 1.0)] * 500, most=100).points[-1] == (3, 1.0)
