"""What cloth does when the person moves: folds and bulges that depend non-linearly on joint angles.

Data path: body pose (63 numbers) -> drives (named joint angles) -> displacement of the garments in the T-pose and
darkening of the valleys, both per vertex. Only body joints enter, never the root's turn or the hands: the method's
networks see the same 63 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.garments import SHIRT, SHIRT_HEM, TROUSERS, ClothedSubject, smoothstep

VALLEY_SHADE = 0.50  # how much of the light a full valley loses
WANDER = 0.16  # periods by which folds stray from straight rows
WINDOW_FLOOR = 0.02  # zones are evaluated where their window exceeds it


def pose_drives(body_pose: np.ndarray) -> dict[str, float]:
    """The angles (radians) that move the cloth, from (63,) axis-angle numbers of joints 1-21."""
    vectors = np.asarray(body_pose, np.float64).reshape(21, 3)
    turn = lambda joint: Rotation.from_rotvec(vectors[joint - 1])  # noqa: E731
    drives = {}
    for side, sign, joints in (
        ("left", 1, (sk.L_HIP, sk.L_KNEE, sk.L_SHOULDER, sk.L_ELBOW)),
        ("right", -1, (sk.R_HIP, sk.R_KNEE, sk.R_SHOULDER, sk.R_ELBOW)),
    ):
        hip, knee, shoulder, elbow = joints
        thigh = turn(hip).apply([0, -1, 0])
        arm = turn(shoulder).apply([sign, 0, 0])
        drives[f"{side} hip"] = np.arctan2(thigh[2], -thigh[1])  # forwards
        drives[f"{side} hip back"] = -drives[f"{side} hip"]
        drives[f"{side} knee"] = float(np.linalg.norm(vectors[knee - 1]))
        drives[f"{side} elbow"] = float(np.linalg.norm(vectors[elbow - 1]))
        drives[f"{side} raise"] = np.arcsin(np.clip(arm[1], -1, 1))  # over the T-pose
        drives[f"{side} lower"] = -drives[f"{side} raise"]
        drives[f"{side} reach"] = float(arm[2])
    spine = vectors[[sk.SPINE1 - 1, sk.SPINE2 - 1, sk.SPINE3 - 1]].sum(0)
    drives.update({"bend": spine[0], "twist left": spine[1], "twist right": -spine[1]})
    drives.update({"lean left": -spine[2], "lean right": spine[2]})
    return drives


@dataclass(frozen=True)
class Fold:
    """A family of parallel folds that rises with one drive and wanders as it grows.

    Height = size * rise(drive) * window * profile(2 pi (along / wavelength + drift * drive)).
    """

    drive: str
    low: float  # drive at which the folds begin, radians
    high: float  # drive at which they are full
    size: float  # metres
    drift: float  # periods the folds move per radian
    index: np.ndarray  # (Z,) vertices of the zone
    window: np.ndarray  # (Z,)
    phase: np.ndarray  # (Z,) radians

    def add(self, drives: dict[str, float], height: np.ndarray, valley: np.ndarray) -> None:
        """Add to the garments' height (P,) in metres and valley depth (P,) in 0..1."""
        strength = smoothstep(drives[self.drive], self.low, self.high)
        if strength < 1e-3:
            return
        wave = np.sin(self.phase + np.float32(2 * np.pi * self.drift * drives[self.drive]))
        crest = (0.5 + 0.5 * wave) ** 2  # narrow crests, wide valleys
        height[self.index] += np.float32(self.size * strength) * self.window * (crest - 0.3)
        valley[self.index] += np.float32(strength) * self.window * (1 - crest)


@dataclass(frozen=True)
class Bulge:
    """A part of a garment that swings or blows out by `offset` when its drive is full."""

    drive: str
    low: float
    high: float
    index: np.ndarray  # (Z,)
    offset: np.ndarray  # (Z, 3) metres


