"""Asked to stop: signals only set a flag, and the loop saves and ends where it stands."""

import os
import signal
import time

import pytest
import torch

from mmlphuman.training.checkpoint import list_checkpoints
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.preemption import SAME_INTERRUPT_SECONDS, SIGNALS, Preemption
from mmlphuman.training.resume import resume_run
from tests.training.test_divergence import fresh
from tests.training.test_loop import assert_same_state, run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
