"""The compact model: what its file keeps, of former versions as well, and the command that writes it."""

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

from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.config import default_config, save_config
from mmlphuman.export.compact import Carried, encode, pack, strongest_joints
from mmlphuman.export.compact_reader import load_carried, load_compact
from mmlphuman.export.compact_report import compare, full_tensors, part_sizes
from mmlphuman.export.pruning import prune, select
from mmlphuman.model_folder import load_model
from mmlphuman.training.loop import Trainer
from mmlphuman.training.run_setup import Scene
from tests.builders import random_pose, random_poses, save_checkpoint, small_avatar, small_trained
from tests.export.compact_files import (
    GAUSSIANS,
    contents,
    few_joints,
    some_carried,
    write,
    write_former,
)

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "pose_inputs": "body", "hidden_widths": [512, 256, 256, 256], "light": "none", "novel_poses": "pca",
    "face": False,
}  # fmt: skip
FINISHED = 10**6  # iterations: everything is switched on

pytestmark = pytest.mark.usefixtures("small_pictures")


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
    with pytest.raises(ValueError, match="give a size above 0"):
        command("--model_dir", tmp_path / "model", "--out", tmp_path / "b.safetensors", "--megabytes", 0)
    limit = 0.98 * out.stat().st_size / 1e6
    command(*options, "--out", out, "--overwrite", "--megabytes", limit)
    assert "less exactly than the level says" in capsys.readouterr().out
    assert out.stat().st_size <= 1e6 * limit


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
