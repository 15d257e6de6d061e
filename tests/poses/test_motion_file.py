"""Poses in the forms that people have: each is read as what it is, or refused in one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.body.kinematics import apply_transforms, forward_kinematics
from mmlphuman.body.smplx_model import load_body
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params, smpl_params_arrays
from mmlphuman.pose_layout import HANDS_POSE, LEFT_HAND_POSE, RIGHT_HAND_POSE
from mmlphuman.poses.motion_file import read_motion
from mmlphuman.synthetic.skeleton import PARENTS, rest_joints

FRAMES = 7
RNG = np.random.default_rng(5)
POSES = RNG.normal(0, 0.25, (FRAMES, 165)).astype(np.float32)
POSES[:, 66:75] = 0  # jaw and eyes, as they are read
TRANSL = RNG.normal(0, 0.3, (FRAMES, 3)).astype(np.float32)
ROOT, BODY = POSES[:, :3], POSES[:, 3:66]
LEFT, RIGHT = POSES[:, LEFT_HAND_POSE], POSES[:, RIGHT_HAND_POSE]
SMPLH = np.concatenate([POSES[:, :66], POSES[:, 75:]], 1)
SMPL = np.concatenate([POSES[:, :66], RNG.normal(0, 0.2, (FRAMES, 6))], 1)  # two hand joints at the end
NO_HANDS = np.concatenate([POSES[:, :66], np.zeros((FRAMES, 99))], 1)
ZERO3 = np.zeros((FRAMES, 3), np.float32)


def matrices(vectors: np.ndarray) -> np.ndarray:
    """(F, 3J) -> (F, J, 3, 3)."""
    turned = Rotation.from_rotvec(vectors.reshape(-1, 3).astype(np.float64)).as_matrix()
    return turned.reshape(len(vectors), -1, 3, 3)


def quaternions(vectors: np.ndarray, real_first: bool) -> np.ndarray:
    """(F, 3J) -> (F, J, 4)."""
    quats = Rotation.from_rotvec(vectors.reshape(-1, 3).astype(np.float64)).as_quat()  # real part last
    return (np.roll(quats, 1, -1) if real_first else quats).reshape(len(vectors), -1, 4)


def motion_x() -> np.ndarray:
    """(F, 322)"""
    columns = [ROOT, BODY, LEFT, RIGHT, ZERO3, np.zeros((FRAMES, 50 + 100)), TRANSL, np.zeros((FRAMES, 10))]
    return np.concatenate(columns, 1)


PARTS = {"global_orient": ROOT, "body_pose": BODY, "transl": TRANSL}
HANDS = {"left_hand_pose": LEFT, "right_hand_pose": RIGHT}
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


def saved(folder: Path, arrays: dict) -> Path:
    np.savez(folder / "motion.npz", **{key: np.asarray(array) for key, array in arrays.items()})
    return folder / "motion.npz"


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


# --- EasyMocap ----------------------------------------------------------------------------------------------


def easymocap(synthetic_body: Path) -> tuple[dict, np.ndarray]:
    """Its arrays, and the (F, 90) hands that its 6 + 6 coefficients mean."""
    rng = np.random.default_rng(11)
    coefficients = rng.normal(0, 0.5, (FRAMES, 12))
    with np.load(synthetic_body) as model:
        left = model["hands_meanl"] + coefficients[:, :6] @ model["hands_componentsl"][:6]
        right = model["hands_meanr"] + coefficients[:, 6:] @ model["hands_componentsr"][:6]
    head = rng.normal(0, 0.1, (FRAMES, 9))
    poses = np.concatenate([ZERO3, BODY, coefficients, head], 1)
    arrays = {"Rh": rng.normal(0, 1, (FRAMES, 3)), "Th": TRANSL, "poses": poses, "shapes": rng.normal(0, 1, (1, 10)),
              "expression": np.zeros((FRAMES, 10))}  # fmt: skip
    return arrays, np.concatenate([left, right], 1)


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


# --- JSON and folders ---------------------------------------------------------------------------------------


def entry(arrays: dict, frame: int, person: int = 0) -> dict:
    shared = ("shapes",)
    rows = {key: array[:1] if key in shared else array[frame : frame + 1] for key, array in arrays.items()}
    return {"id": person, **{key: row.tolist() for key, row in rows.items()}}


def test_easymocaps_folder_of_a_file_a_frame(tmp_path, synthetic_body):
    arrays, _ = easymocap(synthetic_body)
    whole = read_motion(saved(tmp_path, arrays), synthetic_body)
    folder = tmp_path / "smpl"
    folder.mkdir()
    for frame in range(FRAMES):
        (folder / f"{frame + 8:d}.json").write_text(
            json.dumps([entry(arrays, frame)])
        )  # 9, 10: not by the alphabet
    motion = read_motion(folder, synthetic_body)
    for name in ("poses", "translations", "turns"):
        np.testing.assert_allclose(getattr(motion, name), getattr(whole, name), atol=1e-6)
    np.testing.assert_array_equal(motion.frames, np.arange(8, 8 + FRAMES))
    assert f"poses of {folder}: EasyMocap SMPL-X, 7 frames" in motion.told
    single = read_motion(folder / "8.json", synthetic_body)
    np.testing.assert_allclose(single.poses, whole.poses[:1], atol=1e-6)
    with pytest.raises(ValueError, match="frame 0 is missing"):
        read_smpl_params(folder, model_file=synthetic_body)


@pytest.mark.parametrize("axis", [True, False])
def test_a_folder_of_npz_files(tmp_path, axis):
    """As estimators write them, frame_person; with or without an axis for the frame."""
    for frame in range(FRAMES):
        rows = {
            key: array[frame : frame + 1] if axis else array[frame] for key, array in (PARTS | HANDS).items()
        }
        np.savez(tmp_path / f"{frame:05d}_0.npz", **rows)
    (tmp_path / "picture.jpg").touch()
    motion = read_motion(tmp_path)
    np.testing.assert_array_equal(motion.poses, POSES)
    np.testing.assert_array_equal(motion.translations, TRANSL)
    np.testing.assert_array_equal(motion.frames, np.arange(FRAMES))
    np.savez(tmp_path / "00000_1.npz", **rows)
    with pytest.raises(ValueError, match="several persons"):
        read_motion(tmp_path)


@pytest.mark.parametrize("form", ["whole", "by number", "list", "annots", "groups"])
def test_json(tmp_path, form):
    frames = [{key: array[frame].tolist() for key, array in PARTS.items()} for frame in range(FRAMES)]
    content = {
        "whole": {**{key: array.tolist() for key, array in PARTS.items()}, "fps": 25, "note": "a", "tags": ["a", "b"]},
        "by number": {str(frame): content for frame, content in enumerate(frames)},
        "list": frames,
        "annots": {"annots": [{"id": 3, **content} for content in frames]},
        "groups": {"smplx": {key: array.tolist() for key, array in PARTS.items()}, "camera": {"f": [1, 2]}},
    }[form]  # fmt: skip
    (tmp_path / "motion.json").write_text(json.dumps(content))
    motion = read_motion(tmp_path / "motion.json")
    np.testing.assert_array_equal(motion.poses, NO_HANDS.astype(np.float32))
    np.testing.assert_array_equal(motion.translations, TRANSL)
    assert motion.fps == (25 if form == "whole" else None)


# --- refused ------------------------------------------------------------------------------------------------


def rigid_positions(joints: int = 22) -> np.ndarray:
    """(F, J, 3) where a person's joints are while it moves."""
    rest = torch.from_numpy(rest_joints()).float()
    transforms = (forward_kinematics(torch.from_numpy(pose), rest, PARENTS.tolist()) for pose in POSES)
    return np.stack([apply_transforms(moved, rest)[:joints].numpy() for moved in transforms])


