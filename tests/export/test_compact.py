"""The compact model: what pruning keeps, that nothing else changes, and files that are not as they should be."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import trimesh

from mmlphuman.animation.camera_file import read_model_cameras
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import default_config, save_config
from mmlphuman.export import pruning
from mmlphuman.export.compact import (
    Carried,
    encode,
    load_carried,
    load_compact,
    pack,
    strongest_joints,
)
from mmlphuman.export.compact_report import compare, full_tensors, part_sizes
from mmlphuman.export.packing import packed
from mmlphuman.export.pruning import Selection, VisibleChange, mean_offsets, prune, select, visible_change
from mmlphuman.model_folder import load_model
from mmlphuman.training.checkpoint import save_checkpoint
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import Scene
from tests.builders import canonical_of, random_pose, random_poses, randomise, small_avatar, small_trained
from tests.export.former_compact import former_file

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "pose_inputs": "body", "hidden_widths": [512, 256, 256, 256], "light": "none", "novel_poses": "pca",
    "face": False,
}  # fmt: skip
GAUSSIANS = 600  # of small_avatar
FINISHED = 10**6  # iterations: everything is switched on
STILL = slice(0, 400)  # Gaussians whose bases are zero


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "PROBE_SIZE", 128)
        yield


@pytest.fixture(scope="module")
def trained(synthetic_body):
    """The first 400 of 600 Gaussians do not change with the pose, the others do much."""
    avatar = randomise(small_avatar(synthetic_body))
    with torch.no_grad():
        for weight in avatar.bank.weights:
            weight.mul_(2)  # so that poses matter
        avatar.property_bases[STILL] = 0
        avatar.sh1_bases[STILL] = 0
        avatar.sh1_bases.mul_(0.1)
    config = default_config(
        init_num_gs=600, num_verts=120, num_features=10, iteration_sh_degree=0, iteration_dxyz_basis=0
    )
    config = replace(config, iteration_gsparam_basis=0)
    poses = PoseSpace.fit(random_poses(30), 5)
    return few_joints(TrainedAvatar(avatar, poses, config, iteration=40))


@pytest.fixture(scope="module")
def change(trained):
    return visible_change(trained, 8, quiet=True)


def few_joints(trained: TrainedAvatar) -> TrainedAvatar:
    """Moved by no more joints than a file holds, as bodies are; the small body's coarse volume mixes more."""
    joints, weights = strongest_joints(trained.avatar.lbs_weights)
    trained.avatar.lbs_weights = torch.zeros(len(joints), 55).scatter_add_(1, joints, weights)
    return trained


def write(path: Path, trained: TrainedAvatar, carried: Carried | None = None) -> Path:
    path.write_bytes(pack(encode(trained, carried), trained, {}))
    return path


def write_former(path: Path, trained: TrainedAvatar, carried: Carried | None = None) -> Path:
    path.write_bytes(former_file(trained, carried))
    return path


def some_carried(trained: TrainedAvatar) -> Carried:
    """Frames whose poses are the pose space's, and a box."""
    poses = trained.pose_space.training_poses.numpy()
    translations = np.random.default_rng(0).normal(size=(len(poses), 3)).astype(np.float32)
    frames = PoseSequence(
        poses[:, :165],
        translations,
        np.eye(3, dtype=np.float32),
        100 + 3 * np.arange(len(poses)),
        None,
        "a test",
        expressions=poses[:, 165:],
    )
    return Carried(frames, trimesh.creation.box((0.4, 1.6, 0.2)))


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()


def everything(avatar) -> Selection:
    count = len(avatar.xyz)
    return Selection(torch.arange(count), count, count, float("inf"))


def test_keeping_everything_is_the_full_avatar_but_for_rounding(trained, tmp_path):
    loaded = load_compact(write(tmp_path / "a.safetensors", trained))
    assert loaded.config == trained.config and loaded.iteration == 40
    for seed in range(3):
        pose = random_pose(seed)
        ours, truth = loaded.avatar(pose).posed, trained.avatar(pose).posed
        off = (ours.xyz - truth.xyz).norm(dim=1)
        # Metres: weights in 8 bits move a point by 1/510 of how far apart its joints would carry it.
        assert off.max() < 5e-3 and off.median() < 3e-4
        assert (ours.opacities - truth.opacities).abs().max() < 5e-3
        assert (ours.sh - truth.sh).abs().max() < 1e-2
    assert compare(trained, loaded, torch.arange(GAUSSIANS), 2).psnr > 52
    for name, value in trained.pose_space.state_dict().items():
        assert (value - loaded.pose_space.state_dict()[name]).abs().max() <= 2**-14, name


