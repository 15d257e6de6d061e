"""visualize.py and a running train.py, watched over a real connection as a viewer would."""

import re
import signal
import socket
import subprocess
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch
from websockets.sync.client import ClientConnection, connect

from mmlphuman.animation.pose_file import read_pose_file
from mmlphuman.animation.render_sequence import Look, draw, to_cameras
from mmlphuman.backend import PYTORCH
from mmlphuman.capture.formats import open_capture
from mmlphuman.export.compact import encode as encode_tensors
from mmlphuman.export.compact import pack
from mmlphuman.model_folder import load_model
from mmlphuman.streaming.messages import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Frame,
    Hello,
    PathAnswer,
    PathQuestion,
    PhotographRequest,
    PointAnswer,
    PointQuestion,
    PoseRequest,
    Problem,
    Refused,
    RenderRequest,
    State,
    Welcome,
)
from mmlphuman.streaming.protocol import decode_frame, decode_live_pose, decode_server, encode
from tests.commands.runs import call_fork, call_here, one_error_line, start, start_fork

SECONDS = 60  # for anything to happen on a busy machine


@contextmanager
def running(*words, start=start_fork):
    """A command that serves at any free port; gives the process and its port."""
    process = start(*words, "--port", 0)
    try:
        for line in process.stdout:
            if found := re.fullmatch(
                r"watch: http://127\.0\.0\.1:(\d+)/(#\S+)? or viewer/net_viewer.py --port \d+\n", line
            ):
                break
        else:
            raise AssertionError(process.stderr.read())
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def entered(port: int, token: str = ""):
    """A connection that has said hello, and what it was answered."""
    address = f"ws://127.0.0.1:{port}/"
    with connect(address, max_size=None, compression=None, proxy=None, close_timeout=1) as connection:
        connection.send(encode(Hello(token=token, client="test")))
        yield connection, decode_server(connection.recv(SECONDS))


def next_of(connection: ClientConnection, kind: type):
    """The next message of this kind; others in between are left out."""
    while True:
        message = connection.recv(SECONDS)
        decoded = decode_server(message) if isinstance(message, str) else decode_frame(message)
        if isinstance(decoded, kind):
            return decoded


