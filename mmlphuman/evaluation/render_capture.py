"""Rendering a capture's test frames with a trained avatar, scoring them, and showing them to a person.

Data path: checkpoint + capture -> images beside ground truth -> scores.json, contact_sheet.png.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.evaluation.contact_sheet import SheetRow, contact_sheet
from mmlphuman.evaluation.metrics import FrameScore, ScoreTable, score_frame
from mmlphuman.evaluation.writer import ImageWriter, image_name
from mmlphuman.files import atomic_write
from mmlphuman.render.rasterize import choose_backend, rasterize
from mmlphuman.training.image_losses import paint
from mmlphuman.types import Sample

SHEET_CELLS = 8


@torch.no_grad()
def render_sample(
    trained: TrainedAvatar, sample: Sample, background: torch.Tensor, project_pose: bool, backend: str
) -> np.ndarray:
    """(H, W, 3) uint8 render of a sample with one view, on the CPU."""
    output = trained.avatar(sample.pose, trained.active, trained.features(sample.pose, project_pose))
    return to_uint8(rasterize(output.posed, sample.cameras, background, backend).colors[0])


def to_uint8(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


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
    quiet: bool = False,
) -> ScoreTable:
    """Renders and scores every (frame, camera) of `dataset`; writes gt/, render/, mask/, scores.json and
    contact_sheet.png into `out_dir`."""
    device = trained.avatar.xyz.device
    color = torch.tensor(background, device=device)
    backend = choose_backend(trained.config.rasterizer, device.type)
    spread = np.linspace(0, len(dataset.pairs) - 1, min(SHEET_CELLS, len(dataset.pairs))).round().astype(int)
    shown = {dataset.pairs[index] for index in spread}
    scores: list[FrameScore] = []
    rows: list[SheetRow] = []
    with ImageWriter(out_dir) as writer:
        for frame, camera in tqdm(dataset.pairs, desc="rendering", unit="image", disable=quiet):
            sample = dataset.sample(frame, (camera,)).to(device)
            truth = to_uint8(paint(sample.images.float() / 255, sample.masks, color)[0])
            render = render_sample(trained, sample, color, project_pose, backend)
            mask = sample.masks[0].cpu().numpy()
            for kind, image in (("gt", truth), ("render", render), ("mask", mask)):
                writer.write(image_name(kind, camera, frame), image)
            score = score_frame(truth, render, mask, camera, frame, lpips, device)
            scores.append(score)
            if (frame, camera) in shown:
                rows.append(SheetRow(score.label(), truth, render, mask))
    table = ScoreTable.of(scores, training_cameras)
    with atomic_write(out_dir / "scores.json") as file:
        file.write(json.dumps(table.to_json(), indent=1).encode())
    contact_sheet(rows, out_dir / "contact_sheet.png", title, [table.summary()])
    return table
