"""Files that hold no motion, or one that cannot be used: one line that says what is wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from mmlphuman.body.kinematics import apply_transforms, forward_kinematics
from mmlphuman.poses.motion_file import read_motion
from mmlphuman.synthetic.skeleton import PARENTS, rest_joints
from tests.poses.motions import (
    FRAMES,
    HANDS,
    LEFT,
    NO_HANDS,
    PARTS,
    POSES,
    ROOT,
    SMPL,
    TRANSL,
    matrices,
    quaternions,
    saved,
)


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
