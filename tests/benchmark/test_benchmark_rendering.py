"""Timing of drawing: rows, and a PSNR that is measured on pictures."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from mmlphuman.benchmark import rendering
from mmlphuman.benchmark.rendering import Way, picture_psnr


@pytest.fixture
def plain(subject):
    return Way("plain", subject.trained, subject.look())


def recolored(way, shift):
    avatar = copy.deepcopy(way.trained.avatar)
    with torch.no_grad():
        avatar.sh0 += shift
    return replace(way, trained=replace(way.trained, avatar=avatar))


def test_psnr_is_of_the_pictures(subject, plain):
    assert math.isinf(picture_psnr(subject, plain, plain))
    slightly, clearly = (picture_psnr(subject, recolored(plain, shift), plain) for shift in (0.05, 0.5))
    assert 35 > clearly > 20  # sh0 counts 0.28 in colour, on 18% of the picture
    assert slightly > clearly + 15


def test_rows(subject, monkeypatch):
    monkeypatch.setattr(rendering, "ROUNDS", 2)
    rows = [row.to_json() for row in rendering.measure_rendering(subject, 4, keep=0.3)]
    assert [row["name"] for row in rows] == ["plain", "plain, --test", "compact", "plain, still pose"]
    for row in rows:
        assert 0 < row["frame_ms"]["median"] <= row["frame_ms"]["p95"]
        assert row["fps"] == pytest.approx(1000 / row["frame_ms"]["median"], rel=0.01)
    assert all(stage["median"] > 0 for row in rows[:3] for stage in row["stages_ms"].values())
    assert [row["psnr_to_plain"] is None for row in rows] == [True, True, False, True]
    assert 30 < rows[2]["psnr_to_plain"] < rendering.SAME_PICTURE  # 8 bits are seen, and do no harm