@pytest.mark.parametrize("name, light", [("normal", 8), ("place", 20)])
def test_what_mlps_see_and_the_light_are_kept(name, light, synthetic_body, tmp_path):
    trained = few_joints(small_trained(synthetic_body, FINISHED, light=name))
    loaded = load_compact(write(tmp_path / "a.safetensors", trained))
    assert trained.avatar.mlp_inputs.dim() == 2 and trained.avatar.light.coefficients.shape == (light, 3)
    for part in ("mlp_inputs", "light.coefficients", "light.lowest", "light.highest"):
        assert torch.equal(loaded.avatar.state_dict()[part], trained.avatar.state_dict()[part]), part
    assert (loaded.avatar.normals - trained.avatar.normals).abs().max() < 0.51 / 127
    joints = loaded.avatar.lbs_weights
    assert (
        joints - trained.avatar.lbs_weights
    ).abs().max() < 3.1 / 510  # the first weight has the three others' errors
    loaded.avatar.lbs_weights = (
        trained.avatar.lbs_weights
    )  # which this body's coarse volume makes count too much
    assert compare(trained, loaded, torch.arange(GAUSSIANS), 2).psnr > 55
    loaded.avatar.lbs_weights = joints
    pose = random_pose(2)
    lit, unlit = trained.avatar(pose).posed, small_trained(synthetic_body, light="none").avatar(pose).posed
    assert (lit.sh - unlit.sh).abs().max() > 0.1  # there is something to lose
    assert (loaded.avatar(pose).posed.sh - lit.sh).abs().max() < 1e-2


def test_what_is_carried_comes_back_and_the_avatar_is_as_without(trained, tmp_path):
    given = some_carried(trained)
    path = write(tmp_path / "a.safetensors", trained, given)
    carried = load_carried(path)
    assert carried.frames is not None and carried.template is not None
    for name in ("poses", "translations", "expressions"):  # to 2^-14 radians or metres
        assert np.allclose(getattr(carried.frames, name), getattr(given.frames, name), atol=6.2e-5, rtol=0), (
            name
        )
    assert np.array_equal(carried.frames.frames, given.frames.frames)
    assert np.array_equal(carried.frames.rotation, given.frames.rotation)
    assert np.array_equal(carried.template.faces, given.template.faces)
    assert np.allclose(carried.template.vertices, given.template.vertices, atol=6.2e-5, rtol=0)
    with_it, without = load_compact(path), load_compact(write(tmp_path / "b.safetensors", trained))
    for name, value in without.avatar.state_dict().items():
        assert torch.equal(with_it.avatar.state_dict()[name], value), name
    assert load_carried(tmp_path / "b.safetensors") == Carried(None, None)


def test_a_template_of_many_vertices_keeps_its_triangles(trained, tmp_path):
    """More than 16 bits can count."""
    large = trimesh.creation.icosphere(7)
    assert len(large.vertices) > 2**16
    path = write(tmp_path / "a.safetensors", trained, Carried(template=large))
    assert np.array_equal(load_carried(path).template.faces, large.faces)
    assert load_carried(path).frames is None


def test_a_file_of_the_third_version_poses_as_it_did_and_carries_nothing(trained, tmp_path):
    now = write_former(tmp_path / "now.safetensors", trained, some_carried(trained))
    tensors, metadata = contents(now)
    former = {name: value for name, value in tensors.items() if not name.startswith(("frames", "template"))}
    then = tmp_path / "then.safetensors"
    safetensors.torch.save_file(former, then, metadata | {"format_version": "3"})
    ours, theirs = (load_compact(path).pose(random_pose(2)) for path in (now, then))
    assert torch.equal(ours.xyz, theirs.xyz) and torch.equal(ours.sh, theirs.sh)
    assert load_carried(then) == Carried(None, None)
    safetensors.torch.save_file(tensors, then, metadata | {"format_version": "3"})
    for load in (load_compact, load_carried):
        with pytest.raises(ValueError, match="tensor frames.numbers is unknown"):
            load(then)


