"""Continuing a run exactly where its newest whole checkpoint stands, with what its folder remembers of it.

Data path: MODEL/config.yaml, run.json [+ what is given again] -> RecordedRun -> resume_run -> Trainer -> the record of
what was changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mmlphuman.animation.camera_file import read_camera_list
from mmlphuman.capture.dataset import CaptureDataset, test_dataset, training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import FORMERLY, Config, change_config, differences, settings_text
from mmlphuman.files import atomic_write, read_npz
from mmlphuman.json_file import read_json
from mmlphuman.model_folder import (
    SETTINGS_FILE,
    content_of,
    load_avatar,
    newest_checkpoint,
    settings_of,
)
from mmlphuman.processes import Ranks
from mmlphuman.text import ranges
from mmlphuman.training.checkpoint import TRAINING_FILE, agreed_whole, load_training_state
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import (
    CAMERAS_NAME,
    DATA_DIR,
    POSES_FILE,
    RUN_NAME,
    STARTED_FROM,
    Scene,
    lenses,
)
from mmlphuman.training.starting_avatar import with_switched_on

SAME_PLACE = 1e-5  # metres, and entries of a rotation: what rounding does to a record
SAME_PIXEL = 1e-3
# Settings that decide where and how fast a run goes on, not what comes out, or that only its start needed.
MAY_CHANGE = {
    "device", "num_workers", "data_in_memory", "test", "test_iterations", "test_every", "log_every",
    "checkpoint_iterations", "checkpoint_every", "checkpoints_kept", "resumable_at_end", "smpl_pkl_path", "vgg_path",
    "detect_anomaly", "viewer_budget", "divergence_factor", "divergence_retries", "kernels", "skinning_weights",
}  # fmt: skip


@dataclass(frozen=True)
class RecordedRun:
    """What a model folder tells of its run, and what was given besides."""

    config: Config
    data_dir: Path
    changed: tuple[str, ...]  # settings that are not as recorded

    @classmethod
    def read(
        cls,
        model_dir: Path,
        files: Sequence[Path],
        overrides: list[str],
        data_dir: Path | None,
        init_from: Path | None,
    ) -> RecordedRun:
        """files, overrides: settings over the recorded ones. ValueError, one line, for what disagrees, or where the
        folder does not tell what is not given."""
        record = _run_record(model_dir)
        own = settings_of(model_dir) or load_avatar(newest_checkpoint(model_dir)).config
        config = change_config(own, overrides, f"{model_dir}/{SETTINGS_FILE}", files)
        started = record.get(STARTED_FROM)
        begun_from, switched_on = None, []
        if isinstance(started, dict):
            begun_from, switched_on = started.get("path"), list(started.get("switched_on") or [])
        config = with_switched_on(config, switched_on)
        if init_from is not None and begun_from != str(init_from.absolute()):
            begun = "without it" if begun_from is None else f"from {begun_from}"
            raise ValueError(f"--init_from {init_from}: {model_dir} was begun {begun}; leave --init_from out")
        if data_dir is None:
            recorded = record.get(DATA_DIR)
            if not isinstance(recorded, str):
                raise ValueError(f"{model_dir}/{RUN_NAME} does not tell the capture; give --data_dir")
            data_dir = Path(recorded)
            if not data_dir.is_dir():
                raise ValueError(f"{data_dir}, the capture of {model_dir}, is not there; give --data_dir")
        return cls(config, data_dir, tuple(differences(own, config)))

    def text(self) -> str:
        """What is taken from where."""
        but = f" but {', '.join(self.changed)}" if self.changed else ""
        return f"its settings{but}; capture {self.data_dir}"


def _run_record(model_dir: Path) -> dict:
    record = read_json(model_dir / RUN_NAME) if (model_dir / RUN_NAME).exists() else {}
    return record if isinstance(record, dict) else {}


def update_record(model_dir: Path, run: RecordedRun) -> None:
    """What was changed is the run's own from now on. Nothing is written where nothing was."""
    if run.changed:
        with atomic_write(model_dir / SETTINGS_FILE) as file:
            file.write(settings_text(run.config).encode())
    record, data_dir = _run_record(model_dir), str(run.data_dir.absolute())
    if record.get(DATA_DIR) != data_dir:
        with atomic_write(model_dir / RUN_NAME) as file:
            file.write(json.dumps({**record, DATA_DIR: data_dir}, indent=2).encode())


def lengthened(before: Config, now: Config, iteration: int) -> str:
    """What more iterations do to the learning rates of a run that is at `iteration`; "" where there are no more.

    Rates are a function of the share of the run that is done, so that they go back up to where they are in the longer
    run, and fall from there to the same end.
    """
    if now.iterations == before.iterations:
        return ""
    was, is_now = (now.lr_decay.position ** (iteration / config.iterations) for config in (before, now))
    return (
        f"made longer, from {before.iterations:,} to {now.iterations:,} iterations: learning rates go on as those of a "
        f"run of {now.iterations:,} (position_lr at {is_now:.2g} of its start instead of {was:.2g})"
    )


def check_same_run(saved: Config, given: Config, model_dir: Path, longer: bool = True) -> None:
    """Raises ValueError naming the first setting that would make this another run. longer: whether one of more
    iterations is the same."""
    before, now = asdict(saved), asdict(given)
    if longer and given.iterations < saved.iterations:
        raise ValueError(
            f"iterations: {model_dir} is a run of {saved.iterations}, which can be made longer, not shorter to "
            f"{given.iterations}; leave iterations (and the --config that says it) out"
        )
    for key, value in before.items():
        if key not in MAY_CHANGE | ({"iterations"} if longer else set()) and now[key] != value:
            published = "add --config config/published.yaml, the method of versions before this setting"
            remedy = published if FORMERLY.get(key) == value else f"leave {key} out, --resume knows it"
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
    begun_lenses = _run_record(model_dir).get("lenses", {})
    now_lenses = lenses(dataset)
    if not (model_dir / CAMERAS_NAME).exists():
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
    if not (model_dir / POSES_FILE).exists():
        return ""
    begun = read_npz(model_dir / POSES_FILE, ("frames", "betas", "poses", "translations"), ("expression",))
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
        if longer := lengthened(saved.config, config, saved.iteration):
            ranks.say(longer)
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
