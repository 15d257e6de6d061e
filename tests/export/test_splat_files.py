"""Splats in other people's formats: read back as their specifications say, and by another program where it is there.

`SPLAT_TRANSFORM` may name the command of @playcanvas/splat-transform, e.g. "node .../bin/cli.mjs"; node 22 or later.
"""

import gzip
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import torch
import zstandard
from plyfile import PlyData

from mmlphuman.avatar.offset_bases import covariance_factors
from mmlphuman.export.ply import write_gaussian_ply
from mmlphuman.export.splat_files import (
    codes,
    palette,
    smallest_three,
    webp,
    write_sog,
    write_splat_glb,
    write_spz,
)
from mmlphuman.export.splats import Splats, splats_of
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import PosedGaussians, upper_triangles
from tests.builders import look_at_origin
from tests.export.test_gaussian_ply import posed_avatar, psnr, turned_along

COMMAND = shlex.split(os.environ.get("SPLAT_TRANSFORM", "splat-transform"))
foreign = pytest.mark.skipif(
    shutil.which(COMMAND[0]) is None, reason="no splat-transform: npm install -g @playcanvas/splat-transform"
)


@pytest.fixture(scope="module")
def posed(synthetic_body) -> PosedGaussians:
    return posed_avatar(synthetic_body, "place")


@pytest.fixture(scope="module")
def splats(posed) -> Splats:
    return splats_of(posed)


def picture_psnr(posed: PosedGaussians, splats: Splats, up: str = "y") -> float:
    """dB of the worst of eight views."""
    factors = covariance_factors(splats.quats, splats.scales)
    back = PosedGaussians(
        splats.xyz,
        upper_triangles(factors @ factors.transpose(1, 2)),
        splats.opacities,
        splats.sh * torch.tensor([1.0, -1, -1, -1])[:, None],  # our direction is theirs reversed
        torch.eye(3).repeat(len(splats.xyz), 1, 1),
    )
    cameras, background = look_at_origin(2.5, 64, 8), torch.tensor([0.2, 0.9, 0.4])
    native = rasterize(posed, cameras, background)
    return float(psnr(native.colors, rasterize(back, turned_along(cameras, up), background).colors).min())


def rotations(quats: torch.Tensor) -> torch.Tensor:
    return covariance_factors(torch.nn.functional.normalize(quats, dim=1), torch.ones(len(quats), 3))


def assert_near(
    found: Splats, truth: Splats, xyz: float, log_scale: float, angle: float, color: float
) -> None:
    assert (found.xyz - truth.xyz).abs().max() < xyz
    assert (found.scales.log() - truth.scales.log()).abs().max() < log_scale
    assert (rotations(found.quats) - rotations(truth.quats)).abs().max() < angle
    assert (found.opacities - truth.opacities).abs().max() < 0.51 / 255
    assert (found.sh[:, 0] - truth.sh[:, 0]).abs().max() < color


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def read_spz(content: bytes) -> Splats:
    """By the specification of version 3, a gzip stream, or 4, which begins in plain."""
    if content[:4] == b"NGSP":
        return read_spz_4(content)
    data = gzip.decompress(content)
    magic, version, count, degree, bits, flags, reserved = struct.unpack_from("<4sIIBBBB", data)
    assert (magic, version, degree, flags, reserved) == (b"NGSP", 3, 1, 0, 0)
    assert len(data) == 16 + count * (9 + 1 + 3 + 3 + 4 + 9)
    streams, at = [], 16
    for size in (9, 1, 3, 3, 4, 9):
        streams.append(data[at : at + count * size])
        at += count * size
    return splats_of_streams(streams, count, bits)


def read_spz_4(content: bytes) -> Splats:
    version, count, degree, bits, flags, number, table = struct.unpack_from("<IIBBBBI", content, 4)
    assert (version, degree, flags, number) == (4, 1, 0, 6)
    assert table >= 32 and content[20:32] == bytes(12), "reserved"
    sizes = [struct.unpack_from("<QQ", content, table + 16 * row) for row in range(number)]
    streams, at = [], table + 16 * number
    for compressed, size in sizes:
        frame = content[at : at + compressed]
        assert zstandard.frame_content_size(frame) == size, "some readers allocate by the frame's own word"
        streams.append(zstandard.ZstdDecompressor().decompress(frame))
        at += compressed
    assert at == len(content)
    assert [size for _, size in sizes] == [count * size for size in (9, 1, 3, 3, 4, 9)]
    return splats_of_streams(streams, count, bits)


