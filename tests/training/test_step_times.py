"""Where a run's time goes: phases add up, interruptions are no steps, a trace is written of the steps asked for."""

import time

import pytest
import torch

from mmlphuman.training.run_setup import fetch_ahead
from mmlphuman.training.step_times import FOLDER, SETTLED, StepTimes, Trace, write_table

CPU = torch.device("cpu")


def test_phases_add_up_and_the_rest_is_told():
    times = StepTimes(CPU)
    for _ in range(3):
        with times.step():
            time.sleep(0.01)
        with times.spent_on("waiting for samples"):
            time.sleep(0.002)
    with times.interruption("tests"):
        time.sleep(0.005)
    assert times.steps == 3 and times.gpu_busy() is None
    assert times.phases["steps"] >= 0.03 and times.phases["waiting for samples"] >= 0.006
    table = times.table(10.0)
    names = [line.rsplit(maxsplit=3)[0] for line in table.splitlines()[1:]]
    assert set(names) == {"steps", "waiting for samples", "tests", "between and after"}
    seconds = [float(line.split()[-3]) for line in table.splitlines()[1:]]
    assert sum(seconds) == pytest.approx(10.0, abs=0.03)


def test_an_error_in_a_phase_is_counted_and_passed_on():
    times = StepTimes(CPU)
    with pytest.raises(ValueError, match="broken"), times.spent_on("tests"):
        time.sleep(0.002)
        raise ValueError("broken")
    assert times.phases["tests"] >= 0.002


@pytest.mark.parametrize(
    "steps, all_steps, first", [(5, 1000, SETTLED), (5, 20, 15), (30, 20, 0), (0, 20, 20)]
)
def test_a_trace_begins_when_the_run_has_settled_or_in_time(steps, all_steps, first):
    trace = Trace(steps, all_steps)
    assert (trace.first, trace.last) == (first, first + steps)


@pytest.mark.parametrize("all_steps", [2, 4], ids=["ends with the run", "ends before"])
def test_what_was_traced_is_written_once(tmp_path, all_steps):
    trace = Trace(2, all_steps)
    with trace.written(tmp_path):
        for step in range(all_steps):
            trace.before_step(step, tmp_path)
            torch.ones(8).cumsum(0)
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"kernels.txt", "trace.json.gz"}
    assert "cumsum" in (tmp_path / FOLDER / "kernels.txt").read_text()


def test_nobody_who_asked_for_nothing_finds_a_folder(tmp_path):
    trace = Trace()
    with trace.written(tmp_path):
        for step in range(3):
            trace.before_step(step, tmp_path)
    assert not list(tmp_path.iterdir())
    write_table(tmp_path, "a table")
    assert (tmp_path / FOLDER / "table.txt").read_text() == "a table\n"


def test_what_cannot_be_fetched_ahead_is_somebody_else_s_complaint(monkeypatch):
    monkeypatch.setattr("mmlphuman.training.run_setup.importlib.import_module", refuse)
    thread = fetch_ahead(CPU)
    thread.join(30)
    assert not thread.is_alive() and not thread.daemon


def refuse(name: str) -> None:
    raise ImportError(name)