@dataclass(frozen=True)
class Cloth:
    """Everything pose-dependent of one subject."""

    folds: tuple[Fold, ...]  # or others that add() alike
    bulges: tuple[Bulge, ...]
    base_height: np.ndarray  # (P,) folds that are always there, metres
    base_valley: np.ndarray  # (P,)

    def displace(self, subject: ClothedSubject, drives: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """T-pose positions (P, 3) float32 with the folds of this pose, and the light (P,) left in valleys."""
        height, valley = self.base_height.copy(), self.base_valley.copy()
        for fold in self.folds:
            fold.add(drives, height, valley)
        points = subject.rest + height[:, None] * subject.normals
        for bulge in self.bulges:
            strength = smoothstep(drives[bulge.drive], bulge.low, bulge.high)
            points[bulge.index] += np.float32(strength) * bulge.offset
        return points, 1 - np.float32(VALLEY_SHADE) * np.minimum(valley, 1)


@dataclass(frozen=True)
class StillCloth:
    """Cloth that takes no notice of the pose."""

    points: np.ndarray  # (P, 3) float32
    light: np.ndarray  # (P,)

    def displace(self, subject: ClothedSubject, drives: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """As Cloth.displace, the same for all poses."""
        return self.points.copy(), self.light


def mean_cloth(cloth: Cloth | StillCloth, subject: ClothedSubject, body_poses: np.ndarray) -> StillCloth:
    """The cloth as it is on average over body_poses (F, 63), displacement and shading of valleys alike."""
    points, light = np.zeros(subject.rest.shape), np.zeros(len(subject.rest))
    for body_pose in body_poses:
        displaced, left = cloth.displace(subject, pose_drives(body_pose))
        points += displaced / len(body_poses)
        light += left / len(body_poses)
    return StillCloth(points.astype(np.float32), light.astype(np.float32))


def _bell(values: np.ndarray, center: float, width: float) -> np.ndarray:
    return np.exp(-(((values - center) / width) ** 2))


class _Tailor:
    """Collects folds and bulges over the anatomical coordinates of one subject."""

    def __init__(self, subject: ClothedSubject):
        self.subject = subject
        self.x, self.height, self.z = subject.anatomy.astype(np.float64).T
        self.folds: list[Fold] = []
        self.bulges: list[Bulge] = []

    def zone(self, layer: int, side: int = 0) -> np.ndarray:
        """(P,) 1 on a layer, with a side only on that half (left +1, right -1), 2 cm soft."""
        mask = (self.subject.layer == layer).astype(np.float64)
        return mask * smoothstep(self.x * side, -0.01, 0.02) if side else mask

    def fold(
        self,
        drive: str,
        gate: tuple[float, float],
        size: float,
        along: np.ndarray,
        window: np.ndarray,
        drift=0.0,
    ):
        """gate: (low, high) of the drive; along: (P,) periods."""
        index = np.flatnonzero(window > WINDOW_FLOOR)
        # Cloth never folds in straight rows: bend them by a fixed, slow pattern.
        x, height, z = self.x[index], self.height[index], self.z[index]
        bend = np.sin(31 * x + 13 * height + 19 * z + size * 900) + np.sin(17 * height - 43 * z + 23 * x)
        phase = (2 * np.pi * (along[index] + WANDER * bend)).astype(np.float32)
        self.folds.append(Fold(drive, *gate, size, drift, index, window[index].astype(np.float32), phase))

    def bulge(
        self, drive: str, gate: tuple[float, float], window: np.ndarray, direction: np.ndarray, size: float
    ):
        """direction: (3,) or (P, 3) unit vectors; size: metres."""
        index = np.flatnonzero(window > WINDOW_FLOOR)
        direction = np.broadcast_to(direction, self.subject.rest.shape)[index]
        offset = (size * window[index, None] * direction).astype(np.float32)
        self.bulges.append(Bulge(drive, *gate, index, offset))


def _trunk(tailor: _Tailor) -> None:
    x, height, z = tailor.x, tailor.height, tailor.z
    shirt = tailor.zone(SHIRT) * (1 - smoothstep(np.abs(x), 0.16, 0.20))
    angle = np.arctan2(x, z + 0.01)
    around = 0.15 * angle  # metres of cloth round the trunk
    waist = shirt * _bell(height, 1.05, 0.13)
    for sign, name in ((1, "left"), (-1, "right")):
        slant = (0.75 * (height - 1.05) + sign * 0.65 * around) / 0.062
        tailor.fold(f"twist {name}", (0.06, 0.42), 0.013, slant, waist, drift=0.5)
        side = shirt * smoothstep(sign * x, 0.02, 0.10)
        tailor.fold(f"lean {name}", (0.03, 0.20), 0.010, height / 0.048, side * _bell(height, 1.06, 0.09))
        tailor.bulge(
            f"twist {name}", (0.1, 0.5), shirt * _bell(height, 0.87, 0.06), np.array([sign, 0, 0]), 0.018
        )
        # A raised arm pulls the cloth up: long folds from hem to armpit, and the hem rises.
        to_pit = np.hypot(x - sign * 0.17, height - 1.32)
        star = np.arctan2(height - 1.34, sign * 0.19 - x) * 1.6 + 1.5 * to_pit
        pull = shirt * _bell(to_pit, 0.14, 0.12) * smoothstep(sign * x, -0.06, 0.04)
        tailor.fold(f"{name} raise", (-0.75, 0.10), 0.010, star, pull, drift=0.3)
        flank = shirt * smoothstep(sign * x, 0.0, 0.12) * (1 - smoothstep(height, 0.95, 1.25))
        tailor.bulge(f"{name} raise", (-0.8, 0.25), flank, np.array([0, 1.0, 0]), 0.030)
        # A hanging arm pushes cloth together at the side and under the shoulder.
        drape = (sign * x - 0.25 * (height - 1.2)) / 0.034
        side_panel = shirt * _bell(sign * x, 0.115, 0.05) * _bell(height, 1.19, 0.13)
        tailor.fold(f"{name} lower", (0.35, 1.15), 0.009, drape, side_panel, drift=-0.4)
        front_hem = shirt * smoothstep(z, 0.0, 0.06) * smoothstep(sign * x, -0.03, 0.06)
        front_hem = front_hem * (1 - smoothstep(height, SHIRT_HEM + 0.02, 1.0))
        tailor.bulge(f"{name} hip", (0.15, 0.9), front_hem, np.array([0, 0.35, 0.94]), 0.050)
        tailor.fold(
            f"{name} hip",
            (0.2, 0.8),
            0.010,
            (height + sign * 0.5 * x) / 0.05,
            shirt
            * _bell(height, 0.97, 0.07)
            * smoothstep(sign * x, -0.05, 0.05)
            * smoothstep(z, -0.02, 0.04),
        )
    belly = shirt * _bell(height, 1.07, 0.10) * smoothstep(z, -0.02, 0.05)
    tailor.fold("bend", (0.10, 0.40), 0.013, (height + 0.25 * x * x / 0.15) / 0.052, belly, drift=0.8)
    back = shirt * _bell(height, 0.90, 0.06) * smoothstep(-z, -0.02, 0.04)
    tailor.bulge("bend", (0.10, 0.45), back, np.array([0, 0.5, -0.85]), 0.022)


def _sleeves(tailor: _Tailor) -> None:
    x, height, z = tailor.x, tailor.height, tailor.z
    for sign, name in ((1, "left"), (-1, "right")):
        reach = sign * x
        sleeve = tailor.zone(SHIRT, sign) * smoothstep(reach, 0.17, 0.23)
        angle = np.arctan2(height - 1.37, z + 0.03)  # 0 in front, where the elbow closes
        inner = 0.35 + 0.65 * (0.5 + 0.5 * np.cos(angle))
        rings = (reach + 0.012 * np.sin(2 * angle)) / 0.040
        tailor.fold(
            f"{name} elbow", (0.25, 1.0), 0.014, rings, sleeve * inner * _bell(reach, 0.43, 0.075), drift=0.45
        )
        tailor.fold(
            f"{name} elbow",
            (0.9, 1.7),
            0.010,
            (reach + 0.02 * angle) / 0.052,
            sleeve * _bell(reach, 0.32, 0.06),
        )
        below = smoothstep(1.375 - height, -0.02, 0.05)
        loose = sleeve * below * _bell(reach, 0.36, 0.10)
        tailor.bulge(f"{name} raise", (-0.7, 0.2), loose, np.array([0, -1.0, 0]), 0.026)
        cuff = sleeve * smoothstep(reach, 0.46, 0.56)
        tailor.bulge(f"{name} elbow", (0.5, 1.5), cuff, np.array([-sign, 0.0, 0.0]), 0.022)
        shoulder = tailor.zone(SHIRT, sign) * _bell(reach, 0.20, 0.06) * smoothstep(height, 1.33, 1.39)
        tailor.fold(f"{name} raise", (-0.7, 0.1), 0.010, (reach + 0.3 * z) / 0.036, shoulder, drift=0.4)
        spiral = (reach + 0.05 * angle) / 0.065
        tailor.fold(f"{name} lower", (0.5, 1.2), 0.006, spiral, sleeve * _bell(reach, 0.27, 0.07), drift=0.3)


def _trousers(tailor: _Tailor) -> None:
    height, z = tailor.height, tailor.z
    for sign, name in ((1, "left"), (-1, "right")):
        across = sign * tailor.x - 0.098
        leg = tailor.zone(TROUSERS, sign) * (1 - smoothstep(height, 0.86, 0.93))
        angle = np.arctan2(across, z)  # 0 in front
        behind = smoothstep(-z, -0.03, 0.03)
        wave = height + 0.010 * np.sin(3 * angle)
        tailor.fold(
            f"{name} knee",
            (0.25, 1.0),
            0.016,
            wave / 0.045,
            leg * behind * _bell(height, 0.49, 0.10),
            drift=0.5,
        )
        star = np.abs(angle) * 0.9 + (height - 0.5) / 0.09
        tailor.fold(
            f"{name} knee", (0.5, 1.3), 0.010, star, leg * (1 - behind) * _bell(height, 0.56, 0.10), drift=0.3
        )
        stack = (height + 0.012 * np.sin(2 * angle + sign)) / 0.038
        tailor.fold(
            f"{name} hip back", (-0.35, 0.10), 0.009, stack, leg * _bell(height, 0.12, 0.09), drift=0.5
        )
        whisker = (height - 0.55 * across) / 0.046
        groin = leg * smoothstep(z, -0.03, 0.03) * _bell(height, 0.80, 0.075)
        tailor.fold(f"{name} hip", (0.15, 0.75), 0.014, whisker, groin, drift=-0.5)
        calf = leg * _bell(height, 0.26, 0.16)
        tailor.bulge(f"{name} knee", (0.3, 1.2), calf * behind, np.array([0, 0, -1.0]), 0.030)
        thigh = leg * _bell(height, 0.68, 0.12) * behind
        tailor.bulge(f"{name} hip", (0.2, 0.9), thigh, np.array([0, 0, -1.0]), 0.028)
        hem = leg * (1 - smoothstep(height, 0.09, 0.24))
        tailor.bulge(f"{name} knee", (0.2, 0.9), hem, np.array([0, 0.6, -0.4]), 0.022)
        outer = leg * smoothstep(across, -0.02, 0.04) * _bell(height, 0.40, 0.25)
        tailor.bulge(f"{name} hip", (0.1, 0.6), outer, np.array([sign, 0, 0]), 0.016)


def _resting_folds(tailor: _Tailor) -> tuple[np.ndarray, np.ndarray]:
    """Height (P,) and valleys (P,) of the creases that cloth has in every pose."""
    x, height, z = tailor.x, tailor.height, tailor.z
    cloth = tailor.zone(SHIRT) + tailor.zone(TROUSERS)
    wave = np.sin(38 * height + 17 * x + 3 * np.sin(23 * z + 9 * height)) * np.sin(
        29 * z - 21 * x + 11 * height
    )
    flute = (
        np.sin(70 * x + 55 * z) * tailor.zone(SHIRT) * (1 - smoothstep(height, SHIRT_HEM, SHIRT_HEM + 0.14))
    )
    level = 0.6 * wave * cloth + flute
    return (0.0025 * level).astype(np.float32), (0.10 * np.maximum(-level, 0)).astype(np.float32)


def make_cloth(subject: ClothedSubject) -> Cloth:
    """The folds and bulges of a dressed subject."""
    tailor = _Tailor(subject)
    _trunk(tailor)
    _sleeves(tailor)
    _trousers(tailor)
    return Cloth(tuple(tailor.folds), tuple(tailor.bulges), *_resting_folds(tailor))
