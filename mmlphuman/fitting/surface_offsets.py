"""How far a body's surface stands off along its normals, so that its outlines meet the masks' in all pictures.

Data path: OutlineMatches of all cameras -> residuals along the normals -> a smooth field (B,) metres.
One linear least-squares problem for all frames together: what stays the same in all poses is shape, the rest is not.
Shape letters: B vertices, F frames, N contour points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from mmlphuman.fitting.silhouettes import (
    OUTLINE_ERROR,
    OUTLINE_LIMIT,
    OutlineMatches,
    Outlines,
    project_reduced,
)

FARTHEST = 0.04  # metres
USUAL = 0.015  # metres by which clothes and people stand off from a body model
SMOOTH_LENGTH = 0.03  # metres within which the field hardly changes
MIN_FACING = 0.3  # cosine between a vertex's normal and the outline's, in the picture
TOLD_BY = 0.005  # outline points of a vertex and picture that count as one: they err together


def surface_laplacian(vertices: np.ndarray, faces: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """(B, B) cotangent Laplacian over area, in 1/m^2, and (B,) areas in m^2."""
    count = len(vertices)
    area = np.zeros(count)
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, opposite = (faces[:, (corner + shift) % 3] for shift in (1, 2, 0))
        u, v = vertices[i] - vertices[opposite], vertices[j] - vertices[opposite]
        doubled = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-10)
        # Negative weights of obtuse corners, and huge ones of slivers, would let the field oscillate.
        half_cotangent = np.clip(0.5 * (u * v).sum(1) / doubled, 0.01, 5)
        rows += [i, j]
        columns += [j, i]
        values += [half_cotangent, half_cotangent]
        area += np.bincount(opposite, doubled / 6, count)
    weights = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count)
    )
    degree = sparse.diags(np.asarray(weights.sum(1)).ravel())
    area = np.maximum(area, 1e-8)
    return sparse.csr_matrix(sparse.diags(1 / area) @ (degree - weights)), area


def solve_offsets(
    current: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    held: np.ndarray,
    outlines: Sequence[Outlines],
    matches: Sequence[OutlineMatches],
    posed: Sequence[np.ndarray],
    normals: Sequence[np.ndarray],
) -> np.ndarray:
    """(B,) metres along the normals, within FARTHEST.

    current: (B,) that `posed` already has; vertices: (B, 3) T-pose; held: (B,) bool, where the masks are not to be
    believed (hands); posed, normals: of each camera (F, B, 3) world at its pictures' times.
    """
    weight, pull = np.zeros(len(current)), np.zeros(len(current))
    told_by = TOLD_BY * max(sum(int(match.there.any(1).sum()) for match in matches), 1)
    for camera, match, places, directions in zip(outlines, matches, posed, normals, strict=True):
        for frame in np.flatnonzero(match.there.any(1)):
            points = match.there[frame]
            chosen = match.vertices[frame, points]
            pixels, depth = project_reduced(camera, places[frame, chosen])
            outwards = camera.normals[frame, points]
            missing = ((camera.contour[frame, points] - pixels) * outwards).sum(1) * depth / camera.focal
            facing = ((directions[frame, chosen] @ camera.R.T[:, :2]) * outwards).sum(1)
            robust = 1 / (1 + (missing / OUTLINE_LIMIT) ** 2) ** 2 / OUTLINE_ERROR**2
            robust *= facing > MIN_FACING
            np.add.at(weight, chosen, robust * facing**2)
            np.add.at(pull, chosen, robust * facing * (missing + facing * current[chosen]))
    laplacian, area = surface_laplacian(vertices, faces)
    share = area / area.mean()
    smooth = SMOOTH_LENGTH**4 * (laplacian.T @ sparse.diags(share) @ laplacian)
    still = sparse.diags(share * np.where(held, 100.0, 1.0))
    system = sparse.diags(weight / told_by) + (smooth + still) / USUAL**2
    return splu(system.tocsc()).solve(pull / told_by).clip(-FARTHEST, FARTHEST)
