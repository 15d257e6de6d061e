"""The viewer without its window, against the real server: files, screenshots, messages; and what it imports."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from viewer_scenes import PaintingServer, a_welcome, paint, wait_until

from mmlphuman.animation.camera_file import read_camera_file
from mmlphuman.streaming.messages import State
from viewer.app import ViewerApp
from viewer.client import Client, ServerAddress
from viewer.picture import fill_buffer, fit, grown, make_buffer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def painting():
    with PaintingServer(a_welcome()) as painting:
        yield painting


@pytest.fixture
def app(painting, tmp_path):
    client = Client(ServerAddress(port=painting.server.port))
    client.start()
    app = ViewerApp(client, tmp_path / "out")
    app.state.panel = 90, 60
    run_until(app, lambda: app.picture is not None and client.idle)
    yield app
    client.stop()


def run_until(app: ViewerApp, condition) -> None:
    """The window's loop, until `condition` is true."""

    def stepped():
        app.step(time.monotonic())
        return condition()

    wait_until(stepped)


def test_a_change_brings_a_new_picture_and_no_change_none(app, painting):
    asked = len(painting.requests)
    for _ in range(20):
        app.step(time.monotonic())
        time.sleep(0.01)
    assert len(painting.requests) == asked
    app.state.background = (0.0, 0.0, 0.0)
    run_until(app, lambda: len(painting.requests) > asked and app.picture.image[-5, -5].max() < 20)
    assert "1,234 Gaussians" in app.numbers() and any("3.5°" in part for part in app.numbers())


def test_a_screenshot_is_the_full_picture_without_loss(app, painting):
    app.state.resolution, app.state.background = 0.5, (0.3, 0.6, 0.9)
    run_until(app, lambda: painting.last.camera.width == 45)
    for number in (1, 2):
        app.take_screenshot()
        app.state.camera = app.state.camera.zoom(0.9)  # goes on meanwhile
        path = app.out_dir / f"screenshot_000{number}.png"
        run_until(app, path.is_file)
        wanted = paint(next(request for request in painting.requests[::-1] if request.encoding == "png"))
        assert wanted.shape == (60, 90, 3)
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], wanted)
        assert str(path) in app.message


def test_a_camera_is_saved_and_loaded(app):
    app.state.camera = app.state.camera.orbit(0.4, 0.1).with_fovx(33.0, 90, 60)
    saved = app.state.camera.view(90, 60)
    app.save_camera()
    read = read_camera_file(app.camera_path)
    np.testing.assert_allclose(read.w2c, saved.w2c, atol=1e-12)
    assert (read.fovx, read.width, read.height) == (33.0, 90, 60)
    app.state.reset_view()
    app.load_camera()
    np.testing.assert_allclose(app.state.camera.view(90, 60).w2c, saved.w2c, atol=1e-12)
    assert app.state.camera.view(90, 60).fovx == pytest.approx(33.0)


def test_a_pose_file_is_read_shown_and_read_again_with_other_options(app, painting, tmp_path):
    path = tmp_path / "walk.npz"
    random = np.random.default_rng(0)
    np.savez(
        path,
        poses=random.uniform(-0.5, 0.5, (6, 156)),
        trans=random.uniform(-1, 1, (6, 3)),
        mocap_frame_rate=120,
    )
    app.pose_path = str(path)
    app.read_poses()
    assert (
        app.state.kind == "given"
        and app.state.fps() == 120
        and "AMASS SMPL+H, 6 frames at 120 fps" in app.message
    )
    app.state.set_position(4)
    app.change_pose_options(up="z")
    assert app.state.position() == 4
    run_until(app, lambda: painting.last.pose.kind == "given")
    np.testing.assert_array_equal(painting.last.pose.rotation @ [0, 0, 1], [0, 1, 0])
    wrists = slice(3 * 20, 3 * 22)
    assert np.any(app.state.sequence.poses[:, wrists])
    app.change_pose_options(clean_up="published")
    assert not np.any(app.state.sequence.poses[:, wrists])


def test_a_file_that_was_refused_is_read_once_its_unit_is_said(app, tmp_path):
    path = tmp_path / "cm.npz"
    np.savez(path, poses=np.zeros((3, 165)), trans=np.full((3, 3), 100.0))
    app.pose_path = str(path)
    app.read_poses()
    assert "--units cm" in app.message and app.state.sequence is None
    app.change_pose_options(units="cm")
    np.testing.assert_allclose(app.state.sequence.translations, 1.0)
    app.change_pose_options(units="m")
    np.testing.assert_allclose(app.state.sequence.translations, 100.0)


