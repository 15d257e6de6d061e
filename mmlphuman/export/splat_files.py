"""Splats in small formats of others: SPZ, SOG, and glTF with KHR_gaussian_splatting.

Data path: Splats -> whole numbers -> .spz (gzip or Zstandard), .sog (a zip of lossless WebP pictures); Splats -> .glb.

SPZ (Niantic): version 3 is one gzip stream; version 4 holds the same numbers, a Zstandard stream for each attribute,
behind a header of 32 bytes and a table of the streams' sizes, both plain. The format's own axes are ours: x right, y
up, z to the viewer.
SOG version 2 (PlayCanvas): a Gaussian is a pixel of every picture, at the same place, and Gaussians are ordered along a
curve through space, so that pictures are smooth. PlayCanvas's viewers turn every file about z, as they do PLYs.
KHR_gaussian_splatting: a release candidate in July 2026; a reader that does not know it shows coloured points. With a
skeleton it is the canonical Gaussians with glTF's own skin: a reader that only knows splats shows the canonical pose.

Shape letters: N splats, K entries of a palette.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.export.gltf import GlbBuffer, byte_weights, skeleton, strongest_weights, write_content
from mmlphuman.export.pruning import curve_order
from mmlphuman.export.splats import Splats
from mmlphuman.files import atomic_write
from mmlphuman.types import SH_DEGREE_0

SPZ_MAGIC, SPZ_VERSIONS = b"NGSP", (3, 4)
SPZ_HEADER = 32  # bytes of version 4's; its table follows at once
ZSTANDARD_LEVEL = 19  # of 22; the higher ones save nothing here
SPZ_COLOR = 0.15  # of a byte's range for 1 of a degree-0 coefficient
LEAST_LOG_SCALE, LOG_SCALE_STEPS = -10, 16  # steps for 1 of a logarithm
MOST_FRACTION_BITS = 16  # of a position's 24: 1 / 65536 m, up to 128 m
SOG_CODES = 256
PALETTE, PALETTE_WIDTH = 4096, 64  # entries of view dependence; those in a row of their picture
ROUNDS = 8  # of Lloyd's algorithm
SPLATTING = "KHR_gaussian_splatting"
SPLAT_ASSET = {
    "asset": {
        "version": "2.0",
        "generator": f"mmlphuman; {SPLATTING} as of its release candidate",
    },
    "extensionsUsed": [SPLATTING],
}


def write_spz(path: str | Path, splats: Splats, version: int = 3) -> None:
    """Whole or not at all. version: of SPZ_VERSIONS. Raises ValueError if a splat is too far away."""
    largest = float(splats.xyz.abs().max()) if len(splats.xyz) else 0.0
    bits = min(MOST_FRACTION_BITS, 22 - math.ceil(math.log2(max(largest, 1e-3))))
    if bits < 0:
        raise ValueError(f"{path}: a Gaussian is {largest:.3g} m from the origin; SPZ holds 24 bits")
    places = (splats.xyz.double().numpy() * 2**bits).round().astype("<i4")
    parts = [
        places.reshape(-1, 1).view(np.uint8)[:, :3],  # the lower three of four bytes
        to_bytes(splats.opacities.numpy() * 255),
        to_bytes((splats.sh[:, 0].numpy() * SPZ_COLOR + 0.5) * 255),
        to_bytes((splats.scales.log().numpy() - LEAST_LOG_SCALE) * LOG_SCALE_STEPS),
        smallest_three(splats.quats.numpy()),
        to_bytes(splats.sh[:, 1:].numpy() * 128 + 128),  # coefficient by coefficient, its colours together
    ]
    streams = [part.tobytes() for part in parts]
    last = 0 if version == 3 else len(streams)
    header = struct.pack("<4sIIBBBB", SPZ_MAGIC, version, len(splats.xyz), 1, bits, 0, last)
    content = (
        gzip.compress(header + b"".join(streams), 9, mtime=0) if version == 3 else spz_4(header, streams)
    )
    with atomic_write(path) as file:
        file.write(content)


def spz_4(header: bytes, streams: list[bytes]) -> bytes:
    """header: the 16 bytes that both versions begin with."""
    try:
        import zstandard  # only here: all else is exported without it
    except ImportError as error:
        raise ValueError(
            "SPZ 4 needs zstandard: pip install -r requirements.txt, or write version 3"
        ) from error
    packed = [zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL).compress(stream) for stream in streams]
    sizes = [
        struct.pack("<QQ", len(small), len(stream)) for small, stream in zip(packed, streams, strict=True)
    ]
    return b"".join([header, struct.pack("<I12x", SPZ_HEADER), *sizes, *packed])


def to_bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def smallest_three(quats: np.ndarray) -> np.ndarray:
    """(N, 4) w first -> (N,) uint32: which of x, y, z, w is the largest (2 bits), then the others in that order, each a
    sign and 9 bits of its share of 1 / sqrt 2."""
    xyzw = np.roll(quats, -1, axis=1)
    largest = np.abs(xyzw).argmax(1)
    rows = np.arange(len(xyzw))
    xyzw = np.where(xyzw[rows, largest] < 0, -1, 1)[:, None] * xyzw
    found = largest.astype("<u4")
    for number in range(4):
        value = xyzw[:, number]
        size = np.minimum((np.abs(value) * math.sqrt(2) * 511).round(), 511).astype("<u4")
        word = (found << 10) | ((value < 0).astype("<u4") << 9) | size
        found = np.where(largest == number, found, word)
    return found.astype("<u4")


def write_sog(path: str | Path, splats: Splats) -> None:
    """Whole or not at all."""
    order = curve_order(splats.xyz)
    xyz, sh, opacities, scales, quats = (
        values[order].numpy()
        for values in (splats.xyz, splats.sh, splats.opacities, splats.scales, splats.quats)
    )
    logs = np.sign(xyz) * np.log1p(np.abs(xyz.astype(np.float64)))
    low, high = logs.min(0), logs.max(0)
    places = ((logs - low) / np.maximum(high - low, 1e-12) * 65535).round().astype(np.uint16)
    of_scales, scale_index = codes(np.log(scales))
    of_colors, color_index = codes(sh[:, 0])
    largest = np.abs(quats).argmax(1)
    rows = np.arange(len(quats))
    quats = np.where(quats[rows, largest] < 0, -1, 1)[:, None] * quats
    others = quats[np.arange(4)[None] != largest[:, None]].reshape(-1, 3)  # w, x, y, z without the largest
    pictures = {
        "means_l.webp": (places & 255).astype(np.uint8),
        "means_u.webp": (places >> 8).astype(np.uint8),
        "scales.webp": scale_index,
        "quats.webp": np.concatenate(
            [to_bytes((others * math.sqrt(2) + 1) / 2 * 255), 252 + largest[:, None]], 1
        ),
        "sh0.webp": np.concatenate([color_index, to_bytes(opacities * 255)[:, None]], 1),
    }
    meta = {
        "version": 2,
        "asset": {"generator": "mmlphuman"},
        "count": len(xyz),
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": of_scales.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": of_colors.tolist(), "files": ["sh0.webp"]},
    }
    if np.abs(sh[:, 1:]).max(initial=0) > 0:
        centers, labels = palette(sh[:, 1:].reshape(-1, 9))
        of_rest, rest_index = codes(centers)
        height = -(-len(centers) // PALETTE_WIDTH)
        table = np.zeros((height * PALETTE_WIDTH, 9), np.uint8)
        table[: len(centers)] = rest_index
        pictures["shN_centroids.webp"] = table.reshape(height, PALETTE_WIDTH * 3, 3)
        pictures["shN_labels.webp"] = np.stack([labels & 255, labels >> 8, 0 * labels], 1).astype(np.uint8)
        meta["shN"] = {
            "count": len(centers),
            "bands": 1,
            "codebook": of_rest.tolist(),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:  # stored: WebP is compressed
        for name, content in (
            ("meta.json", json.dumps(meta).encode()),
            *((name, webp(picture)) for name, picture in pictures.items()),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)


def codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up to 256 numbers that stand for all, ascending, and for each value the nearest one's index, uint8."""
    flat = np.sort(values.ravel().astype(np.float64))
    centers = flat[np.linspace(0, len(flat) - 1, SOG_CODES).round().astype(int)]
    # Between even spacing, which serves what is rare, and equal shares, which serves what is common.
    centers = (centers + np.linspace(flat[0], flat[-1], SOG_CODES)) / 2
    sums = np.concatenate([[0], flat.cumsum()])
    for _ in range(ROUNDS):
        borders = np.searchsorted(flat, (centers[1:] + centers[:-1]) / 2)
        ends = np.concatenate([[0], borders, [len(flat)]])
        count = np.diff(ends)
        centers = np.where(count > 0, np.diff(sums[ends]) / np.maximum(count, 1), centers)
    centers = np.sort(centers).astype(np.float32)
    index = np.searchsorted((centers[1:] + centers[:-1]) / 2, values)
    return centers, index.astype(np.uint8)


