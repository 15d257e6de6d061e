"""Several runs' scores over their training time: quality per hour, as a picture and as a table.

Data path: MODEL/scores.csv of every run -> Curve -> curves in one picture, table in the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from mmlphuman.measures.comparison import EDGE_WIDTH
from mmlphuman.measures.held_out_scores import FILE_NAME, HeldOutScore, read_scores
from mmlphuman.text import aligned

METRICS = {
    "psnr": "PSNR of held-out views, dB",
    "inside": f"PSNR inside the person (beyond {EDGE_WIDTH} px), held-out views, dB",
}
AXES = {
    "minutes": "training time in minutes, tests and checkpoints not counted",
    "iterations": "iterations",
}
FORMATS = ("png", "svg", "pdf")

# Okabe and Ito's palette (Color Universal Design, 2008) without its yellow, too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":")  # change when the colours are used up
INCHES, DOTS_PER_INCH = (9.0, 5.5), 130
TEST_MARKER, END_MARKER = 3, 10  # points


@dataclass(frozen=True)
class Curve:
    """One run's curve. x: minutes or iterations at each test, y: dB; both of one length, at least 1."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    end: HeldOutScore

    def reached(self, score: float) -> float | None:
        """x of the first test that scores at least `score` dB; None if none does. Nothing is interpolated."""
        return next((x for x, y in zip(self.x, self.y, strict=True) if y >= score), None)


def load_run(model_dir: Path, label: str, metric: str, axis: str) -> Curve:
    """metric: a key of METRICS; axis: of AXES. ValueError where the run has nothing to draw."""
    if Path(model_dir).is_file():
        raise ValueError(
            f"{model_dir}: is a file; scores over training time are in model folders alone, name those"
        )
    path = Path(model_dir) / FILE_NAME
    scores, values = [], []
    for score in read_scores(path):
        value = score.psnr if metric == "psnr" else score.psnr_inside
        if value is not None:
            scores.append(score)
            values.append(value)
    if not scores:
        raise ValueError(f"{path}: holds no {metric} score; train on, or choose another --metric")
    if axis == "minutes" and any(math.isnan(score.seconds) for score in scores):
        raise ValueError(
            f"{path}: training_seconds is not known, the run was begun by a version that did not keep it; "
            "use --x iterations"
        )
    return Curve(
        label,
        tuple(score.seconds / 60 if axis == "minutes" else score.iteration for score in scores),
        tuple(values),
        scores[-1],
    )


def draw_curves(runs: Sequence[Curve], metric: str, axis: str, file: BinaryIO, file_format: str) -> None:
    """Writes the picture: a curve a run, a dot at each test, a large marker with the score at each run's end."""
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index % len(MARKERS)]
        line = LINES[index // len(COLOURS) % len(LINES)]
        axes.plot(run.x, run.y, line, color=colour, marker=marker, markersize=TEST_MARKER, linewidth=1.8)
        axes.plot(
            run.x[-1:],
            run.y[-1:],
            line,
            color=colour,
            marker=marker,
            markersize=END_MARKER,
            markerfacecolor="none",  # runs that end alike stay visible under each other
            markeredgewidth=2,
            label=f"{run.label}: {run.y[-1]:.2f} dB at {_amount(run.x[-1], axis)}",
        )
    axes.set_xlabel(AXES[axis], fontsize=12)
    axes.set_ylabel(METRICS[metric], fontsize=12)
    axes.set_xlim(left=0)
    if axis == "iterations":
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelsize=11)
    axes.grid(color="#d9d9d9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", fontsize=11)
    figure.savefig(file, format=file_format, dpi=DOTS_PER_INCH)


def curve_table(runs: Sequence[Curve], metric: str, axis: str, margin: float, given: Sequence[float]) -> str:
    """Aligned text: where each run ended, and when it reached the `given` scores and `margin` dB below each end."""
    goals = [(score, "") for score in given]
    goals += [(run.y[-1] - margin, f"{margin:g} below the end of {run.label}") for run in runs]
    rows = [["run", "iterations", "minutes", "dB", *(f"{score:.2f} dB" for score, _ in goals)]]
    for run in runs:
        reached = [run.reached(score) for score, _ in goals]
        ended = [f"{run.end.iteration:,}", f"{run.end.seconds / 60:.2f}", f"{run.y[-1]:.2f}"]
        rows.append([run.label, *ended, *("-" if x is None else _number(x, axis) for x in reached)])
    lines = aligned(rows)
    lines.append(f"dB: {METRICS[metric].removesuffix(', dB')}; last test.")
    lines.append(f"Columns of a score: {axis} until the first test with that score or more; -: never.")
    lines += [f"{score:.2f} dB: {meaning}" for score, meaning in goals if meaning]
    return "\n".join(lines)


def _number(x: float, axis: str) -> str:
    return f"{x:.2f}" if axis == "minutes" else f"{x:,.0f}"


def _amount(x: float, axis: str) -> str:
    return f"{_number(x, axis)} min" if axis == "minutes" else f"iteration {_number(x, axis)}"
