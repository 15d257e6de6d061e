"""The player beside the streamed pictures, from the viewers' own server."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from mmlphuman.export.web import AVATAR, web_contents
from mmlphuman.streaming.server import ViewerServer
from tests.player.pictures import STATE
from tests.streaming.page_server import WELCOME

FILES = {"index.html": b"<p>the player</p>", AVATAR: b"tensors", "player.json": b"{}"}


def get(address: str):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(address, timeout=20)


def status_of(address: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(address)
    return caught.value.code


def test_its_files_lie_beside_the_page_of_pictures():
    with ViewerServer(WELCOME, port=0, player=FILES) as server:
        root = f"http://127.0.0.1:{server.port}"
        assert server.player_url == f"{root}/player/"
        with get(server.player_url) as answer:
            assert answer.read() == FILES["index.html"]
        with get(f"{server.player_url}{AVATAR}") as answer:
            assert answer.read() == b"tensors"
            assert answer.headers["Content-Type"] == "application/octet-stream"
        assert b"Avatar viewer" in get(f"{root}/").read()
        assert status_of(f"{root}/player/other.js") == 404
        assert status_of(f"{root}/{AVATAR}") == 404


def test_without_a_player_there_is_none():
    with ViewerServer(WELCOME, port=0) as server:
        assert status_of(server.player_url) == 404


def test_where_a_token_is_needed_nobody_guesses_the_players_place():
    with ViewerServer(WELCOME, port=0, token="secret", player=FILES) as server:
        root = f"http://127.0.0.1:{server.port}"
        assert status_of(f"{root}/player/{AVATAR}") == 404
        assert len(server.player_url) > len(root) + 20 and "secret" not in server.player_url
        with get(server.player_url) as answer:
            assert answer.read() == FILES["index.html"]


def test_the_page_works_under_the_servers_policy(browser, site):
    contents = web_contents((site / AVATAR).read_bytes(), None, "served")
    with ViewerServer(WELCOME, port=0, player=contents) as server:
        browser.go("about:blank")
        browser.log("browser")
        browser.go(f"{server.player_url}?renderer=webgl")
        assert browser.run(STATE.replace("/player.js", server.player_url + "player.js")) == "WebGL2"
        assert browser.text("#title") == "served"
        assert [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"] == []
