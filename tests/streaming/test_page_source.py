"""The browser's page against the Python side, as far as its source tells: no browser needed."""

import json
import re

import numpy as np

from mmlphuman.animation import pose_file
from mmlphuman.streaming import messages
from mmlphuman.streaming.access import CONTENT_TYPES, PAGE_FOLDER


def page_source(name: str) -> str:
    return (PAGE_FOLDER / name).read_text(encoding="utf-8")


def choices(element: str) -> tuple[str, ...]:
    """The values of a list in index.html."""
    content = re.search(rf'<select id="{element}">(.*?)</select>', page_source("index.html"), re.DOTALL)[1]
    return tuple(re.findall(r'<option value="([^"]*)"', content))


def constant(file: str, name: str) -> float:
    return float(re.search(rf"\b{name} = ([0-9.]+)[;,]", page_source(file))[1])


def test_the_page_speaks_the_protocol_of_the_server():
    assert constant("connection.js", "PROTOCOL_VERSION") == messages.PROTOCOL_VERSION
    assert constant("viewer.js", "MAX_SIDE") == messages.MAX_SIDE
    assert constant("camera_path.js", "MAX_KEYS") == messages.MAX_KEYS
    assert constant("camera_path.js", "MAX_PATH") == messages.MAX_PATH
    assert choices("show") == messages.RENDER_MODES
    assert sorted(choices("pose")) == sorted(messages.POSES)
    assert choices("hands") == messages.HANDS
    scale = re.search(
        r'id="gaussian-scale" type="range" min="([0-9.]+)" max="([0-9.]+)"', page_source("index.html")
    )
    assert [float(end) for end in scale.groups()] == [messages.MIN_SCALE, messages.MAX_SCALE]


def test_the_page_turns_pose_files_as_python_does():
    table = re.search(r"UP_ROTATIONS = (\{.*?\});", page_source("pose_file.js"), re.DOTALL)[1]
    ours = json.loads(re.sub(r",\s*\}", "}", table))
    assert ours == {axis: list(np.ravel(rows)) for axis, rows in pose_file.UP_ROTATIONS.items()}
    options = re.search(r'<select id="up">(.*?)</select>', page_source("index.html"), re.DOTALL)[1]
    assert set(re.findall(r"<option>(.*?)</option>", options)) == set(ours)


def test_the_page_needs_nothing_from_elsewhere():
    """No address but that of SVG's name space; nothing inline, which the server's policy forbids."""
    files = [file for file in PAGE_FOLDER.iterdir() if file.is_file()]
    assert {file.name for file in files} >= {"index.html", "viewer.js", "style.css"}
    for file in files:
        assert file.suffix in CONTENT_TYPES, f"{file.name} is not served"
        source = page_source(file.name).replace("xmlns='http://www.w3.org/2000/svg'", "")
        assert not re.search(r"https?://|['\"(]//|@import", source), file.name
        assert not re.search(r"\bstyle=|\bon[a-z]+=\"|<style|<script(?![^>]*src=)", source), file.name
    for name in re.findall(r'(?:src|href)="([^":]+)"', page_source("index.html")):
        assert (PAGE_FOLDER / name).is_file()
    for file in PAGE_FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', page_source(file.name)):
            assert (PAGE_FOLDER / name).is_file()
