"""The synthetic person's shape as an implicit function: a smooth union of cones and ellipsoids.

Second stage: skeleton -> primitives, each labelled with the joint it follows -> values on a grid -> mesh.
Heights are above the floor (y = 0); the left half is written down and mirrored.
Smooth union: f = -k log sum_i exp(-d_i / k), negative inside; k is the radius of the fillets, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmlphuman.synthetic import skeleton as sk

BODY_FILLET, HEAD_FILLET, HAND_FILLET, LEG_FILLET, JOIN_FILLET = 0.012, 0.006, 0.003, 0.010, 0.005
REACH = 8.0  # a primitive is evaluated up to this many fillet radii around it
FIELD_OUTSIDE = 0.05  # metres; value where no primitive is near


@dataclass(frozen=True)
class Primitive:
    """A cone from `start` (radius r0) to `end` (radius r1), its space stretched per axis by `stretch`.

    stretch (1, 2, 1) makes it twice as thick along y. Equal ends give an ellipsoid.
    """

    group: str
    joint: int
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    r0: float
    r1: float
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Approximate signed distance (metres) at broadcastable coordinates."""
        stretch = np.array(self.stretch)
        a, b = np.array(self.start) / stretch, np.array(self.end) / stretch
        px, py, pz = x / stretch[0] - a[0], y / stretch[1] - a[1], z / stretch[2] - a[2]
        axis = b - a
        length2 = axis @ axis
        if length2 < 1e-12:
            return (np.sqrt(px * px + py * py + pz * pz) - self.r0) * stretch.min()
        t = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / length2, 0, 1)
        dx, dy, dz = px - t * axis[0], py - t * axis[1], pz - t * axis[2]
        return (np.sqrt(dx * dx + dy * dy + dz * dz) - (self.r0 + t * (self.r1 - self.r0))) * stretch.min()

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        stretch = np.array(self.stretch)
        ends = np.array([self.start, self.end])
        radii = np.array([self.r0, self.r1])[:, None] * stretch
        return (ends - radii).min(0), (ends + radii).max(0)

    def mirrored(self) -> Primitive:
        flip = lambda p: (-p[0], p[1], p[2])  # noqa: E731
        group = self.group.replace("left", "right")
        joint = sk.MIRROR.get(self.joint, self.joint)
        return Primitive(group, joint, flip(self.start), flip(self.end), self.r0, self.r1, self.stretch)


def _ellipsoid(group: str, joint: int, center: tuple, radii: tuple) -> Primitive:
    smallest = min(radii)
    return Primitive(group, joint, center, center, smallest, smallest, tuple(r / smallest for r in radii))


def _torso() -> tuple[list[Primitive], list[Primitive]]:
    """Middle and left primitives of trunk and neck."""
    middle = [
        _ellipsoid("body", sk.PELVIS, (0, 0.945, -0.008), (0.148, 0.085, 0.092)),
        _ellipsoid("body", sk.SPINE1, (0, 1.055, 0.002), (0.128, 0.120, 0.088)),
        _ellipsoid("body", sk.SPINE2, (0, 1.150, -0.004), (0.136, 0.120, 0.096)),
        _ellipsoid("body", sk.SPINE3, (0, 1.260, -0.014), (0.142, 0.155, 0.100)),
        Primitive("body", sk.NECK, (0, 1.395, -0.022), (0, 1.530, 0.000), 0.056, 0.052),
        Primitive("body", sk.PELVIS, (0, 0.90, 0.0), (0, 0.87, -0.005), 0.060, 0.045),
    ]
    left = [
        _ellipsoid("body", sk.PELVIS, (0.068, 0.895, -0.048), (0.078, 0.082, 0.072)),
        _ellipsoid("body", sk.SPINE3, (0.066, 1.285, 0.050), (0.074, 0.055, 0.036)),
        _ellipsoid("body", sk.SPINE3, (0.096, 1.245, -0.042), (0.055, 0.120, 0.058)),
        Primitive("body", sk.L_COLLAR, (0.02, 1.440, -0.022), (0.140, 1.398, -0.022), 0.036, 0.042),
        Primitive("body", sk.L_COLLAR, (0.03, 1.375, 0.015), (0.150, 1.380, -0.008), 0.050, 0.044),
        Primitive("body", sk.L_COLLAR, (0.06, 1.350, -0.055), (0.145, 1.370, -0.040), 0.050, 0.040),
        _ellipsoid("body", sk.L_SHOULDER, (0.186, 1.378, -0.021), (0.052, 0.054, 0.054)),
        Primitive("body", sk.L_SHOULDER, (0.190, 1.374, -0.021), (0.432, 1.368, -0.032), 0.048, 0.036),
        _ellipsoid("body", sk.L_SHOULDER, (0.300, 1.376, -0.022), (0.085, 0.038, 0.042)),
        Primitive("body", sk.L_ELBOW, (0.432, 1.368, -0.033), (0.675, 1.370, -0.022), 0.036, 0.023),
        _ellipsoid("body", sk.L_ELBOW, (0.505, 1.368, -0.028), (0.085, 0.037, 0.039)),
        Primitive("body", sk.L_ELBOW, (0.640, 1.370, -0.032), (0.690, 1.370, -0.032), 0.018, 0.017),
        Primitive("body", sk.L_ELBOW, (0.640, 1.370, -0.014), (0.690, 1.370, -0.012), 0.018, 0.017),
    ]
    return middle, left


