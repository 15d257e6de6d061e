"""The hard subject's motion: training frames, then near, middle and far sets of poses that training did not show.

Data path: frame -> waves of a few activities -> 165 pose numbers -> the arrays of `smpl_params.npz`. The person
walks about in the room, turns round, moves every finger and the jaw; nothing has inertia, every frame is a pose of
its own. Angles are written straight as axis-angle numbers, so that a set's limits hold for what the avatar is given:
near poses lie within training's range of every number, middle ones up to MIDDLE_OUTSIDE beyond it in some, far ones
tens of degrees beyond it in several joints at once.
Shape letter: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.motion import ARM_DOWN, BETAS, lift, standing_translation

SETS = ("near", "middle", "far")
MIDDLE_OUTSIDE = np.deg2rad(25)
NUM_EXPRESSIONS = 10


@dataclass(frozen=True)
class Reach:
    """How far the activities of one part of the motion go: radians, walking in metres."""

    squat: float  # of the hips; knees follow
    step: float  # of the lifted leg's hip
    step_knee: float  # its knee's bend as a share of that: small ones make a kick
    out: float  # legs apart in a squat
    raised: float  # arms over the T-pose; they come from ARM_DOWN below it
    forward: float  # arms in front of the body
    elbow: float
    twist: float
    bend: float
    lean: float
    head: float
    walk: float
    least: float = 0.0  # share of these that is always reached
    limit: float | None = None  # beyond training's range of every number; None: as far as it goes


TRAINING = Reach(0.72, 0.80, 1.30, 0.10, 0.30, 0.45, 1.50, 0.42, 0.22, 0.18, 0.40, walk=0.8)
REACHES = {
    "near": Reach(0.72, 0.80, 1.30, 0.10, 0.30, 0.45, 1.50, 0.42, 0.22, 0.18, 0.40, 0.8, limit=0.0),
    "middle": Reach(
        0.95, 1.15, 1.20, 0.20, 0.72, 0.80, 1.88, 0.75, 0.40, 0.34, 0.60, 0.8, 0.25, MIDDLE_OUTSIDE
    ),
    "far": Reach(1.70, 1.50, 0.15, 0.45, 1.45, 1.00, 2.20, 1.50, 0.90, 0.70, 0.90, walk=0.8, least=0.65),
}

# Activity -> cycles over the training part. Novel sets take one or two cycles, at other phases.
CYCLES = {
    **{"step": 5, "squat": 3, "twist": 4, "bend": 3, "lean": 5, "head turn": 3, "head nod": 4},
    **{f"{side} raise": 3 + (side == "right") for side in ("left", "right")},
    **{f"{side} forward": 5 - (side == "right") for side in ("left", "right")},
    **{f"{side} elbow": 4 + (side == "right") for side in ("left", "right")},
    **{f"{side} roll": 3 + (side == "right") for side in ("left", "right")},
    **{f"{side} wrist": 4 - (side == "right") for side in ("left", "right")},
    **{f"{side} {finger}": 3 + i for side in ("left", "right") for i, finger in enumerate(sk.FINGER_BONES)},
    **{"jaw": 7, "out and in": 3, "round": 1, "turn": 1},
    **{f"expression {i}": 2 + i for i in range(NUM_EXPRESSIONS)},
}
TURNS_IN_TRAINING = 2
JAW_OPEN = 0.32
CURL = (0.10, 1.15)  # of a finger's middle joint
CURL_SHARES = (0.75, 1.0, 0.65)  # of its three joints
GRIP = 0.6  # how much of the outer fingers' curl follows the elbow; thumb and index are free
FREE_FINGERS = ("thumb", "index")


def frame_sets(num_frames: int, num_novel_frames: int) -> dict[str, list[int]]:
    """First and last frame of training and of every novel set that has frames."""
    ranges = {"training": [0, num_frames - 1]}
    for index, name in enumerate(SETS):
        start = num_frames + index * num_novel_frames
        if num_novel_frames:
            ranges[name] = [start, start + num_novel_frames - 1]
    return ranges


def _waves(frames: int, training: bool, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of every activity a wave in [-1, 1], (F,)."""
    time = np.arange(frames) / max(frames, 1)
    phases = rng.uniform(0, 2 * np.pi, len(CYCLES))
    novel_cycles = rng.integers(1, 3, len(CYCLES))
    cycles = list(CYCLES.values()) if training else novel_cycles
    return {name: np.sin(2 * np.pi * c * time + p) for name, c, p in zip(CYCLES, cycles, phases, strict=True)}


def _legs_and_trunk(pose: np.ndarray, wave: dict[str, np.ndarray], reach: Reach) -> None:
    # A leg is lifted only while the other one can carry the body.
    share = np.maximum(lift(wave["squat"]), reach.least) * (1 - wave["step"] ** 2)
    squat, carry = reach.squat * share, (1 - 0.9 * share) ** 1.5
    lifted = {"left": carry * wave["step"].clip(0) ** 1.3, "right": carry * (-wave["step"]).clip(0) ** 1.3}
    for side, other, sign, hip in (("left", "right", 1, sk.L_HIP), ("right", "left", -1, sk.R_HIP)):
        knee, ankle = hip + 3, hip + 6
        step = reach.step * lifted[side]
        pose[:, hip, 0] = -(squat + step) + 0.18 * lifted[other]
        pose[:, hip, 1] = sign * 0.4 * reach.out * share
        pose[:, hip, 2] = sign * (0.06 + reach.out * share)
        pose[:, knee, 0] = 0.08 + reach.step_knee * step + 1.35 * squat
        pose[:, ankle, 0] = np.clip(-(pose[:, hip, 0] + pose[:, knee, 0]), -0.55, 0.40)
    bend = 0.06 + 0.30 * squat + reach.bend * lift(wave["bend"])
    for joint in (sk.SPINE1, sk.SPINE2, sk.SPINE3):
        pose[:, joint, 0] = bend / 3
        pose[:, joint, 1] = reach.twist * wave["twist"] / 3
        pose[:, joint, 2] = reach.lean * wave["lean"] / 3
    pose[:, sk.NECK] = np.stack([0.08 * wave["head nod"], 0.4 * reach.head * wave["head turn"], 0 * bend], 1)
    pose[:, sk.HEAD, 0] = 0.10 * wave["head nod"] - 0.4 * bend
    pose[:, sk.HEAD, 1] = 0.6 * reach.head * wave["head turn"]


