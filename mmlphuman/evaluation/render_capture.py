"""Rendering a capture's test frames with a trained avatar, scoring them, and showing them to a person.

Data path: checkpoint + capture -> Picture (render beside ground truth) -> scores.json, contact_sheet.png.

Several processes share the pictures (shares.py); the sheet is made of the files that they wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mmlphuman.animation.render_sequence import Look, draw, to_bytes
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.evaluation.contact_sheet import SheetRow, contact_sheet
from mmlphuman.evaluation.image_folders import read_mask, read_picture
from mmlphuman.evaluation.metrics import FrameScore, Picture, score_picture
from mmlphuman.evaluation.score_table import ScoreTable
from mmlphuman.evaluation.shares import Scored, gathered, share_of, shown
from mmlphuman.evaluation.writer import IMAGE_KINDS, ImageWriter, image_name
from mmlphuman.files import atomic_write
from mmlphuman.measures.comparison import paint
from mmlphuman.processes import Ranks
from mmlphuman.render.rasterize import choose_backend
from mmlphuman.types import Sample

SHEET_CELLS = 8


@torch.no_grad()
def render_sample(
    trained: TrainedAvatar, sample: Sample, background: torch.Tensor, project_pose: bool, backend: str
) -> np.ndarray:
    """(H, W, 3) uint8 render of a sample with one view, on the CPU."""
    look = Look(background, backend, project_pose)
    return draw(trained, sample.pose, [sample.cameras], look)[0].cpu().numpy()


def rendered_pictures(
    trained: TrainedAvatar,
    dataset: CaptureDataset,
    background: Sequence[float],
    project_pose: bool,
    backend: str,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Iterator[Picture]:
    """Every (frame, camera) of `dataset`, rendered; the ground truth on `background` outside its mask.

    background: RGB in [0, 1]; backend: "torch" or "gsplat" (see choose_backend); pairs: only these of the dataset's.
    Works on the avatar's device.
    """
    device = trained.device
    color = torch.tensor(background, device=device)
    for frame, camera in dataset.pairs if pairs is None else pairs:
        sample = dataset.sample(frame, (camera,)).to(device)
        yield Picture(
            camera=camera,
            frame=frame,
            ground_truth=to_bytes(paint(sample.images.float() / 255, sample.masks, color)[0]).cpu().numpy(),
            render=render_sample(trained, sample, color, project_pose, backend),
            mask=sample.masks[0].cpu().numpy(),
        )


def render_capture(
    trained: TrainedAvatar,
    dataset: CaptureDataset,
    training_cameras: Sequence[int],
    out_dir: Path,
    *,
    background: list[float],
    project_pose: bool = False,
    title: str = "",
    lpips: Callable | None = None,
    ranks: Ranks | None = None,
    quiet: bool = False,
) -> ScoreTable | None:
    """Renders and scores every (frame, camera) of `dataset`; writes gt/, render/, mask/, scores.json and
    contact_sheet.png into `out_dir`. Of several ranks each renders its share, and rank 0 alone gets the table."""
    ranks = ranks or Ranks(trained.device)
    backend = choose_backend(trained.config.rasterizer, trained.device.type)
    pairs = share_of(dataset.pairs, ranks)
    pictures = rendered_pictures(trained, dataset, background, project_pose, backend, pairs)
    share = []
    with ImageWriter(out_dir) as writer:
        for picture in shown(pictures, len(pairs), "rendering", ranks, quiet):
            kinds = (("gt", picture.ground_truth), ("render", picture.render), ("mask", picture.mask))
            for kind, image in kinds:
                writer.write(image_name(kind, picture.camera, picture.frame), image)
            share.append(Scored(score_picture(picture, lpips, trained.device)))
    everybodys = gathered(share, ranks)
    if everybodys is None:
        return None
    scores = [scored.score for scored in everybodys]
    table = ScoreTable.of(scores, training_cameras)
    with atomic_write(out_dir / "scores.json") as file:
        file.write(json.dumps(table.to_json(), indent=1).encode())
    spread = np.linspace(0, len(scores) - 1, min(SHEET_CELLS, len(scores))).round().astype(int)
    rows = [sheet_row(scores[index], out_dir) for index in spread]
    contact_sheet(rows, out_dir / "contact_sheet.png", title, [table.summary()])
    return table


def sheet_row(score: FrameScore, out_dir: Path) -> SheetRow:
    """Of the files that `render_capture` wrote."""
    truth, render, mask = (out_dir / image_name(kind, score.camera, score.frame) for kind in IMAGE_KINDS)
    return SheetRow(score.label(), read_picture(truth), read_picture(render), read_mask(mask))
