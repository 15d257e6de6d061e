"""Watching a run: it trains as if nobody watched, drawing keeps to its share of time, viewers' faults stay theirs."""

import io
import logging
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from tqdm import tqdm

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.backend import PYTORCH
from mmlphuman.config import Config
from mmlphuman.model_folder import load_model
from mmlphuman.streaming import live_training as module
from mmlphuman.streaming import server as server_module
from mmlphuman.streaming.handover import Job
from mmlphuman.streaming.live_scene import scene_of_model, scene_of_run
from mmlphuman.streaming.live_training import BURST_SECONDS, DrawingBudget, LiveTraining, live_training
from mmlphuman.streaming.messages import (
    MAX_HISTORY,
    RENDER_MODES,
    PhotographRequest,
    PoseRequest,
    RenderRequest,
)
from mmlphuman.streaming.photographs import Photographs
from mmlphuman.streaming.server import SPARE_PORTS, ListenAddress, announce
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.run_setup import build_scene, write_run_record
from tests.training.conftest import capture, tiny_config  # noqa: F401
from tests.training.test_loop import assert_same_state


class Viewers:
    """A server whose viewers ask again and again, each time for something else; keeps what it is told."""

    def __init__(self, views=(), viewers: int = 1):
        self.views, self.viewers, self.asked = list(views), viewers, 0
        self.delivered, self.problems, self.states, self.stopped = [], [], [], False

    @property
    def busy(self) -> bool:
        return bool(self.views)

    def next_request(self, timeout) -> Job:
        assert timeout == 0, "training must not wait"
        self.asked += 1
        view = self.views[self.asked % len(self.views)]
        pose = PoseRequest(frame=self.asked % 5, hands=("file", "fist")[self.asked % 2])
        show = RENDER_MODES[self.asked % len(RENDER_MODES)]
        return Job(RenderRequest(self.asked, view, pose, project=self.asked % 3 == 0, show=show), "client")

    def deliver(self, job, image, iteration, gaussians, distance, render_ms) -> None:
        self.delivered.append((job.request.id, image, iteration))

    def problem(self, job, text) -> None:
        self.problems.append((job.request.id, text))

    def publish(self, state) -> None:
        self.states.append(state)

    def stop(self) -> None:
        self.stopped = True


