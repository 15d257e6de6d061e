"""Scores of a test, averaged: for a person a table, for a program JSON.

Data path: FrameScore of every picture (+ FID of sets of pictures) -> ScoreTable -> scores.json, table in the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.measures.comparison import EDGE_WIDTH, PERCEPTUAL_SIZE
from mmlphuman.text import aligned

# What is averaged: field of FrameScore, heading of its column, its format.
COLUMNS = (
    ("psnr", "PSNR", ".2f"),
    ("psnr_inside", "inside", ".2f"),
    ("psnr_edge", "edge", ".2f"),
    ("edge_share", "edge error", ".0%"),
    ("ssim", "SSIM", ".4f"),
    ("psnr_crop", f"PSNR {PERCEPTUAL_SIZE}", ".2f"),
    ("ssim_crop", f"SSIM {PERCEPTUAL_SIZE}", ".4f"),
    ("lpips", "LPIPS", ".4f"),
    ("sharpness", "sharpness", ".3f"),
)
FID_COLUMN = ("fid", "FID", ".1f")  # a property of a set of pictures, not a mean over them

LEGEND = (
    "Means over images. PSNR in dB: whole image, inside the person, within "
    f"{EDGE_WIDTH} px of the mask's edge; edge error: share of\nthe squared error in that band. "
    f"{PERCEPTUAL_SIZE}, LPIPS, FID: on the mask's bounding square resized to {PERCEPTUAL_SIZE}.\n"
    "Sharpness: detail inside the person, of the truth's; below 1 is blurred."
)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a test, averaged over pictures: per camera and over all.

    training_cameras: cameras the avatar was trained on; their rows are marked, being no novel views.
    fid: of a camera's pictures by camera, of all of them by None; a set that is not there could not be measured.
    Without it there is no such column.
    """

    scores: tuple[FrameScore, ...]
    training_cameras: frozenset[int] = frozenset()
    fid: Mapping[int | str | None, float] | None = None

    @classmethod
    def of(
        cls,
        scores: Iterable[FrameScore],
        training_cameras: Iterable[int] = (),
        fid: Mapping[int | str | None, float] | None = None,
    ) -> ScoreTable:
        """Sort by camera and frame. Raises ValueError when there is nothing to average."""
        ordered = tuple(sorted(scores, key=lambda score: (_rank(score.camera), _rank(score.frame))))
        if not ordered:
            raise ValueError(
                "no picture was scored: none of the test cameras and frames exists in the capture"
            )
        return cls(ordered, frozenset(training_cameras), fid)

    def per_camera(self) -> dict[int | str, list[FrameScore]]:
        return {camera: list(group) for camera, group in groupby(self.scores, key=lambda score: score.camera)}

    def mean(self, camera: int | str | None = None) -> dict[str, float | None]:
        """Means over all pictures, or one camera's, by the names of FrameScore, and `fid`; None where no picture has
        a value."""
        means = _means(self.scores if camera is None else self.per_camera()[camera])
        return means if self.fid is None else means | {"fid": self.fid.get(camera)}

    def to_json(self) -> dict:
        """Plain dict for json.dump. JSON has no infinity: the PSNR of equal pictures is the string "inf"."""
        cameras = {
            str(camera): {"images": len(scores)}
            | _json_values(self.mean(camera))
            | {"training_camera": camera in self.training_cameras}
            for camera, scores in self.per_camera().items()
        }
        pictures = [
            {"camera": score.camera, "frame": score.frame} | _json_values(_means([score]))
            for score in self.scores
        ]
        return {
            "image_sizes": [list(size) for size in self.sizes()],
            "overall": {"images": len(self.scores)} | _json_values(self.mean()),
            "cameras": cameras,
            "images": pictures,
        }

    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of the pictures, each once."""
        return sorted({score.size for score in self.scores})

    def summary(self) -> str:
        """One line: the means and the number of pictures."""
        means = self.mean()
        parts = [
            f"{heading} {_cell(means[name], spec)}"
            for name, heading, spec in (*COLUMNS, FID_COLUMN)
            if means.get(name) is not None
        ]
        return ", ".join([*parts, f"{len(self.scores)} image{'s' * (len(self.scores) > 1)}"])

    def text(self, legend: bool = True) -> str:
        """Aligned table for the terminal, a row for each camera. legend: say what the columns are."""
        rows = [["camera", "images", *_headings(self.mean()), ""]]
        cameras = self.per_camera()
        for camera, scores in cameras.items():
            note = "training camera" if camera in self.training_cameras else ""
            if camera != "":  # files that lie in no subfolder: the row of all says it
                rows.append([str(camera), str(len(scores)), *_cells(self.mean(camera)), note])
        rows.append(["all", str(len(self.scores)), *_cells(self.mean()), ""])
        lines = _table(rows)
        if legend:
            lines.append(LEGEND)
        trained_on = [str(camera) for camera in cameras if camera in self.training_cameras]
        if trained_on:
            subject = (
                f"Camera {trained_on[0]} is a"
                if len(trained_on) == 1
                else f"Cameras {', '.join(trained_on)} are"
            )
            lines.append(f"{subject} training camera{'s' * (len(trained_on) > 1)}: not a novel view.")
        return "\n".join(lines)


def comparison(tables: Mapping[str, ScoreTable]) -> str:
    """Aligned table for the terminal: a row for each program, over all its pictures."""
    rows = [["program", "images", *_headings(next(iter(tables.values())).mean()), ""]]
    for name, table in tables.items():
        rows.append([name, str(len(table.scores)), *_cells(table.mean()), ""])
    return "\n".join([*_table(rows), LEGEND])


def _rank(key: int | str) -> tuple[bool, int, str]:
    """Numbers by value, then names by letter."""
    return (False, key, "") if isinstance(key, int) else (True, 0, key)


def _means(scores: Sequence[FrameScore]) -> dict[str, float | None]:
    means = {}
    for name, _, _ in COLUMNS:
        values = [getattr(score, name) for score in scores if getattr(score, name) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _json_values(means: dict[str, float | None]) -> dict[str, float | str | None]:
    return {
        name: "inf" if value is not None and math.isinf(value) else value for name, value in means.items()
    }


def _headings(means: dict[str, float | None]) -> list[str]:
    return [heading for name, heading, _ in (*COLUMNS, FID_COLUMN) if name in means]


def _cells(means: dict[str, float | None]) -> list[str]:
    return [_cell(means[name], spec) for name, _, spec in (*COLUMNS, FID_COLUMN) if name in means]


def _cell(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; each row's last entry is a note."""
    return aligned(rows, left=(len(rows[0]) - 1,))
