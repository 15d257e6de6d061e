"""What several ranks measured, put together on the first: nothing lost, nothing moved, every digit."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mmlphuman.evaluation.fid import NUM_FEATURES
from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.evaluation.shares import Scored, gathered, share_of
from mmlphuman.processes import Ranks

WORLD = 3


@dataclass(frozen=True)
class Together(Ranks):
    """A rank whose others have had their turn before."""

    sent: dict[int, bytes] = field(default_factory=dict)

    def gather_bytes(self, data: bytes) -> list[bytes]:
        self.sent[self.rank] = data
        return [self.sent[rank] for rank in sorted(self.sent)]


def scored(number: int) -> Scored:
    """Numbers and names, awkward values, features for some."""
    camera, frame = (number, 10 * number) if number % 3 else (f"left\n{number}", "k\u00f6rper")
    psnr = math.inf if number == 2 else 1 / (number + 3)
    score = FrameScore(camera, frame, (40, 30 + number), psnr, 0.1 * number, edge_share=1e-17)
    rng = np.random.default_rng(number)
    return Scored(score, rng.random((2, NUM_FEATURES), np.float32) if number % 2 else None)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_shares_are_put_together_in_the_order_of_the_pictures(count):
    """Also where a rank has nothing to do."""
    everything, sent = [scored(number) for number in range(count)], {}
    for rank in (2, 1, 0):
        ranks = Together(torch.device("cpu"), rank, WORLD, sent=sent)
        result = gathered(share_of(everything, ranks), ranks)
        assert (result is None) == (rank > 0)
    assert [one.score for one in result] == [one.score for one in everything]
    for one, expected in zip(result, everything, strict=True):
        assert (one.features is None) == (expected.features is None)
        assert one.features is None or np.array_equal(one.features, expected.features)
