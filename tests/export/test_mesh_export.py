"""The mesh preview: colours and weights from the Gaussians, and a GLB that any glTF reader poses as we do."""

import copy
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import apply_transforms, blend_transforms, canonical_pose
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.export.gltf import linear_colors, strongest_weights, write_glb
from mmlphuman.export.mesh import attach_mesh, dress_mesh, pose_vertices, read_template, write_mesh_ply
from mmlphuman.types import Pose
from tests.builders import random_pose, randomise, small_avatar

FPS = 24.0


@pytest.fixture(scope="module")
def trained(synthetic_body) -> TrainedAvatar:
    poses = torch.stack([random_pose(seed).joints for seed in range(8)])
    avatar = randomise(small_avatar(synthetic_body), seed=1)
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 3), default_config(), iteration=10**6)


@pytest.fixture(scope="module")
def template(synthetic_body) -> trimesh.Trimesh:
    body = load_body(synthetic_body, torch.zeros(10))
    return trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)


@pytest.fixture(scope="module")
@torch.no_grad()
def mesh(trained, template):
    return dress_mesh(
        attach_mesh(template, trained.avatar), trained, trained.pose_space.training_poses.mean(0)
    )


@pytest.fixture(scope="module")
def sequence() -> PoseSequence:
    """Large, lively poses in a turned world; the first joint winds on past a full turn."""
    poses = torch.stack([random_pose(seed, size=0.6).joints for seed in range(6)]).numpy()
    poses[:, :3] = np.linspace(0, 7, 6)[:, None] * [[0.1, 0.9, 0.2]]
    return PoseSequence(
        poses=poses,
        translations=np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32),
        rotation=Rotation.from_euler("xy", [90, 30], degrees=True).as_matrix().astype(np.float32),
        frames=np.arange(10, 22, 2),
        fps=FPS,
        source="test",
    )


