"""Pose files to animate: what is taken from each format, options, clean-up, and one line for every fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.pose_file import UP_ROTATIONS, PoseOptions, clean_up_published, read_pose_file
from mmlphuman.body.kinematics import apply_transforms, forward_kinematics
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.pose_layout import (
    BODY_POSE,
    HANDS_POSE,
    LEFT_COLLAR,
    LEFT_HAND_POSE,
    LEFT_WRIST,
    NECK,
    RIGHT_COLLAR,
    RIGHT_HAND_POSE,
    RIGHT_WRIST,
)
from mmlphuman.synthetic.skeleton import HEAD, PARENTS, PELVIS, rest_joints

FRAMES = 9
REST = torch.from_numpy(rest_joints()).float()


class Pickled:
    """What numpy stores as a pickled object."""


def amass(width: int = 156) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "poses": rng.normal(0, 0.3, (FRAMES, width)),
        "trans": rng.normal(0, 1, (FRAMES, 3)),
        "mocap_framerate": np.array(120.0),
        # AMASS holds these too; never read.
        "gender": np.array("neutral"),
        "betas": np.full(16, np.nan),
        "dmpls": np.array([Pickled()], object),
    }


def smpl_params() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "transl": 3}
    return {key: rng.normal(0, 0.3, (FRAMES, size)).astype(np.float32) for key, size in sizes.items()}


def model_poses() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    poses = rng.normal(0, 0.3, (FRAMES, 165)).astype(np.float32)
    return {
        "frames": 100 + 3 * np.arange(FRAMES),
        "betas": np.zeros(10),
        "poses": poses,
        "translations": rng.normal(0, 1, (FRAMES, 3)).astype(np.float32),
    }


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "motion.npz", **arrays)
    return folder / "motion.npz"


def still(folder: Path, **joints: tuple[float, float, float]) -> Path:
    """FRAMES frames of the T-pose but for some joints: root=(x, y, z) or joint12=(x, y, z)."""
    arrays = amass(165)
    arrays["poses"][:] = 0
    for name, vector in joints.items():
        joint = 0 if name == "root" else int(name.removeprefix("joint"))
        arrays["poses"][:, 3 * joint : 3 * joint + 3] = vector
    return saved(folder, arrays)


def posed_joints(pose: torch.Tensor) -> torch.Tensor:
    """(55, 3) where a (165,) pose takes the joints of a T-posed skeleton."""
    transforms = forward_kinematics(pose, REST, PARENTS.tolist())
    return apply_transforms(transforms, REST)


# --- what is read -------------------------------------------------------------------------------------------


def test_smpl_params_are_read_as_for_a_capture_and_need_no_shape(tmp_path):
    arrays = smpl_params()
    sequence = read_pose_file(saved(tmp_path, arrays))
    path = saved(tmp_path, arrays | {"betas": np.zeros((1, 10))})
    params = read_smpl_params(path)
    np.testing.assert_array_equal(sequence.poses, params.poses)
    np.testing.assert_array_equal(sequence.translations, params.translations)
    assert sequence.fps is None and sequence.source == str(path)
    for value, wanted in zip(vars(sequence.pose(4)).values(), vars(params.pose(4)).values(), strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("numbers", [10, 50])
@pytest.mark.parametrize("kind", ["smpl_params", "amass", "smplh", "model"])
def test_the_face_is_read_where_it_is_asked_for(tmp_path, kind, numbers, caplog):
    arrays = {
        "smpl_params": smpl_params, "amass": lambda: amass(165), "smplh": amass, "model": model_poses
    }[kind]()  # fmt: skip
    expression = np.random.default_rng(3).normal(size=(FRAMES, numbers)).astype(np.float32)
    jaw = arrays["poses"][:, 66:69] if kind in ("amass", "model") else np.zeros((FRAMES, 3))
    if kind == "smpl_params":
        arrays["jaw_pose"] = jaw = np.full((FRAMES, 3), 0.2, np.float32)
    path = saved(tmp_path, arrays | {"expression": expression})
    plain = read_pose_file(path)
    assert plain.expressions is None and not plain.poses[:, 66:75].any() and not caplog.text
    assert not plain.pose(1).expression.any()
    sequence = read_pose_file(path, PoseOptions(face=True, begin=2, stride=3))
    np.testing.assert_allclose(sequence.poses[:, 66:69], jaw[2::3], rtol=1e-6)
    assert not sequence.poses[:, 69:75].any(), "the eyes"
    np.testing.assert_array_equal(sequence.expressions, expression[2::3, :10])
    np.testing.assert_array_equal(sequence.pose(1).expression.numpy(), expression[5, :10])
    assert ("the first 10 are used" in caplog.text) == (numbers > 10)
    without = read_pose_file(saved(tmp_path, arrays), PoseOptions(face=True))
    assert without.expressions is None and not without.pose(0).expression.any()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((FRAMES, 5)), ["'expression'", f"({FRAMES}, 5)", "(frames, 10)"]),
        (np.zeros((4, 10)), ["'expression'", "4 frames"]),
        (np.full((FRAMES, 10), 101.0), ["'expression'", "101", "frame 0", "at most 100"]),
    ],
)
@pytest.mark.parametrize("make", [smpl_params, amass, model_poses])
def test_fault_in_an_expression(tmp_path, make, array, words):
    path = saved(tmp_path, make() | {"expression": array})
    with pytest.raises(ValueError) as caught:
        read_pose_file(path, PoseOptions(face=True))
    assert_one_line(caught, path, words)


@pytest.mark.parametrize("width", [156, 165])
def test_amass_parts_go_where_they_belong(tmp_path, width):
    arrays = amass(width)
    sequence = read_pose_file(saved(tmp_path, arrays))
    raw = arrays["poses"].astype(np.float32)
    np.testing.assert_array_equal(sequence.poses[:, :66], raw[:, :66])
    np.testing.assert_array_equal(sequence.poses[:, 66:75], 0)
    np.testing.assert_array_equal(sequence.poses[:, LEFT_HAND_POSE], raw[:, width - 90 : width - 45])
    np.testing.assert_array_equal(sequence.poses[:, RIGHT_HAND_POSE], raw[:, width - 45 :])
    np.testing.assert_array_equal(sequence.translations, arrays["trans"].astype(np.float32))
    assert sequence.poses.dtype == sequence.translations.dtype == sequence.rotation.dtype == np.float32


def test_frame_rate_in_both_spellings_or_absent_and_by_stride(tmp_path):
    arrays = amass()
    assert read_pose_file(saved(tmp_path, arrays), PoseOptions(stride=4)).fps == 30
    arrays["mocap_frame_rate"] = arrays.pop("mocap_framerate")[None].astype(np.int64)
    assert read_pose_file(saved(tmp_path, arrays)).fps == 120
    del arrays["mocap_frame_rate"]
    assert read_pose_file(saved(tmp_path, arrays)).fps is None


def test_poses_of_a_model_folder_keep_their_frame_numbers(tmp_path):
    arrays = model_poses()
    sequence = read_pose_file(saved(tmp_path, arrays), PoseOptions(begin=2, count=3, stride=2))
    np.testing.assert_array_equal(sequence.frames, [106, 112, 118])
    np.testing.assert_array_equal(sequence.translations, arrays["translations"][[2, 4, 6]])
    np.testing.assert_array_equal(sequence.poses[:, BODY_POSE], arrays["poses"][[2, 4, 6], BODY_POSE])


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "count", "stride", "frames"),
    [(0, None, 1, range(9)), (3, None, 2, [3, 5, 7]), (8, 1, 5, [8]), (0, 3, 4, [0, 4, 8])],
)
def test_frame_range(tmp_path, begin, count, stride, frames):
    path = saved(tmp_path, amass())
    sequence = read_pose_file(path, PoseOptions(begin=begin, count=count, stride=stride))
    np.testing.assert_array_equal(sequence.frames, list(frames))
    np.testing.assert_array_equal(sequence.poses, read_pose_file(path).poses[list(frames)])
    assert len(sequence) == len(frames)


@pytest.mark.parametrize("up", UP_ROTATIONS)
def test_the_named_axis_becomes_up_by_a_proper_rotation(tmp_path, up):
    rotation = read_pose_file(saved(tmp_path, amass()), PoseOptions(up=up)).rotation
    axis = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    np.testing.assert_array_equal(rotation @ axis, [0, 1, 0])
    np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_a_person_who_stands_in_a_z_up_world_stands_upright(tmp_path):
    path = still(tmp_path, root=(np.pi / 2, 0, 0))  # y of the body to z of the world
    pose = read_pose_file(path, PoseOptions(up="z")).pose(0)
    world = posed_joints(pose.joints) @ pose.rotation.T + pose.translation
    upright = world[HEAD] - world[PELVIS]
    torch.testing.assert_close(upright, REST[HEAD] - REST[PELVIS], atol=1e-5, rtol=0)
    trans = amass(165)["trans"][0]
    torch.testing.assert_close(pose.translation, torch.tensor([trans[0], trans[2], -trans[1]]).float())


def test_without_translation_the_person_stays_at_the_origin(tmp_path):
    sequence = read_pose_file(saved(tmp_path, amass()), PoseOptions(translation=False, up="z"))
    assert not sequence.translations.any() and not sequence.pose(3).translation.any()


@pytest.mark.parametrize(("units", "factor"), [("m", 1), ("cm", 100), ("mm", 1000)])
def test_units_of_translations(tmp_path, units, factor):
    """Those of another unit are doubted by how far away the person is at first, unless the unit is said."""
    arrays = amass()
    arrays["trans"] = arrays["trans"] * 0.2 + [0, 0.9, 0]
    metres = arrays["trans"].copy()
    arrays["trans"] *= factor
    path = saved(tmp_path, arrays)
    sequence = read_pose_file(path, PoseOptions(units=units))
    np.testing.assert_allclose(sequence.translations, metres, atol=1e-5)
    if units != "m":
        with pytest.raises(ValueError) as caught:
            read_pose_file(path)
        assert_one_line(caught, path, ["'trans' lies", "in frame", "--units cm", "--units mm"])
        assert ("--units m if" in str(caught.value)) == (units == "cm"), "which would be refused as well"


def test_a_person_who_walks_far_is_no_fault_and_one_far_away_can_be_meant(tmp_path):
    arrays = amass()
    arrays["trans"] = np.linspace(0, 3.5, FRAMES)[:, None] * [10.0, 0, 0]
    assert read_pose_file(saved(tmp_path, arrays), PoseOptions(units="m")).translations.max() == 35
    assert "--units cm" in read_pose_file(saved(tmp_path, arrays)).doubts[-1]  # over 4 m from frame to frame
    arrays["trans"] = arrays["trans"] / 100 + [50, 0, 0]
    assert read_pose_file(saved(tmp_path, arrays), PoseOptions(units="m")).translations.min() == 0
    with pytest.raises(ValueError, match="--units"):
        read_pose_file(saved(tmp_path, arrays))


UP_OF = {"y": (0, 0, 0), "-y": (np.pi, 0, 0), "z": (np.pi / 2, 0, 0), "-z": (-np.pi / 2, 0, 0), "x": (0, 0, -np.pi / 2),
         "-x": (0, 0, np.pi / 2)}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("up", UP_ROTATIONS)
def test_a_person_who_lies_is_told_of_with_the_axis_that_stands_it_up(tmp_path, up, turned):
    """Whether the root is turned or EasyMocap's Rh."""
    root = UP_OF[up]
    path = still(tmp_path, root=root)
    if turned:
        arrays = {
            "poses": np.zeros((FRAMES, 72)),
            "Rh": np.tile(root, (FRAMES, 1)),
            "Th": np.zeros((FRAMES, 3)),
        }
        path = saved(tmp_path, arrays)
    assert not [doubt for doubt in read_pose_file(path, PoseOptions(up=up)).doubts if "--up" in doubt]
    for other in {"y", "z", "-x"} - {up}:
        (doubt, *_) = read_pose_file(path, PoseOptions(up=other)).doubts
        assert f"try --up={up}" in doubt and f"--up is {other};" in doubt and "in 100%" in doubt
        assert ("head" in doubt) == (other[-1] == up[-1])


