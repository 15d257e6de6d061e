"""The page's tools in headless Chromium: lines over the picture, pivot, paths, photographs, joints, pace, help."""

import json
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman import pose_layout
from mmlphuman.animation.camera_choice import choose_cameras
from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.streaming.messages import (
    CameraEntry,
    PathQuestion,
    PhotographRequest,
    PointQuestion,
    PoseQuestion,
)
from tests.streaming.browser import wait_for
from tests.streaming.page_server import (
    GREY,
    LEFT,
    MIDDLE,
    POINT,
    RED,
    RIGHT,
    WELCOME,
    after,
    painted,
    same,
    serving,
    settled,
    training_camera,
)

ARROW_DOWN, ESCAPE = "\ue015", "\ue00c"
HELD_OUT = CameraEntry(9, training_camera(2.0, 3.0), trained=False)
SLIDE = "const e = document.querySelector(args[0]); e.value = args[1]; e.dispatchEvent(new Event('input'));"
OVERLAY = """
    const canvas = document.getElementById("overlay");
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
    const found = [];
    for (let i = 0; i < data.length; i += 4)
      if (data[i + 3] > 200 && [0, 1, 2].every((k) => Math.abs(data[i + k] - args[0][k]) < 12))
        found.push([(i / 4) % canvas.width, Math.floor(i / 4 / canvas.width)]);
    return found;
"""  # places of a colour
TRAINED_COLOR, HELD_OUT_COLOR, X_COLOR = (47, 125, 225), (224, 123, 0), (229, 72, 77)


@pytest.fixture(autouse=True)
def forgotten(browser):
    """What the page remembers is for the test alone."""
    yield
    browser.run("localStorage.clear()")


def open_all(browser) -> None:
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true;")


def opened(browser, server):
    browser.go(server.url)
    wait_for(lambda: painted(browser, *LEFT, RED))
    open_all(browser)
    return server.painter


def asked(painter, kind) -> list:
    return [question for question in painter.questions if isinstance(question, kind)]


def projected(camera, point) -> np.ndarray:
    """(2,) pixels."""
    seen = camera.w2c[:3, :3] @ np.asarray(point) + camera.w2c[:3, 3]
    return (camera.intrinsics @ seen / seen[2])[:2]


# --- lines over the picture --------------------------------------------------------------------------------


def test_axes_lie_where_the_camera_sees_them(browser, painter):
    assert browser.run(OVERLAY, X_COLOR) == []
    browser.press("x")
    ends = [projected(painter.last.camera, point) for point in ((0, 0, 0), (0.5, 0, 0))]
    places = np.array(wait_for(lambda: browser.run(OVERLAY, X_COLOR)))
    direction = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    along = (places + 0.5 - ends[0]) @ direction
    length = np.linalg.norm(ends[1] - ends[0])
    line = places[along < length - 1] + 0.5 - ends[0]  # beyond stands the letter
    assert np.abs(line @ [-direction[1], direction[0]]).max() < 3
    assert along.min() == pytest.approx(0, abs=4) and along[along < length].max() == pytest.approx(
        length, abs=4
    )


def test_the_grid_is_on_the_floor(browser):
    with serving(replace(WELCOME, floor=0.0)) as server:
        painter = opened(browser, server)
        drawn = np.array(browser.run(OVERLAY.replace("> 200", "> 20"), (40, 50, 70)))
        camera = painter.last.camera
        lines = [projected(camera, [x, 0, z]) for x in (-1, 0, 1) for z in np.linspace(-1, 1, 21)]
        seen = [p for p in lines if (p > 0).all() and (p < [camera.width, camera.height]).all()]
        assert seen
        for place in seen:
            assert np.abs(drawn + 0.5 - place).max(1).min() < 2
        browser.press("g")
        wait_for(lambda: not browser.run(OVERLAY.replace("> 200", "> 20"), (40, 50, 70)))


