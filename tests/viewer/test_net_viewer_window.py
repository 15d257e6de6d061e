"""The real window on a virtual screen, connected to the real server, driven with mouse and keyboard.

Needs Xvfb, xdotool and DearPyGui. What the user does must arrive at the server as a changed request; what the server
draws must be on the screen.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_orbit_camera import project
from viewer_scenes import BLUE, CENTER, GREEN, RED, PaintingServer, a_welcome, paint, wait_until
from virtual_screen import VirtualScreen

from mmlphuman.streaming.messages import RenderRequest, State, Welcome
from tests.waiting import wait_until_still

MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
MISSING += [name for name in ("dearpygui",) if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no virtual screen here: {', '.join(MISSING)} not installed"
)

ROOT = Path(__file__).resolve().parents[2]
COLOR_ERROR = 6  # of 255: JPEG
CONTROLS_X = 1140  # in the middle of the column of controls
LIGHT_X = 1020  # a control without a label, at the column's left end
# Rows of the controls at the window's right side, Connection folded up.
POSE, FRAME, PLAY, HANDS, OPTIONS, POSE_FILE, UP_UNITS, CLEAN_UP = range(71, 254, 26)
CAMERA, FOVX, CAMERA_FILE, CAMERA_BUTTONS = range(305, 384, 26)
SHOW, BACKGROUND, SCALE, LINES, RESOLUTION, QUALITY, BUTTONS = range(435, 592, 26)
STATUS = slice(764, 782)


@dataclass
class Viewer:
    screen: VirtualScreen
    painting: PaintingServer
    out_dir: Path
    window: str  # X's number of it
    first_place: tuple[int, int, int, int]  # left, top, width, height as it opened

    @property
    def request(self) -> RenderRequest:
        return self.painting.last

    def key(self, *keys: str) -> None:
        """To whatever control has the keyboard, or to the window."""
        self.screen.do("key", "--delay", 60, *keys)

    def after(self, act, changed, seconds: float = 10.0) -> RenderRequest:
        """Acts, and waits for a new request that `changed` -> that request."""
        seen = len(self.painting.requests)
        act()
        wait_until(lambda: len(self.painting.requests) > seen and changed(self.request), seconds)
        self.settle()
        return self.request

    def settle(self) -> None:
        """Until a still picture is on the screen."""
        pause = 0.45  # longer than a view counts as moving
        wait_until_still(lambda: len(self.painting.requests), pause)

    def serve_instead(self, welcome: Welcome) -> None:
        """Another server at the same address, which the viewer finds by itself."""
        port = self.painting.server.port
        self.painting.__exit__()
        self.painting = PaintingServer(welcome, port=port).__enter__()
        wait_until(lambda: self.painting.requests, 20)

    def leave_controls(self) -> None:
        """Clicks into the picture: no control has the keyboard any more."""
        self.screen.click(450, 370)
        self.settle()


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("window")
    out_dir = folder / "out"
    with VirtualScreen(folder) as screen, PaintingServer(a_welcome()) as painting:
        command = [
            sys.executable,
            "net_viewer.py",
            "--port",
            str(painting.server.port),
            "--out_dir",
            str(out_dir),
        ]
        log = folder / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT / "viewer", env=screen.environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            wait_until(lambda: painting.requests or process.poll() is not None, 30)
            assert process.poll() is None, log.read_text()
            window = screen.do("search", "--name", "Avatar viewer").split()[-1]
            viewer = Viewer(screen, painting, out_dir, window, screen.place(window))
            screen.do("windowmove", window, 0, 0, "windowsize", window, 1280, 800, "windowfocus", window)
            wait_until(lambda: viewer.request.camera.width > 0.65 * 1280, 60)
            viewer.leave_controls()
            viewer.key("g")  # the grid, which lies over the picture
            viewer.settle()
            yield viewer
            viewer.painting.__exit__()
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(10)
    assert "Traceback" not in log.read_text()


@pytest.fixture(autouse=True)
def from_the_first_view(viewer):
    viewer.screen.do("windowfocus", viewer.window)
    viewer.leave_controls()
    viewer.key("r")
    viewer.settle()


def test_the_servers_picture_fills_the_left_side(viewer):
    screen, camera = viewer.screen.picture(), viewer.request.camera
    top, left = 8, 8  # the window's margin
    expected = paint(viewer.request)
    for x in (3, camera.width // 2 - 20, camera.width // 2 + 20, camera.width - 3):
        for y in (3, camera.height // 2 - 20, camera.height // 2 + 20, camera.height - 3):
            found = screen[top + y, left + x].astype(int)
            assert np.abs(found - expected[y, x]).max() <= COLOR_ERROR, (x, y)
    assert camera.width > 0.65 * 1280 and camera.height > 0.9 * 800
    beside = screen[: camera.height, camera.width + 12 :].reshape(-1, 3)
    assert not any(
        (np.abs(beside.astype(int) - color).max(1) <= COLOR_ERROR).any() for color in (RED, GREEN, BLUE)
    )


def test_it_opens_within_a_small_screen(viewer):
    left, top, width, height = viewer.first_place
    assert left >= 0 and top >= 30 and left + width <= 1024 and top + height <= 728


def test_lines_lie_over_the_picture_and_go_again(viewer):
    viewer.screen.do("mousemove", 400, 400, "click", "--repeat", 10, "--delay", 60, 5)  # far away
    viewer.settle()
    viewer.screen.do("mousemove", 700, 780)
    wait_until_still(lambda: viewer.screen.picture().tobytes(), 1.0)  # shown, too, on a slow machine
    plain = viewer.screen.picture()[8:750, 8:880]

    def changed() -> np.ndarray:
        return (np.abs(viewer.screen.picture()[8:750, 8:880].astype(int) - plain) > 20).any(2)

    for key, most in (("g", 0.1), ("x", 0.01), ("v", 0.02)):
        viewer.key(key)
        wait_until(lambda: changed().any())
        assert changed().mean() < most, key
        viewer.key(key)
        wait_until(lambda: not changed().any())
    viewer.screen.click(LIGHT_X, LINES)
    wait_until(lambda: changed().any())
    viewer.screen.click(LIGHT_X, LINES)
    wait_until(lambda: not changed().any())


def test_controls_that_do_not_fit_are_scrolled_to(viewer):
    """In a low window the last button is found at the end of the column, and does its work."""
    before = viewer.request.camera
    help_column = slice(550, 680)
    try:
        viewer.screen.do("windowsize", viewer.window, 700, 420)
        wait_until(lambda: viewer.request.camera.width < 0.5 * before.width)
        viewer.screen.do("mousemove", 560, 200)
        viewer.screen.do("click", "--repeat", 40, "--delay", 30, 5)
        time.sleep(0.5)
        shot = viewer.screen.picture()[200:380, help_column].astype(int)
        rows = np.flatnonzero((shot[:, :, 2] - shot[:, :, 0] > 15).mean(1) > 0.7)  # a button's blue
        assert len(rows), "there is no button at the end"
        viewer.screen.click(620, 200 + int(rows[-1]) - 8)
        wait_until(lambda: (viewer.screen.picture()[70:300, 80:300] < 60).all(2).mean() > 0.5)  # the help
        viewer.key("h")
    finally:
        viewer.screen.do("mousemove", 560, 200)
        viewer.screen.do("click", "--repeat", 40, "--delay", 30, 4)
        viewer.after(
            lambda: viewer.screen.do("windowsize", viewer.window, 1280, 800),
            lambda request: request.camera.width == before.width,
        )


def test_dragging_with_the_left_button_turns_about_the_centre(viewer):
    before = viewer.request.camera
    after = viewer.after(
        lambda: viewer.screen.drag(300, 300, 100, 40),
        lambda request: not np.allclose(request.camera.w2c, before.w2c),
    ).camera
    assert np.linalg.norm(after.center - CENTER) == pytest.approx(np.linalg.norm(before.center - CENTER))
    turned = np.arctan2(*(after.center - CENTER)[[0, 2]]) - np.arctan2(*(before.center - CENTER)[[0, 2]])
    assert turned == pytest.approx(-np.pi * 100 / before.height, abs=1e-3)
    assert after.center[1] > before.center[1]  # dragged down: seen from higher up
    np.testing.assert_allclose(project(after, CENTER), project(before, CENTER), atol=1e-6)


@pytest.mark.parametrize("button", [2, 3])
def test_dragging_with_another_button_moves_the_scene_with_the_mouse(viewer, button):
    before = viewer.request.camera
    after = viewer.after(
        lambda: viewer.screen.drag(300, 300, 60, -45, button),
        lambda request: not np.allclose(request.camera.w2c, before.w2c),
    ).camera
    np.testing.assert_allclose(project(after, CENTER) - project(before, CENTER), (60, -45), atol=0.01)


def test_the_wheel_zooms_over_the_picture_only(viewer):
    def distance(request):
        return np.linalg.norm(request.camera.center - CENTER)

    before = distance(viewer.request)
    viewer.screen.do("mousemove", 400, 400)
    request = viewer.after(
        lambda: viewer.screen.do("click", "--repeat", 3, "--delay", 80, 4),
        lambda request: distance(request) < before,
    )
    assert distance(request) == pytest.approx(before * 0.9**3)
    viewer.screen.do("mousemove", CONTROLS_X, 700)
    viewer.screen.do("click", 5)
    viewer.settle()
    assert viewer.request is request


def test_keys(viewer):
    cameras = a_welcome().cameras
    request = viewer.after(lambda: viewer.key("Down"), lambda request: True)
    np.testing.assert_allclose(request.camera.w2c, cameras[1].camera.w2c, atol=1e-9)
    request = viewer.after(lambda: viewer.key("Right", "Right"), lambda request: request.pose.frame == 2)
    assert viewer.after(lambda: viewer.key("Left"), lambda request: True).pose.frame == 1
    assert viewer.after(lambda: viewer.key("4"), lambda request: True).show == "normals"
    assert viewer.after(lambda: viewer.key("1"), lambda request: True).show == "color"
    assert viewer.after(lambda: viewer.key("t"), lambda request: True).project
    assert not viewer.after(lambda: viewer.key("t"), lambda request: True).project


def test_the_light_is_switched_where_there_is_one(viewer):
    """Else neither its key nor, as the rows of the other tests show, its control is there."""
    viewer.key("l")
    viewer.settle()
    assert viewer.request.light
    try:
        viewer.serve_instead(a_welcome(light=True))
        viewer.leave_controls()
        assert not viewer.after(lambda: viewer.key("l"), lambda request: True).light
        row = BACKGROUND  # which is one lower now
        assert viewer.after(lambda: viewer.screen.click(LIGHT_X, row), lambda request: True).light
    finally:
        viewer.serve_instead(a_welcome())
    viewer.settle()


def test_space_plays_and_pauses(viewer):
    viewer.key("space")
    wait_until(lambda: viewer.request.pose.frame >= 4)
    viewer.key("space")
    viewer.settle()
    seen = len(viewer.painting.requests)
    time.sleep(0.5)
    assert len(viewer.painting.requests) == seen


def test_controls_of_the_pose(viewer):
    click = viewer.screen.click
    click(1014, FRAME)  # wherever playing has left it
    viewer.settle()
    assert viewer.after(lambda: click(1262, FRAME), lambda request: True).pose.frame == 11
    assert viewer.after(lambda: click(1014, FRAME), lambda request: True).pose.frame == 0
    assert not viewer.after(lambda: click(1020, OPTIONS), lambda request: True).pose.use_translation
    assert viewer.after(lambda: click(1020, OPTIONS), lambda request: True).pose.use_translation
    for row, number, name, value in (
        (HANDS, 2, "hands", "fist"),
        (POSE, 2, "kind", "t"),
        (POSE, 3, "kind", "big"),
    ):
        choose(viewer, row, number)
        wait_until(lambda name=name, value=value: getattr(viewer.request.pose, name) == value)
    choose(viewer, HANDS, 0)
    choose(viewer, POSE, 0)
    wait_until(lambda: (viewer.request.pose.hands, viewer.request.pose.kind) == ("file", "training"))


def choose(viewer: Viewer, row: int, number: int, x: int = CONTROLS_X) -> None:
    """The entry `number` of a drop-down list that opens below its row."""

    def below() -> bytes:
        return viewer.screen.picture()[row + 14 : row + 36, x - 25 : x + 25].tobytes()

    before = below()
    viewer.screen.click(x, row)
    wait_until(lambda: below() != before)
    wait_until_still(below, 0.3)
    viewer.screen.click(x, row + 25 + 20 * number)
    wait_until_still(below, 0.4)


def test_controls_of_the_picture(viewer):
    screen = viewer.screen

    def type_into(x, row, text):
        screen.do("mousemove", x, row)
        time.sleep(0.1)
        screen.do("keydown", "ctrl", "click", 1, "keyup", "ctrl")
        time.sleep(0.2)
        screen.do("key", "ctrl+a")
        screen.type(text)
        viewer.key("Return")

    request = viewer.after(
        lambda: type_into(CONTROLS_X, SCALE, "0.5"), lambda request: request.gaussian_scale == 0.5
    )
    request = viewer.after(
        lambda: type_into(CONTROLS_X, QUALITY, "95"), lambda request: request.quality == 95
    )
    request = viewer.after(
        lambda: type_into(CONTROLS_X, FOVX, "70"), lambda request: request.camera.fovx > 60
    )
    assert request.camera.fovx == pytest.approx(70)
    request = viewer.after(
        lambda: type_into(1046, BACKGROUND, "51"), lambda request: request.background[0] < 0.9
    )
    assert request.background == pytest.approx((0.2, 204 / 255, 210 / 255), abs=1e-3)
    wait_until(lambda: np.abs(screen.picture()[700, 860].astype(int) - (51, 204, 210)).max() <= COLOR_ERROR)
    size = request.camera.width, request.camera.height
    choose(viewer, RESOLUTION, 2, x=1045)
    wait_until(lambda: viewer.request.camera.width == round(size[0] / 2))
    choose(viewer, RESOLUTION, 0, x=1045)
    wait_until(lambda: viewer.request.camera.width == size[0])


def test_a_pose_file_is_typed_in_and_its_letters_are_no_commands(viewer, tmp_path):
    path = tmp_path / "hpt4 walk.npz"  # letters that are keys elsewhere
    poses = np.random.default_rng(1).uniform(-0.4, 0.4, (5, 165)).astype(np.float32)
    np.savez(path, poses=poses, trans=np.zeros((5, 3), np.float32))
    shown = viewer.request.show

    def type_path():
        viewer.screen.click(1100, POSE_FILE)
        time.sleep(0.2)
        viewer.screen.type(str(path))
        viewer.key("Return")

    request = viewer.after(type_path, lambda request: request.pose.kind == "given", 20)
    body = slice(0, 66)
    np.testing.assert_allclose(request.pose.joints[body], poses[0, body], atol=1e-6)
    assert request.show == shown and not request.project
    assert not list(viewer.out_dir.glob("*.png"))
    viewer.leave_controls()
    request = viewer.after(lambda: viewer.key("Right"), lambda request: True)
    np.testing.assert_allclose(request.pose.joints[body], poses[1, body], atol=1e-6)
    choose(viewer, POSE, 0)
    wait_until(lambda: viewer.request.pose.kind == "training")


def test_a_screenshot_is_written(viewer):
    size = viewer.request.camera.width, viewer.request.camera.height
    viewer.key("p")
    (path,) = wait_until(lambda: list(viewer.out_dir.glob("screenshot_*.png")))
    request = next(request for request in viewer.painting.requests[::-1] if request.encoding == "png")
    assert (request.camera.width, request.camera.height) == size
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], paint(request))


def test_the_camera_is_saved_and_loaded_with_buttons(viewer):
    viewer.screen.drag(300, 300, 80, 10)
    viewer.settle()
    saved = viewer.request.camera
    viewer.screen.click(1030, CAMERA_BUTTONS)
    wait_until(lambda: (viewer.out_dir / "camera.json").is_file())
    viewer.after(lambda: viewer.screen.click(1220, CAMERA_BUTTONS), lambda request: True)
    request = viewer.after(lambda: viewer.screen.click(1090, CAMERA_BUTTONS), lambda request: True)
    np.testing.assert_allclose(request.camera.w2c, saved.w2c, atol=1e-9)
    assert request.camera.fovx == pytest.approx(saved.fovx)


def test_help_opens_and_closes(viewer):
    viewer.screen.do("mousemove", 700, 600)
    before = viewer.screen.picture()
    viewer.key("h")
    wait_until(
        lambda: (viewer.screen.picture()[100:380, 100:600] != before[100:380, 100:600]).any(2).mean() > 0.9
    )
    viewer.key("h")
    wait_until(lambda: (viewer.screen.picture()[100:380, 100:600] == before[100:380, 100:600]).all())


def test_the_picture_follows_the_windows_size(viewer):
    before = viewer.request.camera
    try:
        request = viewer.after(
            lambda: viewer.screen.do("windowsize", viewer.window, 1000, 700),
            lambda request: (
                (request.camera.width, request.camera.height) == (before.width - 280, before.height - 100)
            ),
        )
        corner = 8 + request.camera.width - 4, 8 + request.camera.height // 2 - 20
        wait_until(
            lambda: np.abs(viewer.screen.picture()[corner[::-1]].astype(int) - GREEN).max() <= COLOR_ERROR
        )
    finally:
        viewer.after(
            lambda: viewer.screen.do("windowsize", viewer.window, 1280, 800),
            lambda request: request.camera.width == before.width,
        )


def test_training_renews_the_picture_and_draws_the_loss(viewer):
    curve = tuple((10 * step, 0.5 / (1 + step / 10)) for step in range(50))
    try:
        viewer.serve_instead(a_welcome(training=True))
        painting = viewer.painting
        painting.server.publish(State(500, 2000, 12.5, curve))
        time.sleep(1)
        before, began = len(painting.requests), time.monotonic()
        wait_until(lambda: len(painting.requests) >= before + 12, 30)
        assert time.monotonic() - began > 1.1  # 10 a second at most
        plot = viewer.screen.picture()[100:230, 950:1260].astype(int)
        line = plot[..., 0] - plot[..., 2] > 40  # everything else is grey, blue or green
        assert line.any(0).mean() > 0.7
    finally:
        viewer.serve_instead(a_welcome())
    viewer.settle()


def test_it_comes_back_when_the_server_does(viewer):
    port = viewer.painting.server.port
    old = viewer.painting
    old.server.stop()
    assert wait_until(lambda: is_red(viewer.screen.picture()[STATUS, :400].reshape(-1, 3)))
    with PaintingServer(a_welcome(), port=port) as again:
        wait_until(lambda: again.requests, 20)
        np.testing.assert_allclose(again.last.camera.w2c, old.last.camera.w2c)


def is_red(row: np.ndarray) -> bool:
    """The status line tells of trouble in red."""
    return bool(((row[:, 0] > 180) & (row[:, 1] < 130)).any())
