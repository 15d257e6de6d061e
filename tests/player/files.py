"""Compact files for tests of the player."""

from __future__ import annotations

import json
import struct
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
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