def test_who_tumbles_or_bends_is_not_said_to_lie(tmp_path):
    assert not [
        doubt for doubt in read_pose_file(still(tmp_path, root=(0.9, 0, 0))).doubts if "--up" in doubt
    ]
    arrays = amass(165)
    arrays["poses"][:, :3] = np.linspace(0, 6, FRAMES)[:, None] * [1.0, 0, 0]
    assert not [doubt for doubt in read_pose_file(saved(tmp_path, arrays)).doubts if "--up" in doubt]


@pytest.mark.parametrize("hands", ["relaxed", "fist"])
def test_named_hands_replace_the_files_in_every_frame(tmp_path, hands):
    path = saved(tmp_path, amass())
    plain, replaced = read_pose_file(path), read_pose_file(path, PoseOptions(hands=hands))
    np.testing.assert_array_equal(replaced.poses[:, : HANDS_POSE.start], plain.poses[:, : HANDS_POSE.start])
    assert (replaced.poses[:, HANDS_POSE] == replaced.poses[0, HANDS_POSE]).all()
    assert not np.allclose(replaced.poses[:, HANDS_POSE], plain.poses[:, HANDS_POSE])


# --- clean-up -----------------------------------------------------------------------------------------------


def test_clean_up_changes_the_named_joints_only(tmp_path):
    path = still(tmp_path, joint12=(0.4, 0.1, 0.2), joint20=(0.3, 0.3, 0.3), joint21=(0.2, 0.2, 0.2))
    cleaned = read_pose_file(path, PoseOptions(clean_up="published")).poses.reshape(-1, 55, 3)
    wanted = np.zeros((FRAMES, 55, 3))
    wanted[:, NECK] = (0, 0.1, 0.2)
    wanted[:, LEFT_COLLAR, 2], wanted[:, RIGHT_COLLAR, 2] = 0.25, -0.25
    np.testing.assert_allclose(cleaned, wanted, atol=1e-6)
    assert (LEFT_WRIST, RIGHT_WRIST) == (20, 21)


