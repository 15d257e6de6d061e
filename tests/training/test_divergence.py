"""A run whose loss breaks goes back to its last good checkpoint and takes other samples; in the end it gives up."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.training.checkpoint import list_checkpoints
from mmlphuman.training.divergence import RECENT, LossExplosion, LossGuard
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import resume_run
from mmlphuman.training.scene import build_scene
from mmlphuman.training.step_numbers import Logged, NonFiniteError

CPU = torch.device("cpu")


def logged(losses, terms=("l1", "total")) -> Logged:
    return Logged(100, dict.fromkeys(terms, losses[-1]), tuple(losses), False)


def guard_after(losses, factor=10.0) -> LossGuard:
    guard = LossGuard(factor)
    guard.look(logged([1.0]))  # makes the terms known
    guard.look(logged(losses))
    return guard


def test_an_explosion_is_told_from_noise_and_odd_samples():
    noise = (0.02 * torch.rand(500, generator=torch.Generator().manual_seed(0)) + 0.01).tolist()
    guard = guard_after(noise)
    guard.look(logged([5.0] * (RECENT // 2 - 1)))  # odd samples
    guard.look(logged(noise))
    with pytest.raises(LossExplosion, match="divergence_factor: 10"):
        guard.look(logged([0.4] * RECENT))


def test_a_loss_that_falls_far_or_creeps_up_within_the_factor_is_no_explosion():
    guard = guard_after([0.5 * 0.99**step for step in range(500)])
    guard.look(logged([0.5 * 0.99**499 * 9] * 100))


def test_a_term_that_joins_begins_the_guard_anew():
    guard = guard_after([0.01] * 100)
    with_more = ("l1", "lpips", "total")
    guard.look(logged([0.01] * 5 + [1.0] * 5, with_more))
    guard.look(logged([1.0] * 100, with_more))
    with pytest.raises(LossExplosion):
        guard.look(logged([11.0] * 100, with_more))


def test_going_back_to_where_it_had_exploded_already_is_noticed():
    guard = guard_after([0.01] * 100)
    for _ in range(2):
        with pytest.raises(LossExplosion):
            guard.look(logged([1.0] * 100))


def test_factor_0_guards_nothing():
    guard_after([0.01] * 100, factor=0).look(logged([1e9] * 100))


def spoil(trainer: Trainer, iterations: set[int], loss: float) -> None:
    """At the nth steps of the process, counted from 1, parameters break and the loss is this."""
    take, count = trainer.step, 0

    def step(sample):
        nonlocal count
        terms, norm = take(sample)
        count += 1
        if count in iterations:
            with torch.no_grad():
                trainer.avatar.sh0.fill_(loss)
            terms = {**terms, "total": torch.tensor(loss)}
        return terms, norm

    trainer.step = step


def fresh(config, capture) -> Trainer:
    return Trainer(config, build_scene(config, capture, say=lambda text: None), None, CPU)


def run(trainer: Trainer, folder) -> Monitor:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as monitor:
        assert trainer.run(folder, monitor)
    return monitor


def test_after_a_broken_step_the_run_goes_back_and_on_with_other_samples(
    tiny_config, capture, tmp_path, capsys
):
    trainer = fresh(replace(tiny_config, test_every=2), capture)
    trainer.save(tmp_path)
    seen = []
    spoil(trainer, {7}, float("nan"))
    step = trainer.step
    trainer.step = lambda sample: (seen.append(sample.name()), step(sample))[1]
    monitor = run(trainer, tmp_path)
    assert trainer.iteration == 12 and trainer.divergences == 1
    assert all(parameter.isfinite().all() for parameter in trainer.avatar.parameters())
    assert [score.iteration for score in monitor.scores] == [2, 4, 6, 8, 10, 12]

    samples = fresh(tiny_config, capture).stream
    assert seen == [next(samples).name() for _ in seen], "the order goes on, it does not go back"
    lost = len(seen) - 12
    assert lost >= 3, "the steps after the checkpoint at 4 were taken again"
    notes = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(notes) == 1 and "back to iteration 4" in notes[0] and "1 of at most 3 times" in notes[0]

    resumed = resume_run(tiny_config, capture, tmp_path, None, CPU)
    assert resumed.divergences == 1 and resumed.state_dict()["stream"] == trainer.state_dict()["stream"]


def test_it_gives_up_after_the_allowed_times_and_each_time_goes_further_back(
    tiny_config, capture, tmp_path, capsys
):
    config = replace(tiny_config, iterations=40, divergence_retries=3, checkpoints_kept=2)
    trainer = fresh(config, capture)
    trainer.save(tmp_path)
    spoil(trainer, {10, *range(11, 60)}, float("inf"))
    with pytest.raises(
        NonFiniteError, match="the last good checkpoint is kept, resume from it with --resume"
    ):
        run(trainer, tmp_path)
    back = [line.split("back to iteration ")[1][:1] for line in capsys.readouterr().err.splitlines()]
    assert back == ["8", "4", "4"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration_00000004"]
    assert resume_run(config, capture, tmp_path, None, CPU).iteration == 4


def test_a_finite_explosion_takes_the_run_back_too(tiny_config, capture, tmp_path, capsys):
    config = replace(tiny_config, iterations=84, checkpoint_every=20)
    trainer = fresh(config, capture)
    trainer.save(tmp_path)
    spoil(trainer, set(range(65, 65 + RECENT // 2)), 1e4)
    run(trainer, tmp_path)
    assert trainer.iteration == 84 and trainer.divergences == 1
    assert "the loss exploded" in capsys.readouterr().err
    assert trainer.avatar.sh0.abs().max() < 100
