"""A licence-free human body in the file format of SMPL-X (SMPLX_NEUTRAL.npz).

Data path: skeleton -> implicit surface -> mesh (10475 vertices) -> rig -> blend shapes -> this file, which the
`smplx` package and the program's own loader read exactly as they read the publisher's. It is an invented
person; nothing of the licensed model is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from smplx.vertex_ids import vertex_ids

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.blend_shapes import pose_directions, shape_directions
from mmlphuman.synthetic.person_mesh import person_mesh, vertex_normals
from mmlphuman.synthetic.rig import joint_regressor, skinning_weights

ROOT_PARENT = 2**32 - 1  # how SMPL-family files write "no parent"
CONTOUR_ANGLES, CONTOUR_POINTS = 79, 17  # head yaw -39..39 degrees, jaw line points


def _keypoints() -> dict[str, tuple[float, ...]]:
    """Places (floor at y = 0) of the vertices that `smplx` picks as extra joints, by its names."""
    left = {
        **{"leye": (0.031, 1.582, 0.082), "lear": (0.083, 1.580, -0.012)},
        **{
            "LBigToe": (0.085, 0.02, 0.174),
            "LSmallToe": (0.140, 0.02, 0.135),
            "LHeel": (0.095, 0.03, -0.087),
        },
        **{f"l{name}": tuple(points[3]) for name, points in sk.finger_points().items()},
    }
    swap = {"leye": "reye", "lear": "rear", "LBigToe": "RBigToe", "LSmallToe": "RSmallToe", "LHeel": "RHeel"}
    right = {swap.get(k, "r" + k[1:]): (-p[0], p[1], p[2]) for k, p in left.items()}
    return {"nose": (0, 1.553, 0.115), **left, **right}


def _order_keypoints(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber so that nose, eyes, toes and finger tips have the numbers SMPL-X gives them."""
    order = np.arange(len(vertices))
    for name, place in _keypoints().items():
        number = vertex_ids["smplx"][name]
        distance = np.linalg.norm(vertices[order] - (np.array(place) - [0, sk.CHEST_HEIGHT, 0]), axis=1)
        nearest = int(np.argmin(distance))
        order[[number, nearest]] = order[[nearest, number]]
    new_number = np.empty_like(order)
    new_number[order] = np.arange(len(order))
    return vertices[order], new_number[faces]


def _face_points(
    places: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest triangles (P,) to places (P, 3), and barycentric coordinates (P, 3) of their centres."""
    nearest = KDTree(vertices[faces].mean(1)).query(places)[1]
    return np.asarray(nearest, np.int64), np.full((len(places), 3), 1 / 3)


def _landmark_places() -> np.ndarray:
    """(51, 3) the inner landmarks of the 68-point scheme: brows, nose, eyes, mouth; floor at y = 0."""
    t = np.linspace(0, 1, 5)
    brow = np.stack([0.048 - 0.036 * t, 1.602 + 0.004 * np.sin(np.pi * t), 0.070 + 0.015 * t], 1)
    bridge = np.stack([np.zeros(4), np.linspace(1.588, 1.556, 4), np.linspace(0.09, 0.115, 4)], 1)
    wing = np.stack([np.linspace(-0.012, 0.012, 5), np.full(5, 1.548), np.full(5, 0.102)], 1)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    eye = np.stack([0.031 + 0.013 * np.cos(turn), 1.582 + 0.006 * np.sin(turn), np.full(6, 0.08)], 1)
    outer = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    lips = np.stack([0.024 * np.cos(outer), 1.526 + 0.010 * np.sin(outer), np.full(12, 0.088)], 1)
    inner = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    mouth = np.stack([0.015 * np.cos(inner), 1.526 + 0.004 * np.sin(inner), np.full(8, 0.09)], 1)
    flip = np.array([-1, 1, 1])
    return np.concatenate([brow * flip, brow[::-1], bridge, wing, eye * flip, eye, lips, mouth])


def _contour_places() -> np.ndarray:
    """(79, 17, 3) the visible jaw line as the head turns from -39 to 39 degrees; floor at y = 0."""
    along = np.linspace(-1, 1, CONTOUR_POINTS)
    yaw = np.deg2rad(np.arange(CONTOUR_ANGLES) - CONTOUR_ANGLES // 2)[:, None]
    azimuth = along * np.pi * 0.5 + yaw
    height = 1.492 + 0.075 * along**2 + 0 * yaw
    return np.stack([0.062 * np.sin(azimuth), height, 0.01 + 0.065 * np.cos(azimuth)], -1)


def body_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Every array of the body file, by its key. No object arrays: nothing needs unpickling."""
    rng = np.random.default_rng(seed)
    vertices, faces = _order_keypoints(*person_mesh())
    vertices = vertices.astype(np.float32).astype(np.float64)  # what float32 readers will see
    normals = vertex_normals(vertices, faces)
    weights = skinning_weights(vertices, faces)
    to_file_axes = np.array([0, sk.CHEST_HEIGHT, 0])
    landmarks = _face_points(_landmark_places() - to_file_axes, vertices, faces)
    contour = _face_points((_contour_places() - to_file_axes).reshape(-1, 3), vertices, faces)
    hand = _hand_arrays(rng)
    parents = np.where(sk.PARENTS < 0, ROOT_PARENT, sk.PARENTS).astype(np.int64)
    return {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "weights": weights,
        "kintree_table": np.stack([parents, np.arange(sk.NUM_JOINTS)]),
        "J_regressor": joint_regressor(vertices, sk.rest_joints()),
        "shapedirs": shape_directions(vertices, normals, rng),
        "posedirs": pose_directions(vertices, normals, weights, rng),
        "lmk_faces_idx": landmarks[0],
        "lmk_bary_coords": landmarks[1],
        "dynamic_lmk_faces_idx": contour[0].reshape(CONTOUR_ANGLES, CONTOUR_POINTS),
        "dynamic_lmk_bary_coords": contour[1].reshape(CONTOUR_ANGLES, CONTOUR_POINTS, 3),
        **hand,
    }


def _hand_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mean hand poses (slightly curled) and orthonormal pose components, mirrored left to right."""
    curl = np.zeros((15, 3))
    curl[:12, 2] = -np.tile([0.15, 0.35, 0.25], 4)
    curl[12:, 1] = -0.15
    mirror = np.tile([1.0, -1.0, -1.0], 15)
    components = np.linalg.qr(rng.normal(size=(45, 45)))[0]
    return {
        "hands_meanl": curl.ravel(),
        "hands_meanr": curl.ravel() * mirror,
        "hands_componentsl": components,
        "hands_componentsr": components * mirror,
    }


def write_body(path: Path, seed: int = 0) -> None:
    """Write the synthetic body to `path` (.npz, compressed), replacing it in one step.

    seed: of the random blend shapes and hand components; the person's neutral shape does not depend on it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(partial, allow_pickle=False, **body_arrays(seed))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