def test_clean_up_lifts_both_arms_alike(tmp_path):
    joints = read_pose_file(still(tmp_path), PoseOptions(clean_up="published")).pose(0).joints
    lift = (posed_joints(joints) - REST)[[LEFT_WRIST, RIGHT_WRIST]]
    assert (lift[:, 1] > 0.1).all()
    torch.testing.assert_close(lift[0], lift[1] * torch.tensor([-1.0, 1, 1]), atol=1e-4, rtol=0)


def test_clean_up_averages_three_frames_and_keeps_the_ends(tmp_path):
    arrays = amass()
    arrays["poses"] *= 0.1  # small rotations: their mean is the mean of their numbers
    path = saved(tmp_path, arrays)
    plain, cleaned = read_pose_file(path), read_pose_file(path, PoseOptions(clean_up="published"))
    np.testing.assert_allclose(cleaned.translations[4], plain.translations[3:6].mean(0), atol=1e-6)
    knee = slice(12, 15)
    np.testing.assert_allclose(cleaned.poses[4, knee], plain.poses[3:6, knee].mean(0), atol=1e-3)
    for end in (0, -1):
        np.testing.assert_array_equal(cleaned.poses[end, knee], plain.poses[end, knee])
        np.testing.assert_array_equal(cleaned.translations[end], plain.translations[end])
    strided = read_pose_file(path, PoseOptions(clean_up="published", begin=1, stride=3))
    np.testing.assert_array_equal(strided.poses, cleaned.poses[1::3])


