"""What a run writes into scores.csv at each test, on which clock, and what a resumed run keeps of it."""

import math
import shutil
import time
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmlphuman.backend import PYTORCH
from mmlphuman.evaluation.metrics import score_picture
from mmlphuman.evaluation.render_to_files import rendered_pictures
from mmlphuman.measures.held_out_scores import HeldOutScore, read_scores
from mmlphuman.model_folder import load_model
from mmlphuman.training import monitor
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import resume_run
from tests.training.test_loop import fresh

TOLERANCE = (
    0.1  # dB; the evaluation scores bytes, and an untrained avatar's grey, 127.5, rounds up everywhere
)
CPU = torch.device("cpu")


class Clock:
    """In place of the module `time`: a step takes a second, tests and checkpoints a hundred."""

    def __init__(self, monkeypatch):
        self.now = 5000.0
        monkeypatch.setattr(monitor, "time", self)
        for owner, name, seconds in (
            (Trainer, "step", 1),
            (Trainer, "save", 100),
            (Monitor, "show_held_out", 100),
        ):
            monkeypatch.setattr(owner, name, self.taking(getattr(owner, name), seconds))

    def monotonic(self) -> float:
        return self.now

    time = staticmethod(time.time)  # of the log

    def taking(self, method, seconds):
        def slow(*args, **options):
            self.now += seconds
            return method(*args, **options)

        return slow


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, test_every=2, checkpoints_kept=3)


def run(trainer: Trainer, folder) -> list[HeldOutScore]:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as shown:
        trainer.run(folder, shown)
    return read_scores(folder / "scores.csv")


def test_tests_and_checkpoints_take_no_training_time_also_over_a_resume(
    config, capture, tmp_path, monkeypatch
):
    Clock(monkeypatch)
    whole = run(fresh(config, capture), tmp_path)
    assert [(score.iteration, score.seconds) for score in whole] == [(i, i) for i in (2, 4, 6, 8, 10, 12)]

    shutil.rmtree(tmp_path / "checkpoints" / "iteration_00000012")  # as if killed before it
    resumed = resume_run(config, capture, tmp_path, None, CPU)
    assert resumed.iteration == 8
    with Monitor(tmp_path, 8, 12, quiet=True):
        assert [score.iteration for score in read_scores(tmp_path / "scores.csv")] == [2, 4, 6, 8]
    assert run(resumed, tmp_path) == whole

    logged = EventAccumulator(str(tmp_path))
    logged.Reload()
    seconds = [(event.step, event.value) for event in logged.Scalars("held_out/seconds")]
    assert seconds == [(i, i) for i in (2, 4, 6, 8, 10, 12)]


def test_a_checkpoint_from_before_the_clock_leaves_the_time_unknown(config, capture):
    trainer = fresh(config, capture)
    state = trainer.state_dict()
    del state["seconds"]
    trainer.load_state_dict(state)
    assert math.isnan(trainer.clock.seconds)


def test_scores_are_those_of_the_evaluation(config, capture, tmp_path):
    trainer = fresh(config, capture)
    last = run(trainer, tmp_path)[-1]
    dataset = trainer.scene.held_out
    assert len(dataset.pairs) <= 4  # all of them are shown
    pictures = rendered_pictures(load_model(tmp_path), dataset, config.background, False, PYTORCH)
    scores = [score_picture(picture) for picture in pictures]
    assert last.psnr == pytest.approx(sum(score.psnr for score in scores) / len(scores), abs=TOLERANCE)
    inside = sum(score.psnr_inside for score in scores) / len(scores)
    assert last.psnr_inside == pytest.approx(inside, abs=TOLERANCE)
    assert abs(last.psnr - last.psnr_inside) > 5 * TOLERANCE  # two different things


@pytest.mark.parametrize("content", ["iteration,psnr\n1,2\n", "\x00\xff", "", None])
def test_a_damaged_scores_file_is_put_aside_and_training_goes_on(tmp_path, capsys, content):
    path = tmp_path / "scores.csv"
    path.mkdir() if content is None else path.write_bytes(content.encode("latin-1"))
    with Monitor(tmp_path, 3, 9, quiet=True) as monitor:
        assert monitor.scores == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "scores.csv" in said and "kept as scores.csv.damaged" in said
    assert not path.exists() and (tmp_path / "scores.csv.damaged").exists()
