"""The page in headless Chromium against a real server: picture, mouse, fingers, controls and keys."""

import time

import numpy as np
import pytest

from tests.streaming.browser import wait_for
from tests.streaming.page_server import (
    AT_REST,
    BLUE,
    GREEN,
    JPEG_ERROR,
    LEFT,
    MIDDLE,
    RED,
    WELCOME,
    WINDOW,
    after,
    painted,
    same,
    settled,
)
from tests.waiting import wait_until_still
from viewer.orbit_camera import OrbitCamera


def test_the_window_is_filled_with_the_picture(browser, painter):
    wait_for(lambda: painted(browser, 5, 60, RED))  # the answer to the first request may be on its way
    window = browser.screenshot().astype(int)
    request = painter.last
    height, width = request.camera.height, request.camera.width
    assert width > 0.7 * WINDOW[0] and height > 0.85 * WINDOW[1]
    for x, color in ((5, RED), (width // 2 - 5, RED), (width // 2 + 5, BLUE), (width - 5, BLUE)):
        for y in (60, height - 5):
            assert np.abs(window[y, x] - color).max() <= JPEG_ERROR
    status = browser.text("#status")
    for part in (
        f"{width} x {height}",
        "1,234 Gaussians",
        "iteration 4,321",
        "pose 12.5° from training",
        "drawn 4 ms",
    ):
        assert part in status
    assert not browser.shown("#notice")
    count = len(painter.requests)
    time.sleep(0.3)
    assert len(painter.requests) == count, "asked again though nothing had changed"


def test_it_begins_with_the_first_training_camera_exactly(browser, painter):
    for place, entry in enumerate(WELCOME.cameras):
        if place:
            after(painter, lambda: browser.press("\ue015"))  # arrow down
        camera = painter.last.camera
        assert np.allclose(camera.w2c, entry.camera.w2c, atol=1e-12)
        ours = OrbitCamera.from_view(entry.camera, WELCOME.center, WELCOME.up)
        assert camera.fovx == pytest.approx(ours.picture_fovx(camera.width, camera.height), abs=1e-9)
    assert browser.run("return document.getElementById('camera').value") == "2"
    names = browser.run("return [...document.getElementById('camera').options].map((each) => each.text)")
    assert names == ["free", "camera 2", "camera 5", "camera 7, held out"]


def test_the_camera_moves_as_the_desktop_viewer_does(browser, painter):
    """The same moves from the same cameras, on both sides."""
    ours, theirs = [], []
    for entry in WELCOME.cameras:
        for up in ((0, 1, 0), (0, -1, 0), (0, 0, 1), (0.6, 0, 0.8)):
            camera = OrbitCamera.from_view(entry.camera, WELCOME.center, up)
            for move in (
                camera.orbit(0.3, -0.2), camera.orbit(1, 9), camera.pan(30, -12, 900, 600), camera.zoom(0.8),
                camera.zoom(1e-9), camera.levelled(), camera.with_fovx(63, 500, 800), camera.with_fovx(400, 9, 8),
            ):  # fmt: skip
                ours += [*move.view(900, 600).w2c.ravel(), move.view(900, 600).fovx]
            view = {
                "w2c": entry.camera.w2c.ravel().tolist(),
                "fovx": entry.camera.fovx,
                "width": 300,
                "height": 400,
            }
            theirs += browser.run(
                """
                const { OrbitCamera } = await import("/orbit_camera.js");
                const camera = OrbitCamera.fromView(...args);
                const moved = [
                  camera.orbit(0.3, -0.2), camera.orbit(1, 9), camera.pan(30, -12, 900, 600), camera.zoom(0.8),
                  camera.zoom(1e-9), camera.levelled(), camera.withFovx(63, 500, 800), camera.withFovx(400, 9, 8),
                ];
                return moved.flatMap((each) => [...each.view(900, 600).w2c, each.view(900, 600).fovx]);
                """,
                view, WELCOME.center, up,
            )  # fmt: skip
    assert len(ours) == len(theirs) == 3 * 4 * 8 * 17
    assert np.allclose(ours, theirs, atol=1e-9)


def camera_distance(request) -> float:
    return float(np.linalg.norm(request.camera.center - WELCOME.center))


def test_mouse(browser, painter):
    first = painter.last
    turned = settled(painter, lambda: browser.drag(MIDDLE, (480, 300)))
    height = turned.camera.height
    start = OrbitCamera.from_view(WELCOME.cameras[0].camera, WELCOME.center, WELCOME.up)
    expected = start.orbit(80 * np.pi / height, 0).view(turned.camera.width, height)
    assert np.allclose(turned.camera.w2c, expected.w2c, atol=1e-6)
    assert camera_distance(turned) == pytest.approx(camera_distance(first))
    assert browser.run("return document.getElementById('camera').value") == ""  # no training camera any more

    moved = settled(painter, lambda: browser.drag(MIDDLE, (450, 340), button=2))
    shift = moved.camera.w2c[:3, 3] - turned.camera.w2c[:3, 3]
    assert np.allclose(moved.camera.w2c[:3, :3], turned.camera.w2c[:3, :3]) and shift[0] > 0 and shift[1] > 0
    assert shift[1] / shift[0] == pytest.approx(40 / 50)

    nearer = settled(painter, lambda: browser.wheel(MIDDLE, -100))
    farther = settled(painter, lambda: browser.wheel(MIDDLE, 200))
    distances = [np.linalg.norm(start.target) * factor for factor in (0.9, 0.9 / 0.9**2)]
    pivot = moved.camera.w2c[:3, :3].T @ (start.target - moved.camera.w2c[:3, 3])
    for request, distance in zip((nearer, farther), distances, strict=True):
        assert np.linalg.norm(request.camera.center - pivot) == pytest.approx(distance)

    back = after(painter, lambda: browser.press("r"))
    assert same(back.camera, first.camera)


def test_two_fingers(browser, painter):
    first = painter.last
    nearer = settled(painter, lambda: browser.pinch([(350, 300), (450, 300)], [(300, 300), (500, 300)]))
    assert camera_distance(nearer) == pytest.approx(camera_distance(first) / 2, rel=0.02)
    assert np.allclose(nearer.camera.w2c[:3, :3], first.camera.w2c[:3, :3])


def test_every_control_changes_what_it_says(browser, painter):
    def choose(selector, value):
        return after(painter, lambda: browser.choose(selector, value))

    def slide(selector, value):
        """As a hand would; WebDriver cannot take hold of a slider's knob."""
        script = "const e = document.querySelector(args[0]); e.value = args[1]; e.dispatchEvent(new Event('input'));"
        return after(painter, lambda: browser.run(script, selector, value))

    for show in ("depth", "alpha", "normals", "distance", "color"):
        assert choose("#show", show).show == show
        wait_for(lambda show=show: painted(browser, *LEFT, RED if show == "color" else GREEN))
    assert choose("#hands", "fist").pose.hands == "fist"
    assert choose("#pose", "big").pose.kind == "big"
    assert not browser.shown("#transport")
    assert choose("#pose", "t").pose.kind == "t"
    # The frames' slider comes back, and the picture becomes less high.
    assert settled(painter, lambda: browser.choose("#pose", "training")).pose.kind == "training"
    assert choose("#camera", "1").camera.w2c == pytest.approx(WELCOME.cameras[1].camera.w2c)
    assert after(painter, lambda: browser.click("#project")).project is True
    assert after(painter, lambda: browser.click("#no-translation")).pose.use_translation is False
    assert after(painter, lambda: browser.click("#light")).light is False
    assert slide("#frame", 17).pose.frame == 17
    assert "frame 117 (18/40)" in browser.text("#transport")
    assert slide("#quality", 31).quality == 31
    assert slide("#gaussian-scale", 0.25).gaussian_scale == 0.25
    assert slide("#background", "#ff8000").background == pytest.approx((1, 128 / 255, 0))
    wide = painter.last.camera.width
    assert slide("#resolution", 50).camera.width == pytest.approx(wide / 2, abs=1)
    fov = slide("#fovx", 70).camera
    assert fov.fovx == pytest.approx(70)
    level = after(painter, lambda: browser.click("#level")).camera
    assert level.w2c[0, 1] == pytest.approx(0, abs=1e-9)  # nothing of the right axis points up
    browser.click("#fold")
    assert not browser.shown("#panel")
    wait_for(lambda: painter.last.camera.width == WINDOW[0] // 2)


def test_keys(browser, painter):
    assert after(painter, lambda: browser.press("4")).show == "normals"
    assert after(painter, lambda: browser.press("1")).show == "color"
    assert after(painter, lambda: browser.press("t")).project is True
    assert after(painter, lambda: browser.press("l")).light is False
    assert after(painter, lambda: browser.press("l")).light is True
    assert after(painter, lambda: browser.press("\ue014")).pose.frame == 1  # arrow right
    assert after(painter, lambda: browser.press("\ue012")).pose.frame == 0  # arrow left
    assert after(painter, lambda: browser.press("\ue012")).pose.frame == 39
    browser.press("h")
    assert "turn about the person" in browser.text("#help")
    browser.press("\ue00c")  # escape
    assert not browser.shown("#help")


def test_frames_play(browser, painter):
    begun = len(painter.requests)
    browser.choose("#speed", "4")
    browser.run("document.activeElement.blur()")  # lists have a use for the space bar themselves
    browser.press(" ")
    wait_for(lambda: len({request.pose.frame for request in painter.requests[begun:]}) > 8)
    assert browser.text("#play") == "Pause"
    browser.click("#play")
    wait_until_still(lambda: len(painter.requests), pause=AT_REST)
    count = len(painter.requests)
    time.sleep(0.3)
    assert len(painter.requests) == count


def test_a_problem_is_shown_and_the_page_goes_on(browser, painter):
    browser.choose("#show", "anchors")
    wait_for(lambda: browser.text("#message") == "no anchors here")
    browser.choose("#show", "depth")
    wait_for(lambda: painted(browser, *LEFT, GREEN))
