"""Compares runs by quality per hour: held-out score over training time, all runs in one picture, and a table.

    python script/plot_runs.py MODEL [MODEL ...] --out plot.png [--labels A B] [--metric inside] [--x iterations]

Reads MODEL/scores.csv, to which train.py adds a line at each held-out test (settings test_every, test_iterations),
also while the run goes on. The table says when each run reached which score.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmlphuman.command import require_writable, run_command
from mmlphuman.config import load_config
from mmlphuman.evaluation.score_curves import (
    AXES,
    FORMATS,
    METRICS,
    curve_table,
    draw_curves,
    load_run,
)
from mmlphuman.files import atomic_write

MARGIN = 0.3  # dB


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="what train.py wrote")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"picture to write ({', '.join(FORMATS)}); replaced"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each MODEL; default: its name")
    parser.add_argument("--metric", choices=METRICS, default="psnr", help="whole image (default) or inside")
    parser.add_argument("--x", choices=AXES, default="minutes", help="default: minutes")
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        metavar="DB",
        help="the table says when each run came so near to each run's end",
    )
    parser.add_argument(
        "--reach", type=float, nargs="+", default=[], metavar="DB", help="further scores for the table"
    )
    return parser.parse_args()


def choose_labels(models: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """The given ones, or the folders' names, or their whole paths where two have one name."""
    if given is None:
        names = [model.resolve().name for model in models]
        return names if len(set(names)) == len(names) else [str(model) for model in models]
    if len(given) != len(models):
        raise ValueError(f"--labels: {len(given)} for {len(models)} runs; give one for each MODEL")
    return list(given)


def note_other_tests(models: Sequence[Path], labels: Sequence[str]) -> None:
    """Says so where runs were tested on other pictures than the first, as far as their settings tell."""

    def pictures(model: Path) -> tuple:
        config = load_config(model / "config.yaml")
        return config.test, config.background

    recorded = [
        (pictures(model), label)
        for model, label in zip(models, labels, strict=True)
        if (model / "config.yaml").is_file()
    ]
    for tested_on, label in recorded[1:]:
        if tested_on != recorded[0][0]:
            print(
                f"note: {label} was tested on other pictures than {recorded[0][1]} (config.yaml: test, background); "
                "their scores do not compare"
            )


def main() -> None:
    args = parse_arguments()
    file_format = args.out.suffix.lstrip(".").lower()
    if file_format not in FORMATS:
        raise ValueError(f"--out {args.out}: the kind of picture is told by its name; end it in .png")
    labels = choose_labels(args.models, args.labels)
    runs = [
        load_run(model, label, args.metric, args.x) for model, label in zip(args.models, labels, strict=True)
    ]
    note_other_tests(args.models, labels)
    require_writable(args.out.parent, "--out")
    with atomic_write(args.out) as file:
        draw_curves(runs, args.metric, args.x, file, file_format)
    print(curve_table(runs, args.metric, args.x, args.margin, args.reach))
    print(f"written  {args.out}")


if __name__ == "__main__":
    run_command(main)
