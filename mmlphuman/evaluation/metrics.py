"""Scores of rendered pictures against the captured ones (method: evaluation).

Data path: ground truth, render (uint8, exactly what is written as PNG) and mask -> FrameScore -> ScoreTable
-> scores.json and the table in the terminal.

The background of both pictures is white. PSNR and SSIM are of the whole picture. PSNR is also given for the
inside of the person and for a band about the mask's edge apart, because an edge that is off by a pixel hides
everything else: most of a converged avatar's squared error lies there.
Shape letters: H, W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import torch

from mmlphuman.training.image_losses import mask_square, person_crops
from mmlphuman.training.perceptual import LPIPS

EDGE_WIDTH = 4  # pixels to either side of the mask's edge


@dataclass(frozen=True)
class FrameScore:
    """One picture's scores; None where there is nothing to measure (no mask, no network weights)."""

    camera: int
    frame: int
    psnr: float  # dB, whole picture; infinite for equal pictures
    ssim: float
    psnr_inside: float | None  # dB, pixels of the person farther than EDGE_WIDTH from the mask's edge
    psnr_edge: float | None  # dB, pixels within EDGE_WIDTH of the mask's edge, to both sides
    edge_share: float | None  # part of the whole picture's squared error that lies in that band, 0 to 1
    lpips: float | None  # VGG, on the mask's bounding square resized to 512

    def label(self) -> str:
        """For a contact sheet."""
        return f"camera {self.camera}, frame {self.frame}: {self.psnr:.1f} dB"


# What is averaged: field of FrameScore, heading of its column, its format.
COLUMNS = (
    ("psnr", "PSNR", ".2f"),
    ("psnr_inside", "inside", ".2f"),
    ("psnr_edge", "edge", ".2f"),
    ("edge_share", "edge error", ".0%"),
    ("ssim", "SSIM", ".4f"),
    ("lpips", "LPIPS", ".4f"),
)


def regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool mask -> two disjoint bool masks: the inside of the person and the band about the edge.

    A pixel's distance is to the nearest pixel on the other side of the edge. The picture's border is no edge.
    """
    mask = mask.astype(np.uint8)
    if mask.all() or not mask.any():
        return mask > 0, np.zeros(mask.shape, bool)
    to_background = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_person = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = np.where(mask, to_background, to_person)
    return (mask > 0) & (distance > EDGE_WIDTH), distance <= EDGE_WIDTH


def score_frame(
    ground_truth: np.ndarray,
    render: np.ndarray,
    mask: np.ndarray,
    camera: int,
    frame: int,
    lpips: LPIPS | None = None,
    device: torch.device | str = "cpu",
) -> FrameScore:
    """Score one picture.

    ground_truth, render: (H, W, 3) uint8 RGB on white; mask: (H, W) bool, the person. lpips: the network, on
    `device`; None leaves LPIPS out. device: where SSIM and LPIPS are computed.
    """
    if ground_truth.shape != render.shape or mask.shape != render.shape[:2]:
        raise ValueError(
            f"frame {frame}, camera {camera}: ground truth {ground_truth.shape}, render {render.shape} and "
            f"mask {mask.shape} must be of one size"
        )
    # torchmetrics takes seconds to import, and only scoring needs it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    squared_error = np.square(ground_truth.astype(np.float32) / 255 - render.astype(np.float32) / 255).mean(
        -1
    )
    inside, edge = regions(mask)
    total = float(squared_error.sum(dtype=np.float64))
    pair = torch.from_numpy(np.stack([ground_truth, render])).to(device).float() / 255
    truth_first, render_first = pair.permute(0, 3, 1, 2).split(1)
    similarity = structural_similarity_index_measure(render_first, truth_first, data_range=1.0)
    return FrameScore(
        camera=camera,
        frame=frame,
        psnr=_psnr(squared_error),
        ssim=float(similarity),
        psnr_inside=_psnr(squared_error[inside]),
        psnr_edge=_psnr(squared_error[edge]),
        edge_share=float(squared_error[edge].sum(dtype=np.float64)) / total if total > 0 else None,
        lpips=None if lpips is None else _lpips_of_person(pair, mask, lpips),
    )


def _psnr(squared_error: np.ndarray) -> float | None:
    """dB from squared errors of colours in [0, 1]; None for no pixels, infinite for no error."""
    if squared_error.size == 0:
        return None
    mean = float(squared_error.mean(dtype=np.float64))
    return -10 * math.log10(mean) if mean > 0 else math.inf


@torch.no_grad()
def _lpips_of_person(pair: torch.Tensor, mask: np.ndarray, lpips: LPIPS) -> float:
    square, white = mask_square(mask), torch.ones(3, device=pair.device)
    truth, render = person_crops(pair, [square, square], white).split(1)
    return float(lpips(render, truth))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a test, averaged over pictures: per camera and over all.

    training_cameras: cameras the avatar was trained on; their rows are marked, being no novel views.
    """

    scores: tuple[FrameScore, ...]
    training_cameras: frozenset[int] = frozenset()

    @classmethod
    def of(cls, scores: Iterable[FrameScore], training_cameras: Iterable[int] = ()) -> ScoreTable:
        """Sort by camera and frame. Raises ValueError when there is nothing to average."""
        ordered = tuple(sorted(scores, key=lambda score: (score.camera, score.frame)))
        if not ordered:
            raise ValueError(
                "no picture was scored: none of the test cameras and frames exists in the capture"
            )
        return cls(ordered, frozenset(training_cameras))

    def per_camera(self) -> dict[int, list[FrameScore]]:
        return {camera: list(group) for camera, group in groupby(self.scores, key=lambda score: score.camera)}

    def mean(self) -> dict[str, float | None]:
        """Means over all pictures by the names of FrameScore; None where no picture has a value."""
        return _means(self.scores)

    def to_json(self) -> dict:
        """Plain dict for json.dump. JSON has no infinity: the PSNR of equal pictures is the string "inf"."""
        cameras = {
            str(camera): _row(scores) | {"training_camera": camera in self.training_cameras}
            for camera, scores in self.per_camera().items()
        }
        pictures = [
            {"camera": score.camera, "frame": score.frame} | _json_values(_means([score]))
            for score in self.scores
        ]
        return {"overall": _row(self.scores), "cameras": cameras, "images": pictures}

    def summary(self) -> str:
        """One line: the means and the number of pictures."""
        means = self.mean()
        parts = [
            f"{heading} {_cell(means[name], spec)}"
            for name, heading, spec in COLUMNS
            if means[name] is not None
        ]
        return ", ".join([*parts, f"{len(self.scores)} image{'s' * (len(self.scores) > 1)}"])

    def text(self) -> str:
        """Aligned table for the terminal."""
        rows = [["camera", "images", *(heading for _, heading, _ in COLUMNS), ""]]
        for camera, scores in self.per_camera().items():
            note = "training camera" if camera in self.training_cameras else ""
            rows.append([str(camera), *_cells(scores), note])
        rows.append(["all", *_cells(self.scores), ""])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        lines = [
            "  ".join(
                [*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
            ).rstrip()
            for row in rows
        ]
        lines.append(
            f"Means over images. PSNR in dB: whole image, inside the person, within {EDGE_WIDTH} px of the "
            "mask's edge; edge error: share of the squared error in that band."
        )
        trained_on = [str(camera) for camera in self.per_camera() if camera in self.training_cameras]
        if trained_on:
            subject = (
                f"Camera {trained_on[0]} is a"
                if len(trained_on) == 1
                else f"Cameras {', '.join(trained_on)} are"
            )
            lines.append(f"{subject} training camera{'s' * (len(trained_on) > 1)}: not a novel view.")
        return "\n".join(lines)


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


def _row(scores: Sequence[FrameScore]) -> dict:
    return {"images": len(scores)} | _json_values(_means(scores))


def _cell(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _cells(scores: Sequence[FrameScore]) -> list[str]:
    means = _means(scores)
    return [str(len(scores)), *(_cell(means[name], spec) for name, _, spec in COLUMNS)]
