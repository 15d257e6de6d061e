"""What is photographed of the hard subject: a body, clothes and a light that the avatar is not told of.

Data path: body file -> own skinning weights -> dress -> ClothedSubject; own blend shapes -> Flesh; the demo's folds
and fast wrinkles -> Cloth. `hard_motion` moves it. It is hard in the way of real people: the body file, which the
avatar is told, has other weights and only the small blend shapes; a lamp lights one side and fades with the way into
the room; some wrinkles can be fitted in the pictures seen, but not foreseen.
Shape letters: B body vertices, P vertices of all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.appearance import Light
from mmlphuman.synthetic.blend_shapes import NUM_SHAPES
from mmlphuman.synthetic.folds import WANDER, WINDOW_FLOOR, Cloth, make_cloth
from mmlphuman.synthetic.garments import SHIRT, TROUSERS, ClothedSubject, UnclothedBody, smoothstep
from mmlphuman.synthetic.hard_motion import NUM_EXPRESSIONS
from mmlphuman.synthetic.person_mesh import vertex_normals
from mmlphuman.synthetic.remesh import neighbour_means

RING_RADIUS = 5.0  # metres; the person walks about
# A lamp high at the person's left, 70% of the light; 2 m away from it there is 30% less of it.
LAMP_LIGHT = Light(
    lamps=(((0.80, 0.62, 0.30), 0.74),), ambient=0.31, sky=0.08, wrap=0.15, fall_off=(0.167, 0.0, 0.062)
)

WEIGHT_ROUNDS = 6  # of smoothing over the mesh
WEIGHT_CHANGE = 0.4  # logarithm; how much a joint's share of a vertex may grow or shrink
WEIGHT_WAVELENGTH = 0.30  # metres
FLESH_JOINTS = (
    *(sk.L_ELBOW, sk.R_ELBOW, sk.L_SHOULDER, sk.R_SHOULDER),
    *(sk.L_HIP, sk.R_HIP, sk.L_KNEE, sk.R_KNEE),
)
FLESH_SIZE = 0.020  # metres; the largest displacement by a joint's own blend shapes when turned by FLESH_TURN
FLESH_TURN = 1.6  # radians, about any of FLESH_AXES random axes
FLESH_AXES = 64
FLESH_WAVELENGTH = 0.20

FOLDS_SHARE = 0.6  # of the demo's smooth folds and bulges
FLUTTER_SIZE = 0.0060  # metres
FLUTTER_VALLEY = 0.90  # share of a full valley
FLUTTER_WAVELENGTH = 0.055  # metres
# Where fast wrinkles run (layer, side, from, to; metres of height, for sleeves of reach along the arm), and their
# phase's radians per radian of angles near and far.
FLUTTERS = (
    (SHIRT, 1, (0.84, 1.42), {"left raise": 6, "right elbow": 9, "right hip": 9, "twist left": 9}),
    (SHIRT, -1, (0.84, 1.42), {"right raise": 6, "left elbow": 9, "left knee": 7, "lean left": 9}),
    ("sleeve", 1, (0.18, 0.60), {"left elbow": 9, "right knee": 7, "right raise": 5}),
    ("sleeve", -1, (0.18, 0.60), {"right elbow": 9, "left hip": 9, "twist left": 8}),
    (TROUSERS, 1, (0.48, 0.92), {"left hip": 9, "left elbow": 6, "right raise": 9}),
    (TROUSERS, -1, (0.48, 0.92), {"right hip": 9, "right elbow": 9, "lean left": 9}),
    (TROUSERS, 1, (0.06, 0.48), {"left knee": 9, "left raise": 9, "twist left": 9}),
    (TROUSERS, -1, (0.06, 0.48), {"right knee": 9, "right raise": 7, "left elbow": 9}),
)


def own_weights(body: UnclothedBody, rng: np.random.Generator) -> np.ndarray:
    """(B, 55) skinning weights of the true body: the file's, smoother and unevenly shared between joints."""
    mean = neighbour_means(body.faces, len(body.vertices))
    weights = body.weights
    for _ in range(WEIGHT_ROUNDS):
        weights = 0.5 * weights + 0.5 * (mean @ weights)
    frequency = rng.normal(size=(3, sk.NUM_JOINTS))
    frequency *= 2 * np.pi / WEIGHT_WAVELENGTH / np.linalg.norm(frequency, axis=0)
    field = np.sin(body.vertices @ frequency + rng.uniform(0, 2 * np.pi, sk.NUM_JOINTS))
    weights = weights * np.exp(WEIGHT_CHANGE * field)
    return weights / weights.sum(1, keepdims=True)


