"""Curves of several runs: when which score was reached, and a picture in which every run is seen."""

import io

import cv2
import numpy as np
import pytest

from mmlphuman.evaluation.score_curves import COLOURS, curve_table, draw_curves, load_run
from mmlphuman.measures.held_out_scores import HeldOutScore, write_scores

# They end at 30 dB, after 10 minutes and after one.
SLOW = [HeldOutScore(1000 * i, 60.0 * i, 20.0 + i, 18.0 + i) for i in range(1, 11)]
FAST = [HeldOutScore(500 * i, 15.0 * i, 22.0 + 2 * i, None) for i in range(1, 5)]


@pytest.fixture
def models(tmp_path):
    for name, scores in (("slow", SLOW), ("fast", FAST)):
        write_scores(tmp_path / name / "scores.csv", scores)
    return tmp_path


def test_a_score_is_reached_at_the_first_test_that_has_it(models):
    slow, fast = (load_run(models / name, name, "psnr", "minutes") for name in ("slow", "fast"))
    assert slow.reached(24.0) == 4 and slow.reached(24.1) == 5 and slow.reached(30.1) is None
    assert fast.reached(27.9) == 0.75
    assert load_run(models / "fast", "", "psnr", "iterations").reached(27.9) == 1500


def test_the_table_tells_ends_and_crossings(models):
    runs = [load_run(models / name, name, "psnr", "minutes") for name in ("slow", "fast")]
    lines = curve_table(runs, "psnr", "minutes", 0.3, [25.0]).splitlines()
    assert " ".join(lines[0].split()) == "run iterations minutes dB 25.00 dB 29.70 dB 29.70 dB"
    assert " ".join(lines[1].split()) == "slow 10,000 10.00 30.00 5.00 10.00 10.00"
    assert " ".join(lines[2].split()) == "fast 2,000 1.00 30.00 0.50 1.00 1.00"
    unreached = curve_table(runs, "psnr", "minutes", 0.3, [31.0]).splitlines()[1].split()
    assert unreached[4] == "-"


def test_what_cannot_be_drawn_says_why(models):
    assert load_run(models / "slow", "", "inside", "minutes").y[0] == 19.0
    with pytest.raises(ValueError, match="holds no inside score"):
        load_run(models / "fast", "", "inside", "minutes")
    with pytest.raises(FileNotFoundError, match="nowhere/scores.csv: no such file; train.py writes it"):
        load_run(models / "nowhere", "", "psnr", "minutes")
    write_scores(models / "old" / "scores.csv", [HeldOutScore(10, float("nan"), 20.0, None)])
    with pytest.raises(ValueError, match="training_seconds is not known.*--x iterations"):
        load_run(models / "old", "", "psnr", "minutes")
    assert load_run(models / "old", "", "psnr", "iterations").x == (10,)


def test_every_run_is_seen_in_its_colour_and_the_time_is_told_from_zero(models):
    runs = [load_run(models / name, name, "psnr", "minutes") for name in ("slow", "fast")]
    file = io.BytesIO()
    draw_curves(runs, "psnr", "minutes", file, "png")
    picture = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    columns = []
    for colour in COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        seen = (picture == rgb).all(-1)[: picture.shape[0] // 2]  # above the legend
        assert seen.sum() > 100
        columns.append(np.flatnonzero(seen.any(0)).max())
    assert columns[0] > 0.9 * picture.shape[1]  # 10 minutes
    assert 0.1 < columns[1] / picture.shape[1] < 0.25  # 1 minute
