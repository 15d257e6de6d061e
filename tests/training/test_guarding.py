"""What turns a run back or ends it: a number that is not finite, a loss that breaks, a request to stop."""

import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from mmlphuman.model_folder import list_checkpoints
from mmlphuman.processes import Ranks
from mmlphuman.training.guarding import (
    RECENT,
    SAME_INTERRUPT_SECONDS,
    SIGNALS,
    Logged,
    LossExplosion,
    LossGuard,
    NonFiniteError,
    Preemption,
    StepNumbers,
)
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import resume_run
from tests.training.test_loop import assert_same_state, fresh, run

CPU = torch.device("cpu")
ALONE = Ranks(CPU)


def note(numbers, iteration, sample="fine", loss=1.0, norm=1.0):
    terms = {"l1": torch.tensor(0.5), "total": torch.tensor(loss)}
    numbers.note(iteration, sample, terms, torch.tensor(norm))


def test_names_the_first_bad_sample_of_several():
    numbers = StepNumbers(10, ALONE)
    for step in range(4):
        note(numbers, step, f"frame {step}, camera 0", float("nan") if step >= 2 else 1.0)
    with pytest.raises(NonFiniteError, match="loss is not finite at iteration 2 on frame 2, camera 0"):
        numbers.check()


def test_a_bad_gradient_counts_as_well():
    numbers = StepNumbers(10, ALONE)
    note(numbers, 7, "frame 1, camera 3", norm=float("inf"))
    numbers.send()
    with pytest.raises(NonFiniteError, match="gradient is not finite at iteration 7 on frame 1, camera 3"):
        numbers.receive()


def test_a_full_one_looks_by_itself_and_good_numbers_pass():
    numbers = StepNumbers(2, ALONE)
    note(numbers, 0, loss=float("nan"))
    note(numbers, 1)
    with pytest.raises(NonFiniteError, match="iteration 0"):
        note(numbers, 2)
    for step in range(5):
        note(numbers, step)
    numbers.check()


def test_the_log_gets_the_last_step_s_terms_and_each_once():
    numbers = StepNumbers(10, ALONE)
    assert numbers.receive() is None and numbers.check() is None
    for step in range(3):
        note(numbers, step, loss=float(step))
    numbers.send()
    note(numbers, 3, loss=3.0)  # noted after: does not change what was sent
    logged = numbers.receive()
    assert (logged.iteration, logged.terms) == (3, {"l1": 0.5, "total": 2.0})
    assert logged.totals == (0.0, 1.0, 2.0) and not logged.stop
    assert numbers.receive() is None
    assert numbers.check().iteration == 4 and numbers.check() is None


def test_a_wish_to_stop_comes_with_the_numbers():
    numbers = StepNumbers(10, ALONE)
    note(numbers, 0)
    numbers.send(stop=True)
    assert numbers.receive().stop
    note(numbers, 1)
    assert not numbers.check().stop


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


def run_watched(trainer: Trainer, folder) -> Monitor:
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
    monitor = run_watched(trainer, tmp_path)
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
        run_watched(trainer, tmp_path)
    back = [line.split("back to iteration ")[1][:1] for line in capsys.readouterr().err.splitlines()]
    assert back == ["8", "4", "4"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration_00000004"]
    assert resume_run(config, capture, tmp_path, None, CPU).iteration == 4


def test_a_finite_explosion_takes_the_run_back_too(tiny_config, capture, tmp_path, capsys):
    config = replace(tiny_config, iterations=84, checkpoint_every=20)
    trainer = fresh(config, capture)
    trainer.save(tmp_path)
    spoil(trainer, set(range(65, 65 + RECENT // 2)), 1e4)
    run_watched(trainer, tmp_path)
    assert trainer.iteration == 84 and trainer.divergences == 1
    assert "the loss exploded" in capsys.readouterr().err
    assert trainer.avatar.sh0.abs().max() < 100


@pytest.fixture(autouse=True)
def a_terminal_s_end_is_heard(signals_as_before):
    """Whoever started the tests may have had them ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_without_a_signal_everything_is_as_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Preemption():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_raises_nothing(number):
    with Preemption() as preemption:
        assert preemption.asked_by is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.asked_by == signal.Signals(number).name
    os.kill(os.getpid(), number)  # while the process comes to its end


def test_a_run_under_nohup_outlives_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGHUP)
        assert preemption.asked_by is None


def test_the_second_ctrl_c_is_not_waited_for(capfd):
    with Preemption() as preemption, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same one, passed on by a terminal and a launcher
        assert preemption.asked_by == "SIGINT"
        time.sleep(1.1 * SAME_INTERRUPT_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err.count("Ctrl-C again quits at once") == 1


class AskedAt:
    """The loop's Watcher, by whom a run is asked to stop after so many iterations."""

    def __init__(self, preemption: Preemption, iteration: int):
        self.preemption, self.iteration = preemption, iteration

    def note_loss(self, iteration: int, loss: float) -> None: ...

    def after_step(self, iteration: int) -> None:
        if iteration == self.iteration:
            self.preemption.asked_by = "SIGTERM"


@pytest.mark.parametrize("stop", [5, 8, 11])  # 8: where a checkpoint was due anyway
def test_a_run_that_is_asked_to_stop_saves_at_once_and_goes_on_as_if_it_never_had(
    tiny_config, capture, tmp_path, stop
):
    whole = run(fresh(tiny_config, capture), tmp_path / "whole")
    trainer, preemption = fresh(tiny_config, capture), Preemption()
    trainer.save(tmp_path / "stopped")
    with Monitor(tmp_path / "stopped", 0, 12, quiet=True) as monitor:
        assert not trainer.run(tmp_path / "stopped", monitor, AskedAt(preemption, stop), preemption)
    assert trainer.iteration == stop
    assert list_checkpoints(tmp_path / "stopped")[-1].name == f"iteration_{stop:08d}"
    assert_same_state(whole, run(resume_run(tiny_config, capture, tmp_path / "stopped", None, CPU), tmp_path))


def test_asked_at_its_last_step_a_run_is_complete(tiny_config, capture, tmp_path):
    trainer, preemption = fresh(tiny_config, capture), Preemption()
    with Monitor(tmp_path, 0, 12, quiet=True) as monitor:
        assert trainer.run(tmp_path, monitor, AskedAt(preemption, 12), preemption)
