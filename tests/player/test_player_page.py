"""The exported page in headless Chromium: pictures against the package's, controls, fingers, and what goes wrong.

Needs chromium and chromedriver (Debian: chromium, chromium-driver); their software renderers do. The same arithmetic
without a browser: test_player_posing.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlphuman.export.web import AVATAR, POSES, SETTINGS, page_files, pose_archive
from tests.builders import random_pose
from tests.player.conftest import make_sequence
from tests.player.files import with_metadata, with_stream
from tests.player.pictures import (
    FAR,
    NEAR,
    STATE,
    native_picture,
    player_picture,
    psnr,
    served,
    view_from,
)
from tests.streaming.browser import wait_for

WANTED = 45.0  # dB
SIZE = (150, 200)
FIRST = "const { player } = await import('/player.js'); await player.ready; "


def open_page(browser, address: str, query: str = "") -> str:
    browser.go("about:blank")
    for kind in ("browser", "performance"):
        browser.log(kind)  # of former pages
    browser.go(f"{address}/index.html{query}")
    return browser.run(STATE)


@pytest.fixture
def page(browser, address):
    assert open_page(browser, address, "?renderer=webgl") == "WebGL2"
    return browser


@pytest.mark.parametrize("renderer", ["webgl", "webgpu"])
def test_pictures_are_the_packages(renderer, browser, address, trained):
    name = open_page(browser, address, f"?renderer={renderer}")
    if renderer == "webgpu" and name != "WebGPU":
        pytest.skip(f"this Chromium has no WebGPU: {name}")
    cases = [(0, 0.3, NEAR, False), (1, 2.0, NEAR, True), (2, 4.4, FAR, False)]
    for seed, angle, distance, project in cases:
        pose = random_pose(seed, size=0.3)
        center = (trained.avatar.joints[0] + pose.translation).numpy()
        view = view_from(angle, center, distance, SIZE)
        native = native_picture(trained, pose, project, view)
        assert native.std() > 2  # somebody is seen
        assert psnr(player_picture(browser, pose, project, view), native) > WANTED


def test_a_gaussian_in_front_of_another_hides_it(browser, address, trained):
    """From both sides: a picture sorted the wrong way round would be another."""
    open_page(browser, address, "?renderer=webgl")
    pose = random_pose(5, size=0.1)
    center = (trained.avatar.joints[0] + pose.translation).numpy()
    for angle in (0.0, np.pi):
        view = view_from(angle, center, 1.2, SIZE)
        assert (
            psnr(player_picture(browser, pose, False, view), native_picture(trained, pose, False, view))
            > WANTED
        )


def test_nothing_is_asked_of_anybody_else_and_nothing_is_complained_of(browser, site):
    with served(site) as (address, seen):
        open_page(browser, address, "?renderer=webgl")
        entries = browser.log("performance")
        asked = [json.loads(entry["message"])["message"] for entry in entries]
        urls = [
            entry["params"]["request"]["url"]
            for entry in asked
            if entry["method"] == "Network.requestWillBeSent"
        ]
        assert len(urls) > 10
        assert all(url.startswith((address, "data:")) for url in urls), urls
        assert {"/player.js", f"/{AVATAR}", f"/{POSES}"} <= set(seen)
        told = [entry["message"] for entry in browser.log("browser") if entry["level"] == "SEVERE"]
        assert told == []


def test_the_network_may_go_once_the_page_is_loaded(browser, site):
    with served(site) as (address, _):
        open_page(browser, address, "?renderer=webgl")
    browser.run(FIRST + "player.timeline.goTo(3); player.move((camera) => camera.orbit(0.4, 0.1));")
    wait_for(
        lambda: browser.run(FIRST + "return !player.busy && player.renderer.poseKey.startsWith('given,3')")
    )
    assert not browser.shown("#notice")


def test_frames_play_and_are_scrubbed(page):
    assert page.text("#frame-number") == "frame 10 (1/6)"
    page.click("#play")
    wait_for(lambda: page.text("#frame-number") != "frame 10 (1/6)")
    assert page.text("#play") == "Pause"
    page.click("#play")
    page.run("const e = document.querySelector('#frame'); e.value = 4; e.dispatchEvent(new Event('input'));")
    wait_for(lambda: page.text("#frame-number") == "frame 14 (5/6)")


def test_the_pose_is_the_files_and_test_mode_brings_it_into_training(page, trained):
    sequence = page.run(FIRST + "player.timeline.goTo(2); return player.pose()")
    expected = random_pose(2, size=0.2)
    expected.joints[66:69] = 0  # the jaw, which this avatar has not learnt
    np.testing.assert_allclose(sequence["pose"]["joints"], expected.joints.numpy(), atol=1e-6)
    np.testing.assert_allclose(sequence["pose"]["translation"], 0.2 * expected.translation.numpy(), atol=1e-6)
    assert not sequence["project"]
    page.press("t")
    assert page.run(FIRST + "return player.pose().project")


@pytest.mark.parametrize("kind", ["t", "big"])
def test_resting_poses_stand_at_the_center(kind, page):
    page.choose("#pose", kind)
    pose = page.run(FIRST + "return player.pose().pose")
    assert (np.count_nonzero(pose["joints"]) == 2) == (kind == "big")
    assert np.allclose(pose["rotation"], np.eye(3).ravel())


def test_one_finger_turns_and_two_come_nearer(page):
    where = FIRST + "return [player.camera.azimuth, Math.hypot(...player.camera.target)]"
    azimuth, distance = page.run(where)
    page.pinch([(200, 300), (300, 300)], [(150, 300), (400, 300)])
    turned, nearer = page.run(where)
    assert nearer < 0.6 * distance and turned == pytest.approx(azimuth)
    page.drag((300, 300), (400, 300))
    assert page.run(where)[0] != pytest.approx(azimuth)


def test_a_phones_screen_is_enough(browser, address):
    browser.resize(390, 844)
    try:
        open_page(browser, address, "?renderer=webgl")
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        width, height = browser.run(FIRST + "return player.pictureSize()")
        assert width == 390 and height > 700  # controls are folded away
        assert browser.shown("#play") and browser.shown("#fold") and not browser.shown("#panel")
        browser.click("#fold")
        assert browser.shown("#project")
        assert browser.run("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.resize(1280, 720)


def opened(browser, folder: Path, content: bytes) -> dict:
    (folder / AVATAR).write_bytes(content)
    with served(folder) as (address, _):
        assert open_page(browser, address, "?renderer=webgl") == "WebGL2"
        return browser.run(
            FIRST
            + "const { camera, scene } = player; const chosen = document.querySelector('#camera').value;"
            "const { center, up } = camera;"
            "return { view: camera.view(300, 400), center, up, person: player.person(), chosen }"
        )


def a_camera(center: np.ndarray, angle: float, number: int) -> dict:
    view = view_from(angle, center, NEAR, (300, 400))
    K = view.intrinsics
    return {
        "id": number,
        "w2c": view.w2c.ravel().tolist(),
        "K": K.ravel().tolist(),
        "width": 300,
        "height": 400,
    }


def test_the_first_camera_is_the_files_view(browser, copy, trained):
    """As it is, of a field of view that its K says, turned about the person; the leaning body's up is an axis."""
    content = (copy / AVATAR).read_bytes()
    cameras = [a_camera(trained.avatar.joints[0].numpy(), angle, i) for i, angle in enumerate((1.0, 2.0))]
    view = cameras[1] | {"up": [0.1, 0.97, 0.2]}
    found = opened(browser, copy, with_metadata(content, cameras=json.dumps(cameras), view=json.dumps(view)))
    np.testing.assert_allclose(found["view"]["w2c"], view["w2c"], atol=1e-6)
    assert found["view"]["fovx"] == pytest.approx(30)
    assert found["center"] == found["person"] and found["up"] == [0, 1, 0] and found["chosen"] == "1"


