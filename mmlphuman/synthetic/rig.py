"""Skinning weights and joint regressor of the synthetic body.

Fourth stage: mesh + labelled primitives -> weights (B, 55), at most 4 joints a vertex -> J_regressor (55, B).
Every vertex belongs to the joint of the primitive it lies on; the labels then diffuse over the surface, with
a length that suits the part, and are cut to the strongest four.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import nnls
from scipy.sparse.linalg import splu

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.implicit import person

MAX_JOINTS_PER_VERTEX = 4
SPINE_BOUNDS = (0.985, 1.095, 1.190)  # metres above the floor: pelvis | spine1 | spine2 | spine3

# Diffusion lengths, metres: how far a joint's bend spreads over the surface.
TRUNK_LENGTH, LIMB_LENGTH, HEAD_LENGTH, FINGER_LENGTH, EYE_LENGTH = 0.045, 0.026, 0.014, 0.0045, 0.003
REGRESSOR_VERTICES = 80  # first try; grows until the joint is inside their hull


def vertex_labels(vertices: np.ndarray) -> np.ndarray:
    """(B,) the joint each vertex follows when nothing is smoothed. vertices: (B, 3), body file's axes."""
    standing = vertices + [0, sk.CHEST_HEIGHT, 0]
    x, y, z = standing.T
    primitives = person()
    nearest = np.argmin([p.distance(x, y, z) for p in primitives], 0)
    labels = np.array([p.joint for p in primitives])[nearest]
    trunk = np.isin(labels, [sk.PELVIS, sk.SPINE1, sk.SPINE2, sk.SPINE3])
    by_height = np.array([sk.PELVIS, sk.SPINE1, sk.SPINE2, sk.SPINE3])[np.searchsorted(SPINE_BOUNDS, y)]
    labels[trunk] = by_height[trunk]
    return labels


def cotangent_laplacian(vertices: np.ndarray, faces: np.ndarray) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Positive semi-definite (B, B) Laplacian and the (B,) vertex areas. Obtuse weights are cut at zero."""
    count = len(vertices)
    laplacian = sparse.csc_matrix((count, count))
    area = np.zeros(count)
    for k in range(3):
        i, j, o = faces[:, (k + 1) % 3], faces[:, (k + 2) % 3], faces[:, k]
        u, v = vertices[i] - vertices[o], vertices[j] - vertices[o]
        doubled_area = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-12)
        weight = np.clip(0.5 * (u * v).sum(1) / doubled_area, 1e-3, 10)
        one_way = sparse.csc_matrix((weight, (i, j)), (count, count))
        laplacian = laplacian - one_way - one_way.T
        area += np.bincount(o, doubled_area / 6, count)
    return (laplacian - sparse.diags(np.asarray(laplacian.sum(1)).ravel())).tocsc(), area


def _diffusion_length(joint: int) -> float:
    if joint >= sk.FIRST_LEFT_FINGER:
        return FINGER_LENGTH
    if joint in (sk.HEAD, sk.JAW, sk.L_EYE, sk.R_EYE):
        return EYE_LENGTH if joint in (sk.L_EYE, sk.R_EYE) else HEAD_LENGTH
    limbs = (sk.L_KNEE, sk.R_KNEE, sk.L_ANKLE, sk.R_ANKLE, sk.L_ELBOW, sk.R_ELBOW, sk.L_FOOT, sk.R_FOOT)
    if joint in (sk.L_WRIST, sk.R_WRIST):
        return HEAD_LENGTH
    return LIMB_LENGTH if joint in limbs else TRUNK_LENGTH


def skinning_weights(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(B, 55) non-negative weights summing to one over at most four joints."""
    labels = vertex_labels(vertices)
    laplacian, area = cotangent_laplacian(vertices, faces)
    weights = np.zeros((len(vertices), sk.NUM_JOINTS))
    lengths = np.array([_diffusion_length(joint) for joint in range(sk.NUM_JOINTS)])
    for length in np.unique(lengths):
        solver = splu((sparse.diags(area) + length**2 * laplacian).tocsc())
        for joint in np.flatnonzero(lengths == length):
            weights[:, joint] = solver.solve(area * (labels == joint))
    weights[weights < 0.01] = 0  # implicit diffusion has long tails
    return keep_strongest_joints(weights)


def keep_strongest_joints(weights: np.ndarray) -> np.ndarray:
    """Keep the four largest weights of a row and make them sum to one."""
    weights = weights.copy()
    dropped = np.argpartition(-weights, MAX_JOINTS_PER_VERTEX, axis=1)[:, MAX_JOINTS_PER_VERTEX:]
    np.put_along_axis(weights, dropped, 0, axis=1)
    return weights / weights.sum(1, keepdims=True)


def joint_regressor(vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(55, B) non-negative weights of nearby vertices whose weighted mean is exactly the joint."""
    regressor = np.zeros((len(joints), len(vertices)))
    for row, joint in zip(regressor, joints, strict=True):
        distance = np.linalg.norm(vertices - joint, axis=1)
        order = np.argsort(distance)
        count = REGRESSOR_VERTICES
        while True:
            near = order[:count]
            # Homogeneous coordinates about the joint; the small extra row spreads the weights.
            local = (vertices[near] - joint) / distance[near].max()
            system = np.concatenate([local.T, np.ones((1, count)), 1e-4 * np.eye(count)])
            wanted = np.concatenate([[0, 0, 0, 1], np.full(count, 1e-4 / count)])
            weights, _ = nnls(system, wanted)
            used = near[weights > 0]
            constraints = np.concatenate([vertices[used].T, np.ones((1, len(used)))])
            target = np.append(joint, 1.0)
            solution = weights[weights > 0]
            solution = solution + np.linalg.pinv(constraints) @ (target - constraints @ solution)
            exact = np.abs(constraints @ solution - target).max() < 1e-9
            if exact and solution.min() >= 0:
                row[used] = solution
                break
            count *= 2
            if count > len(vertices):
                raise RuntimeError("a joint of the synthetic body lies outside its surface")
    return regressor
