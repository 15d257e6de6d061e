"""The synthetic capture's motion: what `smpl_params.npz` holds.

Data path: frame -> angles of a few activities -> SMPL-X axis-angle arrays. Frames 0..F-1 are the training part
(stepping, arm raises and bends, torso twists, squats, head turns, moderate turning of the whole body); frames
F..F+M-1 combine larger amplitudes in other ways and at other phases. Feet stay on the floor (y = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mmlphuman.body.kinematics import forward_kinematics
from mmlphuman.synthetic import skeleton as sk

BETAS = np.array([[0.5, -0.6, 0.4, -0.3, 0.8, -0.4, 0.3, 0.4, 0.2, 0.3]], np.float32)
ARM_DOWN = 1.22  # radians below the T-pose
ERROR_FRAMES = 10  # planted pose errors are the same over about so many frames
ROTATIONS = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")


@dataclass(frozen=True)
class Style:
    """How large the activities of one part of the motion are, and how they are timed."""

    amplitude: float
    cycles: tuple[float, ...]  # of stepping, left arm, right arm, elbows, trunk, squat, head, turning
    phases: np.ndarray  # (8,) radians


def training_style(rng: np.random.Generator) -> Style:
    return Style(1.0, (5, 3, 4, 6, 4, 3, 3, 1), rng.uniform(-0.4, 0.4, 8))


def novel_style(rng: np.random.Generator) -> Style:
    return Style(1.3, (3, 2, 3, 2, 5, 4, 2, 1), np.pi / 2 + rng.uniform(-0.4, 0.4, 8))


def lift(wave: np.ndarray) -> np.ndarray:
    """[-1, 1] -> [0, 1], smooth, resting longer at both ends than a sinusoid."""
    t = 0.5 + 0.5 * wave
    return t * t * (3 - 2 * t)


def _angles(style: Style, frames: int) -> dict[str, np.ndarray]:
    """Named joint angles in radians, each (frames,)."""
    time = np.arange(frames) / max(frames, 1)
    wave = [
        np.sin(2 * np.pi * c * time + p - (np.pi / 2 if i else 0))
        for i, (c, p) in enumerate(zip(style.cycles, style.phases, strict=True))
    ]
    quarter = [np.cos(2 * np.pi * c * time + p) for c, p in zip(style.cycles, style.phases, strict=True)]
    size = style.amplitude
    squat = lift(wave[5]) * size
    step = 1 - 0.75 * np.clip(squat, 0, 1)
    left_step, right_step = step * np.clip(wave[0], 0, 1) ** 1.3, step * np.clip(-wave[0], 0, 1) ** 1.3
    swing = 0.25 * step * wave[0]
    return {
        "left_hip": -size * (0.80 * left_step + 0.72 * squat) + 0.18 * right_step,
        "right_hip": -size * (0.80 * right_step + 0.72 * squat) + 0.18 * left_step,
        "left_knee": 0.08 + size * (1.05 * left_step + 1.10 * squat),
        "right_knee": 0.08 + size * (1.05 * right_step + 1.10 * squat),
        "left_out": 0.06 + 0.12 * squat + 0.05 * wave[4],
        "right_out": 0.06 + 0.12 * squat - 0.05 * wave[4],
        "ankle_squat": -0.45 * squat,
        "left_raise": -ARM_DOWN + 1.40 * size * lift(wave[1]),
        "right_raise": -ARM_DOWN + 1.40 * size * lift(wave[2]),
        "left_swing": swing - 0.35 * size * lift(quarter[3]),
        "right_swing": -swing - 0.35 * size * lift(-quarter[3]),
        "left_elbow": 0.15 + 1.55 * size * lift(wave[3] * 0.6 + quarter[1] * 0.4),
        "right_elbow": 0.15 + 1.55 * size * lift(-wave[3] * 0.6 + quarter[2] * 0.4),
        "left_roll": 0.5 * quarter[3],
        "right_roll": -0.5 * quarter[4],
        "twist": 0.45 * size * wave[4],
        "bend": 0.08 + 0.30 * squat + 0.10 * size * quarter[6],
        "lean": 0.16 * size * quarter[4],
        "head_turn": 0.45 * size * wave[6],
        "head_nod": 0.14 * quarter[6],
        "turn": 0.55 * wave[7],
        "sway_x": 0.05 * quarter[0] * step,
        "sway_z": 0.05 * wave[7],
        "curl": 0.25 + 0.35 * lift(quarter[3]),
    }


def _axis_angle(frames: int, **turns: np.ndarray | float) -> np.ndarray:
    """(frames, 3) axis-angle of turns about x, then y, then z of the parent (named x, y, z)."""
    angles = np.stack([np.broadcast_to(turns.get(axis, 0.0), frames) for axis in "zyx"], 1)
    return Rotation.from_euler("zyx", angles).as_rotvec()


def _poses(style: Style, frames: int) -> dict[str, np.ndarray]:
    a = _angles(style, frames)
    pose = np.zeros((frames, sk.NUM_JOINTS, 3))
    turn = lambda **turns: _axis_angle(frames, **turns)  # noqa: E731
    pose[:, sk.PELVIS] = turn(y=a["turn"], x=0.4 * a["bend"])
    pose[:, sk.L_HIP] = turn(x=a["left_hip"], z=a["left_out"], y=0.25 * a["left_out"])
    pose[:, sk.R_HIP] = turn(x=a["right_hip"], z=-a["right_out"], y=-0.25 * a["right_out"])
    pose[:, sk.L_KNEE], pose[:, sk.R_KNEE] = turn(x=a["left_knee"]), turn(x=a["right_knee"])
    for joint, hip, knee in ((sk.L_ANKLE, "left_hip", "left_knee"), (sk.R_ANKLE, "right_hip", "right_knee")):
        pose[:, joint] = turn(x=np.clip(-(a[hip] + a[knee]), -0.55, 0.4))
    for joint in (sk.SPINE1, sk.SPINE2, sk.SPINE3):
        pose[:, joint] = turn(x=a["bend"] / 3, y=a["twist"] / 3, z=a["lean"] / 3)
    pose[:, sk.NECK] = turn(y=0.4 * a["head_turn"], x=0.4 * a["head_nod"])
    pose[:, sk.HEAD] = turn(y=0.6 * a["head_turn"], x=0.6 * a["head_nod"] - 0.3 * a["bend"])
    for side, sign, collar in (("left", 1, sk.L_COLLAR), ("right", -1, sk.R_COLLAR)):
        shoulder, elbow = (sk.L_SHOULDER, sk.L_ELBOW) if sign > 0 else (sk.R_SHOULDER, sk.R_ELBOW)
        raised = a[f"{side}_raise"]
        pose[:, collar] = turn(z=sign * 0.12 * (raised + ARM_DOWN))
        pose[:, shoulder] = turn(x=a[f"{side}_swing"], z=sign * (raised - 0.12 * (raised + ARM_DOWN)))
        roll = a[f"{side}_roll"]
        # The elbow bends forwards; `roll` turns that plane up or down, as a twist of the upper arm would.
        bent = a[f"{side}_elbow"]
        pose[:, elbow] = np.stack([0 * bent, -sign * bent * np.cos(roll), bent * np.sin(roll) * sign], 1)
        pose[:, elbow + 2] = turn(z=-sign * 0.1, x=0.3 * roll)
        first = sk.FIRST_LEFT_FINGER if sign > 0 else sk.FIRST_RIGHT_FINGER
        pose[:, first : first + 12] = (np.array([0, 0, -sign]) * a["curl"][:, None])[:, None]
        pose[:, first + 12 : first + 15] = (np.array([0, -sign, 0]) * 0.4 * a["curl"][:, None])[:, None]
    return {"pose": pose, "sway": np.stack([a["sway_x"], 0 * a["turn"], a["sway_z"]], 1)}


def standing_translation(pose: np.ndarray, sway: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(frames, 3) translation that keeps the lower foot on the floor. joints: (55, 3) shaped, T-pose."""
    feet = [sk.L_ANKLE, sk.R_ANKLE, sk.L_FOOT, sk.R_FOOT]
    transforms = forward_kinematics(
        torch.from_numpy(pose.reshape(len(pose), -1)), torch.from_numpy(joints), list(sk.PARENTS)
    ).numpy()[:, feet]
    posed = (transforms[..., :3, :3] @ joints[feet][:, :, None])[..., 0] + transforms[..., :3, 3]
    height_over_sole = joints[feet, 1] - (joints[feet[2:], 1].mean() - 0.034)
    soft = 0.01  # metres; a soft minimum keeps the hand-over between the feet smooth
    lowest = -soft * np.log(np.exp(-(posed[..., 1] - height_over_sole) / soft).sum(1))
    return sway + np.stack([np.zeros(len(pose)), -lowest, np.zeros(len(pose))], 1)


