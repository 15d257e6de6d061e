"""The training loop (paper sec. 4): B poses and V views of each a step, everything else around it.

Several processes (ranks) share the poses of a step; all of them draw the same random numbers and each uses its own.
Order of a step: load, [correct the pose,] pose, draw, losses, backward, [tell other ranks,] optimise, log, test, save,
let viewers watch, stop if asked to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mmlphuman.avatar.trained import TrainedAvatar, active_parts
from mmlphuman.backend import choose_backend
from mmlphuman.capture.crop import crop_to_person
from mmlphuman.capture.loader import SampleStream
from mmlphuman.capture.sampler import EndlessSampler
from mmlphuman.config import Config
from mmlphuman.processes import ErrorOfAll, Ranks
from mmlphuman.training.checkpoint import CheckpointWriter, Snapshot, unsaved, write_snapshot
from mmlphuman.training.guarding import Diverged, Logged, LossGuard, Preemption, StepNumbers, recover
from mmlphuman.training.losses import TrainingLoss, choose_crops
from mmlphuman.training.monitor import Monitor, NoMonitor, TrainingClock
from mmlphuman.training.optimisers import Optimisers
from mmlphuman.training.pose_step import PoseStep
from mmlphuman.training.refinement import Refinement
from mmlphuman.training.run_setup import Scene
from mmlphuman.training.step_times import StepTimes, Trace
from mmlphuman.types import Pose, PosedGaussians, Sample

DRAWS_PER_VIEW = 2  # random numbers: where a patch lies


class Watcher(Protocol):
    """Someone who looks on and changes nothing (streaming.live_training)."""

    def note_loss(self, iteration: int, loss: float) -> None: ...

    def after_step(self, iteration: int) -> None: ...


def poses_per_step(config: Config, ranks: Ranks) -> int:
    """Of all ranks together. ErrorOfAll if they cannot share the setting's number equally."""
    poses = config.poses_per_step or ranks.world
    if poses % ranks.world:
        raise ErrorOfAll(
            f"poses_per_step: {poses} cannot be shared equally by {ranks.world} processes; start as many as divide it, "
            "or set poses_per_step to a multiple of their number in a new run"
        )
    return poses


