"""A run: it learns, it resumes bit for bit, it stops on NaN with the last good checkpoint."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.model_folder import list_checkpoints, load_avatar, newest_checkpoint
from mmlphuman.training.guarding import NonFiniteError
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import resume_run
from mmlphuman.training.run_setup import build_scene

CPU = torch.device("cpu")


def run(trainer: Trainer, folder) -> Trainer:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as monitor:
        trainer.run(folder, monitor)
    return trainer


def fresh(config, capture) -> Trainer:
    return Trainer(config, build_scene(config, capture, say=lambda text: None), None, CPU)


def assert_same_state(a: Trainer, b: Trainer) -> None:
    for (name, left), right in zip(
        a.avatar.state_dict().items(), b.avatar.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    left, right = a.state_dict(), b.state_dict()
    assert left["stream"] == right["stream"] and torch.equal(left["draws"], right["draws"])
    for ours, theirs in zip(left["optimisers"], right["optimisers"], strict=True):
        assert ours["param_groups"] == theirs["param_groups"]
        for key, values in ours["state"].items():
            for name, value in values.items():
                assert torch.equal(value, theirs["state"][key][name]), name


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("views", [1, 2])
def test_stop_and_resume_equals_never_stopping_bit_for_bit(tiny_config, capture, tmp_path, workers, views):
    config = replace(tiny_config, num_workers=workers, views_per_pose=views)
    whole = run(fresh(config, capture), tmp_path / "whole")

    interrupted = fresh(config, capture)
    for _ in range(7):  # past the checkpoint at 4, into the part that is lost
        interrupted.step(next(interrupted.stream))
        interrupted.iteration += 1
        if interrupted.iteration == 4:
            interrupted.save(tmp_path / "stopped")
    resumed = resume_run(config, capture, tmp_path / "stopped", None, CPU)
    assert resumed.iteration == 4
    assert_same_state(whole, run(resumed, tmp_path / "stopped"))


def test_training_lowers_the_loss(tiny_config, capture, tmp_path):
    config = replace(tiny_config, iterations=60, color_lr=0.02, lambda_ssim=0)
    trainer = fresh(config, capture)
    losses = [trainer.step(next(trainer.stream))[0]["l1"].item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_every_parameter_moves_once_everything_is_on(tiny_config, capture, tmp_path):
    trainer = fresh(tiny_config, capture)
    before = {name: parameter.detach().clone() for name, parameter in trainer.avatar.named_parameters()}
    run(trainer, tmp_path / "run")
    for name, parameter in trainer.avatar.named_parameters():
        assert not torch.equal(before[name], parameter), name


def test_nan_stops_the_run_and_names_the_sample(tiny_config, capture, tmp_path):
    trainer = fresh(replace(tiny_config, divergence_retries=0), capture)
    trainer.save(tmp_path)
    bad = trainer.scene.training.pairs[5]

    read = trainer.scene.training.sample

    def poisoned(frame, camera_ids):
        sample = read(frame, camera_ids)
        if (frame, camera_ids[0]) == bad:
            sample = replace(sample, pose=replace(sample.pose, translation=torch.full((3,), float("nan"))))
        return sample

    trainer.scene.training.sample = poisoned
    trainer.config.iterations = 200
    with pytest.raises(NonFiniteError, match=f"frame {bad[0]}, camera {bad[1]}"):
        run(trainer, tmp_path)
    kept = load_avatar(newest_checkpoint(tmp_path)).avatar
    assert all(parameter.isfinite().all() for parameter in kept.parameters())


def test_checkpoints_come_when_due_and_old_ones_go(tiny_config, capture, tmp_path):
    config = replace(tiny_config, checkpoint_iterations=[11], checkpoints_kept=3)
    run(fresh(config, capture), tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"iteration_{i:08d}" for i in (8, 11, 12)]


def test_resuming_under_other_settings_is_refused(tiny_config, capture, tmp_path):
    fresh(tiny_config, capture).save(tmp_path)
    with pytest.raises(ValueError, match="trained with color_lr: 0.0005, now it is 0.1"):
        resume_run(replace(tiny_config, color_lr=0.1), capture, tmp_path, None, CPU)
    resume_run(replace(tiny_config, num_workers=1, log_every=5), capture, tmp_path, None, CPU)
