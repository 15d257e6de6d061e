"""What a person sees of a run: progress bar, TensorBoard, scores."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.render.rasterize import rasterize
from mmlphuman.training.image_losses import paint, regions
from mmlphuman.training.score_log import FILE_NAME, HeldOutScore, scores_until, write_scores

HELD_OUT_SHOWN = 4  # (frame, camera) pairs, spread over the test selection
SMALLEST_ERROR = 1e-10  # mean square; equal pictures score 100 dB


class Monitor:
    """Progress bar, TensorBoard events and scores.csv of one run; a context manager.

    A run that goes on at `first_iteration` loses what was logged after it. ValueError for a damaged scores.csv.
    """

    def __init__(self, model_dir: Path, first_iteration: int, iterations: int, quiet: bool = False):
        self.scores_path = model_dir / FILE_NAME
        self.scores = scores_until(self.scores_path, first_iteration)
        self.writer = SummaryWriter(str(model_dir), purge_step=first_iteration + 1)
        self.bar = tqdm(
            total=iterations,
            initial=first_iteration,
            desc="training",
            unit="it",
            disable=quiet,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """values: the loss terms after `iteration` steps."""
        for name, value in values.items():
            self.writer.add_scalar(f"loss/{name}", value, iteration)
        if self.bar.format_dict["rate"]:
            self.writer.add_scalar("speed/iterations_per_second", self.bar.format_dict["rate"], iteration)
        self.bar.set_postfix(
            {name: f"{value:.4f}" for name, value in values.items() if name != "smooth"}, refresh=False
        )
        self.bar.update(iteration - self.bar.n)

    @torch.no_grad()
    def show_held_out(
        self,
        iteration: int,
        seconds: float,
        avatar: Avatar,
        dataset: CaptureDataset,
        active: ActiveParts,
        background: Tensor,
        backend: str,
    ) -> None:
        """Draws a few test views into TensorBoard, ground truth beside render, and logs their scores.

        seconds: of training so far. Scores are means over the views; a view without an inside has no such score.
        """
        pairs = dataset.pairs[:: max(1, len(dataset.pairs) // HELD_OUT_SHOWN)][:HELD_OUT_SHOWN]
        whole, inside = [], []
        for frame, camera in pairs:
            sample = dataset.sample(frame, (camera,))
            inner = torch.from_numpy(regions(sample.masks[0].numpy())[0]).to(background.device)
            sample = sample.to(background.device)
            truth = paint(sample.images.float() / 255, sample.masks, background)[0]
            render = rasterize(avatar(sample.pose, active).posed, sample.cameras, background, backend)
            image = render.colors[0].clamp(0, 1)
            errors = (image - truth).square().mean(-1)
            whole.append(errors.mean())
            if inner.any():
                inside.append(errors[inner].mean())
            self.writer.add_image(
                f"held_out/camera_{camera}_frame_{frame}",
                torch.cat([truth, image], 1),
                iteration,
                dataformats="HWC",
            )
        score = HeldOutScore(iteration, seconds, mean_psnr(whole), mean_psnr(inside) if inside else None)
        self.writer.add_scalar("held_out/psnr", score.psnr, iteration)
        if score.psnr_inside is not None:
            self.writer.add_scalar("held_out/psnr_inside", score.psnr_inside, iteration)
        self.writer.add_scalar("held_out/seconds", seconds, iteration)
        self.scores.append(score)
        write_scores(self.scores_path, self.scores)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        self.writer.close()


def mean_psnr(errors: list[Tensor]) -> float:
    """dB, mean over pictures, from the mean squared error of each."""
    return float(-10 * torch.stack(errors).clamp_min(SMALLEST_ERROR).log10().mean())
