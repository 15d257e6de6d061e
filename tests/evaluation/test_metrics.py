"""Scores: against torchmetrics and by construction; the table and its JSON."""

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from mmlphuman.evaluation.metrics import FrameScore, ScoreTable, regions, score_frame
from mmlphuman.training.perceptual import LPIPS


@pytest.fixture
def mask():
    mask = np.zeros((48, 64), bool)
    mask[8:40, 20:50] = True
    return mask


@pytest.fixture
def truth(mask):
    noise = np.random.default_rng(0).integers(40, 200, (*mask.shape, 3)).astype(np.uint8)
    return np.where(mask[..., None], noise, np.uint8(255))


def score(camera=0, frame=0, psnr=20.0, ssim=0.9, inside=22.0, edge=15.0, share=0.5, lpips=None):
    return FrameScore(camera, frame, psnr, ssim, inside, edge, share, lpips)


def test_regions_are_disjoint_and_as_wide_as_said(mask):
    inside, edge = regions(mask)
    assert not (inside & edge).any()
    expected = np.zeros_like(mask)
    expected[12:36, 24:46] = True
    assert np.array_equal(inside, expected)
    row = np.flatnonzero(edge[24])  # through the middle: four pixels to each side of both edges
    assert row.tolist() == [*range(16, 24), *range(46, 54)]


def test_the_picture_border_is_no_edge():
    inside, edge = regions(np.ones((10, 10), bool))
    assert inside.all() and not edge.any()
    inside, edge = regions(np.zeros((10, 10), bool))
    assert not inside.any() and not edge.any()


def test_psnr_equals_torchmetrics(truth, mask):
    render = np.clip(truth.astype(int) + np.random.default_rng(1).integers(-20, 20, truth.shape), 0, 255)
    result = score_frame(truth, render.astype(np.uint8), mask, 0, 0)
    pair = (torch.from_numpy(picture.astype(np.float32)) / 255 for picture in (render, truth))
    assert abs(result.psnr - float(peak_signal_noise_ratio(*pair, data_range=1.0))) < 1e-3


def test_an_error_is_found_where_it_is(truth, mask):
    inside, edge = regions(mask)
    render = truth.copy()
    render[inside] = truth[inside] - 10
    result = score_frame(truth, render, mask, 3, 7)
    assert result.psnr_inside == pytest.approx(-20 * math.log10(10 / 255), abs=1e-4)
    assert math.isinf(result.psnr_edge) and result.edge_share == 0
    assert result.psnr > result.psnr_inside
    render = truth.copy()
    render[edge] ^= 16
    result = score_frame(truth, render, mask, 3, 7)
    assert math.isinf(result.psnr_inside) and result.edge_share == pytest.approx(1)


def test_equal_pictures(truth, mask):
    result = score_frame(truth, truth, mask, 3, 7)
    assert math.isinf(result.psnr) and result.ssim == pytest.approx(1) and result.edge_share is None
    assert result.label() == "camera 3, frame 7: inf dB"


def test_nothing_is_measured_where_nobody_is(truth):
    result = score_frame(truth, truth // 2, np.zeros(truth.shape[:2], bool), 0, 0)
    assert result.psnr_inside is None and result.psnr_edge is None


def test_lpips_sees_the_person_only(truth, mask):
    network = LPIPS.with_random_weights(0)
    away = truth.copy()
    away[:, :4] = 0  # the mask's square spans columns 19 to 50
    assert score_frame(truth, away, mask, 0, 0, network).lpips == pytest.approx(0, abs=1e-9)
    person = np.where(mask[..., None], truth // 2, truth)
    assert score_frame(truth, person, mask, 0, 0, network).lpips > 1e-4


def test_pictures_of_different_sizes_are_refused(truth, mask):
    with pytest.raises(ValueError, match="frame 12, camera 5"):
        score_frame(truth, truth[:-1], mask, 5, 12)
    with pytest.raises(ValueError, match="one size"):
        score_frame(truth, truth, mask[:-1], 5, 12)


def test_means_are_over_images_not_over_cameras():
    table = ScoreTable.of([score(1, 0, psnr=10.0), score(1, 1, psnr=20.0), score(0, 0, psnr=30.0)])
    result = table.to_json()
    assert result["overall"]["psnr"] == pytest.approx(20) and result["overall"]["images"] == 3
    assert result["cameras"]["1"]["psnr"] == pytest.approx(15)
    assert list(result["cameras"]) == ["0", "1"]
    assert [(image["camera"], image["frame"]) for image in result["images"]] == [(0, 0), (1, 0), (1, 1)]


def test_missing_values_do_not_enter_a_mean():
    table = ScoreTable.of([score(lpips=0.25), score(frame=1, lpips=None), score(frame=2, lpips=0.75)])
    assert table.mean()["lpips"] == pytest.approx(0.5)
    assert ScoreTable.of([score()]).mean()["lpips"] is None


def test_json_is_strict_with_equal_pictures():
    table = ScoreTable.of([score(psnr=math.inf, share=None)])
    read = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert float(read["overall"]["psnr"]) == math.inf and read["overall"]["edge_share"] is None


def test_training_cameras_are_marked():
    table = ScoreTable.of([score(1), score(7)], training_cameras=[0, 1, 2])
    lines = table.text().splitlines()
    assert [line.endswith("training camera") for line in lines[1:4]] == [True, False, False]
    assert lines[-1] == "Camera 1 is a training camera: not a novel view."
    assert table.to_json()["cameras"]["1"]["training_camera"] is True
    assert table.to_json()["cameras"]["7"]["training_camera"] is False
    assert "novel" not in ScoreTable.of([score(7)], [0]).text()


def test_the_table_is_aligned():
    lines = ScoreTable.of([score(1, lpips=0.5), score(112, psnr=5.0)]).text().splitlines()
    assert len({len(line) for line in lines[:4]}) == 1


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="no picture was scored"):
        ScoreTable.of([])