def as_version_1(path: Path) -> None:
    """Makes a file what the first version wrote of the published method, which was the only one."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    del tensors["mlp_inputs"]
    tensors["pose_space.training_poses"] = tensors["pose_space.training_poses"][:, 3:66].contiguous()
    config = {key: value for key, value in json.loads(metadata["config"]).items() if key not in PUBLISHED}
    del config["light_lr"], config["lr_decay"]["light"]
    safetensors.torch.save_file(
        tensors, path, metadata | {"format_version": "1", "config": json.dumps(config)}
    )


def test_a_file_of_the_first_version_poses_as_it_did(synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, **PUBLISHED)
    now, then = (write_former(tmp_path / f"{name}.safetensors", trained) for name in ("now", "then"))
    as_version_1(then)
    now, then = load_compact(now), load_compact(then)
    assert then.config == now.config and then.config.novel_poses == "pca" and then.avatar.light is None
    for project in (False, True):
        pose = random_pose(1, size=2.0)  # beyond training
        ours, truth = then.pose(pose, project), now.pose(pose, project)
        for part in ("xyz", "covariances", "opacities", "sh"):
            assert torch.equal(getattr(ours, part), getattr(truth, part)), part
    assert (then.pose(pose, True).xyz - then.pose(pose).xyz).abs().max() > 1e-4  # the MLPs take part
    poses = then.pose_space.training_poses
    assert poses.shape == (30, 175) and not poses[:, :3].any() and not poses[:, 66:].any()
    assert torch.equal(poses[:, 3:66], now.pose_space.training_poses[:, 3:66])
    again = load_compact(write(tmp_path / "again.safetensors", few_joints(then)))  # as the present version
    off = again.avatar(random_pose(3)).posed.xyz - then.avatar(random_pose(3)).posed.xyz
    assert off.norm(dim=1).max() < 5e-3  # metres


def test_a_file_of_the_second_version_poses_as_it_did(synthetic_body, tmp_path):
    """It kept no expression, and its inputs end with the zero."""
    trained, path = small_trained(synthetic_body, FINISHED), tmp_path / "then.safetensors"
    now, then = load_compact(write_former(path, trained)), tmp_path / "then.safetensors"
    tensors = safetensors.torch.load_file(then)
    with safetensors.safe_open(then, "pt") as file:
        metadata = file.metadata() | {"format_version": "2"}
    config = {key: value for key, value in json.loads(metadata["config"]).items() if key != "face"}
    poses = tensors["pose_space.training_poses"]
    tensors["pose_space.training_poses"] = poses[:, :165].contiguous()
    safetensors.torch.save_file(tensors, then, metadata | {"config": json.dumps(config)})
    loaded, pose = load_compact(then), random_pose(1, size=2.0)
    assert loaded.config == now.config and not loaded.config.face
    assert torch.equal(loaded.pose_space.training_poses, now.pose_space.training_poses)
    for project in (False, True):
        assert torch.equal(loaded.pose(pose, project).sh, now.pose(pose, project).sh)
    tensors["mlp_inputs"][0, 0] = 170
    safetensors.torch.save_file(tensors, then, metadata)
    with pytest.raises(ValueError, match="mlp_inputs points outside 0..165"):
        load_compact(then)


def test_what_mlps_see_of_the_face_is_kept(synthetic_body, tmp_path):
    trained = small_trained(synthetic_body, FINISHED, face=True)
    loaded = load_compact(write(tmp_path / "a.safetensors", trained))
    assert loaded.config.face and trained.avatar.mlp_inputs.max() == 175
    assert torch.equal(loaded.avatar.mlp_inputs, trained.avatar.mlp_inputs)
    pose = random_pose(2)
    smiling = replace(pose, expression=pose.expression + 2)
    ours, truth = (each.avatar(smiling).posed.sh - each.avatar(pose).posed.sh for each in (loaded, trained))
    assert truth.abs().max() > 1e-3 and (ours - truth).abs().max() < 0.1 * truth.abs().max()


def test_a_first_version_with_other_inputs_is_one_clear_line(synthetic_body, tmp_path):
    path = write_former(tmp_path / "a.safetensors", small_trained(synthetic_body, FINISHED, **PUBLISHED))
    as_version_1(path)
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors["bank.weights.0"] = tensors["bank.weights.0"][:, :, :50].contiguous()
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(
        ValueError, match=r"bank.weights.0 is torch.int8 \(10, 512, 50\), expected .*63"
    ) as error:
        load_compact(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def test_a_saved_model_saved_again_is_the_same(trained, tmp_path):
    once = load_compact(write(tmp_path / "once.safetensors", trained))
    twice = load_compact(write(tmp_path / "twice.safetensors", once))
    for name, value in once.avatar.state_dict().items():
        again = twice.avatar.state_dict()[name]
        assert torch.allclose(again, value, atol=0.51 / 255, rtol=0), name  # half the longest step


def test_only_gaussians_that_vary_are_kept(change):
    assert (change.properties[STILL] == 0).all() and (change.sh1[STILL] == 0).all()
    assert change.properties[400:].max() > 0
    selection = select(change, min_psnr=70)
    kept = selection.order[: selection.num_properties]
    assert 0 < len(kept) <= 200 and (kept >= 400).all()
    least = change.properties[kept].minimum(torch.ones(())).min()
    assert change.properties[selection.order[selection.num_properties :]].max() <= least


def test_more_quality_keeps_more_and_shares_are_shares(change):
    counts = [select(change, min_psnr=psnr).num_properties for psnr in (0, 40, 60, 80)]
    assert counts == sorted(counts) and counts[0] == 0
    for keep in (0, 0.1, 0.25, 1):
        selection = select(change, keep)
        assert selection.num_properties == round(keep * GAUSSIANS)
        assert selection.num_sh1 <= selection.num_properties
        assert sorted(selection.order.tolist()) == list(range(GAUSSIANS))


def test_degree_one_bases_are_kept_only_with_the_others():
    change = VisibleChange(torch.tensor([0.0, 1, 2, 0]), torch.tensor([3.0, 0, 2, 0]))
    selection = select(change, min_psnr=0.0)  # an error of 1 is allowed, four times what one causes
    assert selection.order[: selection.num_sh1].tolist() == [0, 2]
    assert selection.num_properties == 3 or selection.num_properties == 2


def test_the_estimate_is_what_a_single_gaussian_changes(trained, change):
    """First order, one Gaussian: pruning it alone changes pictures by the estimate, within the estimate's noise."""
    one = int(change.properties.argmax())
    others = torch.cat([torch.arange(one), torch.arange(one + 1, GAUSSIANS), torch.tensor([one])])
    measured = compare(trained, prune(trained, Selection(others, 599, 599, 0.0)), others, 8).psnr
    estimated = -10 * float((change.properties + change.sh1)[one].log10())
    assert abs(measured - estimated) < 6