def splats_of_streams(streams: list[bytes], count: int, bits: int) -> Splats:
    """Of both versions: places, opacities, colours, scales, rotations, harmonics."""
    parts = [np.frombuffer(stream, np.uint8).reshape(count, -1) for stream in streams]
    places = parts[0].reshape(count, 3, 3).astype(np.int32)
    xyz = places[..., 0] | places[..., 1] << 8 | places[..., 2] << 16
    xyz = np.where(xyz >= 2**23, xyz - 2**24, xyz) / 2**bits
    quats = np.zeros((count, 4))  # x, y, z, w
    for row, word in enumerate(parts[4].copy().view("<u4")[:, 0].tolist()):
        largest = word >> 30
        for number in (3, 2, 1, 0):
            if number != largest:
                quats[row, number] = (1 - 2 * (word >> 9 & 1)) * (word & 511) / 511 / np.sqrt(2)
                word >>= 10
        quats[row, largest] = np.sqrt(1 - (quats[row] ** 2).sum())
    sh = np.concatenate(
        [(parts[2][:, None] / 255 - 0.5) / 0.15, (parts[5].reshape(count, 3, 3) - 128.0) / 128], 1
    )
    scales = np.exp(parts[3] / 16 - 10.0)
    return Splats(
        tensor(xyz),
        tensor(sh),
        tensor(parts[1][:, 0] / 255),
        tensor(scales),
        tensor(np.roll(quats, 1, axis=1)),
    )


def read_sog(path) -> Splats:
    """By the specification of version 2."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        meta = json.loads(archive.read("meta.json"))

        def picture(name: str, channels: int) -> np.ndarray:
            found = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            assert found.shape[2] == channels
            return found[..., [2, 1, 0, 3][:channels]]

        def pixels(part: str, channels: int, number: int = 0) -> np.ndarray:
            return (
                picture(meta[part]["files"][number], channels)
                .reshape(-1, channels)[: meta["count"]]
                .astype(int)
            )

        assert meta["version"] == 2
        places = pixels("means", 3) + 256 * pixels("means", 3, 1)
        low, high = np.array(meta["means"]["mins"]), np.array(meta["means"]["maxs"])
        logs = low + (high - low) * places / 65535
        xyz = np.sign(logs) * np.expm1(np.abs(logs))
        quats, colors = pixels("quats", 4), pixels("sh0", 4)
        wxyz = np.zeros((len(xyz), 4))
        for row, (a, b, c, tag) in enumerate(quats.tolist()):
            largest = tag - 252
            others = [number for number in range(4) if number != largest]
            wxyz[row, others] = (np.array([a, b, c]) / 255 * 2 - 1) / np.sqrt(2)
            wxyz[row, largest] = np.sqrt(1 - (wxyz[row] ** 2).sum())
        labels = pixels("shN", 3, 1)
        labels = labels[:, 0] + 256 * labels[:, 1]
        centers = picture(meta["shN"]["files"][0], 3)
        assert centers.shape[1] == 64 * 3 and meta["shN"]["bands"] == 1
        rest = centers.reshape(-1, 3, 3)[labels]  # 3 coefficients, each of a pixel
        code = {part: np.array(meta[part]["codebook"]) for part in ("scales", "sh0", "shN")}
        assert all(len(book) == 256 for book in code.values())
        sh = np.concatenate([code["sh0"][colors[:, None, :3]], code["shN"][rest]], 1)
        scales = np.exp(code["scales"][pixels("scales", 3)])
        return Splats(tensor(xyz), tensor(sh), tensor(colors[:, 3] / 255), tensor(scales), tensor(wxyz))


def by_place(splats: Splats, like: Splats) -> Splats:
    """In the other's order."""
    order = torch.cdist(like.xyz.double(), splats.xyz.double()).argmin(1)
    assert len(order.unique()) == len(order)
    return Splats(*(getattr(splats, name)[order] for name in ("xyz", "sh", "opacities", "scales", "quats")))


@pytest.mark.parametrize("version", [3, 4])
def test_spz_holds_the_numbers_to_its_steps_and_the_picture(posed, splats, tmp_path, version):
    write_spz(tmp_path / "a.spz", splats, version)
    found = read_spz((tmp_path / "a.spz").read_bytes())
    assert_near(found, splats, 0.51 / 2**16, 0.51 / 16, 0.01, 0.51 / 255 / 0.15)
    assert (found.sh[:, 1:] - splats.sh[:, 1:].clamp(-1, 127 / 128)).abs().max() < 0.51 / 128
    assert picture_psnr(posed, found) > 38
    write_spz(tmp_path / "b.spz", splats, version)
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes(), "the same each time"


def test_both_versions_of_spz_hold_the_same(splats, tmp_path):
    for version in (3, 4):
        write_spz(tmp_path / f"{version}.spz", splats, version)
    three, four = (read_spz((tmp_path / f"{version}.spz").read_bytes()) for version in (3, 4))
    for name in ("xyz", "sh", "opacities", "scales", "quats"):
        assert torch.equal(getattr(three, name), getattr(four, name)), name


