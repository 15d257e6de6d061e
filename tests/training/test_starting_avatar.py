"""A new run from a trained avatar: what is taken over, what a compact one gets back, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmlphuman.avatar.neighbours import places_of
from mmlphuman.avatar.trained import active_parts
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import Config, default_config, save_config
from mmlphuman.export.compact import encode, pack
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.pruning import Selection, prune
from mmlphuman.export.standard_form import standard_form
from mmlphuman.model_folder import list_checkpoints
from mmlphuman.training.loop import Trainer
from mmlphuman.training.resume import RecordedRun, check_same_run, lengthened, update_record
from mmlphuman.training.run_setup import build_scene, write_run_record
from mmlphuman.training.starting_avatar import StartingAvatar, trainable_state, with_switched_on
from tests.builders import random_pose, save_checkpoint, small_trained

SETTINGS = {
    "init_num_gs": 600,
    "num_verts": 120,
    "num_features": 10,
    "iteration_dxyz_basis": 20,
    "iteration_gsparam_basis": 20,
    "iteration_sh_degree": 90,
}
KEPT = 200  # Gaussians with bases in the compact file


@pytest.fixture(scope="module")
def trained(synthetic_body):
    return small_trained(synthetic_body, **SETTINGS)  # at iteration 40: all is on but degree 1


@pytest.fixture(scope="module")
def config(trained) -> Config:
    return trained.config


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("trained") / "model"
    save_checkpoint(place, trained, {}, keep=1)
    (place / "template.ply").write_text("a mesh")
    return place


@pytest.fixture(scope="module")
def compact(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compact") / "avatar.safetensors"
    pruned = prune(trained, Selection(torch.randperm(600), KEPT, KEPT // 2, 40.0))
    path.write_bytes(pack(encode(pruned), pruned, {}))
    return path


def test_all_forms_of_a_model_are_taken_and_parts_that_were_on_stay_on(folder, trained, config):
    checkpoint = list_checkpoints(folder)[-1]
    for path in (folder, checkpoint, checkpoint / "avatar.pt"):
        start = StartingAvatar.load(path, config)
        state = start.avatar.state_dict()
        assert all((state[name] == value).all() for name, value in trained.avatar.state_dict().items())
        assert start.template == folder / "template.ply" or path.name == "avatar.pt"
        asked = replace(config, iteration_lpips=6000)
        settings = start.settings(asked)
        assert settings == replace(asked, iteration_dxyz_basis=0, iteration_gsparam_basis=0), "and no other"
        assert active_parts(settings, 0) == trained.active
    assert with_switched_on(config, ["seed", "iteration_sh_degree"]) == replace(config, iteration_sh_degree=0)


def test_a_compact_file_becomes_an_avatar_that_is_the_same_and_can_be_trained(compact, config):
    file, start = load_compact(compact), StartingAvatar.load(compact, config)
    avatar = start.avatar
    assert not avatar.is_compact and file.avatar.is_compact
    assert avatar.property_bases.shape == (600, 15, 11) and avatar.sh1_bases.shape == (600, 15, 9)
    assert not avatar.property_bases[KEPT:].any() and avatar.property_bases[:KEPT].any()
    for seed in range(3):
        before = file.pose(random_pose(seed))
        after = avatar(random_pose(seed), file.active).posed
        for name in ("xyz", "covariances", "opacities", "sh"):
            torch.testing.assert_close(getattr(before, name), getattr(after, name))
    output = avatar(random_pose(), active_parts(with_switched_on(config, ["iteration_sh_degree"]), 40))
    output.posed.sh.square().sum().backward()
    gradient = avatar.property_bases.grad
    assert gradient is not None and gradient[KEPT:].abs().amax((1, 2)).min() > 0, (
        "pruned bases can grow again"
    )
    assert avatar.sh1_bases.grad[KEPT:].any()


def test_a_compact_file_s_bases_are_as_large_as_trained_ones(trained, config, tmp_path):
    """Its own are of coefficients of variance 1, and smaller than the first step of training."""
    standard = standard_form(trained)
    path = tmp_path / "standard.safetensors"
    path.write_bytes(pack(encode(standard), standard, {}))
    start, new = StartingAvatar.load(path, config).avatar, trained.avatar
    sizes = start.bank.weights[-1].square().mean((0, 2)).sqrt()
    of_new = new.bank.weights[-1].square().mean().sqrt()
    assert ((sizes / of_new - 1).abs() < 0.1).all()
    of_file = standard.avatar.bank.weights[-1].square().mean((0, 2)).sqrt()
    assert of_file.min() > 2 * of_new, "not so in the file"
    before, after = load_compact(path).pose(random_pose(1)), start(random_pose(1), trained.active).posed
    for name in ("xyz", "covariances", "opacities", "sh"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=1e-4, atol=1e-5)


def test_places_that_a_compact_file_does_not_hold_are_nearly_found(trained, compact):
    """Neighbours of control points and of Gaussians without bases, against those that training had."""
    avatar = trained.avatar
    pruned = load_compact(compact).avatar
    state = trainable_state(pruned)
    true = [set(row) for row in avatar.control_neighbours.tolist()]
    found = [set(row) for row in state["control_neighbours"].tolist()]
    shared = sum(len(a & b) for a, b in zip(true, found, strict=True)) / (7 * len(true))
    assert shared > 0.6 and (state["control_neighbours"][:, 0] == torch.arange(120)).float().mean() > 0.9
    table = state["gaussian_to_anchor.weight"]
    assert table.shape == (600, 3) and torch.allclose(table.sum(1), torch.ones(600))
    order = torch.cdist(pruned.xyz, avatar.xyz).argmin(1)  # whose places moved by the free offset alone
    anchors = avatar.gaussian_to_anchor.index[order]
    shared = [
        len(set(a) & set(b))
        for a, b in zip(
            anchors[KEPT:].tolist(), state["gaussian_to_anchor.index"][KEPT:].tolist(), strict=True
        )
    ]
    assert sum(shared) / (3 * len(shared)) > 0.6


def test_a_place_is_the_middle_of_those_that_take_from_it(trained):
    table, points = trained.avatar.gaussian_to_control, trained.avatar.xyz
    places = places_of(table, points, 121)
    takers = [(row, weight) for row, (index, weight) in enumerate(zip(table.index, table.weight, strict=True))
              for index, weight in zip(index.tolist(), weight.tolist(), strict=True) if index == 5]  # fmt: skip
    total = sum(weight for _, weight in takers)
    assert torch.allclose(places[5], sum(weight * points[row] for row, weight in takers) / total, atol=1e-5)
    assert torch.allclose(places[120], points.mean(0)), "nobody takes from it"


def test_misfits_are_one_line_that_says_how_to_mend_them(folder, config, synthetic_body, trained):
    wrong = replace(config, num_verts=90, hidden_widths=[8, 8], light="none", seed=3)
    with pytest.raises(ValueError, match=r"add num_verts=120 hidden_widths=\[64,64\] light=place$") as error:
        StartingAvatar.load(folder, wrong)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    start = StartingAvatar.load(folder, config)
    start.check_body(load_body(synthetic_body, torch.zeros(10)))
    betas = torch.zeros(10)
    betas[0] = 3
    with pytest.raises(ValueError, match="an avatar of another body, its joints lie up to .* cm"):
        start.check_body(load_body(synthetic_body, betas))


def test_the_light_is_kept_where_people_stand_in_the_same_place(folder, config):
    start = StartingAvatar.load(folder, config)
    light = start.avatar.light
    inside = torch.stack([light.lowest, light.highest])
    assert start.light_up(inside) and start.avatar.light is light and light.coefficients.any()
    assert not start.light_up(inside + 5)
    new = start.avatar.light
    assert not new.coefficients.any() and torch.equal(new.lowest, light.lowest + 5)
    unlit = StartingAvatar(folder, start.avatar, 0, (), None)
    unlit.avatar.light = None
    assert unlit.light_up(inside)


@pytest.fixture
def run(tiny_config, capture, tmp_path):
    """Of the tiny run, before its first step."""
    place = tmp_path / "run"
    trainer = Trainer(
        tiny_config, build_scene(tiny_config, capture, lambda text: None), None, torch.device("cpu")
    )
    place.mkdir()
    write_run_record(place, tiny_config, capture, trainer.scene)
    trainer.save(place)
    return place


def test_a_folder_remembers_its_run(run, tiny_config, capture, tmp_path):
    def read(files=(), overrides=(), data_dir=None, init_from=None):
        return RecordedRun.read(run, files, list(overrides), data_dir, init_from)

    known = read()
    assert (known.config, known.data_dir, known.changed) == (tiny_config, capture, ())
    save_config(tiny_config, tmp_path / "whole.yaml")
    assert read([tmp_path / "whole.yaml"]).changed == (), "given again, it agrees"
    changed = read(overrides=["num_workers=3"], data_dir=tmp_path)
    assert changed.changed == ("num_workers: 3 instead of 0",) and changed.data_dir == tmp_path
    assert changed.text() == f"its settings but num_workers: 3 instead of 0; capture {tmp_path}"
    update_record(run, changed)
    assert (read().config.num_workers, read().data_dir) == (3, tmp_path)
    (run / "config.yaml").unlink()
    assert read().config == tiny_config, "the checkpoint has them, too"


def test_a_run_from_an_avatar_stays_one(run, tiny_config, capture, folder):
    record = json.loads((run / "run.json").read_text())
    record["init_from"] = {"path": str(folder), "switched_on": ["iteration_dxyz_basis", "seed"]}
    (run / "run.json").write_text(json.dumps(record))
    again = RecordedRun.read(run, [], ["iteration_dxyz_basis=2", "seed=4"], None, folder)
    assert (again.config.iteration_dxyz_basis, again.config.seed) == (0, 4)
    with pytest.raises(ValueError, match="was begun from .*model; leave --init_from out"):
        RecordedRun.read(run, [], [], None, run)


def test_longer_runs_are_allowed_and_said_and_shorter_ones_are_not(tiny_config, tmp_path):
    longer = replace(tiny_config, iterations=24)
    check_same_run(tiny_config, longer, tmp_path)
    with pytest.raises(ValueError, match="trained with iterations: 12, now it is 24"):
        check_same_run(tiny_config, longer, tmp_path, longer=False)
    with pytest.raises(ValueError, match="a run of 24, which can be made longer, not shorter to 12"):
        check_same_run(longer, tiny_config, tmp_path)
    assert lengthened(tiny_config, tiny_config, 12) == ""
    # position: 0.01 at the end; half way through the longer run its root.
    assert lengthened(tiny_config, longer, 12).endswith("(position_lr at 0.1 of its start instead of 0.01)")
    assert default_config().lr_decay.position == 0.01
