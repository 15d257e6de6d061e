"""Faults of smpl_params.npz: one line that names file, array and frame. Nothing is ever unpickled."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import assert_one_line, read_all
from small_capture import FRAMES, pose_arrays

from mmlphuman.capture.poses import read_smpl_params

POSES = "smpl_params.npz"


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def nan_from(frame: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[frame:, 1] = np.nan
        return array

    return change


POSE_FAULTS = {
    "array missing": ("left_hand_pose", None, ["'left_hand_pose' is missing"]),
    "betas missing": ("betas", None, ["'betas' is missing"]),
    "NaN": ("body_pose", nan_from(3), ["'body_pose'", "not finite", "frame 3"]),
    "too large for single precision": ("transl", lambda a: a * 1e300, ["'transl'", "not finite", "frame 0"]),
    "NaN in betas": ("betas", lambda a: a * np.nan, ["'betas'", "not finite"]),
    "degrees": (
        "body_pose",
        lambda a: a * 0 + 90,
        ["'body_pose' turns joint 1", "frame 0", "are these degrees?"],
    ),
    "a shape that nobody has": ("betas", lambda a: a - 1e9, ["'betas' reaches 1e+09", "at most 100"]),
    "betas of 5": ("betas", lambda a: a[:, :5], ["'betas' has shape (1, 5)", "(1, 10)"]),
    "betas without rows": ("betas", lambda a: a[:0], ["'betas' has shape (0, 10)"]),
    "betas of three dimensions": ("betas", lambda a: a[None], ["'betas' has shape (1, 1, 10)"]),
    "betas a number": ("betas", lambda a: np.float32(1), ["'betas' has shape ()"]),
    "body pose of 22 joints": (
        "body_pose",
        lambda a: np.zeros((FRAMES, 66)),
        ["'body_pose'", "(6, 66)", "63"],
    ),
    "a hand as PCA": ("right_hand_pose", lambda a: a[:, :12], ["'right_hand_pose'", "(6, 12)", "45"]),
    "transposed": ("transl", lambda a: a.T, ["'transl'", "(3, 6)"]),
    "one-dimensional": ("transl", lambda a: a[:, 0], ["'transl'", "(6,)"]),
    "a number": ("transl", lambda a: np.float32(0), ["'transl'", "()"]),
    "unequal frame counts": ("global_orient", lambda a: a[:4], ["'global_orient' has 4 frames", "has 6"]),
    "no frames": ("transl", lambda a: a[:0], ["'transl' holds no frames"]),
    "text": ("transl", lambda a: a.astype(str), ["'transl' is not numeric"]),
    "complex numbers": ("transl", lambda a: a.astype(complex), ["'transl' is not numeric"]),
    "true and false": ("body_pose", lambda a: a > 0, ["'body_pose' holds true and false"]),
    "dates": ("transl", lambda a: a.astype("datetime64[s]"), ["'transl' is not numeric"]),
    "records": (
        "transl",
        lambda a: a.view([("x", "f4"), ("y", "f4"), ("z", "f4")]),
        ["'transl' is not numeric"],
    ),
}


@pytest.mark.parametrize("fault", POSE_FAULTS)
def test_fault_in_the_poses(capture_of, fault):
    key, change, names = POSE_FAULTS[fault]
    root = capture_of("thuman4")
    arrays = pose_arrays()
    original = arrays.pop(key)
    if change is not None:
        with np.errstate(over="ignore"):
            arrays[key] = change(original.astype(np.float64) if "precision" in fault else original)
    np.savez(root / POSES, **arrays)
    assert_one_line(root, [POSES, *names])


@pytest.mark.parametrize("key", ["betas", "transl"])
def test_object_arrays_are_never_unpickled(capture_of, tmp_path, key):
    root = capture_of("avatarrex")
    canary = Canary(tmp_path / "canary")
    pickle.loads(pickle.dumps(canary))
    assert canary.path.exists(), "the canary must sing when it is unpickled"
    canary.path.unlink()
    np.savez(root / POSES, **pose_arrays() | {key: np.array([canary], object)})
    assert_one_line(root, [POSES, f"'{key}'", "pickled objects"])
    assert not canary.path.exists()
    # One that nobody asked for does not matter; it is not unpickled either.
    np.savez(root / POSES, **pose_arrays(), comment=np.array([canary], object))
    assert read_all(root) and not canary.path.exists()
    (root / POSES).write_bytes(pickle.dumps(canary))
    assert_one_line(root, [POSES, "pickle", "never opened"])
    assert not canary.path.exists()


def test_unusable_pose_file(capture_of):
    root = capture_of("avatarrex")
    path = root / POSES
    whole = path.read_bytes()
    for data in (b"", b"text", b"PK\x03\x04", whole[: len(whole) // 2], whole[1000:]):
        path.write_bytes(data)
        assert_one_line(root, [POSES])
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_one_line(root, [POSES, "'poses' has shape (3,)"])
    path.unlink()
    assert_one_line(root, [POSES, "no such file"])
    path.mkdir()
    assert_one_line(root, [POSES])


def test_array_that_claims_more_memory_than_there_is(capture_of):
    root = capture_of("avatarrex")
    np.savez(root / POSES, **pose_arrays())
    with zipfile.ZipFile(root / POSES) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["transl.npy"] = np.lib.format.magic(1, 0) + _header("(1234567890123, 3)")
    with zipfile.ZipFile(root / POSES, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert_one_line(root, [POSES, "array 'transl'", "does not fit"])


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return len(text).to_bytes(2, "little") + text.encode()


def test_random_damage_to_the_pose_file_is_either_harmless_or_said(capture_of):
    root = capture_of("avatarrex")
    path = root / POSES
    np.savez_compressed(path, **pose_arrays())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    said = 0
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_smpl_params(path)
        except ValueError as error:
            said += 1
            assert POSES in str(error) and "\n" not in str(error)
    assert said > 75


def test_more_shape_numbers_than_used_are_said(capture_of, caplog):
    root = capture_of("thuman4")
    betas = np.random.default_rng(1).normal(size=(1, 300)).astype(np.float32)
    np.savez(root / POSES, **pose_arrays() | {"betas": betas})
    np.testing.assert_array_equal(read_smpl_params(root / POSES).betas, betas[0, :10])
    assert POSES in caplog.text and "'betas' has 300 numbers, the first 10 are used" in caplog.text


def test_shape_that_changes_between_frames_is_said(capture_of, caplog):
    root = capture_of("thuman4")
    betas = np.repeat(pose_arrays()["betas"], FRAMES, 0)
    np.savez(root / POSES, **pose_arrays() | {"betas": betas})
    read_smpl_params(root / POSES)
    assert not caplog.text, "the same in every frame is nothing to talk about"
    betas[3, 2] += 1
    np.savez(root / POSES, **pose_arrays() | {"betas": betas})
    np.testing.assert_array_equal(read_smpl_params(root / POSES).betas, betas[0])
    assert POSES in caplog.text and "'betas' differs between its 6 rows, the first is used" in caplog.text


@pytest.mark.parametrize("numbers", [50, 100])
def test_more_numbers_of_expression_than_used_are_said(capture_of, caplog, numbers):
    root = capture_of("thuman4")
    expression = np.random.default_rng(1).normal(size=(FRAMES, numbers)).astype(np.float32)
    np.savez(root / POSES, **pose_arrays() | {"expression": expression})
    np.testing.assert_array_equal(read_smpl_params(root / POSES, face=True).expressions, expression[:, :10])
    assert f"'expression' has {numbers} numbers a frame, the first 10 are used" in caplog.text
    assert POSES in caplog.text


def test_a_file_without_face_has_none(capture_of, caplog):
    root = capture_of("thuman4")
    arrays = {key: value for key, value in pose_arrays().items() if key not in ("jaw_pose", "expression")}
    np.savez(root / POSES, **arrays)
    params = read_smpl_params(root / POSES, face=True)
    assert params.expressions is None and not params.poses[:, 66:75].any() and not caplog.text


@pytest.mark.parametrize(
    ("key", "array", "words"),
    [
        (
            "expression",
            np.zeros((FRAMES, 9)),
            f"'expression' has shape ({FRAMES}, 9), (frames, 10) is needed",
        ),
        ("expression", np.zeros(10), "'expression' has shape (10,), (frames, 10) is needed"),
        ("expression", np.zeros((FRAMES + 1, 50)), f"'expression' has {FRAMES + 1} frames but 'transl' has"),
        ("expression", np.full((FRAMES, 10), np.nan), "'expression' holds numbers that are not finite"),
        ("expression", np.array(["smile"] * FRAMES), "'expression' is not numeric"),
        ("jaw_pose", np.zeros((FRAMES, 5)), f"'jaw_pose' has shape ({FRAMES}, 5); (frames, 3) is needed"),
    ],
)
def test_a_damaged_face_is_one_line_where_it_is_asked_for(capture_of, key, array, words):
    path = capture_of("thuman4") / POSES
    np.savez(path, **pose_arrays() | {key: array})
    with pytest.raises(ValueError) as caught:
        read_smpl_params(path, face=True)
    assert words in str(caught.value) and POSES in str(caught.value) and "\n" not in str(caught.value)
    assert len(read_smpl_params(path)) == FRAMES, "nobody looks at it else"