def test_pruned_gaussians_take_their_mean_and_the_others_do_not_move(trained, change):
    selection = select(change, 0.2)
    pruned, mean, pose = prune(trained, selection), mean_offsets(trained), random_pose(4)
    kept = selection.num_properties
    gone, stay = selection.order[kept:], selection.order[:kept]
    ours, truth = canonical_of(pruned.avatar, pose), canonical_of(trained.avatar, pose)
    torch.testing.assert_close(ours.xyz, truth.xyz[selection.order])
    for name in ("scales", "quats", "opacities"):
        torch.testing.assert_close(getattr(ours, name)[:kept], getattr(truth, name)[stay])
    torch.testing.assert_close(ours.sh[:kept, 0], truth.sh[stay, 0])
    both = selection.num_sh1
    torch.testing.assert_close(ours.sh[:both], truth.sh[selection.order[:both]])
    neutral = trained.avatar
    torch.testing.assert_close(ours.sh[kept:, 0], (neutral.sh0 + mean.properties[:, :3])[gone])
    torch.testing.assert_close(ours.sh[both:, 1:], (neutral.sh1 + mean.sh1)[selection.order[both:]])
    torch.testing.assert_close(ours.scales[kept:], (neutral.log_scales + mean.properties[:, 3:6])[gone].exp())
    logits = neutral.opacity_logits + mean.properties[:, 10]
    torch.testing.assert_close(ours.opacities[kept:], logits[gone].sigmoid())


def test_another_order_is_the_same_picture(trained):
    assert trained.avatar.light is not None and trained.avatar.light.coefficients.abs().max() > 0.1
    order = torch.randperm(GAUSSIANS, generator=torch.Generator().manual_seed(3))
    shuffled = prune(trained, replace(everything(trained.avatar), order=order))
    assert compare(trained, shuffled, order, 2).psnr > 80
    assert compare(trained, shuffled, order, 2).position_max < 1e-6
    assert torch.equal(shuffled.avatar.normals, trained.avatar.normals[order])
    ours, truth = shuffled.pose(random_pose(5)), trained.pose(random_pose(5))  # away from the origin
    torch.testing.assert_close(ours.sh, truth.sh[order])


def test_an_avatar_that_lost_all_bases_still_poses(trained, tmp_path):
    bare = prune(trained, Selection(torch.arange(GAUSSIANS), 0, 0, 0.0))
    loaded = load_compact(write(tmp_path / "bare.safetensors", bare))
    assert loaded.avatar(random_pose(1)).posed.xyz.isfinite().all()
    assert loaded.avatar.property_bases.shape == (0, 15, 11)


