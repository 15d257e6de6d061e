"""From the implicit person to a closed triangle mesh with exactly the vertex count of SMPL-X.

Third stage: field on a grid -> marching cubes -> decimation -> edge splits for the last few vertices.
Shape letters: B vertices (10475), F triangles (2 B - 4: the surface is a topological sphere).
"""

from __future__ import annotations

import fast_simplification
import numpy as np
import trimesh
from scipy import sparse
from skimage.measure import marching_cubes

from mmlphuman.synthetic.implicit import person, sample_field
from mmlphuman.synthetic.skeleton import CHEST_HEIGHT

NUM_VERTICES = 10475
SPARE_FACES = 60  # decimation stops this far below the wanted count; edge splits fill the rest


def _grid_axes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axis coordinates, fine where hands and face are (metres)."""
    hand = np.arange(0.64, 0.92, 0.0030)
    half = np.concatenate([np.arange(0, 0.638, 0.0045), hand])
    x = np.concatenate([-half[:0:-1], half])
    y = np.concatenate([np.arange(-0.02, 1.297, 0.0055), np.arange(1.30, 1.72, 0.0028)])
    z = np.concatenate([np.arange(-0.165, -0.082, 0.005), np.arange(-0.08, 0.20, 0.0026)])
    return x, y, z


def extract_person() -> tuple[np.ndarray, np.ndarray]:
    """Dense vertices (P, 3) with the floor at y = 0 and outward triangles (Q, 3) of the largest part."""
    axes = _grid_axes()
    field = sample_field(person(), axes)
    indices, faces, _, _ = marching_cubes(field, 0.0)
    vertices = np.stack([np.interp(indices[:, d], np.arange(len(axes[d])), axes[d]) for d in range(3)], 1)
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    mesh = max(mesh.split(only_watertight=False), key=lambda part: len(part.faces))
    if mesh.volume < 0:
        mesh.invert()
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def split_longest_edges(
    vertices: np.ndarray, faces: np.ndarray, num_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split edges of a closed mesh at their middle, longest first, until it has `num_vertices` vertices."""
    places, triangles = list(vertices), [tuple(face) for face in faces]
    while len(places) < num_vertices:
        corners = np.array(triangles)
        points = np.array(places)
        edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
        lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
        a, b = edges[np.argmax(lengths)]
        middle = len(places)
        places.append((points[a] + points[b]) / 2)
        for index in np.flatnonzero((corners == a).any(1) & (corners == b).any(1)):
            face = triangles[index]
            triangles[index] = tuple(middle if corner == a else corner for corner in face)
            triangles.append(tuple(middle if corner == b else corner for corner in face))
    return np.array(places), np.array(triangles)


def relax(vertices: np.ndarray, faces: np.ndarray, rounds: int = 8) -> np.ndarray:
    """Even out the triangles: move vertices towards their neighbours' mean within the tangent plane."""
    count = len(vertices)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    mean = sparse.diags(1 / np.asarray(adjacency.sum(1)).ravel()) @ adjacency
    for _ in range(rounds):
        normals = vertex_normals(vertices, faces)
        step = mean @ vertices - vertices
        vertices = vertices + 0.5 * (step - (step * normals).sum(1, keepdims=True) * normals)
    return vertices


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(P, 3) unit normals, area-weighted means of the faces around a vertex."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], face_normals[:, axis], len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def person_mesh() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (10475, 3) in the body file's axes, metres, and triangles (20946, 3)."""
    vertices, faces = extract_person()
    target = 2 * NUM_VERTICES - 4 - SPARE_FACES
    vertices, faces = fast_simplification.simplify(
        vertices.astype(np.float32),  # pyright: ignore[reportArgumentType]  # any float will do
        faces.astype(np.int32),
        target_count=target,
        agg=4,
    )[:2]
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    if not mesh.is_watertight or mesh.euler_number != 2:
        raise RuntimeError(f"the synthetic body is not a closed surface: Euler number {mesh.euler_number}")
    vertices, faces = split_longest_edges(np.asarray(mesh.vertices), np.asarray(mesh.faces), NUM_VERTICES)
    return relax(vertices, faces) - [0, CHEST_HEIGHT, 0], faces
