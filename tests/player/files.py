"""Compact files for tests of the player."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact import encode, pack
from mmlphuman.export.pruning import Selection, prune

FINISHED = 10**6  # iterations: everything is switched on


def compact_file(path: Path, trained: TrainedAvatar, kept: int = 400, of_sh1: int = 150) -> Path:
    """With bases of some Gaussians only."""
    points = len(trained.avatar.xyz)
    order = torch.randperm(points, generator=torch.Generator().manual_seed(1))
    pruned = prune(trained, Selection(order, kept, of_sh1, 50.0))
    path.write_bytes(pack(encode(pruned), pruned, {}))
    return path


def with_metadata(content: bytes, **changes: str) -> bytes:
    """A safetensors file's content with other metadata."""
    header, data = parts(content)
    header["__metadata__"] |= changes
    return whole(header, data)


def with_entry(content: bytes, name: str, **changes: object) -> bytes:
    """With another description of a tensor's stream."""
    entries = json.loads(parts(content)[0]["__metadata__"]["tensors"])
    entries[name] |= changes
    return with_metadata(content, tensors=json.dumps(entries))


def with_stream(content: bytes, name: str, stream: bytes | Callable[[bytes], bytes]) -> bytes:
    """With another stream of a tensor, or what is made of its own."""
    header, data = parts(content)
    begin, end = header[name]["data_offsets"]
    if callable(stream):
        stream = stream(data[begin:end])
    header[name] |= {"data_offsets": [len(data), len(data) + len(stream)], "shape": [len(stream)]}
    return whole(header, data + stream)


def parts(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def whole(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
