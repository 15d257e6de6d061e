"""Continuing a run exactly where its newest whole checkpoint stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mmlphuman.animation.camera_file import read_camera_list
from mmlphuman.capture.dataset import CaptureDataset, test_dataset, training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import FORMERLY, Config
from mmlphuman.files import read_npz
from mmlphuman.json_file import read_json
from mmlphuman.model_folder import content_of, load_avatar
from mmlphuman.processes import Ranks
from mmlphuman.text import ranges
from mmlphuman.training.checkpoint import TRAINING_FILE, agreed_whole, load_training_state
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import CAMERAS_NAME, POSES_NAME, RUN_NAME, Scene, lenses

SAME_PLACE = 1e-5  # metres, and entries of a rotation: what rounding does to a record
SAME_PIXEL = 1e-3
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


def check_same_capture(dataset: CaptureDataset, model_dir: Path) -> None:
    """Raises ValueError, one line, for the first camera, pose or shape that is not what the run began with.

    dataset: the training images as the run would go on with them. What a model folder has no record of is not compared.
    """
    remedy = f"give the capture that {model_dir} was trained on, start another --out_dir, or go on with --other_capture"
    if difference := _camera_difference(dataset, model_dir) or _pose_difference(dataset, model_dir):
        raise ValueError(
            f"{dataset.layout.root} is not the capture that the run began with: {difference}; {remedy}"
        )


def _camera_difference(dataset: CaptureDataset, model_dir: Path) -> str:
    begun_lenses = {}
    if (model_dir / RUN_NAME).is_file():
        record = read_json(model_dir / RUN_NAME)
        begun_lenses = record.get("lenses", {}) if isinstance(record, dict) else {}
    now_lenses = lenses(dataset)
    if not (model_dir / CAMERAS_NAME).is_file():
        return ""
    begun = read_camera_list(model_dir / CAMERAS_NAME)
    if unknown := set(dataset.camera_ids) - set(begun):  # the record has those of tests, too
        return f"camera {min(unknown)} was not there"
    for camera in dataset.camera_ids:
        before = begun[camera]
        now, name = dataset.cameras((camera,)), f"camera {camera} ({dataset.layout.cameras[camera].name})"
        w2c = now.w2c[0].double().numpy()
        moved = float(np.linalg.norm(before.center + w2c[:3, :3].T @ w2c[:3, 3]))
        if moved > SAME_PLACE:
            return f"{name} stands {moved:.3g} m from where it stood"
        if np.abs(w2c - before.w2c).max() > SAME_PLACE:
            return f"{name} looks in another direction"
        if (now.width, now.height) != (before.width, before.height):
            return f"{name} has {now.width}x{now.height} pixels, it had {before.width}x{before.height}"
        if np.abs(now.intrinsics[0].numpy() - before.intrinsics).max() > SAME_PIXEL:
            return f"{name} has another K"
        if now_lenses[str(camera)] != begun_lenses.get(str(camera), now_lenses[str(camera)]):
            return f"{name} has another name or distortion"
    return ""


def _pose_difference(dataset: CaptureDataset, model_dir: Path) -> str:
    if not (model_dir / POSES_NAME).is_file():
        return ""
    begun = read_npz(model_dir / POSES_NAME, ("frames", "betas", "poses", "translations"), ("expression",))
    frames = dataset.seen_frames
    if begun["frames"].tolist() != frames:
        return f"it trains on frames {ranges(frames)}, the run on {ranges(begun['frames'].tolist())}"
    now = dataset.poses
    for name, before, after in (
        ("betas", begun["betas"], now.betas),
        ("poses", begun["poses"], now.poses[frames]),
        ("translations", begun["translations"], now.translations[frames]),
        (
            "expression",
            begun.get("expression"),
            now.expressions_of(frames),
        ),  # former versions did not keep it
    ):
        if before is not None and (before.shape != after.shape or not np.array_equal(before, after)):
            return f"{dataset.layout.pose_path.name} has other {name}"
    return ""


def resume_run(
    config: Config,
    data_dir: Path,
    model_dir: Path,
    lpips: Callable | None,
    device: torch.device,
    ranks: Ranks | None = None,
    other_capture: bool = False,
) -> Trainer:
    """ranks: those that there are now; the run may have been begun by more or fewer. other_capture: it may be another
    than the run began with."""
    ranks = ranks or Ranks(device)
    checkpoint = agreed_whole(model_dir, ranks)
    with ranks.first_before_others():  # what is wrong is said once
        saved = load_avatar(checkpoint)
        check_same_run(saved.config, config, model_dir)
        state = load_training_state(checkpoint)
        layout = open_capture(data_dir)
        poses = read_smpl_params(layout.pose_path, config.face, config.smpl_pkl_path)
        scene = Scene(
            training=training_dataset(config, layout, poses),
            held_out=test_dataset(config, layout, poses),
            avatar=saved.avatar,
            pose_space=saved.pose_space,
        )
        if not other_capture:
            check_same_capture(scene.training, model_dir)
    trainer = Trainer(config, scene, lpips, device, saved.iteration, ranks)
    with content_of(checkpoint / TRAINING_FILE):
        trainer.load_state_dict(state)
    return trainer
