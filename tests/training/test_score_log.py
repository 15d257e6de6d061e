"""scores.csv: what a run writes at each test, on which clock, and what a resumed run keeps of it."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmlphuman.backend import PYTORCH
from mmlphuman.evaluation.metrics import score_picture
from mmlphuman.evaluation.render_capture import rendered_pictures
from mmlphuman.training import score_log
from mmlphuman.training.checkpoint import load_model
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import resume_run
from mmlphuman.training.scene import build_scene
from mmlphuman.training.score_log import HeldOutScore, read_scores, scores_until, write_scores

TOLERANCE = (
    0.1  # dB; the evaluation scores bytes, and an untrained avatar's grey, 127.5, rounds up everywhere
)
CPU = torch.device("cpu")
SCORES = [HeldOutScore(10, 1.5, 20.25, 18.0), HeldOutScore(20, 3.125, 21.0, None)]


class Clock:
    """In place of the module `time`: a step takes a second, tests and checkpoints a hundred."""

    def __init__(self, monkeypatch):
        self.now = 5000.0
        monkeypatch.setattr(score_log, "time", self)
        for owner, name, seconds in (
            (Trainer, "step", 1),
            (Trainer, "save", 100),
            (Monitor, "show_held_out", 100),
        ):
            monkeypatch.setattr(owner, name, self.taking(getattr(owner, name), seconds))

    def monotonic(self) -> float:
        return self.now

    def taking(self, method, seconds):
        def slow(*args, **options):
            self.now += seconds
            return method(*args, **options)

        return slow


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, test_every=2, checkpoints_kept=3)


def fresh(config, capture) -> Trainer:
    return Trainer(config, build_scene(config, capture, say=lambda text: None), None, CPU)


def run(trainer: Trainer, folder) -> list[HeldOutScore]:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as monitor:
        trainer.run(folder, monitor)
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


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, SCORES)
    assert read_scores(path) == SCORES
    assert scores_until(path, 10) == SCORES[:1] == read_scores(path)
    assert scores_until(tmp_path / "none.csv", 10) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1 must be iteration,training_seconds"),
        ("step,score\n1,2\n", "line 1 must be iteration,training_seconds"),
        ("iteration,training_seconds,psnr,psnr_inside\n10,1,20,\n20,2\n", "line 3: '20,2'"),
        ("iteration,training_seconds,psnr,psnr_inside\n10,soon,20,\n", "line 2: '10,soon,20,'"),
        (
            "iteration,training_seconds,psnr,psnr_inside\n10,1,20,\n10,1,20,\n",
            "line 3: iteration 10 follows 10",
        ),
        (b"\xff\xfe\x00".decode("latin1"), "line 1 must be"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, text, part):
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=part) as error:
        read_scores(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