class Gltf:
    """A GLB file read by the standard's words alone."""

    KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
    WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.json = json.loads(content[20 : 20 + size])
        binary_size, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0" and binary_size % 4 == 0
        self.binary = content[28 + size :]
        assert len(self.binary) == binary_size == -(-self.json["buffers"][0]["byteLength"] // 4) * 4

    def array(self, index: int) -> np.ndarray:
        accessor = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = self.KINDS[accessor["componentType"]], self.WIDTHS[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == accessor["count"] * width * np.dtype(kind).itemsize
        flat = np.frombuffer(self.binary, kind, accessor["count"] * width, view["byteOffset"])
        values = flat.reshape(accessor["count"], width)
        if "min" in accessor:
            assert accessor["min"] == values.min(0).tolist() and accessor["max"] == values.max(0).tolist()
        return values

    def attribute(self, name: str) -> np.ndarray:
        return self.array(self.json["meshes"][0]["primitives"][0]["attributes"][name])

    def node_places(self, key: int | None) -> np.ndarray:
        """(nodes, 4, 4) global transforms, of the animation's key or (None) of the nodes as they stand."""
        nodes = [dict(node) for node in self.json["nodes"]]
        if key is not None:
            animation = self.json["animations"][0]
            for channel in animation["channels"]:
                values = self.array(animation["samplers"][channel["sampler"]]["output"])
                nodes[channel["target"]["node"]][channel["target"]["path"]] = values[key]
        places = np.full((len(nodes), 4, 4), np.nan)

        def visit(index: int, above: np.ndarray) -> None:
            node, local = nodes[index], np.eye(4)
            if "matrix" in node:
                local = np.array(node["matrix"]).reshape(4, 4).T
            if "rotation" in node:
                local[:3, :3] = Rotation.from_quat(node["rotation"]).as_matrix()
            if "translation" in node:
                local[:3, 3] = node["translation"]
            places[index] = above @ local
            for child in node.get("children", ()):
                visit(child, places[index])

        for root in self.json["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        assert np.isfinite(places).all()  # every node is in the scene, once
        return places

    def skinned(self, key: int | None = None) -> np.ndarray:
        """(P, 3) vertices by the standard's formula."""
        skin = self.json["skins"][0]
        inverse_bind = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        matrices = self.node_places(key)[skin["joints"]] @ inverse_bind
        blended = np.einsum("pk,pkij->pij", self.attribute("WEIGHTS_0"), matrices[self.attribute("JOINTS_0")])
        points = self.attribute("POSITION")
        return np.einsum("pij,pj->pi", blended[:, :3, :3], points) + blended[:, :3, 3]


def our_skinning(trained, mesh, pose: Pose) -> np.ndarray:
    """Our own posing with each vertex's four strongest weights."""
    values, index = mesh.lbs_weights.topk(4, dim=1)
    strongest = torch.zeros_like(mesh.lbs_weights).scatter(1, index, values / values.sum(1, keepdim=True))
    blended = blend_transforms(strongest, trained.avatar.skinning_transforms(pose))
    return (apply_transforms(blended, mesh.vertices) @ pose.rotation.T + pose.translation).numpy()


@torch.no_grad()
def test_gltf_skinning_is_ours(trained, mesh, sequence, tmp_path):
    write_glb(tmp_path / "a.glb", mesh, trained.avatar, sequence)
    gltf = Gltf(tmp_path / "a.glb")
    for key in range(len(sequence.poses)):
        ours = our_skinning(trained, mesh, sequence.pose(key))
        np.testing.assert_allclose(gltf.skinned(key), ours, atol=1e-4)
    np.testing.assert_allclose(gltf.skinned(None), gltf.skinned(0), atol=1e-6)  # players that do not play
    moved = np.abs(gltf.skinned(0) - gltf.skinned(3)).max()
    assert moved > 0.5  # metres: the frames differ


@torch.no_grad()
def test_without_poses_the_mesh_stands_in_the_canonical_pose(trained, mesh, tmp_path):
    write_glb(tmp_path / "a.glb", mesh, trained.avatar)
    gltf = Gltf(tmp_path / "a.glb")
    assert "animations" not in gltf.json
    np.testing.assert_allclose(gltf.skinned(), mesh.vertices.numpy(), atol=1e-5)


@torch.no_grad()
def test_animation_plays_in_the_files_time_and_the_short_way(trained, mesh, sequence, tmp_path):
    write_glb(tmp_path / "a.glb", mesh, trained.avatar, sequence)
    gltf = Gltf(tmp_path / "a.glb")
    animation = gltf.json["animations"][0]
    for sampler in animation["samplers"]:
        np.testing.assert_allclose(gltf.array(sampler["input"])[:, 0], np.arange(6) / FPS, rtol=1e-6)
    still = {gltf.json["nodes"].index(node) for node in gltf.json["nodes"] if node["name"] == "jaw"}
    for channel in animation["channels"]:
        values = gltf.array(animation["samplers"][channel["sampler"]]["output"])
        assert len(values) == 6
        if channel["target"]["path"] == "rotation":
            assert ((values[1:] * values[:-1]).sum(1) > 0).all()
        assert channel["target"]["node"] not in still  # never moves: no track
    write_glb(tmp_path / "b.glb", mesh, trained.avatar, replace(sequence, fps=None))
    times = Gltf(tmp_path / "b.glb").array(animation["samplers"][0]["input"])
    np.testing.assert_allclose(times[:, 0], np.arange(6) / 30, rtol=1e-6)


@torch.no_grad()
def test_other_readers_find_a_rigged_mesh(trained, mesh, sequence, tmp_path):
    write_glb(tmp_path / "a.glb", mesh, trained.avatar, sequence)
    gltf = Gltf(tmp_path / "a.glb")
    loaded = trimesh.load(tmp_path / "a.glb", force="mesh", process=False)
    assert loaded.faces.shape == mesh.faces.shape and len(loaded.vertices) == len(mesh.vertices)

    joints = gltf.json["skins"][0]["joints"]
    names = [gltf.json["nodes"][joint]["name"] for joint in joints]
    assert len(set(names)) == 55
    expected = {0: "pelvis", 15: "head", 20: "left_wrist", 22: "jaw", 25: "left_index1", 54: "right_thumb3"}
    assert {index: names[index] for index in expected} == expected
    weights, used = gltf.attribute("WEIGHTS_0"), gltf.attribute("JOINTS_0")
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert used.max() < 55 and (used[weights == 0] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(gltf.attribute("NORMAL"), axis=1), 1, atol=1e-4)
    assert gltf.json["accessors"][gltf.json["meshes"][0]["primitives"][0]["indices"]]["type"] == "SCALAR"


@torch.no_grad()
def test_other_readers_find_the_texture(trained, template, tmp_path):
    """trimesh's uv has its origin at the bottom left."""
    trained = replace(trained, avatar=copy.deepcopy(trained.avatar))
    trained.avatar.sh0.copy_(1.5 * trained.avatar.xyz)  # colours that tell the place
    attached = attach_mesh(template, trained.avatar, textured=True)
    assert (
        len(attached.faces) < len(attach_mesh(template, trained.avatar).faces) or len(template.faces) >= 600
    )
    mesh = dress_mesh(attached, trained, trained.pose_space.training_poses.mean(0), textured=True)
    write_glb(tmp_path / "a.glb", mesh, trained.avatar)
    loaded = trimesh.load(tmp_path / "a.glb", force="mesh", process=False)
    assert loaded.visual.kind == "texture" and len(loaded.vertices) == 3 * len(mesh.faces)
    assert np.array_equal(np.asarray(loaded.visual.material.baseColorTexture), mesh.picture)
    assert np.allclose(loaded.visual.uv, mesh.uv.reshape(-1, 2) * [1, -1] + [0, 1], atol=1e-6)
    corners = mesh.vertices.numpy()[mesh.faces].reshape(-1, 3)
    assert np.allclose(loaded.vertices, corners, atol=1e-6)
    # In the triangles' middles it has the colours that vertices would have: of Gaussians near by.
    texels = (mesh.uv.mean(1) * len(mesh.picture)).astype(int)
    found = mesh.picture[texels[:, 1], texels[:, 0]] / 255
    of_vertices = mesh.colors.numpy()[mesh.faces].mean(1)
    assert np.abs(found - of_vertices).mean() < 0.04 < 0.5 * np.abs(found[::-1] - of_vertices).mean()


def test_vertex_colours_are_linear():
    """Half-bright sRGB is a fifth of the light; black, white and the curve's foot are exact."""
    grey = np.array([0, 0.02, 0.5, 1])[:, None].repeat(3, 1)
    linear = linear_colors(grey)[:, :3] / 65535
    np.testing.assert_allclose(linear[:, 0], [0, 0.02 / 12.92, 0.21404, 1], atol=2e-5)
    assert (linear_colors(grey)[:, 3] == 65535).all()


def test_unused_influences_name_joint_0():
    """As the standard wants it, also where a vertex follows one joint only."""
    weights = np.zeros((2, 55))
    weights[0, 7] = 1
    weights[1, [50, 3, 9, 4, 20]] = 0.3, 0.1, 0.2, 0.2, 0.2
    joints, kept = strongest_weights(weights)
    assert joints.tolist() == [[7, 0, 0, 0], [50, 4, 9, 20]]
    np.testing.assert_allclose(kept, [[1, 0, 0, 0], np.array([3, 2, 2, 2]) / 9], rtol=1e-6)


@torch.no_grad()
def test_the_mesh_follows_the_control_points(trained, template, mesh):
    shift = torch.tensor([0.03, -0.02, 0.05])
    trained.avatar.control_offsets += shift
    moved = dress_mesh(
        attach_mesh(template, trained.avatar), trained, trained.pose_space.training_poses.mean(0)
    )
    trained.avatar.control_offsets -= shift
    torch.testing.assert_close(moved.vertices, mesh.vertices + shift)


@torch.no_grad()
def test_colours_come_from_the_visible_gaussians_near_by(trained, template):
    """Left half red, right half blue; transparent green Gaussians in between change nothing."""
    avatar = trained.avatar
    saved = {name: value.clone() for name, value in avatar.state_dict().items()}
    try:
        for parameter in (
            avatar.property_bases,
            avatar.position_bases,
            avatar.control_offsets,
            avatar.xyz_offsets,
        ):
            parameter.zero_()
        left = avatar.xyz[:, 0] > 0
        hidden = torch.arange(len(left)) % 4 == 0
        paint = torch.where(left[:, None], torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
        paint[hidden] = torch.tensor([0.0, 1, 0])
        avatar.sh0.copy_((paint - 0.5) / 0.28209479177387814)
        avatar.opacity_logits.copy_(torch.where(hidden, -9.0, 3.0))
        mesh = dress_mesh(attach_mesh(template, avatar), trained, trained.pose_space.training_poses.mean(0))
    finally:
        avatar.load_state_dict(saved)
    torch.testing.assert_close(mesh.vertices.numpy(), template.vertices.astype(np.float32))
    far_left, far_right = mesh.vertices[:, 0] > 0.15, mesh.vertices[:, 0] < -0.15
    assert far_left.sum() > 100 and far_right.sum() > 100
    # Almost all: among 600 random Gaussians a few vertices have none but transparent ones near by.
    assert mesh.colors[:, 1].quantile(0.95) < 0.02
    assert mesh.colors[far_left, 0].quantile(0.02) > 0.9 and mesh.colors[far_right, 2].quantile(0.02) > 0.9


@torch.no_grad()
def test_mesh_ply_is_the_posed_mesh(trained, mesh, sequence, tmp_path):
    pose = sequence.pose(2)
    vertices = pose_vertices(mesh, trained.avatar, pose)
    write_mesh_ply(tmp_path / "a.ply", vertices, mesh)
    loaded = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_allclose(loaded.vertices, vertices, atol=1e-6)
    assert np.array_equal(loaded.faces, mesh.faces)
    np.testing.assert_allclose(loaded.visual.vertex_colors[:, :3] / 255, mesh.colors, atol=0.003)
    # The mesh goes where the Gaussians go: every Gaussian lies by it.
    posed = trained.avatar(pose, features=trained.pose_space.training_poses.mean(0)).posed
    distance = trimesh.proximity.ProximityQuery(loaded).vertex(posed.xyz.numpy()[::10])[0]
    assert np.quantile(distance, 0.9) < 0.05
    vertices[5] = torch.nan
    with pytest.raises(ValueError, match=r"b\.ply: the posed mesh has vertices that are not finite"):
        write_mesh_ply(tmp_path / "b.ply", vertices, mesh)
    assert not (tmp_path / "b.ply").exists()


@torch.no_grad()
def test_canonical_pose_leaves_the_mesh_as_it_is(trained, mesh):
    pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3))
    torch.testing.assert_close(pose_vertices(mesh, trained.avatar, pose), mesh.vertices, atol=1e-5, rtol=0)


def test_coarse_templates_are_refined_to_the_gaussians(trained):
    box = trimesh.creation.box((0.4, 1.6, 0.2))
    attached = attach_mesh(box, trained.avatar)
    assert len(trained.avatar.xyz) / 2 <= len(attached.vertices) < 4 * len(trained.avatar.xyz)
    refined = trimesh.Trimesh(attached.vertices.numpy(), attached.faces, process=False)
    assert refined.is_watertight and refined.volume == pytest.approx(box.volume, rel=1e-5)
    torch.testing.assert_close(attached.lbs_weights.sum(1), torch.ones(len(attached.vertices)))


def test_templates_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no template mesh.*--template.*--format ply"):
        read_template(tmp_path / "template.ply")
    (tmp_path / "template.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    with pytest.raises(ValueError, match="template.ply: not a usable template mesh"):
        read_template(tmp_path / "template.ply")