def pixels(frame: Frame) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(frame.picture, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def interrupted(process: subprocess.Popen) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def test_visualize_shows_what_rendering_by_hand_gives(model):
    trained, sequence = load_model(model), read_pose_file(model / "poses.npz")
    with (
        running("visualize.py", "--model_dir", model, "--device", "cpu", start=start) as (process, port),
        entered(port) as (connection, welcome),
    ):
        assert isinstance(welcome, Welcome) and not welcome.training and welcome.gaussians == 400
        assert [(entry.id, entry.trained) for entry in welcome.cameras] == [
            *((id, True) for id in (0, 1, 2)),
            (3, False),
        ]
        assert welcome.frames == tuple(sequence.frames)
        for number, (frame, camera, project) in enumerate([(0, 0, False), (17, 2, True), (17, 1, True)]):
            request = RenderRequest(
                number,
                welcome.cameras[camera].camera,
                PoseRequest(frame=frame),
                project=project,
                background=(0.0, 0.5, 1.0),
                encoding="png",
            )
            connection.send(encode(request))
            answer = next_of(connection, Frame)
            look = Look(torch.tensor(request.background), PYTORCH, project)
            expected = draw(trained, sequence.pose(frame), [to_cameras(request.camera, "cpu")], look)[
                0
            ].numpy()
            assert (answer.id, answer.iteration, answer.gaussians) == (number, 6, 400)
            assert answer.distance == pytest.approx(0, abs=1e-3) and answer.render_ms > 0
            np.testing.assert_array_equal(pixels(answer), expected)
            assert (expected != expected[0, 0]).any()

        connection.send(encode(RenderRequest(9, welcome.cameras[0].camera, PoseRequest(frame=500))))
        problem = next_of(connection, Problem)
        assert problem.id == 9 and "position 500 does not exist" in problem.message
        connection.send(encode(RenderRequest(10, welcome.cameras[0].camera, show="normals")))
        assert next_of(connection, Frame).id == 10, "a problem ends nothing"
        status, out, err = interrupted(process)
        assert (status, out) == (0, "stopped\n") and "Traceback" not in err


def test_visualize_shows_photographs_and_answers_questions(model, files):
    layout = open_capture(files["data"])
    with (
        running("visualize.py", "--model_dir", model, "--data_dir", files["data"], "--device", "cpu") as (
            _,
            port,
        ),
        entered(port) as (connection, welcome),
    ):
        assert welcome.photographs and [entry.id for entry in welcome.cameras if not entry.trained] == [3]
        for entry in (welcome.cameras[1], welcome.cameras[-1]):
            connection.send(encode(PhotographRequest(5, entry.camera, entry.id, 17, quality=100)))
            taken = pixels(next_of(connection, Frame)).astype(int)
            file = layout.find_image(entry.id, welcome.frames[17])
            source = cv2.imread(str(file))[:, :, ::-1].astype(int)
            assert taken.shape == source.shape and np.abs(taken - source).mean() < 4
        camera = welcome.cameras[0].camera
        middle = camera.intrinsics @ (camera.w2c[:3, :3] @ welcome.center + camera.w2c[:3, 3])
        column, row = (int(value) for value in middle[:2] / middle[2])
        connection.send(encode(PointQuestion(6, camera, column, row)))
        point = next_of(connection, PointAnswer).point
        assert point is None or np.linalg.norm(np.array(point) - welcome.center) < 1
        connection.send(encode(PathQuestion(7, (camera, welcome.cameras[1].camera), 9)))
        assert len(next_of(connection, PathAnswer).views) == 9
        connection.send(encode(PhotographRequest(8, camera, 0, 5000)))
        assert "position 5000" in next_of(connection, Problem).message


def test_the_page_that_draws_by_itself_is_served_beside(model, tmp_path):
    compact = tmp_path / "mine.safetensors"
    trained = load_model(model)
    compact.write_bytes(pack(encode_tensors(trained), trained, {}))
    words = ("visualize.py", "--model_dir", compact, "--device", "cpu", "--player")
    with running(*words) as (process, _):
        told = process.stdout.readline()
        address = re.fullmatch(r"drawn by the browser itself: (http://127\.0\.0\.1:\d+/player/)\n", told)[1]
        with urllib.request.urlopen(f"{address}avatar.safetensors", timeout=SECONDS) as answer:
            assert answer.read() == compact.read_bytes()


def test_poses_of_a_file_are_sent(model):
    words = ("script/stream_poses.py", "--model_dir", model, "--pose_path", model / "poses.npz", "--port", 0)
    process = start(*words)
    try:
        lines = iter(process.stdout.readline, "")
        address = next(found[1] for line in lines if (found := re.search(r"\?poses=(ws://\S+)", line)))
        sequence = read_pose_file(model / "poses.npz")
        with connect(address, proxy=None) as connection:
            first, second = (decode_live_pose(connection.recv(SECONDS)) for _ in range(2))
        assert second.number > first.number
        np.testing.assert_allclose(first.joints, sequence.poses[first.number % len(sequence)], atol=1e-6)
        status, out, err = interrupted(process)
        assert (status, out) == (0, "stopped\n") and "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_a_token_is_asked_for(model):
    with running("visualize.py", "--model_dir", model, "--token", "sesame") as (_, port):
        with entered(port, "open") as (_, answer):
            assert isinstance(answer, Refused) and "token" in answer.reason
        with entered(port, "sesame") as (_, answer):
            assert isinstance(answer, Welcome)


def test_a_run_in_progress_is_watched(files, tmp_path):
    command = (
        "train.py",
        "--config",
        files["endless"],
        "--data_dir",
        files["data"],
        "--out_dir",
        tmp_path / "model",
    )
    with (
        running(*command, "viewer_budget=1", "checkpoint_every=100000") as (process, port),
        entered(port) as (connection, welcome),
    ):
        assert welcome.training and welcome.title.endswith("/model") and len(welcome.frames) == 24
        frames = []
        for number in range(3):
            connection.send(encode(RenderRequest(number, welcome.cameras[0].camera, encoding="png")))
            frames.append(next_of(connection, Frame))
        state = next_of(connection, State)
        assert 0 < frames[0].iteration < frames[1].iteration < frames[2].iteration <= state.iteration
        assert (pixels(frames[0]) != pixels(frames[2])).any(), "it learns"
        while not state.history:
            state = next_of(connection, State)
        assert state.iterations == 100_000 and state.steps_per_second > 0 and state.viewers == 1
        assert all(iteration % 2 == 0 and loss > 0 for iteration, loss in state.history)
        status, _, err = interrupted(process)
    assert status == 75 and "stopped by SIGINT; train.py --resume goes on" in err


def test_a_taken_port_ends_only_what_asked_for_it(files, tmp_path):
    run = ("train.py", "--config", files["short"], "--data_dir", files["data"], "--out_dir")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one_error_line(call_here(*run, tmp_path / "asked", "--port", port), f"port {port}", "in use")
    assert not (tmp_path / "asked").exists()
    with taken(DEFAULT_HOST, DEFAULT_PORT):
        status, out, err = call_fork(*run, tmp_path / "default")
    assert status == 0, err
    assert f"(port {DEFAULT_PORT} is taken)" in out and "trained avatar" in out


@contextmanager
def taken(host: str, port: int):
    """The port in somebody's hands: ours, or whoever has it already."""
    try:
        listening = socket.create_server((host, port))
    except OSError:
        yield
        return
    with listening:
        yield


def test_visualize_says_what_it_cannot_show(tmp_path):
    one_error_line(
        call_here("visualize.py", "--model_dir", tmp_path / "none", "--port", 0), "none", "does not exist"
    )
    nowhere = ("--data_dir", tmp_path / "nowhere")
    one_error_line(call_here("visualize.py", "--model_dir", tmp_path, *nowhere, "--port", 0), "nowhere")