def test_switches_are_remembered(browser, shared_server):
    opened(browser, shared_server)
    browser.press("g")
    browser.press("v")
    opened(browser, shared_server)
    states = browser.run("return ['grid', 'axes', 'frusta'].map((id) => document.getElementById(id).checked)")
    assert states == [False, False, True]


def test_a_click_on_a_camera_flies_there(browser):
    with serving(replace(WELCOME, cameras=(*WELCOME.cameras, HELD_OUT))) as server:
        painter = opened(browser, server)
        assert "camera 9, held out" in browser.text("#camera")
        settled(painter, lambda: browser.wheel(MIDDLE, 900))  # from farther away they are in the picture
        browser.press("v")
        wait_for(lambda: browser.run(OVERLAY, TRAINED_COLOR))
        assert browser.run(OVERLAY, HELD_OUT_COLOR)
        view = painter.last.camera
        for entry in (HELD_OUT, WELCOME.cameras[1]):
            x, y = projected(view, entry.camera.center)
            assert 0 < x < view.width and 0 < y < view.height
            browser.drag((round(x), round(y)), (round(x), round(y)))
            wait_for(lambda entry=entry: np.allclose(painter.last.camera.w2c, entry.camera.w2c, atol=1e-9))
            number = [*WELCOME.cameras, HELD_OUT].index(entry)
            assert browser.run("return document.getElementById('camera').value") == str(number)
            settled(painter, lambda: browser.press("r"))
            settled(painter, lambda: browser.wheel(MIDDLE, 900))


def test_a_click_beside_all_cameras_does_nothing(browser, painter):
    browser.press("v")
    count = len(painter.requests)
    browser.drag((30, 600), (30, 600))
    time.sleep(0.3)
    assert len(painter.requests) == count


# --- the pivot ---------------------------------------------------------------------------------------------


def double_click(browser, at) -> None:
    twice = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")] * 2
    move = {"type": "pointerMove", "duration": 0, "x": at[0], "y": at[1]}
    browser._act(
        {"type": "pointer", "id": "clicks", "parameters": {"pointerType": "mouse"}, "actions": [move, *twice]}
    )


def test_a_double_click_moves_the_pivot_and_not_the_view(browser, painter):
    painter.questions.clear()
    before = painter.last.camera
    double_click(browser, LEFT)
    wait_for(lambda: "turns about this point" in browser.text("#message"))
    (question,) = asked(painter, PointQuestion)
    assert (question.column, question.row) == LEFT and same(question.pose, painter.last.pose)
    assert same(question.camera, replace(before, width=question.camera.width, height=question.camera.height))
    turned = settled(painter, lambda: browser.drag(MIDDLE, (520, 350))).camera
    assert np.allclose(turned.w2c[:3] @ [*POINT, 1], before.w2c[:3] @ [*POINT, 1], atol=1e-9)
    assert not np.allclose(turned.w2c, before.w2c, atol=0.1)


def test_a_miss_says_that_nothing_is_there(browser, painter):
    before = painter.last
    double_click(browser, RIGHT)
    wait_for(lambda: "there is no surface" in browser.text("#message"))
    assert same(replace(painter.last, id=0), replace(before, id=0))


# --- camera paths ------------------------------------------------------------------------------------------


def add_keys(browser, painter) -> list[np.ndarray]:
    """The first views of all three training cameras; w2c of each."""
    views = []
    for place in range(3):
        if place:
            after(painter, lambda: browser.press(ARROW_DOWN))
        browser.press("k")
        views.append(painter.last.camera.w2c)
    return views


def keys_shown(browser) -> int:
    return browser.run("return document.querySelectorAll('#keys li').length")


