"""A number that is not finite ends the run and names its sample; the log gets what the device had."""

import pytest
import torch

from mmlphuman.training.distributed import Ranks
from mmlphuman.training.step_numbers import NonFiniteError, StepNumbers

ALONE = Ranks(torch.device("cpu"))


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
