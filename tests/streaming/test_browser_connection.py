"""The page in headless Chromium and its connection: tokens, a server that comes back, training, small screens."""

import json
import re
import time
from dataclasses import replace

from mmlphuman.streaming.messages import State
from tests.streaming.browser import wait_for
from tests.streaming.page_server import (
    BLUE,
    LEFT,
    MIDDLE,
    RED,
    RIGHT,
    WELCOME,
    WINDOW,
    painted,
    same,
    serving,
    settled,
)


def test_a_token_is_asked_for(browser):
    with serving(token="right +/#&=") as server:
        browser.go(server.url.partition("#")[0] + "#token=wrong")
        wait_for(lambda: "the token is wrong" in browser.text("#notice"))
        wait_for(lambda: browser.shown("#token"))
        assert server.painter.requests == [] and server.viewers == 0
        assert browser.run("return document.getElementById('picture').width") == 1  # no picture
        browser.type("#token", "right +/#&=\n")
        wait_for(lambda: painted(browser, *LEFT, RED))
        assert not browser.shown("#notice")
        assert browser.run("return location.href") == server.url  # a reload knows it
        browser.go(server.url)
        wait_for(lambda: painted(browser, *RIGHT, BLUE))


def test_it_comes_back_when_the_server_does(browser):
    with serving() as server:
        browser.go(server.url)
        wait_for(lambda: server.painter.requests)
        settled(server.painter, lambda: browser.drag(MIDDLE, (480, 300)))
        view, port = server.painter.last.camera, server.port
    wait_for(lambda: "the connection was lost" in browser.text("#notice"))
    wait_for(lambda: re.search("next try in [0-9]+ s", browser.text("#retry")))
    with serving(port=port) as server:
        browser.click("#connect")
        wait_for(lambda: server.painter.requests)
        assert same(server.painter.last.camera, view)  # the same scene: the view stays
        wait_for(lambda: painted(browser, *LEFT, RED) and not browser.shown("#notice"))
    with serving(replace(WELCOME, title="another"), port=port) as server:
        wait_for(lambda: server.painter.requests)  # by itself
        assert not same(server.painter.last.camera, view)
        assert browser.text("#title") == "another"


def test_training_is_followed(browser):
    with serving(replace(WELCOME, training=True)) as server:
        browser.go(server.url)
        wait_for(lambda: server.painter.requests)
        assert server.painter.last.pose.kind == "training"
        history = tuple((step, 2.0 / (step + 10)) for step in range(0, 500, 5))
        server.publish(State(500, 2000, 12.5, history))
        wait_for(lambda: "500 of 2,000, 12.5 / s" in browser.text("#training"))
        assert browser.run(
            "return document.getElementById('loss').getContext('2d').getImageData(0, 0, 200, 60).data.some(Boolean)"
        )
        begun = len(server.painter.requests)
        time.sleep(1)
        assert 5 <= len(server.painter.requests) - begun <= 11


def test_nothing_is_loaded_from_elsewhere(browser, shared_server):
    browser.go("about:blank")  # the page before may just have tried to come back
    browser.log("performance")
    browser.go(shared_server.url)
    wait_for(lambda: painted(browser, *LEFT, RED))
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    sent = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    sockets = [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
    here = f"127.0.0.1:{shared_server.port}/"
    assert len(sent) >= 7 and sockets == [f"ws://{here}"]
    assert all(
        address.startswith((f"http://{here}", "data:", "about:", f"blob:http://{here}")) for address in sent
    )


def test_it_fits_a_phone(browser, shared_server):
    browser.resize(360, 640)
    try:
        browser.go(shared_server.url)
        wait_for(lambda: painted(browser, 100, 200, RED))
        assert not browser.shown("#panel") and shared_server.painter.last.camera.width == 360
        assert shared_server.painter.last.camera.height > 360
        browser.click("#fold")
        assert browser.shown("#panel") and browser.shown("#stage")
        assert browser.run("return document.documentElement.scrollWidth") == 360
        overflow = "const p = document.getElementById('panel'); return p.scrollWidth - p.clientWidth;"
        assert browser.run(overflow) == 0
    finally:
        browser.resize(*WINDOW)
