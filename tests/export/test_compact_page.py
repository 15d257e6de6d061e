"""docs/compact_file.md says enough: a reader made of that page alone, in NumPy, poses as the package does.

Steps are numbered as the page's. Drawing (steps 7 and 8) is the player's tests' part.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlphuman.export.compact_reader import load_compact
from tests.builders import random_pose, small_trained
from tests.player.files import FINISHED, compact_file

KINDS = {"u8": "u1", "i8": "i1", "u16": "<u2", "i16": "<i2", "i32": "<i4", "f32": "<f4"}
Arrays = dict[str, np.ndarray]


def read(path: Path) -> tuple[Arrays, dict, int]:
    """Values by name, `config`, `iteration`."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header["__metadata__"]
    entries = json.loads(metadata["tensors"])
    raw = {}
    for name, entry in entries.items():
        begin, end = header[name]["data_offsets"]
        raw[name] = unpacked(zlib.decompress(data[begin:end]), entry)
    values = {name: array for name, array in raw.items() if not name.endswith((".scale", ".offset"))}
    for name in values:
        if f"{name}.scale" in raw:
            steps = raw[f"{name}.scale"].astype(float) * values[name]
            if entries[name]["shifted"]:
                steps *= 2.0 ** raw["shift"][: len(steps)].reshape(-1, *[1] * (steps.ndim - 1))
            values[name] = steps + raw.get(f"{name}.offset", 0.0)
    for name in values:
        if name.endswith(".weight"):  # the first of each row is left out
            others = values[name]
            values[name] = np.concatenate([1 - others.sum(1, keepdims=True), others], 1)
    return values, json.loads(metadata["config"]), int(metadata["iteration"])


def unpacked(data: bytes, entry: dict) -> np.ndarray:
    kind, shape = np.dtype(KINDS[entry["type"]]), entry["shape"]
    planes = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1, shape[0])
    words = sum(plane.astype(np.uint64) << np.uint64(8 * byte) for byte, plane in enumerate(planes))
    if entry["delta"]:
        words = words.cumsum(1, dtype=np.uint64)
    return words.astype(f"<u{kind.itemsize}").view(kind).T.reshape(shape)


def mean(arrays: Arrays, table: str, of: np.ndarray) -> np.ndarray:
    weights, index = arrays[f"{table}.weight"], arrays[f"{table}.index"].astype(int)
    return np.einsum("ns,ns...->n...", weights, of[index])


def rotation(vectors: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, :, 0], 1e-12)).T
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = np.stack([x, y, z], 1)
    cross[:, [1, 2, 0], [2, 0, 1]] = -np.stack([x, y, z], 1)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def posed(arrays: Arrays, config: dict, iteration: int, joints: np.ndarray, translation, turn, expression):
    """-> centres (N, 3), covariances (N, 3, 3), opacities (N,), spherical harmonics (N, 4, 3)."""
    x = np.concatenate([joints, [0], expression])  # 1
    inputs = arrays["mlp_inputs"].astype(int)
    h = x[inputs] if inputs.ndim == 2 else np.tile(x[inputs], (len(arrays["bank.biases.0"]), 1))
    layers = sum(name.startswith("bank.weights.") for name in arrays)
    for i in range(layers):  # 2
        h = np.einsum("aoi,ai->ao", arrays[f"bank.weights.{i}"], h) + arrays[f"bank.biases.{i}"]
        h = np.maximum(h, 0) if i < layers - 1 else h
    of_positions = arrays["position_bases"].shape[1]
    d = arrays["control_offsets"].copy()  # 3
    if iteration >= config["iteration_dxyz_basis"]:
        z = mean(arrays, "control_to_anchor", h[:, -of_positions:])
        d += np.einsum("cl,cld->cd", z, arrays["position_bases"])
    centre = arrays["xyz"] + mean(arrays, "gaussian_to_control", d)  # 4
    properties = np.concatenate(
        [arrays[name].reshape(len(centre), -1) for name in ("sh0", "log_scales", "quats", "opacity_logits")],
        1,
    )
    sh1, z = arrays["sh1"].copy(), mean(arrays, "gaussian_to_anchor", h[:, :-of_positions])
    if iteration >= config["iteration_gsparam_basis"]:
        properties[: len(z)] += np.einsum("pk,pkd->pd", z, arrays["property_bases"])
    if iteration >= config["iteration_sh_degree"]:
        bases = arrays["sh1_bases"]
        sh1[: len(bases)] += np.einsum("qk,qkd->qd", z[: len(bases)], bases).reshape(-1, 3, 3)
    else:
        sh1[:] = 0
    w, i, j, k = (properties[:, 6:10] / np.linalg.norm(properties[:, 6:10], axis=1, keepdims=True)).T
    own = np.stack(
        [1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j),
         2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i),
         2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j)], 1,
    ).reshape(-1, 3, 3)  # fmt: skip

    rest, parents = arrays["joints"], arrays["parents"].astype(int)  # 5
    world = np.tile(np.eye(4), (len(rest), 1, 1))
    world[:, :3, :3] = rotation(joints.reshape(-1, 3))
    world[:, :3, 3] = rest - np.where(parents[:, None] < 0, 0, rest[parents])
    for joint in range(1, len(rest)):
        world[joint] = world[parents[joint]] @ world[joint]
    world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rest)
    skin = mean(arrays, "lbs_weights", world @ arrays["canonical_inverse"])
    centre = np.einsum("nab,nb->na", skin[:, :3, :3], centre) + skin[:, :3, 3]
    centre = centre @ turn.T + translation
    m = turn @ skin[:, :3, :3]
    half = m @ own * np.exp(properties[:, 3:6])[:, None]

    normal = np.einsum("nab,nb->na", m, arrays["normals"])  # 6
    x, y, z = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).T
    functions = [x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    if len(arrays["light.coefficients"]) == 20:
        low, high = arrays["light.lowest"], arrays["light.highest"]
        place = centre - translation + translation.clip(low, high) - (low + high) / 2
        functions += [q * f for q in place.T for f in (1, x, y, z)]
    shade = np.maximum(0.05, 1 + np.stack(functions, 1) @ arrays["light.coefficients"])
    sh0 = properties[:, :3] * shade + (shade - 1) * 0.5 / 0.28209479
    sh = np.concatenate([sh0[:, None], sh1 * shade[:, None]], 1)
    return centre, half @ half.transpose(0, 2, 1), 1 / (1 + np.exp(-properties[:, 10])), sh


@pytest.mark.parametrize("light", ["normal", "place"])
@pytest.mark.parametrize("iteration", [40, FINISHED])
def test_the_page_says_enough_to_pose_an_avatar(light, iteration, synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, iteration, light=light)
    path = compact_file(tmp_path / "a.safetensors", trained)
    ours, arrays = load_compact(path), read(path)
    for seed in range(3):
        turn = torch.from_numpy(rotation(np.array([[0.3, 1.1, -0.4]]))[0]).float()
        pose = replace(random_pose(seed), rotation=turn)
        expected = ours.pose(pose)
        numbers = (pose.joints, pose.translation, pose.rotation, pose.expression)
        found = posed(*arrays, *(each.double().numpy() for each in numbers))
        xx, xy, xz, yy, yz, zz = expected.covariances.numpy().T
        covariances = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).reshape(-1, 3, 3)
        np.testing.assert_allclose(found[0], expected.xyz.numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], covariances, atol=1e-4 * covariances.max())
        np.testing.assert_allclose(found[2], expected.opacities.numpy(), atol=1e-4)
        np.testing.assert_allclose(found[3], expected.sh.numpy(), atol=1e-3)