def test_bases_that_training_never_switched_on_are_all_dropped(trained):
    early = replace(trained, config=replace(trained.config, iteration_gsparam_basis=100))
    selection = select(visible_change(early, 1, quiet=True))
    assert selection.num_properties == 0
    ours, truth = (
        prune(early, selection).avatar(random_pose(2), early.active),
        early.avatar(random_pose(2), early.active),
    )
    torch.testing.assert_close(ours.posed.sh, truth.posed.sh)


def test_skinning_keeps_every_joint_that_matters():
    weights = torch.zeros(3, 55)
    weights[0, 7] = 1
    weights[1, [3, 9, 50]] = torch.tensor([0.5, 0.3, 0.2])
    weights[2, [1, 2]] = torch.tensor([0.9995, 0.0005])
    joints, values = strongest_joints(weights)
    assert joints.shape == (3, 3) and set(joints[1].tolist()) == {3, 9, 50}
    torch.testing.assert_close(values.sum(1), torch.ones(3))
    weights[1, 10:15] = 0.1
    weights[1] /= weights[1].sum()
    joints, values = strongest_joints(weights)
    assert joints.shape == (3, 4) and {3, 9, 50} < set(joints[1].tolist())
    torch.testing.assert_close(values.sum(1), torch.ones(3))


def test_sizes_are_of_all_tensors_and_add_up_to_the_file(trained, change, tmp_path):
    full = full_tensors(trained)
    before = part_sizes(full)
    assert sum(before.values()) == sum(tensor.nbytes for tensor in full.values())
    stored = encode(prune(trained, select(change, 0.1)))
    after = part_sizes(stored)
    assert after["MLPs"] < 0.26 * before["MLPs"]
    assert after["bases of Gaussians"] < 0.03 * before["bases of Gaussians"]
    content = pack(stored, trained, {})
    header = 8 + int.from_bytes(content[:8], "little")
    assert len(content) == header + sum(after.values())


def test_it_cannot_be_trained(trained, tmp_path):
    loaded = load_compact(write(tmp_path / "a.safetensors", trained))
    assert loaded.avatar.is_compact and not trained.avatar.is_compact
    assert not any(parameter.requires_grad for parameter in loaded.avatar.parameters())
    with pytest.raises(ValueError, match="compact avatar cannot be trained"):
        Trainer(loaded.config, Scene(None, None, loaded.avatar, loaded.pose_space), None, torch.device("cpu"))


def test_numbers_that_no_steps_can_say_are_refused_when_written(trained):
    broken = prune(trained, everything(trained.avatar))
    for number, message in (
        (1e12, "sh0 is too large for this format"),
        (float("nan"), "sh0 holds numbers that are"),
    ):
        broken.avatar.sh0[5, 1] = number
        with pytest.raises(ValueError, match=message):
            encode(broken)


def at(tensor, index, value):
    changed = tensor.clone()
    changed[index] = value
    return changed


