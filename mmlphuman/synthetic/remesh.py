"""Loop subdivision and clipping of triangle meshes, as linear maps of the input vertices.

Place: body mesh -> finer surface of skin and garments. Because every new vertex is a fixed weighted mean of
old ones, the same sparse matrix refines positions, skinning weights and texture coordinates alike.
Shape letters: B input vertices, P output vertices, F input triangles.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique undirected edges (E, 2) and, for each face, the numbers (F, 3) of edges 01, 12, 20."""
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    edges, inverse = np.unique(pairs, axis=0, return_inverse=True)
    return edges, inverse.reshape(-1, 3)


def neighbour_means(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """(B, B) matrix that replaces each vertex by the mean of its neighbours on a closed mesh."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = sparse.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (count, count))
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(adjacency.sum(1)).ravel()) @ adjacency)


def loop_subdivision(faces: np.ndarray, count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One round of Loop's scheme on a closed mesh of `count` vertices.

    Returns the (B + E, B) matrix of refined vertices and the (4 F, 3) triangles.
    """
    edges, face_edges = _edges(faces)
    num_edges = len(edges)
    ones = np.ones(num_edges)
    adjacency = sparse.coo_matrix((ones, (edges[:, 0], edges[:, 1])), (count, count))
    adjacency = (adjacency + adjacency.T).tocsr()
    degree = np.asarray(adjacency.sum(1)).ravel()
    beta = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / degree) / 4) ** 2) / degree
    old = sparse.diags(1 - degree * beta) + sparse.diags(beta) @ adjacency
    # A new vertex on an edge: 3/8 of its ends, 1/8 of the two opposite corners.
    rows = np.repeat(np.arange(num_edges), 2)
    ends = sparse.coo_matrix((np.full(2 * num_edges, 3 / 8), (rows, edges.ravel())), (num_edges, count))
    opposite = faces[:, [2, 0, 1]]
    wings = sparse.coo_matrix(
        (np.full(opposite.size, 1 / 8), (face_edges.ravel(), opposite.ravel())), (num_edges, count)
    )
    matrix = sparse.csr_matrix(sparse.vstack([old, ends + wings]))
    a, b, c = faces.T
    ab, bc, ca = (face_edges + count).T
    corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return matrix, np.concatenate([np.stack(corner, 1) for corner in corners])


def subdivide(faces: np.ndarray, count: int, rounds: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """`rounds` of Loop subdivision as one (P, B) matrix, and the triangles."""
    matrix = sparse.csr_matrix(sparse.identity(count, format="csr"))
    for _ in range(rounds):
        count = matrix.shape[0]  # pyright: ignore[reportOptionalSubscript]  # scipy's matrices have shapes
        step, faces = loop_subdivision(faces, count)
        matrix = sparse.csr_matrix(step @ matrix)
    return matrix, faces


def clip(faces: np.ndarray, values: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Keep the part of a mesh where the per-vertex `values` (B,) are positive, cutting triangles on the line.

    Returns the (P, B) matrix of the kept and cut vertices and their triangles.
    """
    inside = values > 0
    number_inside = inside[faces].sum(1)
    cut = faces[(number_inside == 1) | (number_inside == 2)]
    odd = np.where(inside[cut].sum(1) == 1, inside[cut].argmax(1), (~inside[cut]).argmax(1))
    cut = np.take_along_axis(cut, (odd[:, None] + np.arange(3)) % 3, 1)  # the odd one out comes first
    crossing = np.concatenate([cut[:, [0, 1]], cut[:, [0, 2]]])
    edges, inverse = np.unique(np.sort(crossing, 1), axis=0, return_inverse=True)
    first, second = values[edges[:, 0]], values[edges[:, 1]]
    share = first / (first - second)
    rows = np.repeat(np.arange(len(edges)), 2)
    weights = np.stack([1 - share, share], 1)
    on_line = sparse.csr_matrix((weights.ravel(), (rows, edges.ravel())), (len(edges), len(values)))
    near, far = len(values) + inverse.reshape(2, -1)
    v0, v1, v2 = cut.T
    corner = inside[v0]
    triangles = np.concatenate(
        [
            faces[number_inside == 3],
            np.stack([v0, near, far], 1)[corner],
            np.stack([near, v1, v2], 1)[~corner],
            np.stack([near, v2, far], 1)[~corner],
        ]
    )
    used, renumbered = np.unique(triangles, return_inverse=True)
    everything = sparse.csr_matrix(sparse.vstack([sparse.identity(len(values), format="csr"), on_line]))
    return everything[used], renumbered.reshape(-1, 3)
