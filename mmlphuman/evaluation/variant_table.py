"""Every picture's own scores of a study in a CSV file, and the tables that are made of it.

Data path: FrameScore of each picture -> ScoredPicture -> scores.csv -> Cell (a row of a set, by seed) -> tables.

A frame's score is the mean over its cameras. Against the static avatar a frame is compared with the same frame of the
same seed; the worst of all frames and seeds stands in the table.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.evaluation.score_table import COLUMNS, ScoreTable
from mmlphuman.evaluation.study import CEILING, GIVEN, Study
from mmlphuman.files import write_csv
from mmlphuman.measures.comparison import EDGE_WIDTH
from mmlphuman.text import aligned

KEYS = ("subject", "variant", "seed", "set", "test_mode")
NUMBERS = tuple(name for name, _, _ in COLUMNS)
HEADER = (*KEYS, "camera", "frame", "width", "height", *NUMBERS)

SHOWN = ("psnr_inside", "psnr_edge", "psnr", "sharpness", "lpips")  # of COLUMNS, those of the tables
HEADINGS = {name: heading for name, heading, _ in COLUMNS} | {"psnr": "whole"}
FORMATS = {name: spec for name, _, spec in COLUMNS}
ALLOWED_BELOW = 0.1  # dB that a frame may lie below the static avatar

LEGEND = (
    "Means over a set's pictures, then over seeds, ± the seeds' standard deviation. PSNR in dB inside the person,\n"
    f"within {EDGE_WIDTH} px of the mask's edge, of the whole picture; sharpness: detail inside, of the truth's.\n"
    "Worst frame: inside PSNR minus the static avatar's in the same frame and seed, means over cameras (worst\n"
    f"picture: of one camera); below: how many frames are more than {ALLOWED_BELOW} dB under it."
)


@dataclass(frozen=True)
class ScoredPicture:
    """A line of scores.csv."""

    subject: str
    variant: str
    seed: int | None  # None: not trained
    set: str
    test_mode: str
    score: FrameScore


@dataclass(frozen=True)
class Cell:
    """A row's pictures of one set, by seed."""

    by_seed: dict[int | None, ScoreTable]

    def mean(self, metric: str) -> tuple[float, float | None] | None:
        """(mean over seeds, their sample standard deviation or None of one seed); None where nothing was measured."""
        means = [mean for table in self.by_seed.values() if (mean := table.mean()[metric]) is not None]
        if not means:
            return None
        spread = statistics.stdev(means) if len(means) > 1 and all(map(math.isfinite, means)) else None
        return sum(means) / len(means), spread


@dataclass(frozen=True)
class Difference:
    """Inside PSNR over the static avatar's, dB; of frames that both have."""

    worst: float
    frame: int | str
    seed: int | None
    worst_picture: float
    below: int  # frames, of all seeds, more than ALLOWED_BELOW under it
    frames: int

    @classmethod
    def of(cls, cell: Cell, static: Cell) -> Difference | None:
        """None where no frame is in both with one seed."""
        frames, pictures = [], []
        for seed in cell.by_seed:
            if seed not in static.by_seed:
                continue
            ours, theirs = (_inside(c.by_seed[seed]) for c in (cell, static))
            common: dict[int | str, list[tuple[float, float]]] = {}
            for (camera, frame), value in ours.items():
                if (camera, frame) in theirs:
                    pair = value, theirs[camera, frame]
                    common.setdefault(frame, []).append(pair)
                    pictures.append(_over(*pair))
            for frame, pairs in common.items():
                mean, static_mean = (sum(values) / len(values) for values in zip(*pairs, strict=True))
                frames.append((_over(mean, static_mean), frame, seed))
        if not frames:
            return None
        worst, frame, seed = min(frames, key=lambda entry: entry[0])
        below = sum(difference < -ALLOWED_BELOW for difference, _, _ in frames)
        return cls(worst, frame, seed, min(pictures), below, len(frames))


def _inside(table: ScoreTable) -> dict[tuple[int | str, int | str], float]:
    return {(s.camera, s.frame): s.psnr_inside for s in table.scores if s.psnr_inside is not None}


def _over(value: float, other: float) -> float:
    return 0.0 if value == other else value - other  # both may be infinite


def write_scores(path: Path, pictures: Iterable[ScoredPicture]) -> None:
    """A line for each picture, under HEADER."""
    rows = []
    for picture in pictures:
        keys = ["" if getattr(picture, key) is None else getattr(picture, key) for key in KEYS]
        values = asdict(picture.score)
        numbers = ["" if values[name] is None else f"{values[name]:.6f}" for name in NUMBERS]
        rows.append([*keys, picture.score.camera, picture.score.frame, *picture.score.size, *numbers])
    write_csv(path, HEADER, rows)


