"""The canonical surface as data: normals, its skinning weights between vertices and beside it, their gradients.

Data path: Body -> what the weight volume is fitted to and judged by.
Shape letters: B body vertices, E directed edges, S samples, P points, K candidate faces, J joints.
"""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import normalize

from mmlphuman.body.smplx_model import Body

SHORTEST_EDGE = 1e-6  # metres
CANDIDATE_FACES = 16  # by their centres; the nearest point of the surface is looked for on these
COLLINEAR = 1e-3  # neighbours nearly on a line say nothing about the gradient across it


def vertex_normals(body: Body) -> Tensor:
    """(B, 3) unit outward normals of the canonical surface, weighted by area; zero where no face meets."""
    corners = body.canonical_vertices[body.faces]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(body.canonical_vertices)
    for corner in range(3):
        normals.index_add_(0, body.faces[:, corner], face_normals)
    return normalize(normals, eps=1e-20)


def weight_gradients(body: Body) -> Tensor:
    """(B, 3, J) float64: the weights' gradient in the tangent plane of the canonical vertices, per metre.

    The least squares fit to the slopes of the weights towards the neighbours.
    """
    vertices, weights = body.canonical_vertices.double(), body.lbs_weights.double()
    edges = _edges(body)
    start, end = torch.cat([edges, edges.flip(1)]).unbind(1)
    step = vertices[end] - vertices[start]
    length = step.norm(dim=1, keepdim=True).clamp_min(SHORTEST_EDGE)
    normals = vertex_normals(body).double()[start]
    direction = step / length
    direction -= normals * (normals * direction).sum(1, keepdim=True)
    slope = (weights[end] - weights[start]) / length
    squared, mixed = (
        vertices.new_zeros(len(vertices), 3, 3),
        vertices.new_zeros(len(vertices), 3, slope.shape[1]),
    )
    squared.index_add_(0, start, direction[:, :, None] * direction[:, None])
    mixed.index_add_(0, start, direction[:, :, None] * slope[:, None])
    return torch.linalg.pinv(squared, rtol=COLLINEAR, hermitian=True) @ mixed


def surface_samples(body: Body) -> tuple[Tensor, Tensor]:
    """Vertices, edge midpoints and face centres of the canonical surface (S, 3) with their weights (S, J)."""
    edges = _edges(body)

    def spread(attribute: Tensor) -> Tensor:
        return torch.cat([attribute, attribute[edges].mean(1), attribute[body.faces].mean(1)])

    return spread(body.canonical_vertices), spread(body.lbs_weights)


def nearest_surface_weights(body: Body, points: Tensor) -> Tensor:
    """Skinning weights (P, J) at the canonical surface's points nearest to (P, 3) points."""
    triangles = body.canonical_vertices[body.faces].double().numpy()
    count = min(CANDIDATE_FACES, len(triangles))
    # The size of its leaves decides which of equally near faces come first.
    _, face = KDTree(triangles.mean(1), leafsize=16).query(points.numpy(), k=count)
    face = face.reshape(len(points), count)  # also if it is one
    candidates = triangles[face.ravel()]
    wanted = points.double().numpy().repeat(count, 0)
    closest = trimesh.triangles.closest_point(candidates, wanted)
    best = np.linalg.norm(closest - wanted, axis=1).reshape(face.shape).argmin(1)
    chosen = np.arange(len(points)) * count + best
    shares = trimesh.triangles.points_to_barycentric(candidates[chosen], closest[chosen])
    corners = body.faces[torch.from_numpy(face.ravel()[chosen])]
    return (torch.from_numpy(shares).float()[:, :, None] * body.lbs_weights[corners]).sum(1)


def _edges(body: Body) -> Tensor:
    """Every edge once, (E / 2, 2)."""
    faces = body.faces
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values.unique(dim=0)