def test_a_path_is_made_saved_and_read_by_test_py(browser, painter):
    open_all(browser)
    assert browser.run("return document.getElementById('play-path').disabled")
    views = add_keys(browser, painter)
    browser.click("#keys li:nth-child(3) button[aria-label^=Earlier]")  # 0 2 1
    browser.click("#keys li:nth-child(1) button[aria-label^=Later]")  # 2 0 1
    browser.press("k")
    browser.click("#keys li:nth-child(4) button[aria-label^=Remove]")
    browser.click("#save-path")
    path = wait_for(
        lambda: [file for file in browser.downloads.glob("camera_path.json") if file.stat().st_size]
    )[0]
    saved = choose_cameras(path, path.parent)
    assert len(saved) == 3 and len({(view.width, view.height) for view in saved}) == 1
    for view, place in zip(saved, (2, 0, 1), strict=True):
        assert np.allclose(view.w2c, views[place], atol=1e-9)
    for place in (3, 2, 1):
        browser.click(f"#keys li:nth-child({place}) button[aria-label^=Remove]")
    assert keys_shown(browser) == 0
    browser.type("#path-file", str(path))
    wait_for(lambda: keys_shown(browser) == 3)
    browser.click("#keys li:nth-child(1) button")  # flies there
    wait_for(lambda: np.allclose(painter.last.camera.w2c, saved[0].w2c, atol=1e-9))
    path.write_text(json.dumps([{"w2c": [1]}]))
    browser.type("#path-file", str(path))
    wait_for(lambda: "is no camera file" in browser.text("#message"))


def test_a_path_plays_to_its_end(browser, painter):
    open_all(browser)
    views = add_keys(browser, painter)
    painter.questions.clear()
    browser.run(SLIDE, "#key-seconds", 0.2)
    browser.click("#play-path")
    wait_for(lambda: asked(painter, PathQuestion))
    (question,) = asked(painter, PathQuestion)
    assert question.count == 13 and np.allclose([key.w2c for key in question.keys], views, atol=1e-9)
    wait_for(
        lambda: np.allclose(painter.last.camera.w2c, views[0], atol=1e-9)
    )  # where this server's paths stay
    wait_for(lambda: browser.text("#play-path") == "Play")


def test_a_path_too_long_is_refused_by_the_page(browser, painter):
    open_all(browser)
    add_keys(browser, painter)
    painter.questions.clear()
    browser.run(SLIDE, "#key-seconds", 3600)
    browser.click("#play-path")
    wait_for(lambda: "up to 3600 pictures" in browser.text("#message"))
    assert not painter.questions


