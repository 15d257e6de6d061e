"""Memory stays where it is however long a run goes on; `python -m tests.training.long_run` for 100,000 steps."""

from tests.training.long_run import FEW_STEPS, MOST_GROWTH, MOST_RESIDENT_GROWTH, memory_over


def test_bookkeeping_of_many_steps_takes_no_memory(synthetic_body, capture, tmp_path):
    memory = memory_over(FEW_STEPS, synthetic_body, capture, tmp_path)
    traced, resident = memory.traced[1:-1], memory.resident[1:-1]
    assert traced[-1] - traced[0] < MOST_GROWTH, memory.traced
    assert resident[-1] - resident[0] < MOST_RESIDENT_GROWTH, memory.resident
