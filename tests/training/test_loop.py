"""A run: it learns, it resumes bit for bit, it stops on NaN with the last good checkpoint."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmlphuman.config import FORMERLY
from mmlphuman.model_folder import list_checkpoints, load_avatar, newest_checkpoint
from mmlphuman.render.rasterize import rasterize
from mmlphuman.training import checkpoint, loop, pose_step
from mmlphuman.training.checkpoint import Snapshot
from mmlphuman.training.guarding import NonFiniteError
from mmlphuman.training.loop import Trainer
from mmlphuman.training.losses import choose_crops
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.resume import check_same_run, resume_run
from mmlphuman.training.run_setup import build_scene

CPU = torch.device("cpu")


def run(trainer: Trainer, folder) -> Trainer:
    with Monitor(folder, trainer.iteration, trainer.config.iterations, quiet=True) as monitor:
        trainer.run(folder, monitor)
    return trainer


def fresh(config, capture) -> Trainer:
    return Trainer(config, build_scene(config, capture, say=lambda text: None), None, CPU)


def assert_same_state(a: Trainer, b: Trainer) -> None:
    assert_equal_contents(a.avatar.state_dict(), b.avatar.state_dict())
    left, right = a.state_dict(), b.state_dict()
    left.pop("seconds"), right.pop("seconds")  # which nothing follows from
    assert_equal_contents(left, right)


def assert_equal_contents(ours, theirs, place: str = "") -> None:
    """place: of these in what is compared."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride(), place
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key, value in ours.items():
            assert_equal_contents(value, theirs[key], f"{place}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), place
        for index, (value, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal_contents(value, other, f"{place}/{index}")
    else:
        assert ours == theirs, place


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("views", [1, 2])
def test_stop_and_resume_equals_never_stopping_bit_for_bit(tiny_config, capture, tmp_path, workers, views):
    refine = views == 2  # corrections of the capture are carried, too
    config = replace(
        tiny_config,
        num_workers=workers,
        views_per_pose=views,
        refine_poses=refine,
        refine_camera_colors=refine,
    )
    whole = run(fresh(config, capture), tmp_path / "whole")

    interrupted = fresh(config, capture)
    for _ in range(7):  # past the checkpoint at 4, into the part that is lost
        interrupted.step(next(interrupted.stream))
        interrupted.iteration += 1
        if interrupted.iteration == 4:
            interrupted.save(tmp_path / "stopped")
    resumed = resume_run(config, capture, tmp_path / "stopped", None, CPU)
    assert resumed.iteration == 4
    assert resumed.avatar.light.coefficients.any(), "the light's numbers are carried"
    assert_same_state(whole, run(resumed, tmp_path / "stopped"))


def test_training_lowers_the_loss(tiny_config, capture, tmp_path):
    config = replace(tiny_config, iterations=60, color_lr=0.02, lambda_ssim=0)
    trainer = fresh(config, capture)
    losses = [trainer.step(next(trainer.stream))[0]["l1"].item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_light_knows_the_places_of_the_training_frames_and_learns(tiny_config, capture):
    trainer = fresh(tiny_config, capture)
    light, frames = trainer.avatar.light, {frame for frame, _ in trainer.scene.training.pairs}
    places = torch.stack(
        [
            trainer.scene.training.sample(frame, trainer.config.train_cam_ids[:1]).pose.translation
            for frame in frames
        ]
    )
    assert len(frames) > 10 and torch.equal(light.lowest, places.min(0).values)
    assert torch.equal(light.highest, places.max(0).values)
    assert not light.coefficients.any()
    trainer.step(*trainer.next_samples())
    moved = light.coefficients.abs()
    assert moved.max().item() == pytest.approx(0.005, rel=0.01) and (moved > 0).all(), (
        "Adam's first step: the rate"
    )


def test_every_parameter_moves_once_everything_is_on(tiny_config, capture, tmp_path):
    trainer = fresh(tiny_config, capture)
    before = {name: parameter.detach().clone() for name, parameter in trainer.avatar.named_parameters()}
    run(trainer, tmp_path / "run")
    for name, parameter in trainer.avatar.named_parameters():
        assert not torch.equal(before[name], parameter), name


def test_nan_stops_the_run_and_names_the_sample(tiny_config, capture, tmp_path):
    trainer = fresh(replace(tiny_config, divergence_retries=0), capture)
    trainer.save(tmp_path)
    bad = trainer.scene.training.pairs[5]

    read = trainer.scene.training.sample

    def poisoned(frame, camera_ids):
        sample = read(frame, camera_ids)
        if (frame, camera_ids[0]) == bad:
            sample = replace(sample, pose=replace(sample.pose, translation=torch.full((3,), float("nan"))))
        return sample

    trainer.scene.training.sample = poisoned
    trainer.config.iterations = 200
    with pytest.raises(NonFiniteError, match=f"frame {bad[0]}, camera {bad[1]}"):
        run(trainer, tmp_path)
    kept = load_avatar(newest_checkpoint(tmp_path)).avatar
    assert all(parameter.isfinite().all() for parameter in kept.parameters())


def test_checkpoints_come_when_due_and_old_ones_go(tiny_config, capture, tmp_path):
    config = replace(tiny_config, checkpoint_iterations=[11], checkpoints_kept=3)
    run(fresh(config, capture), tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"iteration_{i:08d}" for i in (8, 11, 12)]


def test_resuming_under_other_settings_is_refused(tiny_config, capture, tmp_path):
    fresh(tiny_config, capture).save(tmp_path)
    with pytest.raises(ValueError, match="trained with color_lr: 0.0005, now it is 0.1"):
        resume_run(replace(tiny_config, color_lr=0.1), capture, tmp_path, None, CPU)
    resume_run(replace(tiny_config, num_workers=1, log_every=5), capture, tmp_path, None, CPU)


def test_a_run_of_the_published_method_is_told_which_settings_go_on_with_it(tiny_config):
    """A run of a former version has the published method in its settings, which the defaults are no longer."""
    saved = replace(tiny_config, pose_inputs="body", hidden_widths=FORMERLY["hidden_widths"], light="none")
    with pytest.raises(
        ValueError, match="pose_inputs: body, now it is local; add --config config/published.yaml"
    ):
        check_same_run(saved, tiny_config, Path("MODEL"))
    check_same_run(saved, saved, Path("MODEL"))


def gradients_of(trainer: Trainer, samples) -> tuple[dict, dict]:
    """Of one step that is not taken: its terms, and gradients by name."""
    found = {}

    def look() -> torch.Tensor:
        for name, parameter in trainer.avatar.named_parameters():
            found[name] = parameter.grad.clone()
            parameter.grad = None
        return torch.zeros(())

    trainer.optimisers.step = look
    return trainer.step(*samples)[0], found


def test_a_step_of_two_poses_is_their_mean_at_the_rates_of_its_iteration(tiny_config, capture):
    config = replace(tiny_config, iteration_dxyz_basis=0, iteration_gsparam_basis=0, iteration_sh_degree=0)
    both, single = fresh(replace(config, poses_per_step=2), capture), fresh(config, capture)
    both.iteration = single.iteration = 6
    samples = both.next_samples()
    terms, gradients = gradients_of(both, samples)
    alone = [gradients_of(single, [sample]) for sample in samples]  # the same random numbers, in their order
    for name, value in terms.items():
        torch.testing.assert_close(value, (alone[0][0][name] + alone[1][0][name]) / 2, msg=name)
    for name, gradient in gradients.items():
        expected = (alone[0][1][name] + alone[1][1][name]) / 2
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()), msg=name
        )
    group = next(each for each in both.optimisers.optimisers[0].param_groups if each["name"] == "color")
    assert group["lr"] == pytest.approx(2**0.5 * config.color_lr * 0.1 ** (6 / 12))


def test_patches_begin_at_their_iteration_and_backgrounds_are_drawn_or_configured(
    tiny_config, capture, monkeypatch
):
    asked, backgrounds = [], []

    def choose(sample, patches, generator):
        asked.append(patches)
        return choose_crops(sample, patches, generator)

    def draw(gaussians, cameras, background, *others):
        backgrounds.append(background.tolist())
        return rasterize(gaussians, cameras, background, *others)

    monkeypatch.setattr(loop, "choose_crops", choose)
    monkeypatch.setattr(pose_step, "rasterize", draw)
    config = replace(tiny_config, iteration_lpips_random_patch=3, background=[0.1, 0.2, 0.7])
    for random in (True, False):
        trainer = fresh(replace(config, random_background=random), capture)
        for trainer.iteration in (2, 3):
            trainer.step(*trainer.next_samples())
    assert asked == [False, True, False, True]
    assert backgrounds[0] != backgrounds[1]
    assert backgrounds[2] == backgrounds[3] == pytest.approx([0.1, 0.2, 0.7])


def test_a_training_state_that_does_not_fit_is_one_line(tiny_config, capture, tmp_path):
    trainer = run(fresh(replace(tiny_config, iterations=1), capture), tmp_path)
    path = newest_checkpoint(tmp_path) / "training.pt"
    state = torch.load(path, weights_only=True)

    def moments(shape):
        optimiser = state["optimisers"][0]
        wrong = {key: value | {"exp_avg": torch.zeros(shape)} for key, value in optimiser["state"].items()}
        return [optimiser | {"state": wrong}, *state["optimisers"][1:]]

    faults = {
        "'optimisers' is missing": {"optimisers": None},
        "'draws' is missing": {"draws": None},
        "'stream' is missing": {"stream": None},
        "'epoch' is missing": {"stream": {k: v for k, v in state["stream"].items() if k != "epoch"}},
        "position -1 are no place": {"stream": state["stream"] | {"position": -1}},
        "position 10000 are no place": {"stream": state["stream"] | {"position": 10000}},
        "'param_groups' is missing": {"optimisers": [{}, {}]},
        "content does not fit": {"draws": torch.zeros(3)},
        "have another shape": {"optimisers": moments((2, 2))},
    }
    for message, changes in faults.items():
        torch.save({k: v for k, v in (state | changes).items() if v is not None}, path)
        with pytest.raises(ValueError, match=message) as error:
            resume_run(trainer.config, capture, tmp_path, None, CPU)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_training_goes_on_while_a_checkpoint_is_written_and_it_is_as_training_was_then(
    tiny_config, capture, tmp_path, monkeypatch
):
    """Each write waits until two more steps are done, but for the last, after which there are none."""
    whole = run(fresh(tiny_config, capture), tmp_path / "whole")
    trainer, writing = fresh(tiny_config, capture), []
    write = checkpoint.write_snapshot

    def write_late(model_dir: Path, snapshot: Snapshot, keep: int) -> Path:
        writing.append(snapshot.iteration)
        until = time.monotonic() + 60
        while trainer.iteration < min(snapshot.iteration + 2, 12):
            assert time.monotonic() < until, "training waits"
            time.sleep(0.001)
        assert writing == [snapshot.iteration], "two at a time"
        try:
            return write(model_dir, snapshot, keep)
        finally:
            writing.clear()

    monkeypatch.setattr(checkpoint, "write_snapshot", write_late)
    run(trainer, tmp_path / "late")
    assert_same_state(whole, trainer)
    for path in list_checkpoints(tmp_path / "whole"):  # of iterations 8 and 12
        for name in ("avatar.pt", "training.pt"):
            ours, theirs = (torch.load(folder / "checkpoints" / path.name / name, weights_only=True)
                            for folder in (tmp_path / "whole", tmp_path / "late"))  # fmt: skip
            ours.pop("seconds", None), theirs.pop("seconds", None)
            assert_equal_contents(ours, theirs)


def test_the_last_checkpoint_may_hold_the_avatar_alone(tiny_config, capture, tmp_path):
    config = replace(tiny_config, resumable_at_end=False)
    trainer = run(fresh(config, capture), tmp_path)
    before, last = list_checkpoints(tmp_path)
    assert sorted(path.name for path in last.iterdir()) == ["avatar.pt"]
    assert torch.equal(load_avatar(last).avatar.xyz, trainer.avatar.xyz)
    for longer in (config, replace(config, iterations=20)):
        with pytest.raises(ValueError, match=r"ended.*avatar alone.*--init_from"):
            resume_run(longer, capture, tmp_path, None, CPU)
    assert list_checkpoints(tmp_path) == [before, last], "nothing is set aside"
    shutil.rmtree(last)
    assert resume_run(config, capture, tmp_path, None, CPU).iteration == 8, "those before it are whole"