def test_a_video_holds_every_picture_at_its_time(browser, painter):
    open_all(browser)
    for file in browser.downloads.glob("path_*"):
        file.unlink()
    add_keys(browser, painter)
    browser.run(SLIDE, "#key-seconds", 0.2)
    browser.run(SLIDE, "#resolution", 30)
    browser.click("#path-motion")
    wait_for(lambda: painter.last.camera.width < 400)
    begun = len(painter.requests)
    browser.click("#record-path")
    (file,) = wait_for(
        lambda: [each for each in browser.downloads.glob("path_*.webm") if each.stat().st_size], 60
    )
    wait_for(lambda: not list(browser.downloads.glob("*.crdownload")))
    recorded = [request for request in painter.requests[begun:] if request.quality == 95]
    assert [request.pose.frame for request in recorded] == list(range(13))  # the motion runs along
    video, times, size = cv2.VideoCapture(str(file)), [], None
    while True:
        there, picture = video.read()
        if not there:
            break
        times.append(video.get(cv2.CAP_PROP_POS_MSEC))
        size = picture.shape
        left = picture[size[0] // 2, size[1] // 4, ::-1]
        assert np.abs(left.astype(int) - RED).max() < 12
    assert times == pytest.approx(np.arange(13) * 1000 / 30, abs=1)
    assert size[:2] == (recorded[0].camera.height, recorded[0].camera.width)
    assert not size[0] % 2 and not size[1] % 2


def test_recording_can_be_cancelled(browser, painter):
    open_all(browser)
    add_keys(browser, painter)
    browser.run(SLIDE, "#key-seconds", 30)
    browser.click("#record-path")
    wait_for(lambda: "picture" in browser.text("#path-progress"))
    browser.click("#record-path")
    wait_for(lambda: "no video was made" in browser.text("#message"))
    assert browser.text("#record-path") == "Record"
    after(painter, lambda: browser.drag(MIDDLE, (520, 260)))  # the page goes on


# --- photographs -------------------------------------------------------------------------------------------


def test_the_photograph_lies_over_the_render(browser):
    with serving(replace(WELCOME, photographs=True)) as server:
        painter = opened(browser, server)
        assert not painter.questions  # nobody wants it yet
        browser.press("b")
        wait_for(lambda: painted(browser, *LEFT, GREY))
        (request,) = asked(painter, PhotographRequest)
        assert (request.camera_id, request.frame) == (2, 0) and same(request.camera, painter.last.camera)
        assert not painted(browser, *RIGHT, GREY)
        browser.drag((painter.last.camera.width // 2, 300), (760, 300))  # the line
        wait_for(lambda: painted(browser, *RIGHT, GREY))
        assert len(asked(painter, PhotographRequest)) == 1 and same(request.camera, painter.last.camera)
        browser.press("\ue014")  # the next frame
        wait_for(lambda: asked(painter, PhotographRequest)[-1].frame == 1)
        settled(painter, lambda: browser.drag(LEFT, (220, 310)))
        wait_for(lambda: painted(browser, *LEFT, RED))  # no camera's view any more
        assert "choose a camera" in browser.text("#photograph-note")
        assert len(asked(painter, PhotographRequest)) == 2


def test_without_photographs_there_is_no_switch(browser, painter):
    assert not browser.shown("#photograph-section")
    browser.press("b")
    time.sleep(0.2)
    assert not asked(painter, PhotographRequest)


# --- joints ------------------------------------------------------------------------------------------------


def test_joints_turn_and_come_back(browser, painter):
    open_all(browser)
    browser.choose("#joint", "18")
    turned = after(painter, lambda: browser.run(SLIDE, "#turn-y", 90))
    (turn,) = turned.pose.turns
    assert turn == pytest.approx((18, 0, np.pi / 2, 0))
    browser.choose("#joint", "4")
    after(painter, lambda: browser.run(SLIDE, "#turn-x", -30))
    assert len(painter.last.pose.turns) == 2
    assert browser.text("#joints-title").lower() == "joints (2 turned)"
    assert [turn[0] for turn in after(painter, lambda: browser.click("#reset-joint")).pose.turns] == [18]
    assert after(painter, lambda: browser.click("#reset-joints")).pose.turns == ()


def test_joints_have_the_names_of_their_places(browser, painter):
    names = browser.run("return (await import('/joints.js')).JOINTS")
    assert len(names) == pose_layout.NUM_JOINTS == len(set(names))
    known = {
        pose_layout.NECK: "neck",
        pose_layout.JAW: "jaw",
        pose_layout.LEFT_COLLAR: "left collar",
        pose_layout.RIGHT_WRIST: "right wrist",
    }
    assert {joint: names[joint] for joint in known} == known
    assert all(names[joint].startswith("left ") for joint in pose_layout.LEFT_FINGERS)
    assert all(names[joint].startswith("right ") for joint in pose_layout.RIGHT_FINGERS)


def test_rotations_become_vectors_as_scipy_makes_them(browser, painter):
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    angles = np.concatenate([rng.uniform(0, np.pi, 30), np.pi - np.geomspace(1e-9, 1e-2, 9), [0.0]])
    rotations = Rotation.from_rotvec(axes * angles[:, None])
    script = "const m = await import('/joints.js'); return args[0].map(m.rotationVector)"
    vectors = np.array(browser.run(script, rotations.as_matrix().reshape(-1, 9).tolist()), float)
    assert (Rotation.from_rotvec(vectors) * rotations.inv()).magnitude().max() < 1e-6


def test_a_saved_pose_is_read_by_test_py(browser, painter, tmp_path):
    open_all(browser)
    rng = np.random.default_rng(3)
    poses = rng.normal(0, 0.4, (2, 165))
    poses[:, 66:75] = 0
    np.savez(tmp_path / "poses.npz", poses=poses, trans=rng.normal(0, 1, (2, 3)))
    after(painter, lambda: browser.type("#pose-file", str(tmp_path / "poses.npz")))
    after(painter, lambda: browser.run(SLIDE, "#up", "z"))
    browser.click("#save-pose")
    (file,) = wait_for(lambda: [each for each in browser.downloads.glob("pose.json") if each.stat().st_size])
    (question,) = asked(painter, PoseQuestion)[-1:]
    assert same(question.pose, painter.last.pose)
    ours = read_pose_file(tmp_path / "poses.npz", PoseOptions(up="z")).pose(0)
    saved = read_pose_file(file).pose(0)
    for name in ("joints", "translation", "rotation"):
        assert np.allclose(getattr(ours, name), getattr(saved, name), atol=1e-6), name


# --- pace --------------------------------------------------------------------------------------------------

PACE = "const {Pace} = await import('/pace.js'); const pace = new Pace(); const out = [];"


def test_quick_pictures_stay_as_they_are_and_need_no_sign(browser, painter):
    out = browser.run(
        PACE
        + """
        for (let i = 0; i < 100; i += 1) {
          pace.asked(20 * i);
          out.push(pace.share, pace.waits(20 * i + 19));
          pace.note(i === 50 ? 500 : 15 + i % 5, pace.share);
          pace.answered(20 * i + 19, true);
        }
        return out;
        """
    )
    assert set(out[::2]) == {1} and not any(out[1::2])  # though one of them was late


def test_slow_pictures_become_small_and_do_not_swing(browser, painter):
    """A server that takes 10 ms and 800 ms for each whole picture."""
    out = browser.run(
        PACE
        + """
        for (let i = 0; i < 30; i += 1) {
          const share = i < 2 ? 1 : pace.share;
          pace.note(10 + 800 * share * share, share);
          out.push(pace.share);
        }
        return out;
        """
    )
    assert len(set(out[3:])) == 1 and 10 + 800 * out[-1] ** 2 <= 100
    assert out[-1] >= 0.25


def test_the_sign_comes_after_a_while_and_does_not_blink(browser, painter):
    """Pictures of 350 ms, one after the other: the sign stays; then it goes."""
    out = browser.run(
        PACE
        + """
        for (let now = 0; now <= 3500; now += 10) {
          if (now % 350 === 0) pace.answered(now, false);
          out.push(pace.waits(now));
        }
        pace.answered(3500, true);
        return [out, pace.waits(3600), pace.waits(4500)];
        """
    )
    signs, soon, later = out
    assert not any(signs[:31]) and all(signs[31:]) and soon and not later


def test_a_slow_server_gets_smaller_requests_while_the_view_moves(browser):
    with serving() as server:
        painter = opened(browser, server)
        full = painter.last.camera.width
        painter.seconds = 0.4
        browser.drag(MIDDLE, (450, 320))
        wait_for(lambda: "shown" in browser.run("return document.getElementById('busy').className"))

        def small_while_dragged():
            browser.drag(MIDDLE, (450, 320))
            return painter.last.camera.width < 0.7 * full

        wait_for(small_while_dragged, 30)
        wait_for(lambda: painter.last.camera.width == full, 20)  # at rest
        wait_for(lambda: browser.run("return document.getElementById('busy').className") == "")
        browser.click("#auto-resolution")
        begun = len(painter.requests)
        for x in range(4):
            browser.drag(MIDDLE, (450 + 10 * x, 320))
        wait_for(lambda: len(painter.requests) > begun + 2, 20)
        assert all(request.camera.width == full for request in painter.requests[begun:])


# --- help --------------------------------------------------------------------------------------------------


def test_help_closes_in_every_usual_way(browser, painter):
    count = len(painter.requests)
    ways = (
        lambda: browser.press("h"),
        lambda: browser.press(ESCAPE),
        lambda: browser.drag((5, 5), (5, 5)),
        lambda: browser.click("#help-close"),
    )
    for close in ways:
        browser.press("h")
        assert browser.shown("#help")
        browser.drag((640, 200), (640, 200))  # within
        assert browser.shown("#help")
        close()
        assert not browser.shown("#help")
    assert len(painter.requests) == count
