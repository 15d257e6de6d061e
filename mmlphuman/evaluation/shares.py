"""A job's pictures dealt out to several processes, and what they measured put together again.

Data path: all pictures -> share_of each rank -> Scored of each -> gathered -> Scored of all, as one process has them.

Rank r takes the pictures r, r + world, ... Each writes its own; only numbers travel between the processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from mmlphuman.evaluation.fid import NUM_FEATURES
from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.processes import Ranks

# The longest that one rank may keep the others waiting: with a video of its own, or with FID. The death of a process
# is noticed by its connections and not by this.
RENDER_TIMEOUT = timedelta(hours=12)

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """What was measured on one picture."""

    score: FrameScore
    features: np.ndarray | None = None  # (2, NUM_FEATURES) float32 of truth and render, for FID


def share_of(items: Sequence[T], ranks: Ranks) -> Sequence[T]:
    """This rank's items."""
    return items[ranks.rank :: ranks.world]


def shown(items: Iterable[T], count: int, title: str, ranks: Ranks, quiet: bool = False) -> Iterable[T]:
    """The items of this rank's share, with a progress bar on rank 0. count: how many it has."""
    if ranks.world > 1:
        title = f"{title}, 1 of {ranks.world} processes"
    return tqdm(items, title, count, unit="image", disable=quiet or not ranks.first)


def gathered(share: list[Scored], ranks: Ranks) -> list[Scored] | None:
    """On rank 0 everybody's in the order of the pictures, elsewhere None.

    Every rank calls it, after its pictures are written: rank 0 goes on when all have.
    """
    if ranks.world == 1:
        return share
    packed = ranks.gather_bytes(_pack(share))
    if not ranks.first:
        return None
    shares = [_unpack(data) for data in packed]
    rounds = zip_longest(*shares)  # one picture of every rank each, the last perhaps of the first few only
    return [scored for pictures in rounds for scored in pictures if scored is not None]


def _pack(share: Sequence[Scored]) -> bytes:
    """A line of JSON, which keeps every digit, and the features after it."""
    scores = [asdict(scored.score) | {"has_features": scored.features is not None} for scored in share]
    features = [scored.features for scored in share if scored.features is not None]
    return b"\n".join([json.dumps(scores).encode(), np.array(features, np.float32).tobytes()])


def _unpack(data: bytes) -> list[Scored]:
    line, _, numbers = data.partition(b"\n")
    features = iter(np.frombuffer(numbers, np.float32).reshape(-1, 2, NUM_FEATURES))
    share = []
    for fields in json.loads(line):
        measured = next(features) if fields.pop("has_features") else None
        share.append(Scored(FrameScore(**fields | {"size": tuple(fields["size"])}), measured))
    return share
