"""Poses in the forms that people have: each is read as what it is, or refused in one line that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.body.kinematics import apply_transforms, forward_kinematics
from mmlphuman.body.smplx_model import load_body
from mmlphuman.capture.poses import read_smpl_params, smpl_params_arrays
from mmlphuman.pose_layout import HANDS_POSE, LEFT_HAND_POSE, RIGHT_HAND_POSE
from mmlphuman.poses.motion_file import read_motion
from mmlphuman.synthetic.skeleton import PARENTS, rest_joints
from tests.poses.motions import (
    BODY,
    FRAMES,
    HANDS,
    LEFT,
    NO_HANDS,
    PARTS,
    POSES,
    RIGHT,
    ROOT,
    SMPL,
    TRANSL,
    ZERO3,
    easymocap,
    matrices,
    quaternions,
    saved,
)

SMPLH = np.concatenate([POSES[:, :66], POSES[:, 75:]], 1)


def motion_x() -> np.ndarray:
    """(F, 322)"""
    columns = [ROOT, BODY, LEFT, RIGHT, ZERO3, np.zeros((FRAMES, 50 + 100)), TRANSL, np.zeros((FRAMES, 10))]
    return np.concatenate(columns, 1)


# Name: arrays, poses that are to come out, how the line begins after "poses of FILE: ".
FORMS = {
    "video estimator without hands": (PARTS | {"betas": np.zeros((FRAMES, 10))}, NO_HANDS, "SMPL-X, 7 frames, no"),
    "a capture's": (PARTS | HANDS, POSES, "SMPL-X, 7 frames, hands from the file, no expression"),
    "parts by joint": (
        {"global_orient": ROOT[:, None], "body_pose": BODY.reshape(FRAMES, 21, 3), "transl": TRANSL[:, None]}
        | {key: hand.reshape(FRAMES, 15, 3) for key, hand in HANDS.items()},
        POSES, "SMPL-X, 7 frames, hands from the file",
    ),
    "plain SMPL": (
        {"global_orient": ROOT, "body_pose": SMPL[:, 3:], "transl": TRANSL}, NO_HANDS, "SMPL, 7 frames, no hands",
    ),
    "SMPL in one array": ({"pose": SMPL, "trans": TRANSL}, NO_HANDS, "SMPL, 7 frames, no hands"),
    "SMPL by joint": ({"poses": SMPL.reshape(FRAMES, 24, 3), "trans": TRANSL}, NO_HANDS, "AMASS SMPL, 7"),
    "SMPL's 23 joints": (
        {"global_orient": ROOT, "body_pose": SMPL[:, 3:].reshape(FRAMES, 23, 3), "transl": TRANSL}, NO_HANDS, "SMPL, 7",
    ),
    "AMASS SMPL-X": ({"poses": POSES, "trans": TRANSL, "mocap_frame_rate": 120.0}, POSES, "AMASS SMPL-X, 7 frames at"),
    "AMASS SMPL+H": ({"poses": SMPLH, "trans": TRANSL, "mocap_framerate": 30}, POSES, "AMASS SMPL+H, 7 frames at 30"),
    "AMASS body": ({"poses": POSES[:, :66], "trans": TRANSL}, NO_HANDS, "AMASS body, 7 frames, no hands"),
    "AMASS parts": (
        {"root_orient": ROOT, "pose_body": BODY, "pose_hand": POSES[:, 75:], "trans": TRANSL, "pose_jaw": ZERO3},
        POSES, "AMASS SMPL-X, 7 frames, hands from the file",
    ),
    "AMASS parts beside the whole": (
        {"root_orient": ROOT, "pose_body": BODY, "pose_hand": POSES[:, 75:], "trans": TRANSL, "poses": POSES},
        POSES, "AMASS SMPL-X",
    ),
    "estimator's matrices": (
        {"global_orient": matrices(ROOT), "body_pose": matrices(SMPL[:, 3:]), "transl": TRANSL},
        NO_HANDS, "SMPL as rotation matrices",
    ),
    "matrices flat": ({"poses": matrices(POSES).reshape(FRAMES, -1), "trans": TRANSL}, POSES, "AMASS SMPL-X as"),
    "root as (F, 3, 3)": (
        {"global_orient": matrices(ROOT)[:, 0], "body_pose": matrices(BODY), "transl": TRANSL}, NO_HANDS, "SMPL-X as",
    ),
    "HumanML3D's 22 matrices": ({"poses": matrices(POSES[:, :66]), "trans": TRANSL}, NO_HANDS, "AMASS body as ro"),
    "pred_rotmat of TRAM": (
        {"pred_rotmat": matrices(SMPL), "pred_trans": TRANSL[:, None], "pred_shape": np.zeros((FRAMES, 10))},
        NO_HANDS, "SMPL as rotation matrices",
    ),
    "quaternions wxyz": (
        {"poses": quaternions(POSES, True), "trans": TRANSL}, POSES, "AMASS SMPL-X as quaternions, real part first",
    ),
    "quaternions xyzw": (
        {"poses": quaternions(POSES, False), "trans": TRANSL}, POSES, "AMASS SMPL-X as quaternions, real part last",
    ),
    "body quaternions tell of the root's": (
        {"global_orient": quaternions(ROOT, False), "body_pose": quaternions(BODY, False), "transl": TRANSL},
        NO_HANDS, "SMPL-X as quaternions, real part last",
    ),
    "WHAM, the world's before the camera's": (
        {"pose": SMPL[::-1], "trans": TRANSL[::-1], "pose_world": SMPL, "trans_world": TRANSL}, NO_HANDS, "SMPL, 7",
    ),
    "GVHMR, whole": (
        {f"smpl_params_global/{key}": array for key, array in PARTS.items()}
        | {f"smpl_params_incam/{key}": array[::-1] for key, array in PARTS.items()},
        NO_HANDS, "SMPL-X, 7 frames, no hands",
    ),
    "a person's axis": ({key: array[None] for key, array in PARTS.items()}, NO_HANDS, "SMPL-X, 7 frames"),
    "AIST++": (
        {"smpl_poses": SMPL, "smpl_trans": 93.5 * TRANSL, "smpl_scaling": np.array([93.5])}, NO_HANDS, "AIST++ SMPL, 7",
    ),
    "ExAvatar's names": (
        {"root_pose": ROOT, "body_pose": BODY.reshape(FRAMES, 21, 3), "lhand_pose": LEFT.reshape(FRAMES, 15, 3),
         "rhand_pose": RIGHT.reshape(FRAMES, 15, 3), "trans": TRANSL, "expr": np.ones((FRAMES, 50))},
        POSES, "SMPL-X, 7 frames, hands from the file, expression",
    ),
    "SMPLer-X's names": (
        {"smplx_root_pose": ROOT, "smplx_body_pose": BODY, "smplx_lhand_pose": LEFT, "smplx_rhand_pose": RIGHT,
         "smplx_expr": np.zeros((FRAMES, 10)), "transl": TRANSL},
        POSES, "SMPL-X, 7 frames, hands from the file, expression not used",
    ),
    "smplx's output": ({"full_pose": POSES, "transl": TRANSL}, POSES, "SMPL-X, 7 frames, hands from the file"),
    "hands zero": (PARTS | {key: 0 * hand for key, hand in HANDS.items()}, NO_HANDS, "SMPL-X, 7 frames, hands zero"),
    "EasyMocap SMPL": ({"Rh": ZERO3, "Th": TRANSL, "poses": SMPL, "shapes": np.zeros((1, 10))}, NO_HANDS, "EasyMocap "),
    "EasyMocap whole": ({"Rh": ZERO3, "Th": TRANSL, "poses": POSES}, POSES, "EasyMocap SMPL-X, 7 frames, hands from"),
    "pose beside a root": ({"poses": BODY, "global_orient": ROOT, "trans": TRANSL}, NO_HANDS, "AMASS body"),
}  # fmt: skip


def assert_same_rotations(poses: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(matrices(poses), matrices(wanted), atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_form(tmp_path, form):
    arrays, wanted, told = FORMS[form]
    path = saved(tmp_path, arrays)
    motion = read_motion(path)
    assert_same_rotations(motion.poses, wanted)
    np.testing.assert_allclose(motion.translations, TRANSL, atol=1e-6)
    assert motion.poses.dtype == motion.translations.dtype == np.float32 and motion.turns is None
    assert motion.told.startswith(f"poses of {path}: {told}") and "\n" not in motion.told


def test_motion_x_is_one_array(tmp_path):
    np.save(tmp_path / "motion.npy", motion_x())
    motion = read_motion(tmp_path / "motion.npy")
    assert_same_rotations(motion.poses, POSES)
    np.testing.assert_allclose(motion.translations, TRANSL, atol=1e-6)
    assert ": Motion-X, 7 frames, hands from the file" in motion.told


def test_an_array_of_poses_alone_animates_at_the_origin(tmp_path):
    np.save(tmp_path / "poses.npy", SMPL.reshape(FRAMES, 24, 3))
    sequence = read_pose_file(tmp_path / "poses.npy", PoseOptions(translation=False))
    np.testing.assert_allclose(sequence.poses, NO_HANDS, atol=1e-6)
    assert not sequence.translations.any()
    with pytest.raises(ValueError, match="'transl' is missing.*--no_translation"):
        read_pose_file(tmp_path / "poses.npy")


@pytest.mark.parametrize("up", ["y", "z", "-x"])
def test_easymocap_turns_about_the_origin_after_skinning(tmp_path, synthetic_body, up):
    """x = R(Rh) skinning(X) + Th, joint by joint, then the file's up axis to y; the same with the root turned about the
    pelvis."""
    axes = {
        "y": np.eye(3),
        "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    }[up]
    arrays, _ = easymocap(synthetic_body)
    arrays["poses"][:, :3] = ROOT  # usually zero, but what is there counts
    joints = torch.from_numpy(rest_joints()).float()
    path = saved(tmp_path, arrays)
    sequence = read_pose_file(path, PoseOptions(up=up), synthetic_body)
    folded = sequence.about_pelvis(rest_joints()[0])
    np.testing.assert_array_equal(folded.rotation, np.eye(3))
    for frame in range(FRAMES):
        pose = torch.from_numpy(np.concatenate([ROOT[frame], BODY[frame], np.zeros(99, np.float32)]))
        skinned = (
            apply_transforms(forward_kinematics(pose, joints, PARENTS.tolist()), joints)[:22].double().numpy()
        )
        wanted = skinned @ Rotation.from_rotvec(arrays["Rh"][frame]).as_matrix().T + arrays["Th"][frame]
        wanted = wanted @ np.transpose(axes)
        for form in (sequence, folded):
            world = apply_transforms(
                forward_kinematics(form.pose(frame).joints, joints, PARENTS.tolist()), joints
            )
            placed = world[:22] @ form.pose(frame).rotation.T + form.pose(frame).translation
            np.testing.assert_allclose(placed, wanted, atol=1e-5)
    assert np.abs(sequence.translations - folded.translations).max() > 0.1, "the pelvis must matter"


def test_a_captures_easymocap_parameters_stand_about_its_shaped_pelvis(tmp_path, synthetic_body):
    arrays, hands = easymocap(synthetic_body)
    path = saved(tmp_path, arrays)
    params = read_smpl_params(path, model_file=synthetic_body)
    pelvis = load_body(synthetic_body, arrays["shapes"]).joints[0].numpy()
    turns = Rotation.from_rotvec(arrays["Rh"]).as_matrix()
    np.testing.assert_allclose(params.translations, arrays["Th"] + turns @ pelvis - pelvis, atol=1e-5)
    assert_same_rotations(params.poses[:, :3], arrays["Rh"])
    np.testing.assert_allclose(params.poses[:, HANDS_POSE], hands, atol=1e-5)
    np.testing.assert_allclose(params.betas, arrays["shapes"][0], atol=1e-6)
    with pytest.raises(ValueError, match="the pelvis, whose place the model tells; give its file"):
        read_smpl_params(path)
    with pytest.raises(ValueError, match="no such file"):
        read_smpl_params(path, model_file=tmp_path / "none.npz")


FACE = {
    "jaw_pose": ({**PARTS, "jaw_pose": 0.1 + ZERO3}, 0.1),
    "in one array": ({"poses": np.concatenate([POSES[:, :66], 0.1 + ZERO3, POSES[:, 69:]], 1), "trans": TRANSL}, 0.1),
    "AMASS parts": ({"root_orient": ROOT, "pose_body": BODY, "pose_jaw": 0.1 + ZERO3, "trans": TRANSL}, 0.1),
    "EasyMocap": (
        {"poses": np.concatenate([POSES[:, :66], np.zeros((FRAMES, 12)), 0.1 + ZERO3, np.ones((FRAMES, 6))], 1),
         "Rh": ZERO3, "Th": TRANSL}, 0.1,
    ),
    "SMPL+H has none": ({"poses": SMPLH, "trans": TRANSL}, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ["expression", "expressions", "expr"])
@pytest.mark.parametrize("form", FACE)
def test_jaw_and_expression_are_read_where_they_are_asked_for(tmp_path, form, name):
    arrays, jaw = FACE[form]
    coefficients = np.random.default_rng(3).normal(size=(FRAMES, 16))
    path = saved(tmp_path, {**arrays, name: coefficients})
    with_face, without = read_motion(path, face=True), read_motion(path)
    np.testing.assert_allclose(with_face.poses[:, 66:69], jaw, atol=1e-6)
    np.testing.assert_allclose(with_face.expressions, coefficients[:, :10], atol=1e-6)
    assert not with_face.poses[:, 69:75].any() and not without.poses[:, 66:75].any()
    assert without.expressions is None and without.told.endswith(", expression not used")
    assert with_face.told.endswith(", jaw and expression" if jaw else ", expression")
    arrays = {**arrays, name: coefficients[:, :4]}
    assert len(read_motion(saved(tmp_path, arrays))) == FRAMES, "what is not asked for is not read"
    with pytest.raises(ValueError, match=rf"'{name}' has shape \(7, 4\), \(frames, 10\) is needed"):
        read_motion(path, face=True)


def test_clean_up_smooths_turns_and_their_places(tmp_path, synthetic_body):
    """A steady turn and walk has nothing to smooth; of a shaken one the means of three come out."""
    arrays, _ = easymocap(synthetic_body)
    arrays["Rh"] = np.linspace(0, 1, FRAMES)[:, None] * [0, 1.0, 0]
    arrays["Th"] = np.linspace(0, 1, FRAMES)[:, None] * [1.0, 0, 2.0]

    def read():
        return read_pose_file(saved(tmp_path, arrays), PoseOptions(clean_up="published"))

    steady = read()
    np.testing.assert_allclose(steady.turns, Rotation.from_rotvec(arrays["Rh"]).as_matrix(), atol=1e-6)
    np.testing.assert_allclose(steady.translations, arrays["Th"], atol=1e-6)
    arrays["Rh"][3, 1] += 0.3
    np.testing.assert_allclose(
        Rotation.from_matrix(read().turns[3]).as_rotvec(), arrays["Rh"][2:5].mean(0), atol=1e-3
    )


@pytest.mark.parametrize("width", [6, 12])
def test_hands_in_pca_coefficients(tmp_path, synthetic_body, width):
    coefficients = np.random.default_rng(2).normal(0, 1, (2, FRAMES, width))
    path = saved(tmp_path, PARTS | {"left_hand_pose": coefficients[0], "right_hand_pose": coefficients[1]})
    motion = read_motion(path, synthetic_body)
    with np.load(synthetic_body) as model:
        for side, where in enumerate((LEFT_HAND_POSE, RIGHT_HAND_POSE)):
            mean, components = model["hands_mean" + "lr"[side]], model["hands_components" + "lr"[side]]
            hand = mean + coefficients[side] @ components[:width]
            np.testing.assert_allclose(motion.poses[:, where], hand, atol=1e-5)
    assert f"hands of {width} PCA coefficients, the mean hand added" in motion.told
    flat = read_motion(path)
    assert not flat.poses[:, HANDS_POSE].any() and "left flat (they need the SMPL-X model file)" in flat.told
    with pytest.raises(ValueError, match=r"PCA coefficients.*no such file.*smpl_pkl_path.*--hands relaxed"):
        read_motion(path, tmp_path / "none.npz")
    assert not read_motion(path, tmp_path / "none.npz", hands=False).poses[:, HANDS_POSE].any()


def test_what_was_read_of_any_form_is_written_as_captures_have_it(tmp_path, synthetic_body):
    arrays, _ = easymocap(synthetic_body)
    arrays["expression"] = np.random.default_rng(4).normal(size=(FRAMES, 10))
    params = read_smpl_params(saved(tmp_path, arrays), face=True, model_file=synthetic_body)
    np.savez(tmp_path / "plain.npz", **smpl_params_arrays(params))
    again = read_smpl_params(tmp_path / "plain.npz", face=True)
    for name in ("betas", "poses", "translations", "expressions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(params, name))