def _leg() -> list[Primitive]:
    return [
        Primitive("left leg", sk.L_HIP, (0.088, 0.860, -0.004), (0.100, 0.500, 0.008), 0.080, 0.047),
        _ellipsoid("left leg", sk.L_HIP, (0.098, 0.720, 0.012), (0.066, 0.150, 0.068)),
        _ellipsoid("left leg", sk.L_KNEE, (0.100, 0.482, 0.018), (0.044, 0.052, 0.042)),
        Primitive("left leg", sk.L_KNEE, (0.100, 0.460, 0.000), (0.094, 0.090, -0.030), 0.047, 0.029),
        _ellipsoid("left leg", sk.L_KNEE, (0.100, 0.345, -0.028), (0.046, 0.105, 0.044)),
        Primitive("left leg", sk.L_ANKLE, (0.094, 0.085, -0.030), (0.095, 0.035, -0.052), 0.032, 0.034),
        Primitive("left leg", sk.L_ANKLE, (0.094, 0.075, -0.020), (0.103, 0.034, 0.070), 0.034, 0.029),
        _ellipsoid("left leg", sk.L_ANKLE, (0.102, 0.026, 0.055), (0.040, 0.026, 0.062)),
        _ellipsoid("left leg", sk.L_FOOT, (0.104, 0.022, 0.118), (0.043, 0.020, 0.046)),
        _ellipsoid("left leg", sk.L_FOOT, (0.084, 0.021, 0.140), (0.017, 0.017, 0.034)),
    ]


def _head() -> tuple[list[Primitive], list[Primitive]]:
    middle = [
        _ellipsoid("head", sk.HEAD, (0, 1.618, -0.012), (0.075, 0.081, 0.092)),
        _ellipsoid("head", sk.HEAD, (0, 1.572, 0.020), (0.064, 0.078, 0.062)),
        _ellipsoid("head", sk.JAW, (0, 1.520, 0.038), (0.051, 0.036, 0.046)),
        _ellipsoid("head", sk.JAW, (0, 1.497, 0.066), (0.022, 0.018, 0.020)),
        Primitive("head", sk.HEAD, (0, 1.590, 0.083), (0, 1.556, 0.106), 0.0065, 0.0095),
        _ellipsoid("head", sk.HEAD, (0, 1.548, 0.100), (0.012, 0.008, 0.011)),
        Primitive("head", sk.HEAD, (-0.016, 1.5290, 0.083), (0.016, 1.5290, 0.083), 0.005, 0.005),
        Primitive("head", sk.JAW, (-0.014, 1.5190, 0.081), (0.014, 1.5190, 0.081), 0.0055, 0.0055),
        Primitive("head", sk.NECK, (0, 1.43, -0.018), (0, 1.530, 0.000), 0.050, 0.050),
    ]
    left = [
        Primitive("head", sk.HEAD, (0.010, 1.600, 0.078), (0.046, 1.600, 0.062), 0.0095, 0.008),
        _ellipsoid("head", sk.HEAD, (0.042, 1.560, 0.053), (0.021, 0.022, 0.022)),
        _ellipsoid("head", sk.L_EYE, (0.031, 1.582, 0.0675), (0.0130, 0.0115, 0.0130)),
        Primitive("head", sk.JAW, (0.058, 1.550, 0.004), (0.022, 1.500, 0.060), 0.013, 0.013),
        _ellipsoid("head", sk.HEAD, (0.080, 1.578, -0.012), (0.0060, 0.027, 0.016)),
        Primitive("head", sk.HEAD, (0.074, 1.560, -0.004), (0.080, 1.596, -0.020), 0.006, 0.008),
    ]
    return middle, left