def test_spz_4_without_zstandard_is_one_line_and_no_file(splats, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match="SPZ 4 needs zstandard"):
        write_spz(tmp_path / "a.spz", splats, 4)
    assert not list(tmp_path.iterdir())
    write_spz(tmp_path / "a.spz", splats, 3)


@pytest.mark.parametrize("version", [3, 4])
def test_spz_far_away_has_longer_steps_or_one_clear_line(splats, tmp_path, version):
    far = Splats(splats.xyz + 1000, splats.sh, splats.opacities, splats.scales, splats.quats)
    write_spz(tmp_path / "a.spz", far, version)
    assert (read_spz((tmp_path / "a.spz").read_bytes()).xyz - far.xyz).abs().max() < 0.51 / 2**12
    lost = Splats(splats.xyz + 1e8, splats.sh, splats.opacities, splats.scales, splats.quats)
    with pytest.raises(ValueError, match="m from the origin; SPZ holds 24 bits"):
        write_spz(tmp_path / "b.spz", lost, version)
    assert not (tmp_path / "b.spz").exists()


def test_sog_holds_the_numbers_to_its_steps_and_the_picture(posed, tmp_path):
    splats = splats_of(posed, "-y")
    write_sog(tmp_path / "a.sog", splats)
    found = by_place(read_sog(tmp_path / "a.sog"), splats)
    assert_near(found, splats, 1e-4, 0.1, 0.02, 0.05)
    assert (found.sh[:, 1:] - splats.sh[:, 1:]).abs().max() < 0.1
    assert picture_psnr(posed, found, "-y") > 38


def test_webp_is_without_loss():
    values = np.random.default_rng(0).integers(0, 256, (1001, 4)).astype(np.uint8)
    values[:, 3] |= 1  # of what is wholly transparent no colour is promised
    back = cv2.imdecode(np.frombuffer(webp(values), np.uint8), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]
    assert np.array_equal(back.reshape(-1, 4)[:1001], values)


def test_256_codes_are_near_all_values():
    values = np.random.default_rng(0).normal(size=(500, 3))
    centers, index = codes(values)
    assert len(centers) == 256 and (np.diff(centers) >= 0).all()
    error = np.abs(centers[index] - values)
    assert (error <= np.abs(centers[:, None, None] - values[None]).min(0) + 1e-6).all(), "the nearest"
    assert error.max() < 0.1 and error.mean() < 0.01
    few, index = codes(np.array([[3.0], [5.0], [5.0]]))
    assert few[index].ravel().tolist() == [3, 5, 5]


def test_a_palette_of_few_is_exact_and_of_many_near(monkeypatch):
    values = np.random.default_rng(0).normal(size=(300, 9)).astype(np.float32)
    centers, labels = palette(values)
    assert np.array_equal(centers[labels], values)
    monkeypatch.setattr("mmlphuman.export.splat_files.PALETTE", 64)
    centers, labels = palette(values)
    assert len(centers) == 64 and labels.max() < 64
    nearest = np.linalg.norm(values[:, None] - centers[None], axis=2)
    assert np.array_equal(nearest.argmin(1), labels)
    assert np.square(values - centers[labels]).mean() < 0.6