def _arms_and_hands(pose: np.ndarray, wave: dict[str, np.ndarray], reach: Reach) -> None:
    for side, sign, shoulder in (("left", 1, sk.L_SHOULDER), ("right", -1, sk.R_SHOULDER)):
        collar, elbow, wrist = shoulder - 3, shoulder + 2, shoulder + 4
        up = (reach.raised + ARM_DOWN) * np.maximum(lift(wave[f"{side} raise"]), reach.least)
        pose[:, collar, 2] = sign * 0.15 * up
        pose[:, shoulder, 0] = 0.25 * wave[f"{side} roll"]
        pose[:, shoulder, 1] = -sign * (reach.forward * lift(wave[f"{side} forward"]) - 0.15)
        pose[:, shoulder, 2] = sign * (0.85 * up - ARM_DOWN)
        bent = 0.12 + (reach.elbow - 0.12) * lift(wave[f"{side} elbow"])
        # The elbow bends forwards; `roll` turns that plane, as a twist of the upper arm would.
        pose[:, elbow, 1] = -sign * bent
        pose[:, elbow, 2] = sign * 0.35 * bent * wave[f"{side} roll"]
        pose[:, wrist, 0] = 0.30 * wave[f"{side} roll"]
        pose[:, wrist, 2] = sign * (0.30 * wave[f"{side} wrist"] - 0.1)
        first = sk.FIRST_LEFT_FINGER if sign > 0 else sk.FIRST_RIGHT_FINGER
        for index, finger in enumerate(sk.FINGER_BONES):
            curl = lift(wave[f"{side} {finger}"])
            if finger not in FREE_FINGERS:
                curl = (1 - GRIP) * curl + GRIP * lift(wave[f"{side} elbow"])
            angle = CURL[0] + (CURL[1] - CURL[0]) * curl
            axis, size = (1, 0.45) if finger == "thumb" else (2, 1.0)
            joints = slice(first + 3 * index, first + 3 * index + 3)
            pose[:, joints, axis] = -sign * size * angle[:, None] * np.array(CURL_SHARES)


def _part(
    frames: int, reach: Reach, training: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(F, 55, 3) pose, (F, 3) walk on the floor, (F, 10) expression."""
    wave = _waves(frames, training, rng)
    pose = np.zeros((frames, sk.NUM_JOINTS, 3))
    _legs_and_trunk(pose, wave, reach)
    _arms_and_hands(pose, wave, reach)
    pose[:, sk.JAW, 0] = JAW_OPEN * lift(wave["jaw"])
    turns = TURNS_IN_TRAINING if training else 1
    time = np.arange(frames) / max(frames, 1)
    yaw = rng.uniform(0, 2 * np.pi) - 2 * np.pi * turns * time
    pitch = 0.5 * pose[:, sk.SPINE1, 0]
    facing = np.stack([pitch, yaw + 0.5 * wave["turn"]], 1)
    pose[:, sk.PELVIS] = Rotation.from_euler("xy", facing).as_rotvec() if frames else 0
    # Round the middle of the room, now near it, now far from it.
    bearing = rng.uniform(0, 2 * np.pi) + 2 * np.pi * time + 0.6 * wave["round"]
    distance = reach.walk * (0.25 + 0.75 * lift(wave["out and in"]))
    walk = np.stack([distance * np.cos(bearing), np.zeros(frames), distance * np.sin(bearing)], 1)
    expression = np.stack([wave[f"expression {i}"] for i in range(NUM_EXPRESSIONS)], 1)
    return pose, walk, expression


def make_hard_motion(
    joints: np.ndarray, num_frames: int, num_novel_frames: int, seed: int
) -> dict[str, np.ndarray]:
    """The arrays of `smpl_params.npz` (float32): training frames, then as many of each of SETS as asked for.

    joints: (55, 3) T-pose joints of the body with BETAS applied.
    """
    rng = np.random.default_rng([seed, 2])
    parts = [_part(num_frames, TRAINING, True, rng)]
    low, high = parts[0][0].min(0), parts[0][0].max(0)
    low[sk.PELVIS], high[sk.PELVIS] = -np.inf, np.inf  # the root turns as it likes
    least, most = parts[0][2].min(0), parts[0][2].max(0)
    for name in SETS:
        reach = REACHES[name]
        pose, walk, expression = _part(num_novel_frames, reach, False, rng)
        if reach.limit is not None:
            pose = pose.clip(low - reach.limit, high + reach.limit)
        parts.append((pose, walk, expression.clip(least, most)))
    pose, walk, expression = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    count = len(pose)
    arrays = {
        "betas": BETAS,
        "global_orient": pose[:, 0],
        "body_pose": pose[:, 1:22].reshape(count, 63),
        "transl": standing_translation(pose, walk, joints),
        "left_hand_pose": pose[:, 25:40].reshape(count, 45),
        "right_hand_pose": pose[:, 40:55].reshape(count, 45),
        "jaw_pose": pose[:, sk.JAW],
        "expression": expression,
    }
    return {key: value.astype(np.float32) for key, value in arrays.items()}
