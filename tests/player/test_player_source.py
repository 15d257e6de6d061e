"""The player's files as far as their source tells: all there, nothing from elsewhere, constants as in Python."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np

from mmlphuman.animation.pose_file import read_pose_file
from mmlphuman.avatar import light
from mmlphuman.export.web import SETTINGS, page_files, pose_archive
from mmlphuman.render import projection, torch_rasterizer
from mmlphuman.streaming import protocol
from mmlphuman.types import SH_DEGREE_0, SH_DEGREE_1
from tests.player.conftest import make_sequence

ROOT = Path(__file__).parents[2]


def sources() -> dict[str, str]:
    return {name: file.read_text(encoding="utf-8") for name, file in page_files().items()}


def test_what_the_files_name_is_there():
    files = sources()
    for name, source in files.items():
        named = re.findall(r'from "\./([^"]+)"|new URL\("([^"]+)"|(?:src|href)="([^":]+)"', source)
        for other in filter(None, (part for parts in named for part in parts)):
            assert other in files, f"{name} names {other}"
    assert f'"{SETTINGS}"' in files["player.js"]
    used = {name for name in files if any(name in source for other, source in files.items() if other != name)}
    assert set(files) - used == {"index.html"}, "nobody needs it"


def test_the_player_needs_nothing_from_elsewhere():
    for name, source in sources().items():
        source = source.replace("xmlns='http://www.w3.org/2000/svg'", "")
        assert not re.search(r"https?://|['\"(]//|@import", source), name
        assert not re.search(r"\bstyle=|\bon[a-z]+=\"|<style|<script(?![^>]*src=)", source), name


def test_an_installed_package_has_the_files():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert {"page/*", "player/*"} <= set(data["mmlphuman.streaming"])


def numbers(name: str, source: str) -> set[float]:
    found = re.findall(rf"\b{name} = ([0-9.]+(?: \* [0-9.]+)?(?: / [0-9.]+)?)", source)
    return {float(eval(text, {"__builtins__": {}})) for text in found}


def test_rendering_goes_by_the_packages_numbers():
    files = sources()
    shaders = files["webgl_renderer.js"] + files["webgpu_shaders.js"]
    assert numbers("BLUR", shaders) == {projection.BLUR}
    assert numbers("MAX_EXTENT", shaders) == {projection.MAX_EXTENT}
    assert numbers("FRUSTUM_MARGIN", shaders) == {projection.FRUSTUM_MARGIN}
    assert numbers("SH_DEGREE_0", shaders) == {SH_DEGREE_0} and numbers("SH_DEGREE_1", shaders) == {
        SH_DEGREE_1
    }
    assert numbers("NEAR_PLANE", shaders + files["sorting.js"]) == {projection.NEAR_PLANE}
    assert numbers("MIN_ALPHA", shaders + files["sorting.js"]) == {projection.MIN_ALPHA}
    assert len(re.findall(rf"min\(alpha, {torch_rasterizer.MAX_ALPHA}\)", shaders)) == 2
    assert numbers("DARKEST", files["posing.js"]) == {light.DARKEST}
    assert f"vec3f({light.DARKEST})" in shaders
    assert light.FUNCTIONS == {"none": 0, "normal": 8, "place": 20}
    assert "{ none: 0, normal: 8, place: 20 }" in files["avatar_file.js"]
    assert numbers("VERSION", files["live_poses.js"]) == {protocol.POSE_VERSION}


def test_the_pose_file_is_read_back_as_it_was(tmp_path):
    sequence = make_sequence()
    (tmp_path / "poses.npz").write_bytes(pose_archive(sequence))
    read = read_pose_file(tmp_path / "poses.npz")
    np.testing.assert_array_equal(read.poses[:, :66], sequence.poses[:, :66])
    np.testing.assert_array_equal(read.poses[:, 75:], sequence.poses[:, 75:])
    np.testing.assert_array_equal(read.translations, sequence.translations)
    assert read.fps == sequence.fps
