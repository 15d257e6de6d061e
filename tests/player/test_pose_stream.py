"""Streams of poses: bytes and back on both sides, who gets them, and a page that follows."""

from __future__ import annotations

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mmlphuman.streaming.messages import LivePose
from mmlphuman.streaming.pose_stream import PoseStream, play
from mmlphuman.streaming.protocol import ProtocolError, decode_live_pose, encode_live_pose
from tests.player.conftest import FRAMES, make_sequence
from tests.player.node import run_node
from tests.player.pictures import STATE
from tests.streaming.browser import wait_for

PARTS = "joints", "expression", "translation"


def live_pose(number: int = 7, seed: int = 0) -> LivePose:
    rng = np.random.default_rng(seed)
    joints, expression, translation = (rng.normal(size=size).astype(np.float32) for size in (165, 10, 3))
    return LivePose(number, joints, expression, translation)


def same(one: LivePose, other: LivePose) -> bool:
    return one.number == other.number and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in PARTS
    )


def test_a_pose_comes_back_and_is_small():
    data = encode_live_pose(live_pose())
    assert same(decode_live_pose(data), live_pose()) and len(data) == 724
    assert decode_live_pose(encode_live_pose(live_pose(2**32 + 5))).number == 5


DAMAGED = {
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "foreign": lambda data: b"MMLF" + data[4:],
    "version": lambda data: data[:4] + b"\2" + data[5:],
    "nan": lambda data: data[:-4] + b"\0\0\xc0\x7f",
    "far": lambda data: data[:-4] + np.float32(1e9).tobytes(),
}
PARSE = """
    const { parseLivePose } = await load("live_poses.js");
    return args.map((path) => {
        try { return parseLivePose(read(path)); } catch (error) { return error.message; }
    });
"""


def test_both_sides_read_the_same_and_refuse_the_same(tmp_path):
    data = encode_live_pose(live_pose())
    (tmp_path / "whole").write_bytes(data)
    for name, damage in DAMAGED.items():
        (tmp_path / name).write_bytes(damage(data))
        with pytest.raises(ProtocolError):
            decode_live_pose(damage(data))
    read, *refused = run_node(PARSE, *(str(tmp_path / name) for name in ("whole", *DAMAGED)))
    assert same(LivePose(read["number"], *(np.array(read[name], np.float32) for name in PARTS)), live_pose())
    assert all(isinstance(line, str) and "\n" not in line for line in refused), refused


@pytest.mark.parametrize("damage", [{"joints": np.zeros(164)}, {"translation": np.full(3, np.inf)}])
def test_what_is_no_pose_is_not_sent(damage):
    with pytest.raises(ProtocolError):
        encode_live_pose(LivePose(**(vars(live_pose()) | damage)))


def test_the_newest_pose_reaches_everybody_also_those_who_come_later():
    with PoseStream(port=0) as stream, connect(stream.address) as early:
        stream.publish(live_pose(1))
        assert same(decode_live_pose(early.recv(5)), live_pose(1))
        stream.publish(live_pose(2, seed=2))
        assert same(decode_live_pose(early.recv(5)), live_pose(2, seed=2))
        with connect(stream.address) as late:
            assert decode_live_pose(late.recv(5)).number == 2
    assert stream.address.startswith("ws://127.0.0.1:")


def test_who_may_not_watch_is_refused():
    with PoseStream(port=0) as stream, pytest.raises(InvalidStatus):
        connect(stream.address, origin="https://elsewhere.example")
    with PoseStream(port=0, token="a/b c") as stream:
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{stream.port}/")
        stream.publish(live_pose(3))
        with connect(stream.address, origin="https://elsewhere.example") as socket:
            assert decode_live_pose(socket.recv(5)).number == 3


def test_a_file_is_played_in_its_time():
    waits = []
    sequence = make_sequence()
    with PoseStream(port=0) as stream:
        play(sequence, stream, lambda seconds: bool(waits.append(seconds)), rounds=2)
        with connect(stream.address) as socket:
            last = decode_live_pose(socket.recv(5))
    assert waits == [1 / 25] * 2 * FRAMES
    assert last.number == 2 * FRAMES - 1
    np.testing.assert_array_equal(last.joints, sequence.poses[-1])
    np.testing.assert_array_equal(last.translation, sequence.translations[-1])


def test_a_page_follows_the_stream(browser, address):
    with PoseStream(port=0) as stream:
        stream.publish(live_pose(1))
        browser.go("about:blank")
        browser.go(f"{address}/index.html?renderer=webgl&poses={stream.address}")
        assert browser.run(STATE) == "WebGL2"
        script = "const { player } = await import('/player.js'); return [at(player), player.pose().pose.translation];"
        script = "const at = (player) => player.renderer.poseKey.split(',')[0];" + script
        for seed in (0, 4):
            stream.publish(live_pose(seed, seed))
            expected = live_pose(seed, seed).translation
            wait_for(lambda expected=expected: np.allclose(browser.run(script)[1], expected, atol=1e-6))
        wait_for(
            lambda: browser.run(script)[0] == "live"
        )  # what was drawn last, on a busy machine later than the pose
        assert "poses/s" in browser.text("#status")
    wait_for(lambda: "does not answer" in browser.text("#status"))
    assert not browser.shown("#notice")  # the last pose stays


def test_what_is_no_stream_is_told(browser, address):
    browser.go("about:blank")
    browser.go(f"{address}/index.html?renderer=webgl&poses=http://localhost/")
    assert "begins with ws://" in browser.run(STATE)