def six_numbers(vectors: np.ndarray) -> np.ndarray:
    return matrices(vectors)[..., :2].reshape(len(vectors), -1, 6)


REFUSED = {
    "positions": ({"poses": rigid_positions(), "trans": TRANSL}, ["'poses' holds the joints' positions", "fit SMPL"]),
    "positions of 24": ({"poses": rigid_positions(24), "trans": TRANSL}, ["positions"]),
    "named positions": ({"joints3d": rigid_positions()}, ["'joints3d' holds the joints' positions"]),
    "HumanML3D's features": ({"poses": np.zeros((FRAMES, 263)), "trans": TRANSL}, ["(7, 263)", "HumanML3D"]),
    "6D": ({"poses": six_numbers(POSES), "trans": TRANSL}, ["'poses'", "6D", "rotation matrices"]),
    "6D flat": ({"poses": six_numbers(SMPL).reshape(FRAMES, -1), "trans": TRANSL}, ["(7, 144)", "6D"]),
    "no rotations": ({"poses": 2 * matrices(POSES), "trans": TRANSL}, ["no rotations", "frame 0"]),
    "mirrors": ({"poses": -matrices(POSES), "trans": TRANSL}, ["no rotations"]),
    "quaternions of no length": ({"poses": np.zeros((FRAMES, 55, 4)), "trans": TRANSL}, ["length 1", "frame 0"]),
    "quaternions that do not tell": (
        {"poses": np.full((FRAMES, 55, 4), 0.5), "trans": TRANSL}, ["quaternions", "first or last", "matrices"],
    ),
    "root quaternions alone": (
        PARTS | {"global_orient": quaternions(ROOT, True)}, ["'global_orient'", "quaternions", "first or last"],
    ),
    "persons": ({key: np.stack([array] * 3) for key, array in PARTS.items()}, ["3 persons", "save one's alone"]),
    "72 and 3 in one": ({"poses": np.zeros((FRAMES, 75)), "trans": TRANSL}, ["(7, 75)", "'poses' and 'trans'"]),
    "HMR's 85": ({"pose": np.zeros((FRAMES, 85)), "trans": TRANSL}, ["columns 3 to 75"]),
    "VPoser": (PARTS | {"body_pose": np.zeros((FRAMES, 32))}, ["'body_pose'", "VPoser", "63"]),
    "both": (PARTS | {"trans": TRANSL}, ["'transl' and 'trans'", "keep one"]),
    "two motions": ({f"{group}/{key}": array for group in "ab" for key, array in PARTS.items()}, ["motions, a, b"]),
    "one hand": (PARTS | {"left_hand_pose": LEFT}, ["'right_hand_pose' is missing", "both or none"]),
    "Th without Rh": ({"Th": TRANSL, "poses": SMPL}, ["'Rh' is missing", "EasyMocap"]),
    "hand of another length": (PARTS | {key: hand[:3] for key, hand in HANDS.items()}, ["'left_hand_pose' has 3"]),
    "scale": ({"smpl_poses": SMPL, "smpl_trans": TRANSL, "smpl_scaling": 0.0}, ["'smpl_scaling'", "positive"]),
    "camera": ({"w2c": np.eye(4), "fovx": 40.0}, ["holds no poses", "w2c, fovx", "AMASS", "EasyMocap"]),
}  # fmt: skip