class Clock:
    """In place of the module `time`: stands still but for what is added."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now


def new_trainer(config: Config, capture) -> Trainer:  # noqa: F811
    return Trainer(config, build_scene(config, capture, say=lambda text: None), None, torch.device("cpu"))


def run(trainer: Trainer, folder, watcher=None) -> Trainer:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as monitor:
        trainer.run(folder, monitor, watcher)
    return trainer


def watch(trainer: Trainer, server: Viewers, share: float = 1.0) -> LiveTraining:
    scene = scene_of_run(trainer, "a run")
    scene.pace.seconds = 1e9  # every picture in one part, however slow the machine
    return LiveTraining(server, scene, trainer.trained, trainer.config.iterations, share)


@pytest.fixture
def trainer(tiny_config, capture) -> Trainer:  # noqa: F811
    return new_trainer(tiny_config, capture)


@pytest.fixture
def views(trainer) -> list[CameraView]:
    return list(scene_of_run(trainer, "").cameras.values())


def test_a_watched_run_is_the_unwatched_run_bit_for_bit(tiny_config, capture, tmp_path, views):  # noqa: F811
    alone = run(new_trainer(tiny_config, capture), tmp_path / "alone")
    server = Viewers(views)
    watched = new_trainer(tiny_config, capture)
    watcher = watch(watched, server)
    watcher.budget.seconds = 1e9
    run(watched, tmp_path / "watched", watcher)
    assert_same_state(alone, watched)
    assert [iteration for _, _, iteration in server.delivered] == list(range(1, 13))
    assert not server.problems
    assert all((image != image[0, 0]).any() for _, image, _ in server.delivered), (
        "the person is in the picture"
    )


def test_pictures_are_of_the_avatar_as_it_stands(trainer, views):
    """Bases and colours by view join during the run: what is drawn follows the schedule."""
    server = Viewers(views[:1])
    watcher = watch(trainer, server)
    watcher.budget.seconds = 1e9
    active = []
    trainer.avatar.register_forward_pre_hook(lambda _, inputs: active.append(inputs[1]))
    for iteration in range(7):
        trainer.iteration = iteration
        watcher.after_step(iteration)
    assert [parts.position_bases for parts in active] == [i >= 2 for i in range(7)]
    assert [parts.property_bases for parts in active] == [i >= 3 for i in range(7)]
    assert [parts.sh1 for parts in active] == [i >= 5 for i in range(7)]


def test_without_requests_nothing_is_drawn_and_state_comes_once_a_second(trainer, monkeypatch):
    clock, server = Clock(monkeypatch), Viewers()
    watcher = watch(trainer, server)
    for iteration in range(1, 401):  # ten seconds
        clock.now += 0.025
        if iteration % 10 == 0:
            watcher.note_loss(iteration, 1 / iteration)
        watcher.after_step(iteration)
    assert server.asked == 0 and not server.delivered
    assert 9 <= len(server.states) <= 11
    assert all(state.steps_per_second == pytest.approx(40, rel=0.01) for state in server.states)
    points = [point for state in server.states for point in state.history]
    assert points == [(i, 1 / i) for i in range(10, 10 + 10 * len(points), 10)] and len(points) >= 36
    assert server.states[-1].iterations == 12 and server.states[-1].viewers == 1


def test_points_of_a_long_pause_fit_into_one_state(trainer, monkeypatch):
    clock, server = Clock(monkeypatch), Viewers()
    watcher = watch(trainer, server)
    for iteration in range(3 * MAX_HISTORY):
        watcher.note_loss(iteration, 0.5)
    clock.now += 2
    watcher.after_step(3 * MAX_HISTORY)
    assert len(server.states[0].history) == MAX_HISTORY


@pytest.mark.parametrize("share", [0.03, 0.2])
@pytest.mark.parametrize(("step", "picture"), [(0.02, 0.005), (0.25, 0.4), (0.001, 0.05)])
def test_drawing_keeps_to_its_share(trainer, views, monkeypatch, share, step, picture):
    clock, server = Clock(monkeypatch), Viewers(views)
    watcher = watch(trainer, server, share)
    drawn = []

    def draw(request):
        clock.now += picture
        drawn.append(clock.now)
        raise ValueError("seen enough")  # a problem costs as much as a picture

    monkeypatch.setattr(watcher.scene, "begin", draw)
    began, steps = clock.now, 0
    while clock.now < began + 120:
        clock.now += step
        steps += 1
        before = len(drawn)
        watcher.after_step(steps)
        assert len(drawn) <= before + 1, "one picture at most between two steps"
    allowed = share * 120 + BURST_SECONDS
    possible = steps * picture
    assert 0.8 * min(share * 120, possible) - picture <= len(drawn) * picture <= allowed + picture
    assert len(server.problems) == len(drawn)


def test_photographs_and_questions_spend_the_share_too(trainer, views, monkeypatch):
    """A viewer who asks for nothing but photographs, from a slow disk, gets as many as the share allows."""
    clock, server = Clock(monkeypatch), Viewers(views)
    watcher = watch(trainer, server, share=0.1)
    camera_id, view = next(iter(watcher.scene.cameras.items()))
    request = PhotographRequest(1, view, camera_id, 0)
    monkeypatch.setattr(server, "next_request", lambda timeout: Job(request, "client"))
    read = watcher.scene.photographs.read

    def read_slowly(*which):
        clock.now += 0.5
        return read(*which)

    monkeypatch.setattr(watcher.scene.photographs, "read", read_slowly)
    began = clock.now
    while clock.now < began + 60:
        clock.now += 0.05
        watcher.after_step(1)
    taken = 0.5 * len(server.delivered)
    assert 0.1 * 60 - 1 <= taken <= 0.1 * 60 + BURST_SECONDS + 0.5 and not server.problems
    height, width, _ = server.delivered[0][1].shape
    assert (width, height) == (view.width, view.height)


def test_only_watched_time_earns_drawing():
    budget = DrawingBudget(0.1, now=0.0)
    budget.spend(1.0)
    budget.count(1000.0, watched=False)
    assert budget.seconds == pytest.approx(BURST_SECONDS - 1)
    budget.count(1002.0, watched=True)
    assert budget.seconds == pytest.approx(BURST_SECONDS - 0.8)
    budget.count(9000.0, watched=True)
    assert budget.seconds == BURST_SECONDS


def test_a_wrong_request_is_its_viewers_problem(trainer, caplog):
    server = Viewers([CameraView(np.eye(4), 50.0, 5000, 5000)])
    with caplog.at_level(logging.WARNING):
        watch(trainer, server).after_step(1)
    assert "5000 x 5000" in server.problems[0][1] and not caplog.records


def test_a_fault_in_drawing_neither_ends_the_run_nor_floods_the_log(
    trainer, views, tmp_path, monkeypatch, caplog
):
    server = Viewers(views)
    watcher = watch(trainer, server)
    watcher.budget.seconds = 1e9

    def fail(request):
        raise [RuntimeError("out of memory\nreally"), KeyError("no")][server.asked % 2]

    monkeypatch.setattr(watcher.scene, "begin", fail)
    with caplog.at_level(logging.WARNING):
        run(trainer, tmp_path, watcher)
    assert trainer.iteration == trainer.config.iterations
    assert len(server.problems) == 12 and all("\n" not in text for _, text in server.problems)
    assert len([record for record in caplog.records if "live viewer" in record.message]) == 2


def test_a_fault_of_the_server_does_not_end_the_run(trainer, tmp_path, monkeypatch, caplog):
    server = Viewers()
    monkeypatch.setattr(server, "publish", lambda state: 1 / 0)
    run(trainer, tmp_path, watch(trainer, server))
    assert trainer.iteration == trainer.config.iterations and "division" in caplog.text


def test_interrupting_a_picture_interrupts_the_run(trainer, views, monkeypatch):
    watcher = watch(trainer, Viewers(views))

    def interrupt(request):
        raise KeyboardInterrupt

    monkeypatch.setattr(watcher.scene, "begin", interrupt)
    with pytest.raises(KeyboardInterrupt):
        watcher.after_step(1)


def test_the_run_and_its_folder_welcome_alike(trainer, tiny_config, tmp_path):  # noqa: F811
    write_run_record(tmp_path, tiny_config, tmp_path, trainer.scene)
    trainer.save(tmp_path)
    running = scene_of_run(trainer, "title")
    for path in (tmp_path, next((tmp_path / "checkpoints").iterdir())):
        photographs = Photographs(trainer.scene.training.layout)
        saved = scene_of_model(path, load_model(path), PYTORCH, photographs)
        ours, theirs = running.welcome(training=True), saved.welcome(training=False)
        assert ours.training and not theirs.training
        assert (ours.gaussians, ours.frames, ours.up) == (theirs.gaussians, theirs.frames, theirs.up)
        np.testing.assert_allclose(ours.center, theirs.center, atol=1e-6)
        assert ours.floor == pytest.approx(theirs.floor, abs=1e-5) and ours.photographs and theirs.photographs
        listed = [(0, True), (1, True), (2, True), (3, False)]
        for welcome in (ours, theirs):
            assert [(entry.id, entry.trained) for entry in welcome.cameras] == listed
        for one, other in zip(ours.cameras, theirs.cameras, strict=True):
            np.testing.assert_allclose(one.camera.w2c, other.camera.w2c, atol=1e-6)
        request = RenderRequest(1, running.cameras[1], PoseRequest(frame=3))
        np.testing.assert_array_equal(running.draw(request).image, saved.draw(request).image)
        photograph = PhotographRequest(2, running.cameras[3], 3, 4)
        np.testing.assert_array_equal(running.serve(photograph).image, saved.serve(photograph).image)


def test_a_run_that_refines_poses_and_its_folder_show_the_refined(tiny_config, capture, tmp_path):  # noqa: F811
    trainer = new_trainer(replace(tiny_config, refine_poses=True), capture)
    running = scene_of_run(trainer, "title")
    before = running.pose(PoseRequest(frame=3))
    assert np.array_equal(before.joints, running.poses[3])
    with torch.no_grad():
        trainer.refinement.poses.learnt.values[3] = 0.2
    write_run_record(tmp_path, trainer.config, tmp_path, trainer.scene)
    trainer.save(tmp_path)
    saved = scene_of_model(tmp_path, load_model(tmp_path), PYTORCH)
    for frame, moves in ((3, True), (4, False)):
        ours, theirs = (scene.pose(PoseRequest(frame=frame)) for scene in (running, saved))
        np.testing.assert_allclose(ours.joints, theirs.joints, atol=1e-6)
        np.testing.assert_allclose(ours.translation, theirs.translation, atol=1e-6)
        assert (np.abs(ours.joints.numpy() - running.poses[frame]).max() > 0.01) == moves
        assert (np.abs(ours.translation.numpy() - running.translations[frame]).max() > 0.01) == moves
    camera = list(running.cameras.values())[1]
    request = RenderRequest(1, camera, PoseRequest(frame=3))
    np.testing.assert_array_equal(running.draw(request).image, saved.draw(request).image)


def test_a_port_that_nobody_asked_for_may_be_taken(trainer, tmp_path, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        address = ListenAddress("127.0.0.1", port, None, asked_for=False)
        with live_training(trainer, tmp_path, address) as watcher:
            assert port < watcher.server.port <= port + SPARE_PORTS
            served = watcher.server.port
        out = capsys.readouterr().out.splitlines()
        assert len(out) == 1 and out[0].startswith(f"watch: http://127.0.0.1:{served}/ ")
        assert out[0].endswith(f"net_viewer.py --port {served} (port {port} is taken)")
        monkeypatch.setattr(server_module, "SPARE_PORTS", 0)
        with live_training(trainer, tmp_path, address) as watcher:
            assert watcher is None
        out = capsys.readouterr().out.splitlines()
        assert len(out) == 1 and out[0].startswith("no live viewer: ") and "in use" in out[0]
        for entrance in (
            address.check,
            live_training(trainer, tmp_path, replace(address, asked_for=True)).__enter__,
        ):
            with pytest.raises(ValueError, match="in use"):
                entrance()


def test_the_server_ends_with_the_run(trainer, tmp_path, capsys):
    with (
        pytest.raises(KeyboardInterrupt),
        live_training(
            trainer, tmp_path / "model", ListenAddress("127.0.0.1", 0, "word", asked_for=True)
        ) as watcher,
    ):
        port = watcher.server.port
        socket.create_connection(("127.0.0.1", port), 5).close()
        assert f"http://127.0.0.1:{port}/#token=word" in capsys.readouterr().out
        raise KeyboardInterrupt
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_the_address_has_a_line_of_its_own_beside_a_progress_bar(monkeypatch):
    """Both go to one terminal, whichever of the two streams they use."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    with tqdm(total=10, desc="training") as bar:
        announce("watch: here")
        bar.update()
    # What a carriage return takes back is not to be seen.
    lines = [line.split("\r")[-1] for line in terminal.getvalue().split("\n")]
    assert "watch: here" in lines