FAULTS = {
    "missing": (lambda t: t.pop("quats"), "tensor quats is missing"),
    "unknown": (lambda t: t.update(extra=torch.ones(1)), "tensor extra is unknown"),
    "type": (lambda t: t.update(sh0=t["sh0"].double()), r"tensor sh0 is torch.float64 \(600, 3\), expected"),
    "shape": (lambda t: t.update(sh0=t["sh0"][:-1].clone()), r"sh0 is torch.float16 \(599, 3\), expected .*600"),
    "flat": (lambda t: t.update(control_offsets=torch.ones(()).half()), "tensor"),
    "rows": (
        lambda t: t.update({"property_bases.scale": t["property_bases.scale"][:9].clone()}),
        r"property_bases.scale is torch.float16 \(9, 1, 11\)",
    ),
    "anchor": (
        lambda t: t.update({"gaussian_to_anchor.index": at(t["gaussian_to_anchor.index"], (3, 1), 10)}),
        r"gaussian_to_anchor.index points outside 0..9",
    ),
    "joint": (
        lambda t: t.update({"lbs_weights.index": at(t["lbs_weights.index"], (0, 0), 200)}),
        "lbs_weights.index points outside 0..54",
    ),
    "weights": (
        lambda t: t.update({"lbs_weights.weight": t["lbs_weights.weight"] * 0}),
        "weights that do not sum to one",
    ),
    "inputs": (
        lambda t: t.update(mlp_inputs=at(t["mlp_inputs"], (2, 3), 200)), "mlp_inputs points outside 0..175"
    ),
    "fewer inputs": (
        lambda t: t.update(mlp_inputs=t["mlp_inputs"][:, 3:].clone()), "tensor bank.weights.0 is .*expected"
    ),
    "inputs of all": (
        lambda t: t.update(mlp_inputs=t["mlp_inputs"][0].clone()), "tensor mlp_inputs is .*expected"
    ),
    "no normals": (lambda t: t.pop("normals"), "tensor normals is missing"),
    "no light": (lambda t: t.pop("light.coefficients"), "tensor light.coefficients is missing"),
    "no place": (lambda t: t.pop("light.lowest"), "tensor light.lowest is missing"),
    "another light": (
        lambda t: t.update({"light.coefficients": t["light.coefficients"][:8].clone()}),
        r"tensor light.coefficients is torch.float32 \(8, 3\), expected .*20",
    ),
    "infinite light": (
        lambda t: t.update({"light.coefficients": t["light.coefficients"] / 0}),
        "tensor light.coefficients holds numbers that are not finite",
    ),
    "skeleton": (lambda t: t.update(parents=at(t["parents"], 5, 9)), "no skeleton"),
    "nan": (lambda t: t.update(xyz=at(t["xyz"], (0, 0), float("nan"))), "tensor xyz holds numbers that are not finite"),
    "scale": (
        lambda t: t.update({"bank.weights.1.scale": at(t["bank.weights.1.scale"], (0, 0, 0), float("inf"))}),
        "bank.weights.1 holds numbers that are not finite",
    ),
}  # fmt: skip
METADATA = {
    "other": ({"format": "a cat"}, "a safetensors file of something else"),
    "version": ({"format_version": "7"}, "format version 7, this program reads 1"),
    "json": ({"config": "{"}, "its settings do not fit this program"),
    "key": ({"config": json.dumps({"colour": 1})}, "its settings do not fit this program: .*colour"),
    "value": ({"config": json.dumps({"num_verts": 0})}, "num_verts: 0 is not allowed"),
    "old settings": ({"config": json.dumps({"num_verts": 120})}, "tensor bank.biases.3 is missing"),
    "iteration": ({"iteration": "-4"}, "iteration -4 is negative"),
}
SETTINGS = {
    "huge": ({"num_features": 10**6}, "mlp_inputs is .*expected .*1000000"),
    "too huge": ({"num_features": 10**9}, "num_features: 1000000000 is not allowed"),
    "wider": ({"hidden_widths": [64, 65]}, r"bank.weights.1 is torch.int8 \(10, 64, 64\), expected .*65"),
    "deeper": ({"hidden_widths": [64] * 3}, "tensor bank.biases.3 is missing"),
    "no layers": ({"hidden_widths": []}, "hidden_widths"),
    "inputs as published": ({"pose_inputs": "body"}, "tensor mlp_inputs is .*expected"),
    "dark": ({"light": "none"}, "tensor light.coefficients is unknown"),
    "another lamp": ({"light": "lamp"}, "light: lamp is not allowed"),
}