def read_scores(path: Path) -> list[ScoredPicture]:
    """FileNotFoundError where there is no such file; ValueError, one line, naming the bad one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file") from error
    if not rows or tuple(rows[0]) != HEADER:
        raise ValueError(f"{path}: line 1 must be {','.join(HEADER)}; remove the file, it is made again")
    pictures = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            pictures.append(_picture(dict(zip(HEADER, row, strict=True))))
        except ValueError as error:
            raise ValueError(
                f"{path}: line {number}: '{','.join(row)}' does not fit the header; remove the file, it is made again"
            ) from error
    return pictures


def _picture(row: dict[str, str]) -> ScoredPicture:
    always = "psnr", "ssim"
    numbers = {name: float(row[name]) if row[name] or name in always else None for name in NUMBERS}
    score = FrameScore(
        camera=int(row["camera"]),
        frame=int(row["frame"]),
        size=(int(row["width"]), int(row["height"])),
        **numbers,  # type: ignore[arg-type]
    )
    seed = int(row["seed"]) if row["seed"] else None
    return ScoredPicture(row["subject"], row["variant"], seed, row["set"], row["test_mode"], score)


class StudyScores:
    """A study's pictures, found by row and set. rows: (variant, test mode), in the tables' order."""

    def __init__(self, study: Study, rows: Iterable[tuple[str, str]], pictures: Iterable[ScoredPicture]):
        self.study = study
        self._scores: dict[tuple[str, str, str, str], dict[int | None, list[FrameScore]]] = {}
        for picture in pictures:
            key = picture.subject, picture.set, picture.variant, picture.test_mode
            self._scores.setdefault(key, {}).setdefault(picture.seed, []).append(picture.score)
        scored = {key[2] for key in self._scores}
        self.rows = [row for row in (*dict.fromkeys(rows), (CEILING, GIVEN)) if row[0] in scored]
        self.subjects = [name for name in study.subjects if any(key[0] == name for key in self._scores)]

    def label(self, variant: str, mode: str) -> str:
        several = sum(other == variant for other, _ in self.rows) > 1
        return f"{variant}, {'as they are' if mode == GIVEN else mode}" if several else variant

    def cell(self, subject: str, set_name: str, variant: str, mode: str) -> Cell | None:
        """Sets of poses that training saw are drawn once and stand in every test mode's row."""
        found = self._scores.get((subject, set_name, variant, mode))
        found = found or self._scores.get((subject, set_name, variant, GIVEN))
        if found is None:
            return None
        return Cell({seed: ScoreTable.of(scores) for seed, scores in found.items()})

    def difference(self, subject: str, set_name: str, variant: str, mode: str) -> Difference | None:
        """From the variant's static one; None for that itself, and where it was not scored."""
        against = self.study.variants[variant].against if variant in self.study.variants else variant
        modes = [other for name, other in self.rows if name == against]
        cell = self.cell(subject, set_name, variant, mode)
        if against == variant or not modes or cell is None:
            return None
        static = self.cell(subject, set_name, against, mode if mode in modes else modes[0])
        return None if static is None else Difference.of(cell, static)

    def overview(self) -> list[list[str]]:
        """Inside PSNR and, in brackets, the worst frame's difference from the static avatar: a row for each variant, a
        column for each subject's set."""
        columns = [(subject, name) for subject in self.subjects for name in self.study.subjects[subject].sets]
        rows = [["inside, dB [worst frame - static]", *(f"{subject} {name}" for subject, name in columns)]]
        for variant, mode in self.rows:
            cells = []
            for column in columns:
                cell, difference = self.cell(*column, variant, mode), self.difference(*column, variant, mode)
                text = _value(cell, "psnr_inside")
                cells.append(text if difference is None else f"{text} [{difference.worst:+.2f}]")
            rows.append([self.label(variant, mode), *cells])
        return rows

    def details(self, subject: str, set_name: str) -> list[list[str]]:
        """All that is told of one set: a row for each variant that has it."""
        found = [(row, cell) for row in self.rows if (cell := self.cell(subject, set_name, *row))]
        metrics = [name for name in SHOWN if any(cell.mean(name) for _, cell in found)]
        beside = ["worst frame", "below", "worst picture"]
        rows = [[f"{subject} {set_name}", "seeds", *(HEADINGS[name] for name in metrics), *beside]]
        for row, cell in found:
            difference = self.difference(subject, set_name, *row)
            told = ["-"] * len(beside)
            if difference is not None:
                told[0] = f"{difference.worst:+.2f} (frame {difference.frame}, seed {difference.seed})"
                told[1:] = f"{difference.below} of {difference.frames}", f"{difference.worst_picture:+.2f}"
            seeds = "-" if set(cell.by_seed) == {None} else str(len(cell.by_seed))
            rows.append([self.label(*row), seeds, *(_value(cell, name) for name in metrics), *told])
        return rows

    def tables(self) -> list[list[list[str]]]:
        """The overview, then each set's details; rows of cells, the first is the heading."""
        sets = [(subject, name) for subject in self.subjects for name in self.study.subjects[subject].sets]
        details = [self.details(*pair) for pair in sets]
        return [self.overview(), *(rows for rows in details if len(rows) > 1)]


def as_text(tables: Iterable[Sequence[Sequence[str]]]) -> str:
    return "\n\n".join(["\n".join(aligned(rows)) for rows in tables] + [LEGEND]) + "\n"


def as_markdown(tables: Iterable[Sequence[Sequence[str]]]) -> str:
    blocks = []
    for header, *rows in tables:
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join([*blocks, LEGEND]) + "\n"


def _value(cell: Cell | None, metric: str) -> str:
    found = None if cell is None else cell.mean(metric)
    if found is None:
        return "-"
    mean, spread = found
    text = format(mean, FORMATS[metric])
    return text if spread is None else f"{text} ± {format(spread, FORMATS[metric])}"
