"""Scores of a run's held-out tests over its training time, in a file that needs no TensorBoard.

Data path: training's Monitor, at each test -> MODEL/scores.csv -> evaluation's curves (script/plot_runs.py).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmlphuman.files import write_csv

FILE_NAME = "scores.csv"
HEADER = ("iteration", "training_seconds", "psnr", "psnr_inside")


@dataclass(frozen=True)
class HeldOutScore:
    """One test: means over a few pictures that training does not see."""

    iteration: int
    seconds: float  # of training so far, without tests and checkpoints; NaN where the run did not keep it
    psnr: float  # dB, whole picture
    psnr_inside: float | None  # dB, inside the person (comparison.regions); None where there is no inside


def write_scores(path: Path, scores: Sequence[HeldOutScore]) -> None:
    rows = []
    for score in scores:
        inside = "" if score.psnr_inside is None else f"{score.psnr_inside:.4f}"
        rows.append([score.iteration, f"{score.seconds:.3f}", f"{score.psnr:.4f}", inside])
    write_csv(path, HEADER, rows)


def read_scores(path: Path) -> list[HeldOutScore]:
    """In order of iteration. FileNotFoundError where there is no such file, ValueError naming the bad line."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; train.py writes it at a run's first held-out test")
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file") from error
    if not rows or tuple(rows[0]) != HEADER:
        raise ValueError(f"{path}: line 1 must be {','.join(HEADER)}")
    scores: list[HeldOutScore] = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            iteration, seconds, psnr, inside = row
            score = HeldOutScore(
                int(iteration), float(seconds), float(psnr), float(inside) if inside else None
            )
        except ValueError as error:
            raise ValueError(
                f"{path}: line {number}: '{','.join(row)}' is not {', '.join(HEADER)} in numbers; remove the line"
            ) from error
        if scores and score.iteration <= scores[-1].iteration:
            raise ValueError(
                f"{path}: line {number}: iteration {score.iteration} follows {scores[-1].iteration}; "
                "the lines must be in order, each iteration once"
            )
        scores.append(score)
    return scores


def scores_until(path: Path, iteration: int) -> list[HeldOutScore]:
    """What a run that goes on at `iteration` keeps; the rest leaves the file."""
    if not path.exists():
        return []
    scores = read_scores(path)
    kept = [score for score in scores if score.iteration <= iteration]
    if len(kept) < len(scores):
        write_scores(path, kept)
    return kept
