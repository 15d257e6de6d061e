"""The browser player's arithmetic and its reader against the package, by Node.js."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.export import compact
from mmlphuman.export.compact import load_compact
from mmlphuman.types import Pose
from tests.builders import random_pose, small_trained
from tests.player.files import FINISHED, compact_file, with_metadata
from tests.player.node import run_node
from tests.player.pictures import message

PUBLISHED = {"pose_inputs": "body", "light": "none", "novel_poses": "pca", "hidden_widths": [32, 16, 16]}
SETTINGS = {
    "default": {},
    "published": PUBLISHED,
    "face": {"face": True, "light": "normal", "hidden_widths": [24]},
}
POSE = """
    const { readAvatar } = await load("avatar_file.js");
    const { poseAvatar } = await load("posing.js");
    const avatar = await readAvatar(read(args[0]));
    args[2].forEach(([pose, project], i) => write(`${args[1]}/${i}`, poseAvatar(avatar, pose, project)));
"""


def turned(pose: Pose) -> Pose:
    turn = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return replace(pose, rotation=turn)


@pytest.mark.parametrize("name", SETTINGS)
def test_gaussians_are_posed_as_the_package_poses_them(name, synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, **SETTINGS[name])
    reread = load_compact(compact_file(tmp_path / "a.safetensors", trained))
    poses = [random_pose(1), turned(random_pose(2)), replace(random_pose(3, size=2.0))]
    asked = [(pose, project) for pose in poses for project in (False, True)]
    run_node(POSE, str(tmp_path / "a.safetensors"), str(tmp_path), [(message(p), q) for p, q in asked])
    for i, (pose, project) in enumerate(asked):
        ours = np.fromfile(tmp_path / str(i), np.float32).reshape(-1, 32)
        posed = reread.pose(pose, project)
        parts = (posed.xyz, posed.opacities, posed.covariances, posed.sh[:, 0], posed.linear, posed.sh[:, 1:])
        theirs = torch.cat(
            [part.flatten(1) if part.dim() > 1 else part[:, None] for part in parts], 1
        ).numpy()
        wanted = np.concatenate([theirs, np.zeros_like(theirs[:, :1])], 1)
        np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=2e-5)
        assert np.abs(wanted[:, 22:31]).max() > 1e-3  # something depends on the view


READ = """
    const { readAvatar } = await load("avatar_file.js");
    return Promise.all(args.map(async (path) => {
        try { await readAvatar(read(path)); return ""; } catch (error) { return error.message; }
    }));
"""


def test_files_that_are_not_as_they_should_be(synthetic_body, tmp_path):
    content = compact_file(
        tmp_path / "whole", small_trained(synthetic_body, FINISHED, light="none")
    ).read_bytes()
    cases = {
        "empty": (b"", "cut short"),
        "seven": (content[:7], "cut short"),
        "in header": (content[:400], "cut short"),
        "in tensors": (content[:-1], "cut short: tensor"),
        "text": (b"<!doctype html> this is no avatar at all, but some page", "no safetensors file"),
        "foreign": (with_metadata(content, format="weights of something"), "not a compact avatar"),
        "newer": (with_metadata(content, format_version="99"), "has format version 99, this page reads 1 to"),
        "settings": (with_metadata(content, config="{"), "settings that cannot be read"),
        "other settings": (with_metadata(content, config="{}"), "settings that this page does not know"),
        "nan": (content[:-64] + content[-64:].replace(content[-64:], b"\xff" * 64), "has tensor"),
    }
    for name, (damaged, _) in cases.items():
        (tmp_path / name).write_bytes(damaged)
    told = run_node(READ, *(str(tmp_path / name) for name in ("whole", *cases)))
    assert told[0] == ""
    for (name, (_, words)), line in zip(cases.items(), told[1:], strict=True):
        assert words in line and "\n" not in line, (name, line)


def test_the_page_reads_the_format_that_is_written():
    version = run_node('return (await load("avatar_file.js")).FORMAT_VERSION')
    assert version == compact.FORMAT_VERSION


SORT = """
    const { Sorter } = await load("sorting.js");
    const centers = new Float32Array(args[0]), visible = new Uint32Array(centers.length / 4);
    const count = new Sorter(centers.length / 4).order(centers, args[1], visible);
    return Array.from(visible.subarray(0, count));
"""


def test_gaussians_are_drawn_from_far_to_near():
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (2000, 4)).astype(np.float32)
    centers[:, 3] = rng.uniform(0, 1, 2000)
    centers[::7, 3] = 0.001  # not to be seen
    axis = np.array([0.6, 0.0, 0.8, 1.5])
    order = run_node(SORT, centers.ravel().tolist(), axis.tolist())
    depths = centers[:, :3].astype(float) @ axis[:3] + axis[3]
    seen = (depths > 0.1) & (centers[:, 3] >= 1 / 255)
    assert sorted(order) == seen.nonzero()[0].tolist()
    assert (np.diff(depths[order]) < 1e-6).all()
