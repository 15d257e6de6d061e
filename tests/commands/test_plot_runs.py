"""Comparing runs as a user does: a trained model's own scores, and one line for every mistake."""

import shutil

import cv2

from tests.commands.runs import call, call_here, one_error_line

COMMAND = "script/plot_runs.py"


def test_trained_runs_are_drawn_and_other_tests_noted(model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(model / "scores.csv", other)
    settings = (model / "config.yaml").read_text()
    (other / "config.yaml").write_text(settings.replace("num_frame: 2\n", "num_frame: 1\n"))
    out = tmp_path / "new" / "plot.png"
    status, text, err = call(
        COMMAND, model, other, "--labels", "ours", "theirs", "--x", "iterations", "--out", out
    )
    assert status == 0, err
    assert "note: theirs was tested on other pictures than ours" in text
    row = next(line for line in text.splitlines() if line.startswith("ours")).split()
    assert row[1] == "6"  # iterations of the run
    assert cv2.imread(str(out)).shape[1] > 800


def test_mistakes_end_with_one_line_and_nothing_written(model, tmp_path):
    out = tmp_path / "plot.png"
    one_error_line(call_here(COMMAND, model, "--out", out, "--labels", "a", "b"), "--labels: 2 for 1 runs")
    one_error_line(call_here(COMMAND, tmp_path, "--out", out), "scores.csv", "no such file")
    one_error_line(call_here(COMMAND, model, "--out", tmp_path / "plot.gif"), "plot.gif", ".png")
    assert list(tmp_path.iterdir()) == []