def make_motion(
    joints: np.ndarray, num_frames: int, num_novel_frames: int, seed: int
) -> dict[str, np.ndarray]:
    """The arrays of `smpl_params.npz` (float32): F training frames, then M of other poses.

    joints: (55, 3) T-pose joints of the body with BETAS applied.
    """
    rng = np.random.default_rng([seed, 1])
    parts = [_poses(training_style(rng), num_frames), _poses(novel_style(rng), num_novel_frames)]
    pose = np.concatenate([part["pose"] for part in parts])
    sway = np.concatenate([part["sway"] for part in parts])
    count = len(pose)
    talking = np.sin(np.arange(count) * 0.7)[:, None]
    arrays = {
        "betas": BETAS,
        "global_orient": pose[:, 0],
        "body_pose": pose[:, 1:22].reshape(count, 63),
        "transl": standing_translation(pose, sway, joints),
        "left_hand_pose": pose[:, 25:40].reshape(count, 45),
        "right_hand_pose": pose[:, 40:55].reshape(count, 45),
        "jaw_pose": np.zeros((count, 3)),
        "expression": 0.2 * talking * np.eye(1, 10),
    }
    return {key: value.astype(np.float32) for key, value in arrays.items()}


def plant_pose_errors(
    motion: dict[str, np.ndarray], num_frames: int, degrees: float, centimetres: float, seed: int
) -> dict[str, np.ndarray]:
    """A copy of `motion` whose first `num_frames` poses are wrong, as those of a bad body fit are.

    Every joint is turned by an angle of `degrees` and the body moved by `centimetres`, root mean squares over
    these frames; errors drift within about ERROR_FRAMES. The frames after them, which drive the avatar instead of
    being fitted to pictures, stay as they are.
    """
    rng = np.random.default_rng([seed, 3])

    def errors(count: int, size: float) -> np.ndarray:
        """(num_frames, count, 3) vectors, each of the count with this root mean square length."""
        margin = 2 * ERROR_FRAMES
        noise = rng.normal(size=(num_frames + 2 * margin, count, 3))
        # Noise smoothed with a Gaussian falls to a correlation of 1/e after twice its standard deviation.
        smooth = gaussian_filter1d(noise, ERROR_FRAMES / 2, axis=0)[margin : margin + num_frames]
        return size * smooth / np.sqrt((smooth**2).sum(2, keepdims=True).mean(0, keepdims=True))

    wrong = {key: array.copy() for key, array in motion.items()}
    for key in ROTATIONS:
        true = motion[key][:num_frames].astype(np.float64)
        turns = errors(true.shape[1] // 3, np.deg2rad(degrees)).reshape(-1, 3)
        turned = Rotation.from_rotvec(true.reshape(-1, 3)) * Rotation.from_rotvec(turns)
        wrong[key][:num_frames] = turned.as_rotvec().reshape(true.shape)
    wrong["transl"][:num_frames] += errors(1, 0.01 * centimetres)[:, 0].astype(np.float32)
    return wrong
