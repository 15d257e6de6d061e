"""The table of scores: means, marks, JSON, alignment."""

import json
import math

import pytest

from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.evaluation.score_table import ScoreTable, comparison


def score(camera=0, frame=0, psnr=20.0, share=0.5, lpips=None, size=(64, 48)):
    return FrameScore(camera, frame, size, psnr, 0.9, 22.0, 15.0, share, 21.0, 0.8, lpips)


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


def test_fid_is_of_sets():
    table = ScoreTable.of([score(1), score(2)], fid={1: 4.0, None: 7.5})
    result = table.to_json()
    assert result["overall"]["fid"] == 7.5 and result["cameras"]["1"]["fid"] == 4.0
    assert result["cameras"]["2"]["fid"] is None and "fid" not in result["images"][0]
    header, first, second, overall = table.text().splitlines()[:4]
    assert (
        header.endswith("FID") and first.endswith("4.0") and second.endswith("-") and overall.endswith("7.5")
    )
    assert "FID" not in ScoreTable.of([score()]).text().splitlines()[0]


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


def test_names_stand_where_there_are_no_numbers():
    table = ScoreTable.of([score("left", "b"), score("left", "a"), score(10, 3), score(9, 3)])
    assert list(table.per_camera()) == [9, 10, "left"]
    assert [image["frame"] for image in table.to_json()["images"]] == [3, 3, "a", "b"]
    alone = ScoreTable.of([score("", "a")]).text(legend=False).splitlines()
    assert len(alone) == 2 and alone[1].split()[:2] == ["all", "1"]


def test_programs_stand_in_rows_of_one_table():
    tables = {"ours": ScoreTable.of([score(psnr=31.0)]), "a/peer": ScoreTable.of([score(psnr=29.5)])}
    header, ours, peer = comparison(tables).splitlines()[:3]
    assert ours.split()[:3] == ["ours", "1", "31.00"] and peer.split()[:3] == ["a/peer", "1", "29.50"]
    assert len(header) == len(ours) == len(peer)


def test_sizes_are_told_once_each():
    table = ScoreTable.of([score(), score(frame=1), score(frame=2, size=(32, 48))])
    assert table.to_json()["image_sizes"] == [[32, 48], [64, 48]]


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="no picture was scored"):
        ScoreTable.of([])