def palette(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) -> up to PALETTE vectors that stand for all (K, D), and each one's index (N,)."""
    values = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
    unique = values.unique(dim=0)
    if len(unique) <= PALETTE:
        return unique.numpy(), torch.cdist(values, unique).argmin(1).numpy()
    generator = torch.Generator().manual_seed(0)
    centers = unique[torch.randperm(len(unique), generator=generator)[:PALETTE]]
    for last in [*[False] * ROUNDS, True]:
        labels = torch.cat([torch.cdist(part, centers).argmin(1) for part in values.split(16384)])
        if not last:
            count = torch.bincount(labels, minlength=PALETTE)
            sums = torch.zeros_like(centers).index_add_(0, labels, values)
            centers = torch.where(count[:, None] > 0, sums / count.clamp_min(1)[:, None], centers)
    return centers.numpy(), labels.numpy()


def webp(values: np.ndarray) -> bytes:
    """(N, 3 or 4) uint8, laid out row by row, or a picture (H, W, 3), without loss."""
    if values.ndim == 2:
        width = max(4, -(-math.isqrt(len(values)) // 4) * 4)
        height = -(-len(values) // width)
        values = np.pad(values, ((0, width * height - len(values)), (0, 0))).reshape(height, width, -1)
    order = [2, 1, 0] if values.shape[2] == 3 else [2, 1, 0, 3]
    picture = np.ascontiguousarray(values[:, :, order].astype(np.uint8))
    done, content = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100: lossless
    if not done:
        raise OSError("OpenCV could not write a WebP picture")
    return content.tobytes()


def write_splat_glb(path: str | Path, splats: Splats) -> None:
    """Whole or not at all."""
    buffer = GlbBuffer()
    scene = {"scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"name": "avatar", "mesh": 0}]}
    write_content(path, SPLAT_ASSET | scene | {"meshes": [splat_mesh(buffer, splats)]}, buffer)


def write_rigged_splat_glb(
    path: str | Path, splats: Splats, avatar: Avatar, sequence: PoseSequence | None = None
) -> None:
    """splats: the avatar's own in the canonical pose, in its order. Joints and animation as gltf.write_glb has them.
    Whole or not at all."""
    buffer = GlbBuffer()
    mesh = splat_mesh(buffer, splats)
    # Weights in bytes, as Spark keeps them: it would round fractions one by one, and a sum that is not 1 moves a
    # Gaussian towards the origin or away from it.
    joints, weights = byte_weights(*strongest_weights(avatar.lbs_weights.cpu().numpy()))
    mesh["primitives"][0]["attributes"] |= {
        "JOINTS_0": buffer.add(joints),
        "WEIGHTS_0": buffer.add(weights, normalized=True),
    }
    write_content(path, SPLAT_ASSET | skeleton(buffer, avatar, sequence) | {"meshes": [mesh]}, buffer)


def splat_mesh(buffer: GlbBuffer, splats: Splats) -> dict:
    colors = splats.sh[:, 0].numpy() * SH_DEGREE_0 + 0.5
    shown = to_bytes(np.concatenate([colors, splats.opacities.numpy()[:, None]], 1) * 255)
    attributes = {
        "POSITION": buffer.add_bounded(splats.xyz.numpy()),
        "COLOR_0": buffer.add(shown, normalized=True),
        f"{SPLATTING}:ROTATION": buffer.add(np.roll(splats.quats.numpy(), -1, axis=1)),
        f"{SPLATTING}:SCALE": buffer.add(splats.scales.numpy()),
        f"{SPLATTING}:OPACITY": buffer.add(splats.opacities.numpy()),
    }
    for coefficient, (degree, number) in enumerate(((0, 0), (1, 0), (1, 1), (1, 2))):
        name = f"{SPLATTING}:SH_DEGREE_{degree}_COEF_{number}"
        attributes[name] = buffer.add(splats.sh[:, coefficient].numpy())
    extension = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    return {"primitives": [{"attributes": attributes, "mode": 0, "extensions": {SPLATTING: extension}}]}
