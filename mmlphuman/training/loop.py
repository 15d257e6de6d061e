"""The training loop (paper sec. 4): one pose and V views a step, everything else around it.

Order of a step: load, pose, draw, losses, backward, optimise, log, test, save, let viewers watch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mmlphuman.avatar.avatar import Avatar, AvatarOutput
from mmlphuman.avatar.trained import TrainedAvatar, active_parts
from mmlphuman.capture.crop import crop_to_person
from mmlphuman.capture.loader import SampleStream
from mmlphuman.capture.sampler import EndlessSampler
from mmlphuman.config import Config
from mmlphuman.kernels import use_kernels
from mmlphuman.render.rasterize import choose_backend, rasterize
from mmlphuman.training.checkpoint import save_checkpoint
from mmlphuman.training.losses import TrainingLoss, choose_crops
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.optimisers import Optimisers
from mmlphuman.training.perceptual import LPIPS
from mmlphuman.training.scene import Scene
from mmlphuman.training.score_log import TrainingClock
from mmlphuman.training.step_numbers import Logged, StepNumbers
from mmlphuman.types import Pose, PosedGaussians, Sample


class Watcher(Protocol):
    """Someone who looks on and changes nothing (streaming.live_training)."""

    def note_loss(self, iteration: int, loss: float) -> None: ...

    def after_step(self, iteration: int) -> None: ...


def recorded_avatar(avatar: Avatar) -> Callable[..., AvatarOutput]:
    from mmlphuman.avatar.recorded import RecordedAvatar  # needs Triton

    return RecordedAvatar(avatar)


def pair_finder() -> Callable:
    from mmlphuman.render.pair_finder import PairFinder  # needs Triton

    return PairFinder()


def fast_lpips(lpips: LPIPS) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    from mmlphuman.training.fast_perceptual import FastLPIPS  # needs Triton

    return FastLPIPS(lpips)


class Trainer:
    """A run in progress. `state_dict` holds all that decides its future besides the avatar and the settings."""

    def __init__(
        self, config: Config, scene: Scene, lpips: Callable | None, device: torch.device, iteration: int = 0
    ):
        if scene.avatar.is_compact:
            raise ValueError(
                "a compact avatar cannot be trained on; resume from the model folder it was made of"
            )
        self.config, self.scene, self.device, self.iteration = config, scene, device, iteration
        self.backend = choose_backend(config.rasterizer, device.type)
        self.avatar = scene.avatar.to(device)
        kernels = use_kernels(config.kernels, device)
        self.pose_avatar = recorded_avatar(self.avatar) if kernels else self.avatar
        self.find_pairs = pair_finder() if kernels and self.backend == "gsplat" else None
        self.optimisers = Optimisers(self.avatar, config, scene.training.scene_scale(), kernels)
        if lpips is not None:
            lpips = fast_lpips(lpips.to(device)) if kernels else lpips.to(device)
        self.loss = TrainingLoss(config, lpips)
        self.draws = torch.Generator().manual_seed(config.seed)  # backgrounds and patches
        sampler = EndlessSampler(scene.training.pairs, config.views_per_pose, config.seed)
        self.stream = SampleStream(
            scene.training,
            sampler,
            config.num_workers,
            prepare=crop_to_person,
            device=device,
        )
        self.background = torch.tensor(config.background, device=device)
        self.clock = TrainingClock(device)

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimisers": self.optimisers.state_dict(),
            "stream": self.stream.state_dict(),
            "draws": self.draws.get_state(),
            "seconds": self.clock.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])
        self.stream.load_state_dict(state["stream"])
        self.draws.set_state(state["draws"])
        self.clock.seconds = state.get("seconds", math.nan)  # unknown to checkpoints from before it was kept

    def trained(self) -> TrainedAvatar:
        """The avatar as it is now, with the parameters themselves and not a copy."""
        now = TrainedAvatar(self.avatar, self.scene.pose_space, self.config, self.iteration)

        def pose_now(pose: Pose, project: bool) -> PosedGaussians:
            pose = pose.to(self.device, non_blocking=True)
            return self.pose_avatar(pose, now.active, now.features(pose, project)).posed

        return replace(now, poser=pose_now)

    def save(self, model_dir: Path) -> None:
        save_checkpoint(model_dir, self.trained(), self.state_dict(), self.config.checkpoints_kept)

    def run(self, model_dir: Path, monitor: Monitor, watcher: Watcher | None = None) -> None:
        """Trains to the last iteration. Raises NonFiniteError, leaving the last good checkpoint."""
        config = self.config
        numbers = StepNumbers(config.log_every, self.device)

        def report(logged: Logged | None) -> None:
            if logged is not None:
                monitor.log(logged.iteration, logged.terms)
                if watcher is not None:
                    watcher.note_loss(logged.iteration, logged.terms["total"])

        with self.stream, self.clock.running():
            while self.iteration < config.iterations:
                sample = next(self.stream)
                numbers.note(self.iteration, sample.name(), *self.step(sample))
                self.iteration += 1
                self.stream.read_ahead()  # while the GPU works
                report(numbers.receive())  # sent one step ago
                if self.is_due(config.log_every):
                    numbers.send()
                if self.is_due(config.test_every, config.test_iterations):
                    report(numbers.receive())
                    active = active_parts(config, self.iteration)
                    with self.clock.stopped():
                        monitor.show_held_out(
                            self.iteration,
                            self.clock.seconds,
                            self.avatar,
                            self.scene.held_out,
                            active,
                            self.background,
                            self.backend,
                        )
                if self.is_due(config.checkpoint_every, config.checkpoint_iterations):
                    report(numbers.check())  # never save what is already broken
                    with self.clock.stopped():
                        self.save(model_dir)
                if watcher is not None:
                    watcher.after_step(self.iteration)
            report(numbers.check())

    def is_due(self, every: int, also_at: Sequence[int] = ()) -> bool:
        """After `iteration` steps: at multiples of `every` (0: none), at the listed iterations, at the end."""
        regular = every > 0 and self.iteration % every == 0
        return regular or self.iteration in also_at or self.iteration == self.config.iterations

    def step(self, sample: Sample) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimisation step; returns the loss terms and the gradients' norm, both still on the device."""
        config = self.config
        patches = self.iteration >= config.iteration_lpips_random_patch
        crops = choose_crops(sample, patches, self.draws)
        # Drawn always, so that settings do not shift the sequence.
        drawn = torch.rand(3, generator=self.draws)
        background = drawn.to(self.device, non_blocking=True) if config.random_background else self.background
        sample = sample.to(self.device, non_blocking=True)

        output = self.pose_avatar(sample.pose, active_parts(config, self.iteration))
        render = rasterize(output.posed, sample.cameras, background, self.backend, self.find_pairs)
        losses = self.loss(
            self.iteration, sample, render, output, self.avatar.control_neighbours, background, crops
        )
        self.optimisers.zero_grad()
        losses.total.backward()
        self.optimisers.set_rates(self.iteration)
        return losses.terms, self.optimisers.step()
