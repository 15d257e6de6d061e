"""Where nothing can be written any more, the last good checkpoint stays, the run says so and goes on."""

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.measures.held_out_scores import HeldOutScore, read_scores
from mmlphuman.model_folder import list_checkpoints
from mmlphuman.training import checkpoint
from mmlphuman.training.checkpoint import Snapshot
from mmlphuman.training.guarding import Preemption
from mmlphuman.training.monitor import Monitor
from tests.builders import save_checkpoint, small_trained
from tests.training.test_guarding import AskedAt
from tests.training.test_loop import fresh


@pytest.fixture(scope="module")
def trained(synthetic_body):
    return small_trained(synthetic_body)


@contextmanager
def files_limited_to(size: int):
    """The kernel's own refusal, as with a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_an_unfinished_checkpoint_is_removed_and_the_reason_told(trained, tmp_path, size):
    saved = save_checkpoint(tmp_path, trained, {}, keep=1)
    trained = TrainedAvatar(trained.avatar, trained.pose_space, trained.config, 80)
    with files_limited_to(size), pytest.raises(OSError) as error:
        save_checkpoint(tmp_path, trained, {}, keep=1)
    assert error.value.errno == errno.EFBIG
    assert list(saved.parent.iterdir()) == [saved]
    assert save_checkpoint(tmp_path, trained, {}, keep=1).name == "iteration_00000080"


def test_a_failure_to_flush_counts_as_well(trained, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(OSError, match="quota"):
        save_checkpoint(tmp_path, trained, {}, keep=1)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.fixture
def run_on_full_disk(tiny_config, capture, tmp_path, monkeypatch):
    """A run of 12 iterations whose checkpoints of these iterations find no room; `stop`: asked to, after so many."""

    def run(full_at: set[int], stop: int | None = None) -> bool:
        trainer, preemption = fresh(tiny_config, capture), Preemption()
        trainer.save(tmp_path)
        write = checkpoint.write_snapshot

        def write_if_there_is_room(model_dir: Path, snapshot: Snapshot, keep: int) -> Path:
            if snapshot.iteration in full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(model_dir, snapshot, keep)

        monkeypatch.setattr(checkpoint, "write_snapshot", write_if_there_is_room)
        with Monitor(tmp_path, 0, 12, quiet=True) as monitor:
            return trainer.run(tmp_path, monitor, AskedAt(preemption, stop), preemption)

    return run


def saved(model: Path) -> list[int]:
    return [int(path.name[-2:]) for path in list_checkpoints(model)]


def test_the_run_says_so_and_tries_again_at_the_next_checkpoint(run_on_full_disk, tmp_path, capsys):
    assert run_on_full_disk({4})
    assert saved(tmp_path) == [8, 12]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    for part in ("checkpoint of iteration 4", "No space left on device", "iteration_00000000 is kept"):
        assert part in lines[0]


def test_without_its_last_checkpoint_a_run_fails(run_on_full_disk, tmp_path):
    with pytest.raises(
        OSError, match="checkpoint of iteration 12 cannot be written.*iteration_00000008 is kept"
    ):
        run_on_full_disk({12})
    assert saved(tmp_path) == [4, 8]


def test_a_run_that_is_asked_to_stop_stops_all_the_same(run_on_full_disk, tmp_path, capsys):
    assert not run_on_full_disk({6}, stop=6)
    assert saved(tmp_path) == [0, 4]
    assert "iteration_00000004 is kept" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_begins_anew_with_the_next_checkpoint(tmp_path, capsys):
    with Monitor(tmp_path, 0, 100, quiet=True) as monitor:
        monitor.log(10, {"total": 1.0})
        monitor.events.flush()
        monitor.events._records = RecordWriter(Path("/dev/full").open("wb"))  # noqa: SIM115
        for iteration in range(20, 1000, 10):  # more than a buffer
            monitor.log(iteration, {"total": 1.0})
        assert len(capsys.readouterr().err.splitlines()) == 1
        monitor.reopen(1000)
        monitor.log(1010, {"total": 1.0})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [10, 1010]


def test_scores_that_cannot_be_written_are_not_lost(tmp_path, capsys):
    scores = [HeldOutScore(iteration, 1.0, 20.0, None) for iteration in (10, 20)]
    with Monitor(tmp_path, 0, 100, quiet=True) as monitor:
        with files_limited_to(0):
            monitor._keep_scores(scores[:1])
        assert "scores.csv cannot be written" in capsys.readouterr().err
        monitor._keep_scores(scores)
    assert read_scores(tmp_path / "scores.csv") == scores