def test_a_clip_that_stands_elsewhere_begins_in_the_middle(browser, copy, trained):
    """The camera goes there with its angle, and says that it is none of the capture's."""
    content = (copy / AVATAR).read_bytes()
    root = trained.avatar.joints[0].numpy()
    view = a_camera(root, 1.0, 7)
    sequence = make_sequence()
    away = np.array([4.0, 0.0, -3.0], np.float32)
    moved = replace(sequence, translations=sequence.translations + away)
    (copy / POSES).write_bytes(pose_archive(moved))
    metadata = {"cameras": json.dumps([view]), "view": json.dumps(view | {"up": [0, 1, 0]})}
    found = opened(browser, copy, with_metadata(content, **metadata))
    expected = root + moved.translations[0]
    np.testing.assert_allclose(found["center"], expected, atol=1e-5)
    w2c = np.reshape(found["view"]["w2c"], (4, 4))
    np.testing.assert_allclose(w2c @ [*expected, 1], [0, 0, NEAR, 1], atol=1e-5)
    np.testing.assert_allclose(w2c[:3, :3], np.reshape(view["w2c"], (4, 4))[:3, :3], atol=1e-6)
    assert found["chosen"] == ""


@pytest.fixture
def copy(site, tmp_path) -> Path:
    return Path(shutil.copytree(site, tmp_path / "site"))


