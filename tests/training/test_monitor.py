"""The guard against numbers that are not finite."""

import pytest
import torch

from mmlphuman.training.monitor import FiniteGuard, NonFiniteError


def test_names_the_first_bad_sample_of_several():
    guard = FiniteGuard(capacity=10, device=torch.device("cpu"))
    for step in range(4):
        bad = torch.tensor(float("nan") if step >= 2 else 1.0)
        guard.note(step, f"frame {step}, camera 0", bad, torch.tensor(1.0))
    with pytest.raises(NonFiniteError, match="loss is not finite at iteration 2 on frame 2, camera 0"):
        guard.check()


def test_a_bad_gradient_counts_as_well():
    guard = FiniteGuard(capacity=10, device=torch.device("cpu"))
    guard.note(7, "frame 1, camera 3", torch.tensor(0.1), torch.tensor(float("inf")))
    with pytest.raises(NonFiniteError, match="gradient is not finite at iteration 7 on frame 1, camera 3"):
        guard.check()


def test_a_full_guard_looks_by_itself_and_good_numbers_pass():
    guard = FiniteGuard(capacity=2, device=torch.device("cpu"))
    guard.note(0, "a", torch.tensor(float("nan")), torch.tensor(1.0))
    guard.note(1, "b", torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(NonFiniteError, match="iteration 0"):
        guard.note(2, "c", torch.tensor(1.0), torch.tensor(1.0))
    for step in range(5):
        guard.note(step, "fine", torch.tensor(1.0), torch.tensor(1.0))
    guard.check()