@dataclass(frozen=True)
class Flesh:
    """The true body's blend shapes."""

    pose_directions: sparse.csr_matrix  # (3 B, 486) metres per unit of (rotation matrix - identity)
    expression_directions: np.ndarray  # (3 B, 10) metres

    def displace(self, subject: ClothedSubject, pose: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(P, 3) float32 displacement in the T-pose. pose: (165,) axis-angle; expression: (10,)."""
        moved = self.pose_directions @ pose_features(pose) + self.expression_directions @ expression
        return subject.from_body @ moved.reshape(-1, 3).astype(np.float32)


def pose_features(pose: np.ndarray) -> np.ndarray:
    """(486,) what SMPL-X's pose blend shapes are multiplied with. pose: (165,)."""
    return (Rotation.from_rotvec(pose.reshape(-1, 3)[1:]).as_matrix() - np.eye(3)).ravel()


def own_pose_directions(body: UnclothedBody, rng: np.random.Generator) -> np.ndarray:
    """(B, 3, 486) swellings and shifts at elbows, shoulders, hips and knees of up to FLESH_SIZE."""
    normals = vertex_normals(body.vertices, body.faces)
    directions = np.zeros((len(body.vertices), 3, 9 * (sk.NUM_JOINTS - 1)))
    axes = rng.normal(size=(FLESH_AXES, 3))
    turns = Rotation.from_rotvec(FLESH_TURN * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    features = (turns.as_matrix() - np.eye(3)).reshape(-1, 9).T
    for joint in FLESH_JOINTS:
        beyond = [j for j in range(sk.NUM_JOINTS) if joint in _ancestors(j)]
        share = body.weights[:, beyond].sum(1)
        seam = 4 * share * (1 - share)
        frequency = rng.normal(size=(3, 9))
        frequency *= 2 * np.pi / FLESH_WAVELENGTH / np.linalg.norm(frequency, axis=0)
        field = rng.normal(size=9) + 0.7 * np.sin(body.vertices @ frequency + rng.uniform(0, 2 * np.pi, 9))
        pattern = normals[:, :, None] * field[:, None] + 0.4 * rng.normal(size=(1, 3, 9))
        own = seam[:, None, None] * pattern
        largest = np.linalg.norm(own @ features, axis=1).max()
        directions[:, :, 9 * (joint - 1) : 9 * joint] = FLESH_SIZE / largest * own
    return directions


def _ancestors(joint: int) -> list[int]:
    """The joint and all that carry it."""
    return [joint, *(_ancestors(sk.PARENTS[joint]) if joint else [])]


def make_flesh(smplx_path: Path, body: UnclothedBody, rng: np.random.Generator) -> Flesh:
    """The body file's blend shapes of pose and expression, and the true body's own."""
    with np.load(smplx_path, allow_pickle=False) as file:
        told, shapes = file["posedirs"], file["shapedirs"]
    pose = (told + own_pose_directions(body, rng)).reshape(-1, told.shape[2])
    expression = shapes[:, :, NUM_SHAPES : NUM_SHAPES + NUM_EXPRESSIONS].reshape(-1, NUM_EXPRESSIONS)
    return Flesh(sparse.csr_matrix(pose), expression.astype(np.float64))


@dataclass(frozen=True)
class Flutter:
    """Wrinkles that run over a garment by many times the change of several angles, near and far.

    Two poses that differ by 10 degrees in a few joints have them elsewhere: they fit any training frame, and
    tell nothing about others.
    """

    speeds: Mapping[str, float]  # drive -> radians of phase per radian
    index: np.ndarray  # (Z,) vertices of the zone
    window: np.ndarray  # (Z,)
    phase: np.ndarray  # (Z,) radians

    def add(self, drives: dict[str, float], height: np.ndarray, valley: np.ndarray) -> None:
        """Add to the garments' height (P,) in metres and valley depth (P,) in 0..1."""
        moved = sum(speed * drives[name] for name, speed in self.speeds.items())
        crest = (0.5 + 0.5 * np.sin(self.phase + np.float32(moved))) ** 2
        height[self.index] += np.float32(FLUTTER_SIZE) * self.window * (crest - 0.375)
        valley[self.index] += np.float32(FLUTTER_VALLEY) * self.window * (1 - crest)


def make_hard_cloth(subject: ClothedSubject, rng: np.random.Generator) -> Cloth:
    """The demo's folds, which follow the nearby joints smoothly, and the fast wrinkles of FLUTTERS."""
    cloth = make_cloth(subject)
    x, height, z = subject.anatomy.astype(np.float64).T
    bend = np.sin(27 * x + 17 * height - 21 * z) + np.sin(19 * height + 37 * z - 23 * x)
    flutters = []
    for layer, side, (low, high), speeds in FLUTTERS:
        on_sleeve = smoothstep(np.abs(x), 0.17, 0.21)
        place = side * x if layer == "sleeve" else height
        zone = subject.layer == (SHIRT if layer == "sleeve" else layer)
        if layer == SHIRT:
            zone = zone * (1 - on_sleeve)
        window = zone * smoothstep(side * x, 0.0, 0.03)
        window = window * smoothstep(place, low, low + 0.05) * (1 - smoothstep(place, high - 0.05, high))
        direction = rng.normal(size=3)
        along = subject.anatomy @ (direction / np.linalg.norm(direction)) / FLUTTER_WAVELENGTH
        index = np.flatnonzero(window > WINDOW_FLOOR)
        phase = 2 * np.pi * (along + WANDER * bend)[index]
        flutters.append(Flutter(speeds, index, window[index].astype(np.float32), phase.astype(np.float32)))
    share = np.float32(FOLDS_SHARE)
    folds = tuple(replace(fold, window=share * fold.window) for fold in cloth.folds)
    bulges = tuple(replace(bulge, offset=share * bulge.offset) for bulge in cloth.bulges)
    return replace(cloth, folds=folds + tuple(flutters), bulges=bulges)