def missing(folder: Path) -> str:
    (folder / AVATAR).unlink()
    return f"{AVATAR} cannot be loaded: the server answers 404"


def cut(folder: Path) -> str:
    (folder / AVATAR).write_bytes((folder / AVATAR).read_bytes()[:-1000])
    return f"{AVATAR} is cut short"


def with_a_damaged_stream(folder: Path) -> str:
    content = with_stream((folder / AVATAR).read_bytes(), "quats", lambda stream: stream[:-5])
    (folder / AVATAR).write_bytes(content)
    return f"{AVATAR} has tensor quats whose stream is damaged or cut short"


def of_another_version(folder: Path) -> str:
    content = with_metadata((folder / AVATAR).read_bytes(), format_version="99")
    (folder / AVATAR).write_bytes(content)
    return f"{AVATAR} has format version 99"


def without_settings(folder: Path) -> str:
    (folder / SETTINGS).write_text("{")
    return f"{SETTINGS} is damaged"


@pytest.mark.parametrize(
    "damage", [missing, cut, with_a_damaged_stream, of_another_version, without_settings]
)
def test_damage_is_told_in_one_line(damage, browser, copy):
    expected = damage(copy)
    with served(copy) as (address, _):
        assert open_page(browser, address).startswith(f"failed: {expected}")
        line = browser.text("#reason")
        assert line.startswith(expected) and "\n" not in line and browser.shown("#notice")


@pytest.mark.parametrize("there", [True, False])
def test_an_avatar_is_seen_without_its_pose_file(there, browser, copy):
    content = (copy / POSES).read_bytes()
    (copy / POSES).unlink()
    if there:
        (copy / POSES).write_bytes(content[:200])
    wanted = "is no .npz file, or is cut short" if there else "cannot be loaded: the server answers 404"
    with served(copy) as (address, _):
        assert open_page(browser, address, "?renderer=webgl") == "WebGL2"
        message = browser.text("#message")
        assert message.startswith(POSES) and wanted in message and not browser.shown("#notice")
        assert browser.run(FIRST + "return player.pose().poseKey").startswith(("training", "big"))


def test_a_browser_without_either_is_told_so(browser, address):
    script = "HTMLCanvasElement.prototype.getContext = () => null; delete Navigator.prototype.gpu;"
    found = browser._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        assert "neither WebGPU nor WebGL2" in open_page(browser, address)
        assert "neither WebGPU nor WebGL2" in browser.text("#reason")
    finally:
        browser._devtools("Page.removeScriptToEvaluateOnNewDocument", found)


def test_webgl_goes_on_where_webgpu_is_lost(browser, address, trained):
    if open_page(browser, address) != "WebGPU":
        pytest.skip("this Chromium has no WebGPU")
    browser.run(FIRST + "await player.renderer.lost();")
    assert browser.run(STATE) == "WebGL2"
    pose = random_pose(0)
    view = view_from(0.3, (trained.avatar.joints[0] + pose.translation).numpy(), NEAR, SIZE)
    assert (
        psnr(player_picture(browser, pose, False, view), native_picture(trained, pose, False, view)) > WANTED
    )


def test_pages_and_pictures_have_the_same_default_camera_maths(page, trained):
    """Without cameras in the file the person is in front of the first view."""
    view = page.run(FIRST + "return player.frame().view")
    center = trained.avatar.joints[0].double().numpy()
    seen = np.reshape(view["w2c"], (4, 4)) @ [*center, 1]
    assert seen[2] > 1 and np.abs(seen[:2] / seen[2]).max() < 0.2
    assert torch.isfinite(trained.avatar.xyz).all() and page_files()
