"""What ranks tell each other; when one dies, the others end soon, whatever their main threads wait for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from mmlphuman import processes
from mmlphuman.processes import LostRankError, Ranks
from tests.local_processes import Ended, run_all, run_ranks

LINE = f"error: {processes.LOST}\n"
DIED = 9  # status of the one that does
LATEST_SECONDS = 20  # for all to have ended since all were there, on a busy machine; they take one


@pytest.fixture
def grace(monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)


def run(world: int, work: Callable[[Ranks], None], folder: Path) -> Ended:
    """Nobody dies before all are there. Who has not ended by LATEST_SECONDS has no status."""

    all_there = folder / "all_there"

    def when_all_are_there(ranks: Ranks) -> None:
        (folder / f"there_{ranks.rank}").touch()
        while len(list(folder.glob("there_*"))) < world:
            time.sleep(0.01)
        all_there.touch()
        work(ranks)

    return run_ranks(world, when_all_are_there, folder, LATEST_SECONDS, began=all_there)


def wait_in_vain() -> None:
    """As for a GPU whose peer is gone: in C, until the process ends."""
    threading.Event().wait()


@pytest.mark.parametrize("lost", [0, 1])
def test_all_end_when_one_dies_though_their_main_threads_wait(lost, grace, tmp_path):
    """The first of a host says it, unless it is the lost one."""

    def work(ranks: Ranks) -> None:
        if ranks.rank == lost:
            os._exit(DIED)
        wait_in_vain()

    ended = run(4, work, tmp_path)
    assert ended.statuses == [DIED if rank == lost else 1 for rank in range(4)]
    assert ended.errors == ["" if lost == 0 else f"\n{LINE}", "", "", ""]


def test_all_know_before_the_grace_of_any_is_over(tmp_path):
    """Rank 0 is the last of the ring to hear that rank 1 is gone."""

    def work(ranks: Ranks) -> None:
        processes.GRACE_SECONDS = 0.1 if ranks.first else 1000.0  # in this forked process
        if ranks.rank == 1:
            time.sleep(0.2)  # until that holds for all
            os._exit(DIED)
        if ranks.first:
            wait_in_vain()
        while not (tmp_path / "stderr_0").read_text():
            time.sleep(0.05)
        os._exit(0)

    assert run(4, work, tmp_path).statuses == [1, DIED, 0, 0]


def test_two_that_die_together_end_the_rest(grace, tmp_path):
    """The ring is broken in two places; each part hears of it."""

    def work(ranks: Ranks) -> None:
        if ranks.rank in (1, 3):
            os._exit(DIED)
        wait_in_vain()

    assert run(4, work, tmp_path).statuses == [1, DIED, 1, DIED]


def test_an_orderly_end_is_quiet_however_late_some_come(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.0)  # no false alarm goes unheard
    monkeypatch.setattr(
        processes, "MEETING", timedelta(seconds=2)
    )  # which is no limit to what comes after it
    run_all(3, lambda ranks: time.sleep(1.5 * ranks.rank), tmp_path)
    said = [(tmp_path / f"stderr_{rank}").read_text() for rank in range(3)]
    assert not any("error" in text for text in (capfd.readouterr().err, *said))


def test_a_main_thread_that_notices_by_itself_says_it_once(tmp_path):
    """Long before the grace is over."""

    def work(ranks: Ranks) -> None:
        if ranks.rank == 1:
            os._exit(DIED)
        ranks.barrier()

    ended = run(3, work, tmp_path)
    assert ended.statuses == [1, DIED, 1]
    assert ended.errors == [LINE, "", ""]


def test_a_main_thread_that_has_failed_may_take_longer_to_end(grace, tmp_path):
    def work(ranks: Ranks) -> None:
        if ranks.rank == 1:
            os._exit(DIED)
        with suppress(LostRankError), ranks:
            ranks.barrier()
        time.sleep(3 * processes.GRACE_SECONDS)
        raise LostRankError("in other words")

    ended = run(3, work, tmp_path)
    assert ended.statuses == [1, DIED, 1]
    assert ended.errors == ["error: in other words\n", "", ""]


def test_an_interrupted_process_waits_for_nobody(grace, tmp_path):
    def work(ranks: Ranks) -> None:
        if ranks.first:
            raise KeyboardInterrupt
        wait_in_vain()

    ended = run(3, work, tmp_path)
    assert ended.statuses == [130, 1, 1]
    assert ended.errors[0].startswith("interrupted") and ended.errors[1:] == ["", ""]


def test_what_ranks_tell_each_other(tmp_path):
    def work(ranks: Ranks) -> None:
        me, others = ranks.rank, range(ranks.world)
        assert ranks.gather("é" * me) == ["é" * rank for rank in others]
        assert ranks.gather_bytes(bytes([me] * 3 * me)) == [bytes([rank] * 3 * rank) for rank in others]
        assert ranks.of_first(f"from {me}") == "from 0"
        assert ranks.any_rank(me == 1) and not ranks.any_rank(False)
        tensors = [torch.full((3,), me), torch.tensor([me == 0])]
        ranks.broadcast(tensors)
        assert tensors[0].tolist() == [0, 0, 0] and tensors[1].all()
        with ranks.first_before_others():
            if me == 0:
                (tmp_path / "made").touch()
            assert (tmp_path / "made").exists()
        values = [torch.rand(40, 30, generator=torch.Generator().manual_seed(rank)) for rank in others]
        gradients = [values[me].clone(), torch.tensor(float(me))]
        ranks.sum_all(gradients)
        torch.testing.assert_close(gradients[0], sum(values))
        assert gradients[1] == sum(others)
        digits = gradients[0].numpy().tobytes()
        assert ranks.gather_bytes(digits) == [digits] * ranks.world  # bit for bit
        rows = torch.full((ranks.world, 5), -1.0)
        rows[me] = me + torch.arange(5)
        ranks.gather_rows(rows).wait()
        assert torch.equal(rows, torch.arange(3.0)[:, None] + torch.arange(5))

    run_all(3, work, tmp_path)
    ranks = Ranks(torch.device("cpu"))
    assert ranks.gather("x") == ["x"] and ranks.of_first("x") == "x" and not ranks.any_rank(False)


def test_an_error_of_all_is_said_once(tmp_path):
    def work(ranks: Ranks) -> None:
        raise LostRankError("gone")

    ended = run_ranks(2, work, tmp_path)
    assert ended.statuses == [1, 1] and ended.errors == ["error: gone\n", ""]


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is 'not set'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK is 'not set'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "MASTER_PORT is 'not set'"),
    ],
)
def test_half_an_environment_of_torchrun_is_one_line(monkeypatch, environment, named):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError, match=f"{named}, which torchrun sets .*; start with torchrun, or unset"
    ) as error:
        Ranks.from_environment("cpu")
    assert "\n" not in str(error.value)
