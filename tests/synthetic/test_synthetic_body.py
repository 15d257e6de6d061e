"""The synthetic body is a valid SMPL-X file and a sensible human surface."""

import numpy as np
import pytest
import smplx
import torch
import trimesh

from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.synthetic import body, skeleton
from mmlphuman.synthetic.body import body_arrays
from mmlphuman.synthetic.person_mesh import split_longest_edges

SHAPES = {
    "v_template": (10475, 3),
    "weights": (10475, 55),
    "kintree_table": (2, 55),
    "J_regressor": (55, 10475),
    "shapedirs": (10475, 3, 400),
    "posedirs": (10475, 3, 486),
    "hands_componentsl": (45, 45),
    "hands_componentsr": (45, 45),
    "hands_meanl": (45,),
    "hands_meanr": (45,),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
    "dynamic_lmk_faces_idx": (79, 17),
    "dynamic_lmk_bary_coords": (79, 17, 3),
}


@pytest.fixture(scope="module")
def arrays(synthetic_body) -> dict[str, np.ndarray]:
    with np.load(synthetic_body, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_has_the_keys_and_shapes_of_the_format(arrays):
    assert {key: arrays[key].shape for key in SHAPES} == SHAPES
    assert all(value.dtype != object for value in arrays.values())
    assert arrays["f"].max() == 10474


def test_surface_is_closed_and_human_sized(arrays):
    mesh = trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert mesh.euler_number == 2
    width, height, depth = mesh.extents
    assert 1.65 < height < 1.75 and 1.6 < width < 1.85 and 0.2 < depth < 0.4


def test_weights_are_at_most_four_and_sum_to_one(arrays):
    weights = arrays["weights"]
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 4
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights.max(0) > 0.6).all(), "every joint must move some vertices"


def test_regressor_gives_the_skeleton(arrays):
    joints = arrays["J_regressor"] @ arrays["v_template"]
    np.testing.assert_allclose(joints, skeleton.rest_joints(), atol=1e-8)
    assert joints[skeleton.L_WRIST, 0] > 0.5, "x points to the body's left"
    assert joints[skeleton.L_FOOT, 2] > joints[skeleton.L_ANKLE, 2], "z points forward"


def test_fingers_are_apart(arrays):
    """Near each left finger tip there is only that finger's surface."""
    tips = [points[3] - [0, skeleton.CHEST_HEIGHT, 0] for points in skeleton.finger_points().values()]
    for number, tip in enumerate(tips):
        near = np.linalg.norm(arrays["v_template"] - tip, axis=1) < 0.012
        own = skeleton.FIRST_LEFT_FINGER + 3 * number
        assert near.sum() > 5
        assert arrays["weights"][near, own : own + 3].sum(1).min() > 0.95


def test_loads_and_poses_through_smplx(synthetic_body, arrays):
    model = smplx.create(
        str(synthetic_body), model_type="smplx", use_pca=False, flat_hand_mean=True, use_face_contour=True
    )
    np.testing.assert_array_equal(model.parents.numpy()[1:], skeleton.PARENTS[1:])
    model.posedirs.zero_()
    pose = 0.3 * torch.randn(165, generator=torch.Generator().manual_seed(0))
    pose[66:75] = 0
    parts = {
        "global_orient": pose[:3],
        "body_pose": pose[3:66],
        "left_hand_pose": pose[75:120],
        "right_hand_pose": pose[120:165],
    }
    output = model(**{key: value[None] for key, value in parts.items()})
    joints = torch.from_numpy(skeleton.rest_joints()).float()
    transforms = forward_kinematics(pose, joints, list(skeleton.PARENTS))
    blended = blend_transforms(torch.from_numpy(arrays["weights"]).float(), transforms)
    posed = apply_transforms(blended, torch.from_numpy(arrays["v_template"]).float())
    assert (posed - output.vertices[0]).abs().max() < 1e-5


def test_shape_coefficients_change_the_joints(synthetic_body):
    model = smplx.create(str(synthetic_body), model_type="smplx", use_pca=False, flat_hand_mean=True)
    betas = torch.zeros(2, 10)
    betas[1, 0] = 1.0
    heights = [model(betas=b[None]).vertices[0, :, 1] for b in betas]
    assert heights[1].max() - heights[1].min() > heights[0].max() - heights[0].min() + 0.02


def test_same_seed_same_body(arrays):
    again = body_arrays(0)
    assert again.keys() == arrays.keys()
    for key, value in again.items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)


def test_edge_splits_keep_the_surface_closed():
    ball = trimesh.creation.icosphere(1)
    vertices, faces = split_longest_edges(ball.vertices, ball.faces, len(ball.vertices) + 7)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert len(vertices) == len(ball.vertices) + 7 and mesh.is_watertight and mesh.is_winding_consistent
    assert abs(mesh.volume - ball.volume) < 1e-9


def test_the_file_is_compressed_and_replaces_another_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "new" / "SMPLX_NEUTRAL.npz"
    monkeypatch.setattr(body, "body_arrays", lambda seed: {"zeros": np.zeros(10_000), "seed": seed})
    for seed in (0, 3):
        body.write_body(path, seed)
        with np.load(path, allow_pickle=False) as file:
            assert file["seed"] == seed and (file["zeros"] == 0).all()
    assert path.stat().st_size < 5000 and list(path.parent.iterdir()) == [path]
