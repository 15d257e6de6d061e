"""Continuing a run exactly where its newest whole checkpoint stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from mmlphuman.capture.dataset import test_dataset, training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import FORMERLY, Config
from mmlphuman.model_folder import load_avatar
from mmlphuman.processes import Ranks
from mmlphuman.training.checkpoint import agreed_whole, load_training_state
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import Scene

# Settings that decide where and how fast a run goes on, not what comes out, or that only its start needed.
MAY_CHANGE = {
    "device", "num_workers", "data_in_memory", "test", "test_iterations", "test_every", "log_every",
    "checkpoint_iterations", "checkpoint_every", "checkpoints_kept", "smpl_pkl_path", "vgg_path", "detect_anomaly",
    "viewer_budget", "divergence_factor", "divergence_retries", "kernels", "skinning_weights",
}  # fmt: skip


def check_same_run(saved: Config, given: Config, model_dir: Path) -> None:
    """Raises ValueError naming the first setting that would make this another run."""
    before, now = asdict(saved), asdict(given)
    for key, value in before.items():
        if key not in MAY_CHANGE and now[key] != value:
            published = "add --config config/published.yaml, the method of versions before this setting"
            remedy = published if FORMERLY.get(key) == value else f"resume with {model_dir / 'config.yaml'}"
            raise ValueError(
                f"{model_dir} was trained with {key}: {value}, now it is {now[key]}; {remedy}, or start another "
                "--out_dir"
            )


def resume_run(
    config: Config,
    data_dir: Path,
    model_dir: Path,
    lpips: Callable | None,
    device: torch.device,
    ranks: Ranks | None = None,
) -> Trainer:
    """ranks: those that there are now; the run may have been begun by more or fewer."""
    ranks = ranks or Ranks(device)
    checkpoint = agreed_whole(model_dir, ranks)
    with ranks.first_before_others():  # what is wrong is said once
        saved = load_avatar(checkpoint)
        check_same_run(saved.config, config, model_dir)
        state = load_training_state(checkpoint)
        layout = open_capture(data_dir)
        poses = read_smpl_params(layout.pose_path, config.face)
        scene = Scene(
            training=training_dataset(config, layout, poses),
            held_out=test_dataset(config, layout, poses),
            avatar=saved.avatar,
            pose_space=saved.pose_space,
        )
    trainer = Trainer(config, scene, lpips, device, saved.iteration, ranks)
    trainer.load_state_dict(state)
    return trainer