class Trainer:
    """A run in progress. `state_dict` holds all that decides its future besides the avatar and the settings."""

    def __init__(
        self,
        config: Config,
        scene: Scene,
        lpips: Callable | None,
        device: torch.device,
        iteration: int = 0,
        ranks: Ranks | None = None,
    ):
        if scene.avatar.is_compact:
            raise ValueError(
                "a compact avatar cannot be trained on; resume from the model folder it was made of"
            )
        self.config, self.scene, self.device, self.iteration = config, scene, device, iteration
        self.ranks = ranks or Ranks(device)
        self.poses_per_step = poses_per_step(config, self.ranks)
        self.backend = choose_backend(config.rasterizer, config.kernels, device)
        self.avatar = scene.avatar.to(device)
        self.ranks.broadcast(self.avatar.state_dict().values())  # exactly equal, whatever computed them
        pose_avatar = self.backend.training_avatar(self.avatar)
        stepper = self.backend.stepper(pose_avatar)
        self.optimisers = Optimisers(
            self.avatar, config, scene.training.scene_scale(), stepper, self.ranks, self.poses_per_step
        )
        self.refinement = Refinement(config, scene.training, device)
        if lpips is not None:
            lpips = self.backend.perceptual_loss(lpips.to(device))
        self.pose_step = PoseStep(
            self.avatar,
            pose_avatar,
            self.backend,
            self.backend.pair_finder(),
            TrainingLoss(config, lpips, self.backend.painted_pair()),
            self.refinement,
            share_of_mean=torch.tensor(1 / self.poses_per_step, device=device),
        )
        # What is learnt of poses and cameras is a row for each frame, which the host chooses; anomalies it looks for.
        by_host = self.refinement.learns or config.detect_anomaly
        recording = None if by_host else self.backend.step_recorder()
        self.recorded_step = recording and recording(self.pose_step, self.optimisers.stepper)
        self.draws = torch.Generator().manual_seed(config.seed)  # backgrounds and patches
        sampler = EndlessSampler(scene.training.pairs, config.views_per_pose, config.seed)
        self.stream = SampleStream(
            scene.training,
            sampler,
            config.num_workers,
            prepare=crop_to_person,
            device=device,
            rank=self.ranks.rank,
            world=self.ranks.world,
        )
        self.background = torch.tensor(config.background, device=device)
        self.clock, self.times = TrainingClock(device), StepTimes(device)
        self.trace = Trace()  # of no steps, unless somebody wants one
        self.divergences = 0  # of the whole run
        self.divergences_since_save = 0
        self.writer = CheckpointWriter()

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimisers": self.optimisers.state_dict(),
            "stream": self.stream.state_dict(),
            "draws": self.draws.get_state(),
            "seconds": self.clock.seconds,
            "divergences": self.divergences,
            "refinement": self.refinement.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])
        self.stream.load_state_dict(state["stream"])
        self.draws.set_state(state["draws"])
        self.clock.seconds = state.get("seconds", math.nan)  # unknown to checkpoints from before it was kept
        self.divergences = state.get("divergences", 0)
        self.refinement.load_state_dict(state.get("refinement", {}))  # older ones have none

    def trained(self) -> TrainedAvatar:
        """The avatar as it is now, with the parameters themselves and not a copy."""
        now = TrainedAvatar(self.avatar, self.scene.pose_space, self.config, self.iteration)

        def pose_now(pose: Pose, project: bool) -> PosedGaussians:
            pose = pose.to(self.device, non_blocking=True)
            return self.pose_step.pose_avatar(pose, now.active, now.features(pose, project)).posed

        return replace(now, poser=pose_now)

    def snapshot(self) -> Snapshot:
        trained = replace(self.trained(), pose_space=self.refinement.pose_space(self.scene.pose_space))
        ends = self.iteration >= self.config.iterations and not self.config.resumable_at_end
        return Snapshot.of(trained, None if ends else self.state_dict())

    def save(self, model_dir: Path) -> None:
        write_snapshot(model_dir, self.snapshot(), self.config.checkpoints_kept)
        self.refinement.write(model_dir)

    def run(
        self,
        model_dir: Path,
        monitor: Monitor | NoMonitor,
        watcher: Watcher | None = None,
        preemption: Preemption | None = None,
    ) -> bool:
        """Trains to the last iteration: True. Asked to stop before, it saves: False.

        A run that diverges goes back to its last good checkpoint; after `divergence_retries` times Diverged is raised.
        A checkpoint that cannot be written is tried again when the next one is due; OSError for the last one.
        """
        preemption, guard = preemption or Preemption(), LossGuard(self.config.divergence_factor)
        with self.stream, self.clock.running(), self.trace.written(model_dir):
            while True:
                try:
                    return self.run_until_divergence(model_dir, monitor, watcher, preemption, guard)
                except Diverged as error:
                    with self.clock.stopped():
                        self.finish_saving(model_dir, monitor)
                        recover(self, model_dir, monitor, error)

    def run_until_divergence(
        self,
        model_dir: Path,
        monitor: Monitor | NoMonitor,
        watcher: Watcher | None,
        preemption: Preemption,
        guard: LossGuard,
    ) -> bool:
        config, stop = self.config, False
        numbers = StepNumbers(config.log_every, self.ranks, self.poses_per_step)

        def report(logged: Logged | None) -> bool:
            """Whether some rank was asked to stop."""
            if logged is None:
                return False
            guard.look(logged)
            monitor.log(logged.iteration, logged.terms)
            if watcher is not None:
                watcher.note_loss(logged.iteration, logged.terms["total"])
            return logged.stop

        times = self.times
        while self.iteration < config.iterations and not stop:
            self.trace.before_step(times.steps, model_dir)
            with times.spent_on("waiting for samples"):
                samples = self.next_samples()
            names = " or ".join(sample.name() for sample in samples)
            with times.step():
                terms, gradient_norm = self.step(*samples)
                numbers.note(self.iteration, names, terms, gradient_norm)
            self.iteration += self.poses_per_step
            with times.spent_on("waiting for samples"):
                self.stream.read_ahead()  # while the GPU works
            with times.spent_on("numbers and log"):
                stop = report(numbers.receive())  # sent one step ago
                if self.is_due(config.log_every):
                    numbers.send(preemption.asked_by is not None)
                    if self.writer.done:
                        self.finish_saving(model_dir, monitor)
            if self.is_due(config.test_every, config.test_iterations):
                stop |= report(numbers.receive())
                active = active_parts(config, self.iteration)
                with self.clock.stopped(), times.interruption("tests"):
                    monitor.show_held_out(
                        self.iteration,
                        self.clock.seconds,
                        self.avatar,
                        self.scene.held_out,
                        active,
                        self.background,
                        self.backend,
                        self.refinement.pose_for_test,
                    )
            if self.is_due(config.checkpoint_every, config.checkpoint_iterations):
                stop |= report(numbers.check())  # never save what is already broken
                with times.interruption("checkpoints"):
                    self.begin_saving(model_dir, monitor)
            if watcher is not None:
                with times.spent_on("viewers"):
                    watcher.after_step(self.iteration)
            if self.ranks.world == 1:  # several agree by their numbers
                stop = preemption.asked_by is not None
        report(numbers.check())
        with self.clock.stopped(), times.interruption("checkpoints"):
            if self.iteration < config.iterations:
                self.begin_saving(model_dir, monitor)
            self.finish_saving(model_dir, monitor)
        return self.iteration >= config.iterations

    def begin_saving(self, model_dir: Path, monitor: Monitor | NoMonitor) -> None:
        """Rank 0 takes a snapshot, which is written while training goes on, after the one before."""
        if not self.ranks.first:
            return
        with self.clock.stopped():
            self.finish_saving(model_dir, monitor)
            try:
                self.refinement.write(model_dir)
            except OSError as error:
                self._cannot_save(error, self.iteration, model_dir, monitor)
            else:
                self.writer.begin(model_dir, self.snapshot(), self.config.checkpoints_kept)

    def finish_saving(self, model_dir: Path, monitor: Monitor | NoMonitor) -> None:
        """Waits for the checkpoint that is being written, if one is. Where that is impossible it is said; OSError if it
        was the last of the run."""
        iteration = self.writer.iteration
        if iteration is None:
            return
        try:
            self.writer.finish()
        except OSError as error:
            self._cannot_save(error, iteration, model_dir, monitor)
            return
        self.divergences_since_save = 0
        monitor.reopen(self.iteration)

    def _cannot_save(
        self, error: OSError, iteration: int, model_dir: Path, monitor: Monitor | NoMonitor
    ) -> None:
        line = unsaved(error, model_dir, iteration)
        if iteration >= self.config.iterations:
            raise OSError(line) from error
        monitor.say(line)

    def is_due(self, every: int, also_at: Sequence[int] = ()) -> bool:
        """After a step: has it reached or passed a multiple of `every` (0: none), a listed iteration or the end?"""
        now, before = self.iteration, self.iteration - self.poses_per_step
        regular = every > 0 and now // every > before // every
        return regular or any(before < at <= now for at in also_at) or now >= self.config.iterations

    def next_samples(self) -> list[Sample]:
        """This rank's of the next step."""
        return [next(self.stream) for _ in range(self.poses_per_step // self.ranks.world)]

    def step(self, *samples: Sample) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimisation step on this rank's samples of it, as `next_samples` gives them.

        Returns the loss terms, mean over these samples, and a number that is finite if the gradients of all ranks are;
        both still on the device. The caller counts the iterations.
        """
        assert len(samples) == self.poses_per_step // self.ranks.world, (
            f"{len(samples)} samples for this step"
        )
        own, means = iter(samples), {}
        for pose in range(self.poses_per_step):
            if pose % self.ranks.world != self.ranks.rank:
                torch.rand(DRAWS_PER_VIEW * self.config.views_per_pose + 3, generator=self.draws)  # another's
                continue
            terms = self.add_gradients(next(own))
            if len(samples) > 1:
                terms = {name: means.get(name, 0) + term / len(samples) for name, term in terms.items()}
            means = terms
        self.optimisers.set_rates(self.iteration)
        return means, self.refinement.step(self.iteration, self.ranks, self.optimisers.step())

    def add_gradients(self, sample: Sample) -> dict[str, torch.Tensor]:
        """Those of one pose's part in the step's mean loss; returns its loss terms."""
        config = self.config
        patches = self.iteration >= config.iteration_lpips_random_patch
        crops = choose_crops(sample, patches, self.draws)  # DRAWS_PER_VIEW numbers
        # Drawn always, so that settings do not shift the sequence.
        drawn = torch.rand(3, generator=self.draws)
        background = drawn.to(self.device, non_blocking=True) if config.random_background else self.background
        sample = sample.to(self.device, non_blocking=True)
        now = self.iteration, sample, crops, background, active_parts(config, self.iteration)
        if self.recorded_step is not None:
            return self.recorded_step(*now)
        output, terms = self.pose_step(*now)
        self.optimisers.add_pose(output, now[-1])
        return terms
