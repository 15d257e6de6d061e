"""The browser player's arithmetic and its reader against the package, by Node.js."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.export import compact, compact_reader
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.precision import LEVELS, Looked, even_steps
from mmlphuman.types import Pose
from tests.builders import random_pose, small_trained
from tests.export.former_compact import former_file
from tests.player.files import FINISHED, compact_file, with_entry, with_metadata, with_stream
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


ARRAYS = """
    const { Quantised, readAvatar } = await load("avatar_file.js");
    const { arrays, sizes } = await readAvatar(read(args[0]));
    const { fround } = Math;
    const kinds = {};
    for (const [name, array] of Object.entries(arrays)) {
        let numbers = array;
        if (array instanceof Quantised) {
            kinds[name] = array.values.constructor.name;
            const [middle, last] = name.startsWith("bank") ? [1, array.values.length / array.scales.length]
                : [sizes.K, name === "sh1_bases" ? 9 : 11];
            numbers = Float32Array.from(array.values, (step, i) => {
                const scale = middle === 1 ? Math.floor(i / last) : Math.floor(i / (middle * last)) * last + i % last;
                const stepped = fround(step * array.scales[scale]);
                return middle === 1 ? stepped : fround(stepped + array.offsets[i % (middle * last)]);
            });
        }
        write(`${args[1]}/${name}`, Float64Array.from(numbers));
    }
    return kinds;
"""


def decoded(path, trained) -> dict[str, torch.Tensor]:
    """The file's tensors as the package has them."""
    stored, metadata = compact_reader._read(path)
    fields = compact.fields_of(trained.config, names=stored)
    state = compact_reader._unpack(
        stored, metadata, fields, compact_reader._sizes(trained.config, compact.FORMAT_VERSION)
    )
    state = compact_reader._whole_weights(state)
    for name in ("lbs_weights", "gaussian_to_anchor", "gaussian_to_control", "control_to_anchor"):
        state[f"{name}.weight"] /= state[f"{name}.weight"].sum(1, keepdim=True)
    return state


@pytest.mark.parametrize("level", ["high", "tiny", "wide steps"])
def test_every_number_is_the_packages(level, synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, light="place", face=True)
    path = tmp_path / "a.safetensors"
    if level in LEVELS:
        made = Looked(trained, count=2, quiet=True).compacted(LEVELS[level], keep=0.5)
        trained = made.trained
        steps = replace(made.steps, shift=torch.arange(len(trained.avatar.xyz)) % 5)
    else:  # than 16 bits
        steps = even_steps(trained.avatar, step=1e-8)
    path.write_bytes(compact.pack(compact.encode(trained, steps=steps), trained, {}))
    kinds = run_node(ARRAYS, str(path), str(tmp_path))
    assert (kinds["property_bases"] == "Float32Array") == (level == "wide steps")
    wanted = decoded(path, trained)
    assert {"light.lowest", "mlp_inputs", "shift"} - {*wanted} == {"shift"}
    for name, values in wanted.items():
        ours = np.fromfile(tmp_path / name)
        theirs = values.double().numpy().ravel()
        if name.endswith(".weight"):  # summed in another order
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_files_of_version_4_are_read_and_posed_alike(synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED)
    path = tmp_path / "a.safetensors"
    path.write_bytes(former_file(trained))
    poses = [random_pose(1), turned(random_pose(2))]
    run_node(POSE, str(path), str(tmp_path), [(message(pose), False) for pose in poses])
    reread = load_compact(path)
    for i, pose in enumerate(poses):
        ours = np.fromfile(tmp_path / str(i), np.float32).reshape(-1, 32)
        posed = reread.pose(pose, False)
        np.testing.assert_allclose(ours[:, :3], posed.xyz.numpy(), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(ours[:, 10:13], posed.sh[:, 0].numpy(), rtol=2e-4, atol=2e-5)


READ = """
    const { readAvatar } = await load("avatar_file.js");
    return Promise.all(args.map(async (path) => {
        try { await readAvatar(read(path)); return ""; } catch (error) { return error.message; }
    }));
"""


DAMAGED = "whose stream is damaged or cut short; export both anew"


def flipped(stream: bytes) -> bytes:
    middle = len(stream) // 2
    return stream[:middle] + bytes([stream[middle] ^ 0x55]) + stream[middle + 1 :]


def test_files_that_are_not_as_they_should_be(synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, light="none")
    content = compact_file(tmp_path / "whole", trained).read_bytes()
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
        "no streams": (with_metadata(content, tensors="[1]"), "describes tensor"),
        "unknown type": (with_entry(content, "xyz", type="f64"), "describes tensor xyz in no known way"),
        "floats for steps": (with_entry(content, "xyz", type="f32"), "describes tensor xyz in no known way"),
        "huge": (with_entry(content, "xyz", shape=[2**30, 3]), "describes tensor xyz in no known way"),
        "other shape": (with_entry(content, "quats", shape=[7, 4]), "has tensor quats of shape (7,4)"),
        "fewer bytes": (
            with_entry(content, "shift", type="i32"),
            "tensor shift whose stream is damaged or cut short",
        ),
        "more bytes": (with_stream(content, "xyz", zlib.compress(bytes(10**6))), f"xyz {DAMAGED}"),
        "cut stream": (with_stream(content, "xyz", lambda stream: stream[:-9]), f"xyz {DAMAGED}"),
        "flipped": (with_stream(content, "sh0", flipped), f"sh0 {DAMAGED}"),
        "checksum": (with_stream(content, "sh0", lambda stream: stream[:-1] + b"?"), f"sh0 {DAMAGED}"),
        "appended": (with_stream(content, "sh0", lambda stream: stream + b"?"), f"sh0 {DAMAGED}"),
        "no stream": (with_stream(content, "parents", b"hello"), f"parents {DAMAGED}"),
        "nan": (
            with_stream(content, "sh0.scale", zlib.compress(b"\xff" * 12)),
            "has tensor sh0.scale hold numbers that are not finite",
        ),
        "shift": (
            with_stream(content, "shift", zlib.compress(b"\x05" * len(trained.avatar.xyz))),
            "has tensor shift point outside 0..4",
        ),
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
