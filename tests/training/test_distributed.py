"""Several processes do what one does with as many poses a step, go on from each other's checkpoints, fail together."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mmlphuman.processes import ErrorOfAll, Ranks
from mmlphuman.training.loop import Trainer, poses_per_step
from mmlphuman.training.monitor import Monitor, NoMonitor
from mmlphuman.training.resume import resume_run
from mmlphuman.training.run_setup import build_scene
from tests.local_processes import run_all, run_ranks

CPU = torch.device("cpu")
ALONE = Ranks(CPU)
STEPS, SAVED_AFTER = 50, 38  # the second is no multiple of anything


@pytest.fixture
def config(tiny_config):
    """Two poses a step, small pictures; everything is switched on early, corrections of the capture too."""
    return replace(
        tiny_config, iterations=2 * STEPS, poses_per_step=2, image_scaling=0.35, lambda_ssim=0, refine_poses=True,
        refine_camera_colors=True,
    )  # fmt: skip


@pytest.fixture
def one_thread():
    """As in forked processes: sums over several threads are rounded otherwise, and training tells."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fresh(config, capture, ranks: Ranks = ALONE) -> Trainer:
    return Trainer(config, build_scene(config, capture, lambda text: None), None, CPU, ranks=ranks)


def take_steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.step(*trainer.next_samples())
        trainer.iteration += trainer.poses_per_step


def numbers_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    refinement = trainer.refinement.state_dict()
    learnt = {name: part["values"].clone() for name, part in refinement.items()}
    return learnt | {name: value.detach().clone() for name, value in trainer.avatar.named_parameters()}


def assert_close(ours: dict, theirs: dict) -> None:
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_two_processes_follow_one_with_two_poses_a_step(config, capture, tmp_path, one_thread):
    """Checkpoints on the way: by one and by two processes, each continued by the other."""

    def whole_run(ranks: Ranks, folder) -> None:
        trainer = fresh(config, capture, ranks)
        take_steps(trainer, SAVED_AFTER)
        if ranks.first:
            trainer.save(folder)
        take_steps(trainer, STEPS - SAVED_AFTER)
        torch.save((numbers_of(trainer), trainer.stream.state_dict()), folder / f"{ranks.rank}.pt")

    def rest_of_run(ranks: Ranks, begun, folder) -> None:
        trainer = resume_run(config, capture, begun, None, CPU, ranks)
        assert trainer.iteration == 2 * SAVED_AFTER
        take_steps(trainer, STEPS - SAVED_AFTER)
        torch.save((numbers_of(trainer), trainer.stream.state_dict()), folder / f"{ranks.rank}.pt")

    folders = {name: tmp_path / name for name in ("one", "two", "one_two", "two_one")}
    for folder in folders.values():
        folder.mkdir()
    whole_run(ALONE, folders["one"])
    run_all(2, partial(whole_run, folder=folders["two"]), tmp_path)
    run_all(2, partial(rest_of_run, begun=folders["one"], folder=folders["one_two"]), tmp_path)
    rest_of_run(ALONE, folders["two"], folders["two_one"])

    expected, position = torch.load(folders["one"] / "0.pt")
    start = numbers_of(fresh(config, capture))
    assert all(not torch.equal(start[name], value) for name, value in expected.items())
    for name in ("two", "one_two", "two_one"):
        ours, where = torch.load(folders[name] / "0.pt")
        assert where == position
        assert_close(ours, expected)
    for name in ("two", "one_two"):  # the ranks never drift apart
        zero, one = (torch.load(folders[name] / f"{rank}.pt")[0] for rank in range(2))
        assert all(torch.equal(value, one[key]) for key, value in zero.items())