def test_smallest_three_keeps_rotations_of_either_sign():
    quats = torch.nn.functional.normalize(
        torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    quats[:4] = torch.eye(4)
    assert np.array_equal(smallest_three(quats.numpy()), smallest_three(-quats.numpy()))
    assert smallest_three(quats[:4].numpy())[0] >> 30 == 3, "w"


def read_glb(path) -> tuple[dict, dict[str, np.ndarray]]:
    """JSON, and each attribute of the one primitive."""
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    content, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    arrays = {}
    for name, number in content["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = content["accessors"][number]
        view = content["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        columns = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        begin = view["byteOffset"] + accessor.get("byteOffset", 0)
        assert begin % 4 == 0 and begin + view["byteLength"] <= len(binary)
        arrays[name] = np.frombuffer(binary, dtype, accessor["count"] * columns, begin).reshape(-1, columns)
    return content, arrays


def test_gltf_holds_all_numbers(posed, splats, tmp_path):
    write_splat_glb(tmp_path / "a.glb", splats)
    content, arrays = read_glb(tmp_path / "a.glb")
    primitive = content["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0 and content["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    of = {name.removeprefix("KHR_gaussian_splatting:"): tensor(array) for name, array in arrays.items()}
    sh = torch.stack(
        [of[f"SH_DEGREE_{name}"] for name in ("0_COEF_0", "1_COEF_0", "1_COEF_1", "1_COEF_2")], 1
    )
    found = Splats(of["POSITION"], sh, of["OPACITY"][:, 0], of["SCALE"], of["ROTATION"].roll(1, 1))
    for name in ("xyz", "sh", "opacities", "scales", "quats"):
        assert torch.equal(getattr(found, name), getattr(splats, name)), name
    assert picture_psnr(posed, found) > 45


def transform(*words) -> None:
    done = subprocess.run(
        [*COMMAND, "-w", "-q", *map(str, words)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def read_ply(path) -> Splats:
    vertex = PlyData.read(path)["vertex"]

    def columns(names):
        return tensor(np.stack([vertex[name] for name in names], 1))

    rest = columns(
        [f"f_rest_{i}" for i in range(sum(p.name.startswith("f_rest") for p in vertex.properties))]
    )
    sh = torch.cat(
        [
            columns([f"f_dc_{i}" for i in range(3)])[:, None],
            rest.unflatten(1, (3, -1))[..., :3].transpose(1, 2),
        ],
        1,
    )
    scales = columns([f"scale_{i}" for i in range(3)]).exp()
    quats = torch.nn.functional.normalize(columns([f"rot_{i}" for i in range(4)]), dim=1)
    return Splats(columns("xyz"), sh, columns(["opacity"])[:, 0].sigmoid(), scales, quats)


@foreign
def test_splat_transform_reads_our_ply(posed, tmp_path):
    splats = splats_of(posed, "-y")
    write_gaussian_ply(tmp_path / "a.ply", splats)
    transform(tmp_path / "a.ply", tmp_path / "b.ply")
    found = read_ply(tmp_path / "b.ply")
    assert_near(found, splats, 1e-6, 1e-5, 1e-5, 1e-6)
    assert (found.sh - splats.sh).abs().max() < 1e-6


@foreign
@pytest.mark.parametrize("version", [3, 4])
def test_splat_transform_reads_our_spz(posed, splats, tmp_path, version):
    write_spz(tmp_path / "a.spz", splats, version)
    transform(tmp_path / "a.spz", tmp_path / "b.ply")
    ours, found = read_spz((tmp_path / "a.spz").read_bytes()), read_ply(tmp_path / "b.ply")
    assert_near(found, ours, 1e-6, 1e-5, 1e-5, 1e-5)
    assert (found.sh - ours.sh).abs().max() < 1e-5
    assert picture_psnr(posed, found) > 38


@foreign
def test_we_read_the_spz_4_of_splat_transform(posed, tmp_path):
    """So that the tests' reader is not only the writer's mirror. It keeps 12 bits of a metre and turns nothing."""
    splats = splats_of(posed, "-y")
    write_gaussian_ply(tmp_path / "a.ply", splats, degree=1)
    transform(tmp_path / "a.ply", tmp_path / "b.spz", "--spz-version", 4)
    content = (tmp_path / "b.spz").read_bytes()
    assert content[:4] == b"NGSP"
    found = by_place(read_spz(content), splats)
    assert (found.xyz - splats.xyz).abs().max() < 0.51 / 2**12
    assert (found.opacities - splats.opacities).abs().max() < 0.51 / 255
    assert picture_psnr(posed, found, "-y") > 38


@foreign
def test_splat_transform_reads_our_sog(posed, tmp_path):
    splats = splats_of(posed, "-y")
    write_sog(tmp_path / "a.sog", splats)
    transform(tmp_path / "a.sog", tmp_path / "b.ply")
    ours, found = read_sog(tmp_path / "a.sog"), read_ply(tmp_path / "b.ply")
    assert_near(found, ours, 1e-5, 1e-5, 1e-5, 1e-5)
    assert (found.sh - ours.sh).abs().max() < 1e-5
    assert picture_psnr(posed, by_place(found, splats), "-y") > 38


@foreign
def test_splat_transform_writes_the_gltf_that_we_write(posed, splats, tmp_path):
    """It reads no glTF; of our PLY it makes one with the same attributes, types and numbers, upright as ours."""
    write_gaussian_ply(tmp_path / "a.ply", splats_of(posed, "-y"), degree=1)
    transform(tmp_path / "a.ply", tmp_path / "theirs.glb")
    write_splat_glb(tmp_path / "ours.glb", splats)
    (content, ours), (their_content, theirs) = (
        read_glb(tmp_path / f"{name}.glb") for name in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name == "KHR_gaussian_splatting:ROTATION":
            # Axes may point either way.
            one, other = (rotations(tensor(array).roll(1, 1)).abs() for array in (ours[name], theirs[name]))
            assert (one - other).abs().max() < 1e-3
        else:
            assert ours[name].dtype == theirs[name].dtype
            assert np.abs(ours[name].astype(float) - theirs[name]).max() < (
                1.01 if name == "COLOR_0" else 1e-4
            ), name
    extension, their_extension = (
        each["meshes"][0]["primitives"][0]["extensions"] for each in (content, their_content)
    )
    assert extension == their_extension