def test_averaging_goes_through_half_a_turn_without_facing_back():
    yaw = np.deg2rad(np.arange(150, 215, 5.0))
    poses = np.zeros((len(yaw), 165))
    poses[:, :3] = Rotation.from_rotvec(yaw[:, None] * [0, 1, 0]).as_rotvec()
    assert np.abs(np.diff(poses[:, 1])).max() > 6, "the numbers must jump"
    cleaned, _ = clean_up_published(poses, np.zeros((len(yaw), 3)))
    turned = Rotation.from_rotvec(cleaned[:, :3]) * Rotation.from_rotvec(poses[:, :3]).inv()
    np.testing.assert_allclose(turned.magnitude(), 0, atol=1e-6)


def test_averaging_keeps_numbers_beyond_half_a_turn():
    poses = np.zeros((5, 165))
    poses[:, 3:6] = [0, 3.5, 0]
    poses[:, 6:9] = [0, 0, -4.0]
    cleaned, _ = clean_up_published(poses, np.zeros((5, 3)))
    np.testing.assert_allclose(cleaned[:, 3:9], poses[:, 3:9], atol=1e-9)


@pytest.mark.parametrize("frames", [1, 2])
def test_clean_up_of_very_short_files(tmp_path, frames):
    arrays = amass()
    arrays |= {key: arrays[key][:frames] for key in ("poses", "trans")}
    assert len(read_pose_file(saved(tmp_path, arrays), PoseOptions(clean_up="published"))) == frames