def assert_one_line(error: BaseException, names: list[str], limit: int = 500) -> None:
    text = str(error)
    assert "\n" not in text and len(text) < limit, text
    for name in names:
        assert name in text, f"{name!r} is not in: {text}"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    arrays, names = REFUSED[case]
    path = saved(tmp_path, arrays)
    with pytest.raises(ValueError) as caught:
        read_motion(path)
    assert_one_line(caught.value, [str(path), *names])


def test_still_poses_are_no_positions(tmp_path):
    """Numbers that keep apart because nothing moves."""
    poses = np.repeat(np.arange(66, dtype=np.float32)[None] / 66, FRAMES, 0).reshape(FRAMES, 22, 3)
    assert len(read_motion(saved(tmp_path, {"poses": poses, "trans": TRANSL}))) == FRAMES


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, ["without .npz or .json"]),
        ({"a.txt": b"x"}, ["without .npz or .json"]),
        ({"0.json": b"[]", "0.npz": b"x"}, [".json and .npz", "keep one kind"]),
        ({"left.json": b"{}", "right.json": b"{}"}, ["names by frame number"]),
        ({"0.json": b"[]", "1.json": b"[]"}, ["0.json", "holds no poses"]),
        ({"a1.json": b"{}", "b1.json": b"{}"}, ["several files"]),
        ({"0.pkl": b"\x80\x04N."}, ["0.pkl", "pickle", "never opened"]),
    ],
)  # fmt: skip
def test_folders_that_are_refused(tmp_path, files, names):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError) as caught:
        read_motion(tmp_path)
    assert_one_line(caught.value, [str(tmp_path), *names], limit=1000)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[" * 900 + "]" * 900, ["holds no poses"]),
        ('{"poses": ' + "[" * 900 + "]" * 900 + "}", ["'poses' must be numbers"]),
        ("[" * 100_000, ["not readable as JSON"]),
        ('{"poses": [[1, 2], [3]], "trans": []}', ["'poses' must be numbers, in lists of equal length"]),
        ('{"poses": [["a"]], "trans": []}', ["'poses' must be numbers"]),
        ('{"poses": [[true]], "trans": []}', ["'poses' must be numbers"]),
        ("3", ["holds no poses"]),
        ("[]", ["holds no poses"]),
        ("{}", ["holds no poses"]),
        (
            '[{"id": 0, "poses": [[1]]}, {"id": 4, "poses": [[2]]}]',
            ["several ids (0, 4", "keep one person's"],
        ),
        ('[{"poses": [[1]]}, {"trans": [[2]]}]', ["entry 1: 'poses' is missing"]),
        (
            '[{"poses": [[1]]}, {"poses": [[1, 2]]}]',
            ["entry 1: 'poses' has shape (2,)", "entry 0 it has (1,)"],
        ),
    ],
)
def test_json_that_is_refused(tmp_path, text, names):
    (tmp_path / "motion.json").write_text(text)
    with pytest.raises(ValueError) as caught:
        read_motion(tmp_path / "motion.json")
    assert_one_line(caught.value, [str(tmp_path / "motion.json"), *names], limit=800)


