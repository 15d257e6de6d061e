"""The body loader against the smplx package itself, and what it says about files it cannot use."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import smplx
import torch

from mmlphuman.body.kinematics import (
    apply_transforms,
    blend_transforms,
    canonical_pose,
    forward_kinematics,
    rigid_inverse,
)
from mmlphuman.body.smplx_model import BODY_FILE, GEOMETRY_KEYS, load_body, other_body

VERTICES = 10475  # the smplx package looks up fixed vertex numbers when it poses
# SMPL-X: body, jaw and eyes, then per hand five fingers of three joints from the wrist.
BODY_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
FINGER_PARENTS = [
    wrist if link == 0 else start + 3 * finger + link - 1
    for wrist, start in ((20, 25), (21, 40))
    for finger in range(5)
    for link in range(3)
]
PARENTS = BODY_PARENTS + FINGER_PARENTS


def random_model(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The publisher's arrays with random contents, four joints a vertex and zero pose blend shapes."""
    joints = rng.uniform(-0.8, 0.8, (55, 3))
    weights = np.zeros((VERTICES, 55))
    strongest = np.argsort(rng.random((VERTICES, 55)), axis=1)[:, :4]
    np.put_along_axis(weights, strongest, rng.dirichlet(np.ones(4), VERTICES), axis=1)
    regressor = np.zeros((55, VERTICES))
    for joint in range(55):
        regressor[joint, rng.choice(VERTICES, 8, replace=False)] = 1 / 8
    kintree = np.array([PARENTS, range(55)], dtype=np.int64)
    return {
        "v_template": joints[weights.argmax(1)] + rng.normal(0, 0.05, (VERTICES, 3)),
        "f": rng.integers(0, VERTICES, (200, 3)).astype(np.uint32),
        "shapedirs": rng.normal(0, 0.01, (VERTICES, 3, 20)),
        "posedirs": np.zeros((VERTICES, 3, 486), np.float32),
        "J_regressor": regressor,
        "kintree_table": kintree.astype(np.uint32),  # the root's parent is 4294967295, as published
        "weights": weights,
        "hands_meanl": rng.normal(0, 0.1, 45),  # must not be used: the method's hands are flat at zero
        "hands_meanr": rng.normal(0, 0.1, 45),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "lmk_faces_idx": np.zeros(51, np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
        "joint2num": np.array({"pelvis": 0}, dtype=object),  # pickled: must be left alone
    }


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    np.savez(path, **random_model(np.random.default_rng(0)))
    return path


def smplx_twin(path, betas: np.ndarray) -> smplx.SMPLX:
    with contextlib.redirect_stdout(io.StringIO()):
        model = smplx.SMPLX(str(path), ext="npz", num_betas=10, use_pca=False, flat_hand_mean=True)
    model.posedirs.zero_()
    model.betas.data[0] = torch.as_tensor(betas, dtype=torch.float32)
    return model


def pose_with_smplx(model: smplx.SMPLX, pose: torch.Tensor) -> torch.Tensor:
    parts = {
        "global_orient": pose[0:3],
        "body_pose": pose[3:66],
        "jaw_pose": pose[66:69],
        "leye_pose": pose[69:72],
        "reye_pose": pose[72:75],
        "left_hand_pose": pose[75:120],
        "right_hand_pose": pose[120:165],
    }
    with torch.no_grad():
        return model(**{name: part[None] for name, part in parts.items()}).vertices[0]


def posed_from_canonical(body, pose: torch.Tensor) -> torch.Tensor:
    """The program's way: from the canonical pose to `pose`, with one blended transform."""
    canonical = forward_kinematics(canonical_pose(), body.joints, body.parents)
    posed = forward_kinematics(pose, body.joints, body.parents)
    from_tpose = apply_transforms(blend_transforms(body.lbs_weights, posed), body.vertices)
    # Skinning from the T-pose, and G = A(pose) A(canonical)^-1 undone on every joint, must be the same thing.
    undone = (posed @ rigid_inverse(canonical)) @ canonical
    again = apply_transforms(blend_transforms(body.lbs_weights, undone), body.vertices)
    torch.testing.assert_close(from_tpose, again, atol=1e-5, rtol=0)
    return from_tpose


@pytest.mark.parametrize("source", ["model_path", "synthetic_body"])
def test_skinning_equals_smplx(source, request):
    path = request.getfixturevalue(source)
    rng = np.random.default_rng(1)
    betas = rng.normal(0, 1, 10)
    body, model = load_body(path, betas), smplx_twin(path, betas)
    for _ in range(3):
        pose = torch.from_numpy(rng.normal(0, 0.4, 165)).float()  # hands, jaw and eyes included
        difference = (posed_from_canonical(body, pose) - pose_with_smplx(model, pose)).abs().max().item()
        assert difference < 1e-5
    difference = (body.canonical_vertices - pose_with_smplx(model, canonical_pose())).abs().max().item()
    assert difference < 1e-5
    assert (body.canonical_vertices - body.vertices).abs().max() > 0.05  # the legs did move


def test_shape_changes_body_and_only_ten_betas_count(model_path):
    betas = np.linspace(-1, 1, 10)
    body = load_body(model_path, betas)
    longer = load_body(model_path, np.concatenate([betas, np.ones(6)])[None])
    assert torch.equal(body.vertices, longer.vertices)
    assert (body.vertices - load_body(model_path, np.zeros(10)).vertices).abs().max() > 0.01
    assert body.parents == tuple(PARENTS)
    assert body.faces.dtype == torch.int64
    torch.testing.assert_close(body.lbs_weights.sum(1), torch.ones(VERTICES))


def test_loading_prints_nothing(model_path, capfd):
    load_body(model_path, np.zeros(10))
    assert capfd.readouterr().out == ""


def test_missing_model_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"SMPLX_NEUTRAL\.npz not found.*smpl_model/smplx"):
        load_body(tmp_path / "SMPLX_NEUTRAL.npz", np.zeros(10))


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut short"])
def test_file_that_is_no_npz(tmp_path, content):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"SMPLX_NEUTRAL\.npz: not a readable npz"):
        load_body(path, np.zeros(10))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights", None, "'weights' is missing"),
        ("weights", np.zeros((10, 30)), r"'weights' has shape \(10, 30\).*\(6, 55\)"),
        ("weights", np.full((6, 55), 0.9 / 55), "'weights' must sum to 1 at every vertex"),
        ("J_regressor", np.zeros((24, 6)), "'J_regressor' has shape"),
        ("shapedirs", np.zeros((6, 3, 4)), "'shapedirs' has 4 components"),
        ("v_template", np.full((6, 3), np.nan), "'v_template' holds numbers that are not finite"),
        ("f", np.full((4, 3), 6), r"'f' refers to vertices outside 0\.\.5"),
        ("kintree_table", np.full((2, 55), 60), "'kintree_table' must list"),
        ("J_regressor", np.array([{}], dtype=object), "'J_regressor' cannot be read"),
    ],
)
def test_unusable_model_names_file_and_array(tmp_path, key, value, message):
    model = {
        **random_model_small(),
        **({} if value is None else {key: value}),
    }
    if value is None:
        del model[key]
    path = tmp_path / "broken.npz"
    np.savez(path, **model)
    with pytest.raises(ValueError, match=message) as caught:
        load_body(path, np.zeros(10))
    assert "broken.npz" in str(caught.value) and "\n" not in str(caught.value)