@pytest.mark.parametrize("fault", [*FAULTS, *METADATA, *SETTINGS])
def test_a_faulty_file_is_one_clear_line(fault, trained, tmp_path):
    path = write_former(tmp_path / "a.safetensors", trained)
    tensors, metadata = contents(path)
    if fault in FAULTS:
        change_it, message = FAULTS[fault]
        change_it(tensors)
    elif fault in METADATA:
        changes, message = METADATA[fault]
        metadata |= changes
    else:
        changes, message = SETTINGS[fault]
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | changes)
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=message) as error:
        load_compact(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


CARRIED_FAULTS = {
    "half a frame": (lambda t: t.pop("frames.translations"), "tensor frames.translations is missing"),
    "half a template": (lambda t: t.pop("template.vertices"), "tensor template.vertices is missing"),
    "one frame less": (
        lambda t: t.update({"frames.numbers": t["frames.numbers"][1:].clone()}),
        r"tensor frames.numbers is torch.int32 \(29,\), expected .*30",
    ),
    "below 0": (
        lambda t: t.update({"frames.numbers": at(t["frames.numbers"], 3, -1)}), "frames.numbers points outside"
    ),
    "nowhere": (
        lambda t: t.update({"frames.translations": at(t["frames.translations"], (0, 1), float("nan"))}),
        "frames.translations holds numbers that are not finite",
    ),
    "far away": (
        lambda t: t.update({"frames.translations": at(t["frames.translations"], (0, 1), 1e6)}),
        "frames.translations holds places more than 1000 m from the origin",
    ),
    "flat": (
        lambda t: t.update({"frames.translations": t["frames.translations"][:, :2].clone()}),
        "tensor frames.translations is .*expected",
    ),
    "doubles": (
        lambda t: t.update({"template.vertices": t["template.vertices"].double()}),
        "tensor template.vertices is torch.float64",
    ),
    "corner": (
        lambda t: t.update({"template.faces": at(t["template.faces"], (2, 1), 8)}), "template.faces points outside 0..7"
    ),
    "no triangle": (
        lambda t: t.update({"template.faces": t["template.faces"][:0].clone()}), "a template without triangles"
    ),
    "no vertex": (
        lambda t: t.update({"template.vertices": t["template.vertices"][:0].clone()}), "template.faces points outside"
    ),
    "huge": (
        lambda t: t.update({"template.vertices": 1e9 * t["template.vertices"]}), "template.vertices holds places more"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CARRIED_FAULTS)
def test_what_is_carried_is_held_to_its_shape(fault, trained, tmp_path):
    path = write_former(tmp_path / "a.safetensors", trained, some_carried(trained))
    tensors, metadata = contents(path)
    change_it, message = CARRIED_FAULTS[fault]
    change_it(tensors)
    safetensors.torch.save_file(tensors, path, metadata)
    for load in (load_compact, load_carried):
        with pytest.raises(ValueError, match=message) as error:
            load(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


@pytest.mark.parametrize("cameras", ["[", "7", "[7]", "[" * 100_000, '[{"id": NaN}]', " " * 2_000_000 + "[]"])
def test_cameras_of_a_faulty_file_are_one_clear_line(cameras, trained, tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"any": torch.ones(1)}, path, {"cameras": cameras})
    with pytest.raises(ValueError, match="cameras|list|w2c") as error:
        read_model_cameras(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


@pytest.mark.parametrize("length", [0, 5, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_one_clear_line(length, trained, tmp_path):
    path = write(tmp_path / "a.safetensors", trained)
    content = path.read_bytes()
    path.write_bytes(content[: length if length >= 1 else int(len(content) * length)])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_compact(path)


def with_entry(metadata: dict[str, str], name: str, **changes) -> None:
    entries = json.loads(metadata["tensors"])
    entries[name] |= changes
    metadata["tensors"] = json.dumps(entries)


def exchange(tensors, metadata, name: str, array: np.ndarray) -> None:
    """Another array in place of the one that is there."""
    new = packed(array)
    tensors[name] = torch.frombuffer(bytearray(new.data), dtype=torch.uint8)
    entries = json.loads(metadata["tensors"])
    metadata["tensors"] = json.dumps(entries | {name: new.entry() | {"shifted": entries[name]["shifted"]}})


NEW_FAULTS = {
    "missing": (lambda t, m: t.pop("quats"), "tensor quats is missing"),
    "no scale": (lambda t, m: t.pop("quats.scale"), "tensor quats.scale is missing"),
    "unknown": (lambda t, m: t.update(extra=t["quats"].clone()), "tensor extra is unknown"),
    "plain": (lambda t, m: t.update(sh0=torch.ones(600, 3)), "tensor sh0 is .*expected a stream"),
    "damaged": (lambda t, m: t.update(sh0=at(t["sh0"], slice(5, 50), 7)), "tensor sh0: its stream is"),
    "cut": (lambda t, m: t.update(sh0=t["sh0"][:-9].clone()), "tensor sh0: its stream is"),
    "longer": (lambda t, m: t.update(sh0=torch.cat([t["sh0"], t["sh0"]])), "tensor sh0: its stream is"),
    "no entries": (lambda t, m: m.pop("tensors"), "`tensors` are no JSON"),
    "a list": (lambda t, m: m.update(tensors="[1]"), "`tensors` are no JSON object"),
    "deep": (lambda t, m: m.update(tensors="[" * 100_000), "`tensors` are no JSON"),
    "entry": (lambda t, m: m.update(tensors="{}"), "tensor shift: it is described by no entry"),
    "type": (lambda t, m: with_entry(m, "sh0", type="u64"), "tensor sh0: it is described by no entry"),
    "another type": (lambda t, m: with_entry(m, "joints", type="i32"), "tensor joints is of type i32"),
    "shape": (lambda t, m: with_entry(m, "sh0", shape=[599, 3]), "tensor sh0: its stream is not of"),
    "huge": (lambda t, m: with_entry(m, "sh0", shape=[2**30, 2**30]), "tensor sh0: .*larger than any"),
    "negative": (lambda t, m: with_entry(m, "sh0", shape=[-600, -3]), "tensor sh0: .*no list of sizes"),
    "delta": (lambda t, m: with_entry(m, "sh0", delta=1), "tensor sh0: .*must be true or false"),
    "unshifted": (lambda t, m: with_entry(m, "sh0", shifted=False), "tensor sh0: .*shifted must be true"),
    "scale": (lambda t, m: exchange(t, m, "sh0.scale", np.ones((2, 3), np.float32)), "sh0.scale is .* does not fit"),
    "infinite": (
        lambda t, m: exchange(t, m, "sh0.scale", np.full((1, 3), np.inf, np.float32)), "sh0 holds numbers that are not"
    ),
    "whole scale": (lambda t, m: exchange(t, m, "sh0.scale", np.ones((1, 3), int)), "sh0.scale is of type u8"),
    "shift": (lambda t, m: exchange(t, m, "shift", np.full(600, 9)), "shift points outside 0..4"),
    "shifts": (lambda t, m: exchange(t, m, "shift", np.zeros(599, int)), "sh1?0?.* more Gaussians than there are"),
    "joint": (
        lambda t, m: exchange(t, m, "lbs_weights.index", np.full((600, 4), 55)), "index points outside 0..54"
    ),
    "joints": (
        lambda t, m: exchange(t, m, "lbs_weights.index", np.zeros((600, 3), int)), "must have a column less"
    ),
    "weights": (
        lambda t, m: exchange(t, m, "lbs_weights.weight", np.full((600, 3), 255)), "lbs_weights.weight holds negative"
    ),
    "skeleton": (lambda t, m: exchange(t, m, "parents", np.arange(55)), "no skeleton"),
    "frames": (lambda t, m: exchange(t, m, "frames.numbers", np.arange(29)), "frames.numbers is .*expected .*30"),
    "corner": (
        lambda t, m: exchange(t, m, "template.faces", np.full((12, 3), 8)), "template.faces points outside 0..7"
    ),
    "far away": (
        lambda t, m: exchange(t, m, "frames.translations.scale", np.full((1, 1), 1e6, np.float32)), "more than 1000 m"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", NEW_FAULTS)
def test_a_faulty_file_of_streams_is_one_clear_line(fault, trained, tmp_path):
    path = write(tmp_path / "a.safetensors", trained, some_carried(trained))
    tensors, metadata = contents(path)
    change_it, message = NEW_FAULTS[fault]
    change_it(tensors, metadata)
    safetensors.torch.save_file(tensors, path, metadata)
    loads = [load_compact]
    if fault in ("frames", "corner", "far away", "no entries", "deep"):
        loads.append(load_carried)
    for load in loads:
        with pytest.raises(ValueError, match=message) as error:
            load(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


@pytest.fixture
def command(monkeypatch):
    """Runs script/compact.py in this process."""
    specification = importlib.util.spec_from_file_location("compact_command", ROOT / "script/compact.py")
    script = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, specification.name, script)
    specification.loader.exec_module(script)

    def call(*options) -> None:
        monkeypatch.setattr(sys, "argv", ["compact.py", *map(str, options)])
        script.main(script.parse_arguments())

    return call


def test_the_command_makes_a_model_that_loads_like_a_folder(command, trained, tmp_path, capsys):
    save_checkpoint(tmp_path / "model", trained, {}, keep=1)
    out = tmp_path / "made" / "avatar.safetensors"
    options = ("--model_dir", tmp_path / "model", "--device", "cpu", "--keep", 0.1)
    command(*options, "--out", out)
    assert "60 of 600 Gaussians keep their bases (10%)" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert len(load_model(out).avatar.property_bases) == 60
    with pytest.raises(ValueError, match="give --overwrite"):
        command(*options, "--out", out)
    with pytest.raises(ValueError, match="compact model already"):
        command("--model_dir", out, "--out", tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="end it in .safetensors"):
        command(*options, "--out", tmp_path / "avatar.pt")
    with pytest.raises(ValueError, match="it is a share"):
        command("--model_dir", tmp_path / "model", "--out", tmp_path / "b.safetensors", "--keep", 40)


def test_scores_stand_beside_each_other(command, synthetic_body, tiny_capture, tmp_path, capsys):
    config = default_config(
        init_num_gs=600, num_verts=120, num_features=10, smpl_pkl_path=str(synthetic_body)
    )
    config.test.cam_ids, config.test.num_frame = [3], 1
    save_config(config, tmp_path / "config.yaml")
    avatar, poses = small_avatar(synthetic_body), PoseSpace.fit(random_poses(30), 5)
    save_checkpoint(tmp_path / "model", few_joints(TrainedAvatar(avatar, poses, config, 1)), {}, keep=1)
    options = ("--model_dir", tmp_path / "model", "--device", "cpu", "--out", tmp_path / "a.safetensors")
    command(*options, "--data_dir", tiny_capture, "--config", tmp_path / "config.yaml")
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert abs(float(rows["full"][2]) - float(rows["high"][2])) < 0.02  # PSNR
