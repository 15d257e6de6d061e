"""What a person sees of a run: progress bar, TensorBoard, and an early end when a number is not finite."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.render.rasterize import rasterize
from mmlphuman.training.image_losses import paint

HELD_OUT_SHOWN = 4  # (frame, camera) pairs, spread over the test selection


class NonFiniteError(ValueError):
    """A loss or gradient became NaN or infinite."""


class FiniteGuard:
    """Collects each step's numbers on the device and looks at them every few steps, so that no step waits."""

    def __init__(self, capacity: int, device: torch.device):
        self.values = torch.zeros(capacity, 2, device=device)
        self.steps: list[tuple[int, str]] = []

    def note(self, iteration: int, sample: str, loss: Tensor, gradient_norm: Tensor) -> None:
        if len(self.steps) == len(self.values):
            self.check()
        self.values[len(self.steps), 0] = loss
        self.values[len(self.steps), 1] = gradient_norm
        self.steps.append((iteration, sample))

    def check(self) -> None:
        """Raises NonFiniteError naming the first bad step's sample."""
        noted, self.steps = self.steps, []
        for (iteration, sample), values in zip(noted, self.values.tolist(), strict=False):
            loss, gradient_norm = torch.tensor(values).isfinite().tolist()
            if not (loss and gradient_norm):
                what = "gradient" if loss else "loss"
                raise NonFiniteError(
                    f"the {what} is not finite at iteration {iteration} on {sample}; look at that sample's image, "
                    "mask and pose; the last good checkpoint is kept, resume from it with --resume"
                )


class Monitor:
    """Progress bar and TensorBoard events of one run; a context manager."""

    def __init__(self, model_dir: Path, first_iteration: int, iterations: int, quiet: bool = False):
        self.writer = SummaryWriter(str(model_dir), purge_step=first_iteration or None)
        self.bar = tqdm(
            total=iterations,
            initial=first_iteration,
            desc="training",
            unit="it",
            disable=quiet,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    def log(self, iteration: int, losses: dict[str, Tensor]) -> dict[str, float]:
        """Returns the numbers, which cost a wait for the device to read."""
        values = {name: float(value) for name, value in losses.items()}
        for name, value in values.items():
            self.writer.add_scalar(f"loss/{name}", value, iteration)
        if self.bar.format_dict["rate"]:
            self.writer.add_scalar("speed/iterations_per_second", self.bar.format_dict["rate"], iteration)
        self.bar.set_postfix(
            {name: f"{value:.4f}" for name, value in values.items() if name != "smooth"}, refresh=False
        )
        self.bar.update(iteration - self.bar.n)
        return values

    @torch.no_grad()
    def show_held_out(
        self,
        iteration: int,
        avatar: Avatar,
        dataset: CaptureDataset,
        active: ActiveParts,
        background: Tensor,
        backend: str,
    ) -> None:
        """Draws a few test views into TensorBoard, ground truth beside render, and logs their PSNR."""
        pairs = dataset.pairs[:: max(1, len(dataset.pairs) // HELD_OUT_SHOWN)][:HELD_OUT_SHOWN]
        errors = []
        for frame, camera in pairs:
            sample = dataset.sample(frame, (camera,)).to(background.device)
            truth = paint(sample.images.float() / 255, sample.masks, background)[0]
            render = rasterize(avatar(sample.pose, active).posed, sample.cameras, background, backend)
            image = render.colors[0].clamp(0, 1)
            errors.append((image - truth).square().mean())
            self.writer.add_image(
                f"held_out/camera_{camera}_frame_{frame}",
                torch.cat([truth, image], 1),
                iteration,
                dataformats="HWC",
            )
        psnr = -10 * torch.stack(errors).clamp_min(1e-10).log10().mean()
        self.writer.add_scalar("held_out/psnr", float(psnr), iteration)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        self.writer.close()