# --- faults -------------------------------------------------------------------------------------------------


def put(key: str, frame: int, value: float):
    def change(arrays: dict) -> None:
        arrays[key] = np.array(arrays[key], np.float64)
        arrays[key][frame, -1] = value

    return change


def replace_with(key: str, value):
    return lambda arrays: arrays.update({key: np.asarray(value)})


def without(*keys: str):
    return lambda arrays: [arrays.pop(key) for key in keys]


FAULTS = {
    "no body's": (amass, replace_with("poses", np.zeros((FRAMES, 90))), ["'poses'", "(9, 90)", "165", "156"]),
    "by joint": (amass, replace_with("poses", np.zeros((FRAMES, 54, 3))), ["'poses'", "(9, 54, 3)", "165"]),
    "one pose": (amass, replace_with("poses", np.zeros(165)), ["'poses' has 1 frames", "'trans' has 9"]),
    "a number": (amass, replace_with("poses", 1.0), ["'poses'", "()"]),
    "no frames": (amass, lambda a: a.update(poses=a["poses"][:0], trans=a["trans"][:0]), ["no frames"]),
    "NaN pose": (amass, put("poses", 3, np.nan), ["'poses'", "not finite", "frame 3"]),
    "infinite trans": (amass, put("trans", 2, -np.inf), ["'trans'", "not finite", "frame 2"]),
    "too large": (amass, put("trans", 0, 1e300), ["'trans'", "not finite", "frame 0"]),
    "huge pose": (amass, put("poses", 5, 1e30), ["'poses'", "frame 5", "radians", "12.57"]),
    "degrees": (amass, put("poses", 5, 90), ["'poses' turns joint 54", "90", "frame 5", "degrees"]),
    "millimetres": (amass, put("trans", 4, 1500), ["'trans'", "1500", "frame 4", "metres"]),
    "trans missing": (amass, without("trans"), ["'transl' is missing", "or trans", "--no_translation"]),
    "no poses": (amass, without("poses"), ["holds no poses", "trans", "smpl_params.npz", "AMASS"]),
    "nothing": (dict, lambda a: None, ["holds no poses", "nothing", "AMASS"]),
    "lengths": (amass, lambda a: a.update(trans=a["trans"][:4]), ["'poses' has 9 frames", "'trans' has 4"]),
    "trans of 4": (amass, replace_with("trans", np.zeros((FRAMES, 4))), ["'trans'", "(9, 4)", "(frames, 3)"]),
    "text": (amass, replace_with("poses", [["a"] * 156] * FRAMES), ["'poses' is not numeric"]),
    "true": (amass, replace_with("poses", np.ones((FRAMES, 156), bool)), ["'poses' holds true and false"]),
    "pickled": (
        amass,
        replace_with("poses", np.array([Pickled()], object)),
        ["'poses' cannot be read", "pickled"],
    ),
    "rate zero": (amass, replace_with("mocap_framerate", 0.0), ["'mocap_framerate'", "positive"]),
    "rate NaN": (amass, replace_with("mocap_framerate", np.nan), ["'mocap_framerate'", "positive"]),
    "two rates": (amass, replace_with("mocap_framerate", [30.0, 60.0]), ["'mocap_framerate'", "one"]),
    "rate as text": (amass, replace_with("mocap_framerate", "30"), ["'mocap_framerate' is not numeric"]),
    "no hands": (smpl_params, without("left_hand_pose"), ["'left_hand_pose' is missing"]),
    "no root": (smpl_params, without("global_orient"), ["'global_orient' is missing"]),
    "body of 22": (
        smpl_params,
        replace_with("body_pose", np.zeros((9, 66))),
        ["'body_pose'", "(9, 66)", "63"],
    ),
    "hand NaN": (smpl_params, put("right_hand_pose", 8, np.nan), ["'right_hand_pose'", "frame 8"]),
    "hand in degrees": (
        smpl_params,
        put("right_hand_pose", 8, 45),
        ["'right_hand_pose'", "frame 8", "degrees"],
    ),
    "transl far": (smpl_params, put("transl", 8, 1e6), ["'transl'", "1e+06", "frame 8"]),
    "numbers of frames": (model_poses, replace_with("frames", np.arange(4)), ["'frames'", "(4,)", "(9,)"]),
    "half frames": (model_poses, replace_with("frames", np.arange(9) / 2), ["'frames'", "float64", "whole"]),
}