def _hand() -> list[Primitive]:
    radii = {"index": 0.0086, "middle": 0.0088, "ring": 0.0084, "pinky": 0.0074, "thumb": 0.0108}
    parts = [_ellipsoid("left hand", sk.L_WRIST, (0.735, 1.366, -0.013), (0.050, 0.013, 0.038))]
    parts.append(
        Primitive("left hand", sk.L_WRIST, (0.665, 1.370, -0.022), (0.70, 1.368, -0.018), 0.023, 0.018)
    )
    for i, (name, points) in enumerate(sk.finger_points().items()):
        radius = radii[name]
        for k in range(3):
            joint = sk.FIRST_LEFT_FINGER + 3 * i + k
            r0, r1 = radius * (1 - 0.09 * k), radius * (0.91 - 0.09 * k)
            parts.append(Primitive("left hand", joint, tuple(points[k]), tuple(points[k + 1]), r0, r1))
        if name != "thumb":
            wrist_side = (0.690, 1.370, -0.022 + 0.5 * (points[0, 2] + 0.013))
            parts.append(
                Primitive("left hand", sk.L_WRIST, wrist_side, tuple(points[0]), 0.013, radius + 0.0015)
            )
    parts.append(_ellipsoid("left hand", 37, (0.722, 1.356, 0.018), (0.028, 0.014, 0.016)))
    return parts


def person() -> list[Primitive]:
    """All primitives of the person, both sides."""
    torso, torso_left = _torso()
    head, head_left = _head()
    left = torso_left + _leg() + head_left + _hand()
    return torso + head + left + [p.mirrored() for p in left]


FILLETS = {
    **{"body": BODY_FILLET, "head": HEAD_FILLET, "left leg": LEG_FILLET, "right leg": LEG_FILLET},
    **{"left hand": HAND_FILLET, "right hand": HAND_FILLET},
}


def sample_field(primitives: list[Primitive], axes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """(X, Y, Z) float32 values of the smooth union on the grid with these axis coordinates (metres).

    Every primitive is evaluated only near itself. Inside is negative; soles are cut flat at the floor.
    """
    shape = tuple(len(axis) for axis in axes)
    joined = np.zeros(shape, np.float32)
    for group, fillet in FILLETS.items():
        members = [p for p in primitives if p.group == group]
        low = np.min([p.bounds()[0] for p in members], 0) - REACH * fillet
        high = np.max([p.bounds()[1] for p in members], 0) + REACH * fillet
        window = tuple(slice(*np.searchsorted(axes[d], [low[d], high[d]])) for d in range(3))
        total = np.zeros(joined[window].shape, np.float32)
        for primitive in members:
            low, high = primitive.bounds()
            ranges = [
                np.searchsorted(axes[d][window[d]], [low[d] - REACH * fillet, high[d] + REACH * fillet])
                for d in range(3)
            ]
            box = tuple(slice(*r) for r in ranges)
            x, y, z = (axes[d][window[d]][box[d]].astype(np.float32) for d in range(3))
            distance = primitive.distance(x[:, None, None], y[:, None], z)
            total[box] += np.exp(np.clip(-distance / fillet, -30, 30))
        with np.errstate(divide="ignore"):
            field = np.minimum(-fillet * np.log(total), FIELD_OUTSIDE)
        joined[window] += np.exp(np.clip(-field / JOIN_FILLET, -30, 30))
    with np.errstate(divide="ignore"):
        field = np.minimum(-JOIN_FILLET * np.log(joined), FIELD_OUTSIDE)
    return np.maximum(field, -axes[1].astype(np.float32)[:, None])
