"""script/export.py as a user runs it: canonical pose, one frame, sequences, rigged mesh; one line for mistakes."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import trimesh

from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.export import pruning
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.precision import LEVELS
from mmlphuman.export.web import web_names
from mmlphuman.model_folder import load_model
from mmlphuman.types import Pose
from tests.builders import random_pose, randomise, save_checkpoint, small_avatar
from tests.export.gaussian_ply_reader import read_gaussian_ply
from tests.player.conftest import make_sequence

SCRIPT = Path(__file__).resolve().parent.parent.parent / "script" / "export.py"
FRAMES = 5


@pytest.fixture(scope="module")
def model(synthetic_body, tmp_path_factory) -> Path:
    """A model folder as training leaves it."""
    folder = tmp_path_factory.mktemp("export") / "model"
    poses = torch.stack([random_pose(100 + seed).joints for seed in range(8)])
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    avatar = randomise(small_avatar(synthetic_body), seed=1)
    save_checkpoint(folder, TrainedAvatar(avatar, PoseSpace.fit(poses, 3), config, 10**6), {}, keep=1)
    body = load_body(synthetic_body, torch.zeros(10))
    mesh = trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)
    mesh.export(folder / "template.ply")
    return folder


@pytest.fixture(scope="module")
def poses(tmp_path_factory) -> Path:
    """An AMASS file of five frames."""
    path = tmp_path_factory.mktemp("poses") / "walk.npz"
    joints = torch.stack([random_pose(seed).joints for seed in range(FRAMES)]).numpy()
    trans = np.random.default_rng(0).normal(size=(FRAMES, 3))
    np.savez(path, poses=joints, trans=trans, mocap_frame_rate=60.0)
    return path


@pytest.fixture
def export(monkeypatch, capsys):
    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--device", "cpu", *map(str, words)])
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


@torch.no_grad()
def test_canonical_gaussians(export, model, tmp_path):
    status, out, err = export("--model_dir", model, "--out", tmp_path / "deep" / "a.ply")
    assert status == 0 and "a.ply" in out, err
    trained = load_model(model)
    pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3))
    expected = trained.avatar(pose, features=trained.pose_space.training_poses.mean(0)).posed
    half_a_turn = torch.tensor([-1.0, -1, 1])  # y down, as viewers expect
    torch.testing.assert_close(read_gaussian_ply(tmp_path / "deep" / "a.ply").xyz, half_a_turn * expected.xyz)
    words = ("--ply_up", "z", "--ply_degree", 1)
    status, _, err = export("--model_dir", model, "--out", tmp_path / "b.ply", *words)
    assert status == 0 and b"f_rest_9" not in (tmp_path / "b.ply").read_bytes()[:2000], err
    x, y, z = expected.xyz.T
    torch.testing.assert_close(read_gaussian_ply(tmp_path / "b.ply").xyz, torch.stack([x, -z, y], 1))


@torch.no_grad()
def test_a_sequence_and_projection(export, model, poses, tmp_path):
    selection = ("--begin", 1, "--stride", 2, "--up", "z")
    words = ("--model_dir", model, "--pose_path", poses, *selection, "--ply_up", "y")
    for name, more in (("plain", ()), ("projected", ("--test",))):
        status, out, err = export(*words, "--out", tmp_path / name, *more)
        assert status == 0 and "2 files" in out and "100%" in err, err
        names = sorted(path.name for path in (tmp_path / name).glob("*.ply"))
        assert names == ["frame00000001.ply", "frame00000003.ply"]
    plain, projected = (read_gaussian_ply(tmp_path / name / names[1]) for name in ("plain", "projected"))
    assert not torch.equal(plain.xyz, projected.xyz)  # the MLPs saw something else

    trained = load_model(model)
    turn = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z up -> y up
    shift = torch.from_numpy(np.random.default_rng(0).normal(size=(FRAMES, 3))[3]).float()
    pose = Pose(random_pose(3).joints, turn @ shift, turn)
    torch.testing.assert_close(plain.xyz, trained.avatar(pose).posed.xyz, atol=1e-5, rtol=1e-5)
    clamped = trained.avatar(pose, features=trained.pose_space.clamp(pose.features)).posed.xyz
    torch.testing.assert_close(projected.xyz, clamped, atol=1e-5, rtol=1e-5)


def test_meshes(export, model, poses, tmp_path):
    words = ("--model_dir", model, "--pose_path", poses)
    one = export(*words, "--format", "mesh_ply", "--out", tmp_path / "b.ply", "--begin", 2, "--count", 1)
    several = export(*words, "--format", "mesh_ply", "--out", tmp_path / "meshes")
    rigged = export(*words, "--format", "glb", "--out", tmp_path / "c.glb")
    assert [status for status, _, _ in (one, several, rigged)] == [0, 0, 0], (one, several, rigged)
    names = sorted(path.name for path in (tmp_path / "meshes").glob("*.ply"))
    assert names == [f"frame{frame:08d}.ply" for frame in range(FRAMES)]
    assert (tmp_path / "meshes" / names[2]).read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert len(trimesh.load(tmp_path / "c.glb", force="mesh").faces) > 1000


def test_the_format_is_told_by_the_name_and_a_sequence_replaces_the_one_before(
    export, model, poses, tmp_path
):
    words = ("--model_dir", model, "--pose_path", poses)
    assert export(*words, "--out", tmp_path / "Avatar.GLB", "--count", 2)[0] == 0
    assert (tmp_path / "Avatar.GLB").read_bytes()[:4] == b"glTF"
    assert export(*words, "--out", tmp_path / "a.ply", "--count", 1)[0] == 0
    assert len(read_gaussian_ply(tmp_path / "a.ply")) > 0
    folder = tmp_path / "take.2"
    for begin in (0, 3):
        assert export(*words, "--out", folder, "--begin", begin, "--count", 2)[0] == 0
    assert sorted(path.name for path in folder.glob("*.ply")) == ["frame00000003.ply", "frame00000004.ply"]
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "mine.ply").write_text("kept")
    status, _, err = export(*words, "--out", tmp_path / "scan")
    assert status == 1 and "--out" in err and "other files (mine.ply)" in err and err.count("\n") == 1
    assert [path.name for path in (tmp_path / "scan").iterdir()] == ["mine.ply"]


def test_a_model_without_template_gives_gaussians_only(export, model, tmp_path):
    checkpoint = next((model / "checkpoints").iterdir())
    words = ("--model_dir", checkpoint, "--out", tmp_path / "a.ply")
    assert export(*words)[0] == 0
    assert export(*words, "--format", "mesh_ply")[0] == 0  # found beside the checkpoints
    (model / "template.ply").rename(tmp_path / "kept.ply")
    try:
        assert export(*words)[0] == 0
        status, _, err = export(*words, "--format", "mesh_ply")
        given = export(*words, "--format", "mesh_ply", "--template", tmp_path / "kept.ply")
    finally:
        (tmp_path / "kept.ply").rename(model / "template.ply")
    assert status == 1 and "no template mesh" in err and err.count("\n") == 1
    assert given[0] == 0


def test_mistakes_are_one_line_and_write_nothing(export, model, poses, tmp_path):
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "other").mkdir()
    several = ("--pose_path", poses)
    cases = [
        (("--out", tmp_path / "new" / "a.ply", *several), "is one file, but there are 5 frames"),
        (("--out", tmp_path / "folder.ply"), "is a folder, but its name is a file's"),
        (("--out", tmp_path / "file", *several), "exists and is no folder"),
        (("--out", tmp_path / "file" / "inside", *several), "cannot be written to"),
        (("--out", tmp_path / "new", "--format", "glb"), "name it .glb"),
        (("--out", tmp_path / "new" / "a.glb", "--format", "ply"), "--format ply is written as .ply"),
        (
            ("--out", tmp_path / "new" / "a.obj"),
            "no format ends in .obj; name a .ply, .spz, .sog, .glb or .usd file, or a folder",
        ),
        (("--out", tmp_path / "new" / "a.txt"), "no format ends in .txt"),
        (("--out", tmp_path / "new", *several, "--begin", 50), "50"),
        (("--out", tmp_path / "new", "--pose_path", tmp_path / "absent.npz"), "absent.npz"),
        (("--out", tmp_path / "new", "--model_dir", tmp_path / "other"), "holds no checkpoint"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for words, expected in cases:
        status, _, err = export("--model_dir", model, *words)
        assert status == 1 and expected in err, (words, err)
        assert err.startswith("error: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "kept"


def test_other_formats_are_told_by_their_endings_and_a_sequence_is_a_folder(export, model, poses, tmp_path):
    """What is in them: tests/export/test_splat_files.py."""
    heads = {"a.spz": b"\x1f\x8b", "a.sog": b"PK", "a.glb": b"glTF"}
    for name, head in heads.items():
        kind = ("--format", "splat_glb") if name == "a.glb" else ()
        status, _, error = export("--model_dir", model, "--out", tmp_path / name, *kind)
        assert status == 0, error
        assert (tmp_path / name).read_bytes().startswith(head)
    assert export("--model_dir", model, "--out", tmp_path / "a.spz", "--spz_version", 4)[0] == 0
    assert (tmp_path / "a.spz").read_bytes().startswith(b"NGSP\4")
    folder = tmp_path / "frames"
    words = ("--model_dir", model, "--pose_path", poses, "--count", 2)
    assert export(*words, "--out", folder, "--format", "spz")[0] == 0
    assert {path.name for path in folder.glob("*.spz")} == {"frame00000000.spz", "frame00000001.spz"}
    status, _, error = export(*words, "--out", tmp_path / "b.spz")
    assert status == 1 and "is one file, but there are 2 frames" in error
    status, _, error = export("--model_dir", model, "--out", tmp_path / "b.glb", "--ply_up", "y")
    assert status != 0 and "--ply_up is of ply, sog, spz" in error
    status, _, error = export("--model_dir", model, "--out", tmp_path / "b.sog", "--spz_version", 4)
    assert status != 0 and "--spz_version is of spz, not of sog" in error


def test_gaussians_with_a_skeleton_are_one_file_with_all_frames(export, model, poses, tmp_path):
    words = ("--model_dir", model, "--format", "rigged_splat_glb", "--out", tmp_path / "a.glb")
    status, _, error = export(*words, "--pose_path", poses)
    assert status == 0, error
    content = (tmp_path / "a.glb").read_bytes()
    assert b'"animations"' in content and b"JOINTS_0" in content and b"KHR_gaussian_splatting" in content
    status, _, error = export(*words[:-1], tmp_path / "folder")
    assert status == 1 and "is one file for all frames; name it .glb" in error


def test_a_sequence_is_one_usd_file(export, model, poses, tmp_path):
    usd = pytest.importorskip("pxr.Usd", reason="no usd-core: pip install usd-core")
    out = tmp_path / "a.usdc"
    status, _, error = export("--model_dir", model, "--pose_path", poses, "--out", out)
    assert status == 0, error
    stage = usd.Stage.Open(str(out))
    assert stage.GetEndTimeCode() == FRAMES - 1 and stage.GetTimeCodesPerSecond() == 60
    assert len(stage.GetDefaultPrim().GetAttribute("positions").Get(3)) == 600


def test_a_page_for_any_web_server(export, model, poses, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "PROBE_SIZE", 64)
    monkeypatch.setattr(pruning, "PROBES", 4)
    site = tmp_path / "site"
    words = ("--model_dir", model, "--format", "web", "--out", site)
    status, out, err = export(*words, "--pose_path", poses, "--begin", 1, "--count", 3, "--up", "z", "--test")
    assert status == 0 and "http.server" in out, err
    assert {file.name for file in site.iterdir()} == {*web_names(make_sequence()), "output.json"}
    settings = json.loads((site / "player.json").read_text())
    assert settings == {
        "title": "model",
        "avatar": "avatar.safetensors",
        "poses": "poses.npz",
        "project": True,
    }

    trained, full = load_compact(site / "avatar.safetensors"), load_model(model)
    assert len(trained.avatar.xyz) == len(full.avatar.xyz)
    asked = read_pose_file(poses, PoseOptions(begin=1, count=3, up="z")).about_pelvis(
        full.avatar.joints[0].numpy()
    )
    written = read_pose_file(site / "poses.npz")
    np.testing.assert_allclose(written.poses[:, :66], asked.poses[:, :66], atol=1e-6)
    np.testing.assert_allclose(written.translations, asked.translations, atol=1e-6)
    assert written.fps == asked.fps == 60

    compact = tmp_path / "mine.safetensors"  # is taken as it is; and the folder's former files go
    compact.write_bytes((site / "avatar.safetensors").read_bytes())
    status, _, err = export("--model_dir", compact, "--format", "web", "--out", site)
    assert status == 0, err
    assert (site / "avatar.safetensors").read_bytes() == compact.read_bytes()
    assert not (site / "poses.npz").exists()
    assert json.loads((site / "player.json").read_text())["poses"] is None


def test_a_page_carries_the_level_that_is_asked_for(export, model, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "PROBE_SIZE", 64)
    monkeypatch.setattr(pruning, "PROBES", 4)
    sizes, records = {}, {}
    for level in (None, "high", "small", "tiny"):
        site = tmp_path / str(level)
        words = () if level is None else ("--level", level)
        status, _, err = export("--model_dir", model, "--format", "web", "--out", site, *words)
        assert status == 0, err
        file = site / "avatar.safetensors"
        with safetensors.safe_open(file, "np") as content:
            records[level] = json.loads(content.metadata()["record"])["level"]
        sizes[level] = file.stat().st_size
    assert records == {None: "high", "high": "high", "small": "small", "tiny": "tiny"}
    assert sizes[None] == sizes["high"] > sizes["small"] > sizes["tiny"]

    compact, again = tmp_path / "tiny" / "avatar.safetensors", tmp_path / "again"
    status, _, err = export("--model_dir", compact, "--format", "web", "--out", again, "--level", "tiny")
    assert status != 0 and err.count("\n") == 1 and "leave them out" in err and str(compact) in err
    assert not again.exists()

    limit = 0.95 * sizes["high"] / 1e6
    status, _, err = export("--model_dir", model, "--format", "web", "--out", again, "--megabytes", limit)
    assert status == 0 and (again / "avatar.safetensors").stat().st_size <= 1e6 * limit, err


def test_a_level_is_one_of_a_page(export, model, tmp_path):
    status, _, err = export("--model_dir", model, "--out", tmp_path / "a.ply", "--level", "tiny")
    assert status != 0 and "--level is of web, not of ply; give --format web" in err
    status, _, err = export("--model_dir", model, "--out", tmp_path / "a.ply", "--megabytes", 3)
    assert status != 0 and "--megabytes is of web, not of ply; give --format web" in err
    status, _, err = export(
        "--model_dir", model, "--format", "web", "--out", tmp_path / "a", "--level", "huge"
    )
    assert status != 0 and "'huge'" in err and all(level in err for level in LEVELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "words", "message"),
    [
        ("a.spz", ("--ply_degree", 1), "--ply_degree is of ply, not of spz"),
        ("a.ply", ("--template", "nowhere.obj"), "--template is of mesh_ply, glb, not of ply"),
        ("folder", ("--count", 5), "--count is of poses; give --pose_path"),
        ("a.glb", ("--test",), "--test is of poses; give --pose_path"),
    ],
)
def test_a_flag_that_would_say_nothing_is_told(out, words, message, export, model, tmp_path):
    status, _, err = export("--model_dir", model, "--out", tmp_path / out, *words)
    assert status != 0 and message in err and not list(tmp_path.iterdir())


def test_a_page_is_a_folder(export, model, tmp_path):
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("somebody's")
    for out in ("a.ply", "a.glb", "file", "others"):
        status, _, err = export("--model_dir", model, "--format", "web", "--out", tmp_path / out)
        assert status != 0 and err.count("\n") == 1 and "--out" in err, err
    assert [file.name for file in (tmp_path / "others").iterdir()] == ["thesis.txt"]