# --- where they are used ------------------------------------------------------------------------------------


def test_what_was_read_of_any_form_is_written_as_captures_have_it(tmp_path, synthetic_body):
    arrays, _ = easymocap(synthetic_body)
    arrays["expression"] = np.random.default_rng(4).normal(size=(FRAMES, 10))
    params = read_smpl_params(saved(tmp_path, arrays), face=True, model_file=synthetic_body)
    np.savez(tmp_path / "plain.npz", **smpl_params_arrays(params))
    again = read_smpl_params(tmp_path / "plain.npz", face=True)
    for name in ("betas", "poses", "translations", "expressions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(params, name))


def test_a_capture_may_have_a_folder_or_json_of_poses(capture_of_poses):
    for form in ("smpl_params", "smpl_params.json"):
        root, arrays = capture_of_poses(form)
        layout = open_capture(root)
        assert layout.pose_path == root / form
        params = read_smpl_params(layout.pose_path)
        np.testing.assert_allclose(params.poses, NO_HANDS, atol=1e-6)
        assert "no hands in the file: flat" in params.told


@pytest.fixture
def capture_of_poses(tmp_path):
    def make(form: str):
        root = tmp_path / form.replace(".", "_")
        root.mkdir()
        camera = {"K": [80, 0, 32, 0, 80, 32, 0, 0, 1], "R": np.eye(3).ravel().tolist(), "T": [0, 0, 3],
                  "distCoeff": [0] * 5, "imgSize": [64, 64]}  # fmt: skip
        (root / "calibration.json").write_text(json.dumps({"cam0": camera}))
        arrays = {key: array.tolist() for key, array in PARTS.items()} | {"betas": [[0.0] * 10]}
        if form.endswith(".json"):
            (root / form).write_text(json.dumps(arrays))
        else:
            (root / form).mkdir()
            for frame in range(FRAMES):
                rows = {key: array if key == "betas" else [array[frame]] for key, array in arrays.items()}
                (root / form / f"{frame:06d}.json").write_text(json.dumps(rows))
        return root, arrays

    return make


PICKLED = {
    "torch.pt": "torch.save({k: torch.from_numpy(v) for k, v in d.items()}, f)",
    "nested.pt": 'torch.save({"smpl_params_global": d, "smpl_params_incam": d, "net": "x"}, f)',
    "legacy.pth": "torch.save(d, f, _use_new_zipfile_serialization=False)",
    "person.pkl": 'import pickle; pickle.dump({0: {**d, "note": None}}, open(f, "wb"))',
    "old.pickle": 'import pickle; pickle.dump(d, open(f, "wb"), protocol=0)',
    "object.npy": "np.save(f, d)",
}


@pytest.mark.parametrize("name", PICKLED)
def test_pickled_files_are_named_and_the_line_that_is_given_makes_an_npz(tmp_path, name):
    saved(tmp_path, PARTS)
    path = tmp_path / "it's there" / name
    path.parent.mkdir()
    exec(
        PICKLED[name], {"d": dict(np.load(tmp_path / "motion.npz")), "f": str(path), "torch": torch, "np": np}
    )
    with pytest.raises(ValueError) as caught:
        read_motion(path)
    assert_one_line(caught.value, [str(path), "never opened here"], limit=1500)
    command = "python -c " + str(caught.value).partition("python -c ")[2]
    subprocess.run(
        ["bash", "-c", command.replace("python", sys.executable, 1)], check=True, capture_output=True
    )
    motion = read_motion(f"{path}.npz")
    np.testing.assert_array_equal(motion.poses, NO_HANDS.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "beginning", "says"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "MATLAB"),
        ("mixamo.fbx", b"Kaydara FBX Binary  \x00", "retarget"),
        ("cmu.bvh", b"HIERARCHY\nROOT Hips", "retarget"),
        ("a.glb", b"glTF\x02\x00\x00\x00", "retarget"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path, name, beginning, says):
    (tmp_path / name).write_bytes(beginning)
    with pytest.raises(ValueError) as caught:
        read_motion(tmp_path / name)
    assert_one_line(caught.value, [str(tmp_path / name), says])