def test_while_moving_slow_pictures_become_small_and_then_sharp_again(app, painting):
    painting.seconds = 0.5
    app.state.panel = 400, 300
    run_until(app, lambda: painting.last.camera.width == 400)
    began = time.monotonic()

    def turn() -> bool:
        app.state.camera = app.state.camera.orbit(0.01, 0)
        app.touch()
        return painting.last.camera.width <= 200

    run_until(app, turn)
    assert time.monotonic() - began > 2 * painting.seconds, "one slow picture says nothing"
    run_until(app, lambda: app.waiting)
    painting.seconds = 0.0
    run_until(app, lambda: app.picture.frame.width == 400 and app.client.idle)
    np.testing.assert_allclose(app.view.w2c, app.state.camera.view(400, 300).w2c)
    run_until(app, lambda: not app.waiting)


def test_a_size_for_moving_views_may_be_set(app, painting):
    app.state.moving_resolution = 0.5
    app.state.camera = app.state.camera.orbit(0.01, 0)
    app.touch()
    run_until(app, lambda: painting.last.camera.width == 45)
    run_until(app, lambda: painting.last.camera.width == 90)


def test_faults_become_lines_and_change_nothing(app, tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "camera.json").write_text('{"w2c": [1, 2]}')
    view, kind = app.state.camera, app.state.kind
    for path in ("", "/no/such/file.npz", str(tmp_path / "text.npz"), str(tmp_path)):
        app.pose_path = path
        app.read_poses()
        assert app.message and "\n" not in app.message
        assert app.state.kind == kind and app.state.sequence is None
        app.say("")
    for path in (tmp_path / "camera.json", tmp_path / "none.json"):
        app.camera_path = str(path)
        app.load_camera()
        assert path.name in app.message and app.state.camera is view
        app.say("")
    app.camera_path = str(tmp_path / "text.npz" / "camera.json")  # a file is no folder
    app.save_camera()
    assert app.message


def test_a_problem_of_the_server_is_shown(app, painting):
    painting._painting = False
    painting._painter.join()
    app.state.show = "depth"
    app.step(time.monotonic())
    painting.server.problem(painting.server.next_request(timeout=5), "frame 99 does not exist")
    run_until(app, lambda: app.message == "frame 99 does not exist")


def test_the_loss_curve_grows_and_starts_again_with_the_run(app, painting):
    painting.server.publish(State(2, 10, history=((1, 0.5), (2, 0.4))))
    run_until(app, lambda: app.progress is not None)
    painting.server.publish(State(3, 10, history=((3, 0.3),)))
    run_until(app, lambda: len(app.losses.points) == 3)
    painting.server.publish(State(1, 10, history=((1, 0.9),)))  # another run at the same address
    run_until(app, lambda: app.losses.points == ((1, 0.9),))


def test_a_screenshot_without_a_connection_is_told(tmp_path):
    app = ViewerApp(Client(ServerAddress()), tmp_path)
    app.take_screenshot()
    assert "no picture" in app.message


def test_a_screenshots_loss_ends_with_the_connection(app, painting):
    app.take_screenshot()
    app.state.take_welcome(replace(app.state.welcome))
    app._take_event(app.state.welcome)
    app.state.show = "alpha"
    run_until(app, lambda: painting.last.show == "alpha")


# --- the texture's buffer and place ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
def test_a_buffer_holds_the_picture_opaque_and_its_edge_twice(channels):
    random = np.random.default_rng(0)
    buffer = make_buffer(10, 9, channels)
    for height, width in ((8, 9), (5, 7)):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        fill_buffer(buffer, image)
        wanted = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="edge")
        np.testing.assert_array_equal(np.rint(255 * buffer[: height + 1, : width + 1, :3]), wanted)
    assert (buffer[..., 3:] == 1).all() and buffer.dtype == np.float32


def test_a_texture_grows_in_steps_and_never_shrinks():
    size, sizes = (1, 1), set()
    for width, height in ((884, 730), (885, 700), (500, 767), (1023, 768), (10, 10)):
        size = grown(size, width, height)
        assert size[0] > width and size[1] > height
        sizes.add(size)
    assert sizes == {(1024, 768), (1024, 1024)}


@pytest.mark.parametrize("image", [(300, 400), (400, 300), (10, 10), (4000, 1)])
def test_a_picture_is_shown_whole_in_the_middle(image):
    x, y, width, height = fit(800, 600, *image)
    assert min(x, y) == 0 or min(x, y) == 1
    assert abs(800 - width - 2 * x) <= 1 and abs(600 - height - 2 * y) <= 1
    assert width / height == pytest.approx(image[0] / image[1], rel=0.01) or min(width, height) == 1


def test_the_viewers_machine_needs_no_torch_and_the_network_part_no_window():
    code = (
        "import sys, viewer.app;"
        "print([name for name in ('torch', 'dearpygui', 'smplx', 'omegaconf') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_wrong_arguments_end_in_one_line():
    command = [sys.executable, "net_viewer.py", "--port", "70000"]
    result = subprocess.run(command, cwd=ROOT / "viewer", capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip() == "error: --port: 70000 is no port; 1 to 65535 are possible"