def assert_one_line(caught, path: Path, names: list[str]) -> None:
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400 and str(path) in text, text
    for name in names:
        assert name in text, f"{name!r} is not in: {text}"


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_a_pose_file(tmp_path, fault):
    make, change, names = FAULTS[fault]
    arrays = make()
    change(arrays)
    path = saved(tmp_path, arrays)
    with pytest.raises(ValueError) as caught:
        read_pose_file(path)
    assert_one_line(caught, path, names)


def test_what_is_no_npz(tmp_path):
    path = tmp_path / "motion.npz"
    with pytest.raises(FileNotFoundError) as caught:
        read_pose_file(path)
    assert_one_line(caught, path, ["no such file"])
    whole = saved(tmp_path, amass()).read_bytes()
    for data in (b"", b"not numbers", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(ValueError) as caught:
            read_pose_file(path)
        assert_one_line(caught, path, ["not a readable npz file"])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"begin": 9}, ["begin: 9", "0 to 8"]),
        ({"count": 10}, ["count: 10", "0 to 8", "9 are possible"]),
        ({"begin": 4, "count": 4, "stride": 2}, ["count: 4", "from 4", "steps of 2", "3 are possible"]),
    ],
)
def test_range_outside_the_file(tmp_path, options, names):
    path = saved(tmp_path, amass())
    with pytest.raises(ValueError) as caught:
        read_pose_file(path, PoseOptions(**options))
    assert_one_line(caught, path, names)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("begin", value) for value in (-1, 0.5, True, None)),
        *(("count", value) for value in (0, -3, "all")),
        *(("stride", value) for value in (0, -1, None)),
        *(("up", value) for value in ("Y", "+z", "up", 2)),
        *(("clean_up", value) for value in ("", "all", True)),
        *(("hands", value) for value in ("open", None)),
        *(("units", value) for value in ("inch", 1)),
    ],
)
def test_impossible_option(option, value):
    with pytest.raises(ValueError, match=f"^{option}: .*{value!r}".replace("+", r"\+")):
        PoseOptions(**{option: value})