def random_model_small() -> dict[str, np.ndarray]:
    """Six vertices: enough to load, quick to damage."""
    model = random_model(np.random.default_rng(2))
    for key in ("v_template", "shapedirs", "weights"):
        model[key] = model[key][:6]
    model["f"] = np.zeros((4, 3), np.int64)
    model["J_regressor"] = np.full((55, 6), 1 / 6)
    del model["posedirs"]
    return model


@pytest.mark.parametrize("betas", [np.zeros(3), np.full(10, np.nan)])
def test_unusable_betas(model_path, betas):
    with pytest.raises(ValueError, match="betas must be 10 finite"):
        load_body(model_path, betas)


def test_what_the_method_does_not_use_may_be_missing(tmp_path):
    arrays = random_model(np.random.default_rng(0))
    full, stripped = tmp_path / "SMPLX_NEUTRAL.npz", tmp_path / "stripped.npz"
    np.savez(full, **arrays)
    np.savez(stripped, **{key: arrays[key] for key in GEOMETRY_KEYS})
    ours, theirs = load_body(full, np.ones(10)), load_body(stripped, np.ones(10))
    for name, value in vars(ours).items():
        assert (
            torch.equal(value, getattr(theirs, name))
            if torch.is_tensor(value)
            else value == getattr(theirs, name)
        )


@pytest.mark.parametrize(("joints", "name"), [(24, "SMPL"), (52, r"SMPL\+H"), (16, "MANO")])
def test_other_body_models_are_named(tmp_path, joints, name):
    arrays = random_model(np.random.default_rng(0))
    arrays |= {"weights": arrays["weights"][:, :joints], "J_regressor": arrays["J_regressor"][:joints]}
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ValueError, match=f"model.npz: this is {name} .* an SMPL-X model .* is needed"):
        load_body(tmp_path / "model.npz", np.zeros(10))


def test_a_pickled_model_is_not_read_but_told_what_to_take(tmp_path):
    (tmp_path / "SMPLX_NEUTRAL.pkl").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"a pickled file.*take the NPZ version"):
        load_body(tmp_path / "SMPLX_NEUTRAL.pkl", np.zeros(10))


def test_a_missing_file_may_lie_elsewhere(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"not found; say where it lies .*, or, if you have none: register"
    ):
        load_body(tmp_path / "SMPLX_NEUTRAL.npz", np.zeros(10))


def test_a_capture_s_own_body_is_named_where_another_is_used(tmp_path):
    used = tmp_path / "model" / BODY_FILE
    used.parent.mkdir()
    used.write_bytes(b"a body")
    assert other_body(tmp_path, used) is None, "the capture has none"
    own = tmp_path / BODY_FILE
    own.write_bytes(b"a body")
    assert other_body(tmp_path, used) is None and other_body(tmp_path, own) is None
    own.write_bytes(b"fitted")
    note = other_body(tmp_path, used)
    assert note is not None and f"smpl_pkl_path={own}" in note and "\n" not in note