def test_the_gradient_is_the_mean_over_the_poses(config, capture):
    """Adam hides a wrong factor: looked at before it."""
    single, double = fresh(replace(config, poses_per_step=1), capture), fresh(config, capture)
    mean: dict[str, torch.Tensor] = {}
    for _ in range(2):
        single.avatar.zero_grad()
        single.add_gradients(next(single.stream))
        for name, parameter in single.avatar.named_parameters():
            if parameter.grad is not None:
                mean[name] = mean.get(name, 0) + parameter.grad / 2
    double.optimisers.step = lambda: torch.ones(())  # leaves the gradients where they are
    terms, _ = double.step(*double.next_samples())
    for name, parameter in double.avatar.named_parameters():
        if name in mean:
            torch.testing.assert_close(parameter.grad, mean[name], rtol=1e-5, atol=1e-9, msg=name)
    assert len(mean) > 5 and terms["total"] > 0


def test_rates_follow_the_square_root_of_the_poses(config, capture):
    rates = []
    for poses in (1, 4):
        optimisers = fresh(replace(config, poses_per_step=poses), capture).optimisers
        optimisers.set_rates(50)
        rates.append([group["lr"] for each in optimisers.optimisers for group in each.param_groups])
    assert rates[1] == pytest.approx([2 * rate for rate in rates[0]])


@pytest.mark.parametrize("poses", [1, 3, 8])
def test_everything_due_is_done_once_and_in_time(poses, tiny_config):
    run = SimpleNamespace(config=replace(tiny_config, iterations=50), poses_per_step=poses)
    done = []
    for iteration in range(poses, 50 + poses, poses):
        run.iteration = iteration
        if Trainer.is_due(run, 10, [11, 12, 34]):
            done.append(iteration)
    after = [-(-due // poses) * poses for due in (10, 11, 12, 20, 30, 34, 40, 50)]
    assert done == sorted(set(after))
    assert not Trainer.is_due(SimpleNamespace(**{**vars(run), "iteration": 8}), 0)


def test_poses_are_shared_equally_or_not_at_all(config):
    two = Ranks(CPU, 0, 2)
    assert poses_per_step(replace(config, poses_per_step=None), two) == 2
    assert poses_per_step(replace(config, poses_per_step=6), two) == 6
    with pytest.raises(ErrorOfAll, match="poses_per_step: 3 cannot be shared equally by 2 processes"):
        poses_per_step(replace(config, poses_per_step=3), two)


def training_that_fails(config, capture, folder, spoil, ranks: Ranks) -> None:
    """spoil: called by rank 1 with each frame that it reads."""
    trainer = fresh(config, capture, ranks)
    read = trainer.scene.training.sample
    reads = iter(range(1000))

    def sample(frame, camera_ids):
        if ranks.rank == 1 and next(reads) == 3:
            spoil(frame)
        return read(frame, camera_ids)

    trainer.scene.training.sample = sample
    if ranks.first:
        trainer.save(folder)
    with Monitor(folder, 0, 100, quiet=True) if ranks.first else NoMonitor() as monitor:
        trainer.run(folder, monitor)


def unreadable(frame: int) -> None:
    raise ValueError(f"frame {frame}: not a readable image")


def killed(frame: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def broken(frame: int) -> None:
    raise RuntimeError("the GPU is lost")


@pytest.mark.parametrize("spoil", [unreadable, killed, broken])
def test_one_that_fails_ends_all_with_a_line(config, capture, tmp_path, spoil):
    fresh(config, capture)
    ended = run_ranks(2, partial(training_that_fails, config, capture, tmp_path, spoil), tmp_path)
    assert ended.seconds < 20
    assert ended.statuses == [1, -signal.SIGKILL if spoil is killed else 1]
    lines = [text.splitlines() for text in ended.errors]
    assert len(lines[0]) == 1 and "another process of this run has ended" in lines[0][0], lines
    if spoil is unreadable:
        assert len(lines[1]) == 1 and lines[1][0].startswith("error: process 1 of 2: frame"), lines
    if spoil is broken:
        assert lines[1][-1] == "RuntimeError: the GPU is lost"
