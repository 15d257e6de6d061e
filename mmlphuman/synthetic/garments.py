"""The clothed subject in the T-pose: skin, hair, shirt, trousers and shoes as layers over the body mesh.

Data path: body file + betas -> layers (refined, cut to size, offset by the cloth's cut) -> ClothedSubject, which
`folds` displaces by pose and `raycast` draws. Places on the person are given in anatomical coordinates: the
unshaped template with the floor at y = 0, so that cut and print do not depend on the shape coefficients.
Shape letters: B body vertices, P vertices and Q triangles of all layers together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.person_mesh import vertex_normals
from mmlphuman.synthetic.remesh import clip, neighbour_means, subdivide

SKIN, HAIR, SHIRT, TROUSERS, SHOES = range(5)
NECK_CENTER = np.array([0.0, 1.452, -0.012])
NECK_RADIUS = 0.080
SHIRT_HEM, SLEEVE_END, TROUSER_HEM, TROUSER_TOP, SHOE_TOP = 0.850, 0.585, 0.075, 0.925, 0.098


@dataclass(frozen=True)
class UnclothedBody:
    """What the subject needs of a body file, shape coefficients applied."""

    template: np.ndarray  # (B, 3) unshaped, floor at y = 0: anatomical coordinates
    vertices: np.ndarray  # (B, 3) shaped, T-pose
    joints: np.ndarray  # (55, 3) shaped, T-pose
    faces: np.ndarray  # (F, 3)
    weights: np.ndarray  # (B, 55)


@dataclass(frozen=True)
class ClothedSubject:
    """All layers as one mesh in the T-pose, without folds."""

    rest: np.ndarray  # (P, 3) float32
    normals: np.ndarray  # (P, 3) float32
    anatomy: np.ndarray  # (P, 3) float32 anatomical coordinates: where on the person a vertex lies
    layer: np.ndarray  # (P,) uint8
    weights: sparse.csr_matrix  # (P, 55) float32
    faces: np.ndarray  # (Q, 3) int32
    face_layer: np.ndarray  # (Q,) uint8
    joints: np.ndarray  # (55, 3)
    from_body: sparse.csr_matrix  # (P, B) vertices as weighted means of the body's


def load_body(path, betas: np.ndarray) -> UnclothedBody:
    """Read a body file and apply betas (10,)."""
    with np.load(path, allow_pickle=False) as file:
        template = file["v_template"].astype(np.float64)
        vertices = template + file["shapedirs"][:, :, : len(betas)].astype(np.float64) @ betas
        joints = file["J_regressor"] @ vertices
        anatomy = template + [0, sk.CHEST_HEIGHT, 0]
        return UnclothedBody(
            anatomy, vertices, joints, file["f"].astype(np.int64), file["weights"].astype(np.float64)
        )


def smoothstep(values: np.ndarray | float, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def neckline(anatomy: np.ndarray) -> np.ndarray:
    """(P,) metres outside the shirt's neck opening."""
    offset = (anatomy - NECK_CENTER) * [1.0, 1.0, 0.85]
    dip = 0.020 * smoothstep(anatomy[:, 2], -0.01, 0.06)
    return np.linalg.norm(offset, axis=1) - NECK_RADIUS - dip


def hairline(anatomy: np.ndarray) -> np.ndarray:
    """(P,) metres above the hairline: high on the forehead, round the ears, low in the nape."""
    x, height, z = anatomy.T
    azimuth = np.abs(np.arctan2(x, z + 0.005))  # 0 in front, pi behind
    line = 1.652 - 0.020 * smoothstep(azimuth, 0.55, 0.85) - 0.048 * smoothstep(azimuth, 0.9, 1.25)
    line = line - 0.058 * smoothstep(azimuth, 1.80, 2.2) + 0.003 * np.sin(13 * azimuth)
    return height - line


def _coverage(layer: int, anatomy: np.ndarray) -> np.ndarray:
    """(P,) positive where the layer exists; zero on its borders, metres where it is a simple cut."""
    x, height, _ = anatomy.T
    reach = np.abs(x)
    if layer == HAIR:
        return hairline(anatomy)
    if layer == SHIRT:
        return np.minimum.reduce([height - SHIRT_HEM, SLEEVE_END - reach, neckline(anatomy), 1.475 - height])
    if layer == TROUSERS:
        return np.minimum(height - TROUSER_HEM, TROUSER_TOP - height)
    if layer == SHOES:
        return SHOE_TOP - height
    # Skin that cloth hides is left out, or it would show through where cloth is pressed against it.
    covered = np.minimum.reduce(
        [height - 0.20, SLEEVE_END - 0.04 - reach, neckline(anatomy) - 0.03, 1.455 - height]
    )
    return np.where(height < 0.6, -0.01, -covered)


def _smoothed(body: UnclothedBody, rounds: int, margin: float) -> np.ndarray:
    """(B, 3) body surface with hollows bridged, nowhere closer than `margin` to the skin."""
    mean = neighbour_means(body.faces, len(body.vertices))
    smooth = body.vertices
    for _ in range(rounds):
        smooth = 0.4 * smooth + 0.6 * (mean @ smooth)
    normals = vertex_normals(body.vertices, body.faces)
    outwards = ((smooth - body.vertices) * normals).sum(1)
    lift = np.maximum(outwards, 0) + margin
    for _ in range(3):
        lift = np.maximum(mean @ lift, margin)
    return body.vertices + lift[:, None] * normals


def _push_from_axis(
    points: np.ndarray, chain: np.ndarray, along: int, radius: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Move points (P, 3) out to `radius` (P,) from the bone chain (K, 3), monotone in axis `along`."""
    order = np.argsort(chain[:, along])
    across = [d for d in range(3) if d != along]
    center = np.stack([np.interp(points[:, along], chain[order, along], chain[order, d]) for d in across], 1)
    radial = points[:, across] - center
    distance = np.maximum(np.linalg.norm(radial, axis=1), 1e-6)
    push = share * np.maximum(radius - distance, 0)
    moved = points.copy()
    moved[:, across] += radial / distance[:, None] * push[:, None]
    return moved


def _cut_shirt(points: np.ndarray, anatomy: np.ndarray, joints: np.ndarray) -> np.ndarray:
    reach, height = np.abs(anatomy[:, 0]), anatomy[:, 1]
    for shoulder, elbow, wrist in ((16, 18, 20), (17, 19, 21)):
        side = np.sign(joints[shoulder, 0])
        share = smoothstep(reach, 0.20, 0.30) * (anatomy[:, 0] * side > 0)
        radius = np.interp(reach, [0.20, 0.30, 0.44, 0.55, SLEEVE_END], [0.066, 0.063, 0.056, 0.051, 0.050])
        chain = joints[[shoulder, elbow, wrist]]
        points = _push_from_axis(points, chain, 0, radius, share)
    # Below the chest the cloth hangs straight: pushed out to an ellipse that hides waist and crotch.
    share = 1 - smoothstep(height, 1.08, 1.26)
    width = np.interp(height, [SHIRT_HEM, 0.95, 1.05, 1.15], [0.186, 0.176, 0.163, 0.155])
    depth = np.interp(height, [SHIRT_HEM, 0.95, 1.05, 1.15], [0.140, 0.130, 0.118, 0.112])
    half_axes = np.stack([width, depth], 1)
    radial = (points[:, [0, 2]] - [0.0, joints[sk.SPINE1, 2] + 0.002]) / half_axes
    distance = np.maximum(np.linalg.norm(radial, axis=1), 1e-6)
    push = share * np.maximum(1.0 - distance, 0)
    points[:, [0, 2]] += radial / distance[:, None] * half_axes * push[:, None]
    return points


def _cut_trousers(points: np.ndarray, anatomy: np.ndarray, joints: np.ndarray) -> np.ndarray:
    height = anatomy[:, 1]
    radius = np.interp(height, [0.0, 0.2, 0.45, 0.60, 0.80, 0.9], [0.072, 0.069, 0.072, 0.078, 0.088, 0.094])
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        side = np.sign(joints[hip, 0])
        mine = anatomy[:, 0] * side > 0
        share = (1 - smoothstep(height, 0.84, 0.90)) * mine
        points = _push_from_axis(points, joints[[hip, knee, ankle]], 1, radius, share)
        points[mine, 0] = side * np.maximum(side * points[mine, 0], 0.001)  # trouser legs meet in the middle
    return points


def _cut_hair(points: np.ndarray, normals: np.ndarray, anatomy: np.ndarray) -> np.ndarray:
    above = hairline(anatomy)
    x, height, z = anatomy.T
    body = 0.006 + 0.018 * smoothstep(above, 0.0, 0.040)
    body = body + 0.012 * smoothstep(z, 0.01, 0.07) * smoothstep(above, 0, 0.03)  # combed up in front
    parting = np.exp(-(((x - 0.022) / 0.006) ** 2)) * smoothstep(z, -0.05, 0.02) * 0.005
    locks = 0.0022 * np.sin(95 * x + 40 * np.sin(14 * z + 3 * height)) * smoothstep(above, 0.0, 0.02)
    return points + (body - parting + locks)[:, None] * normals


def _cut_shoes(points: np.ndarray, normals: np.ndarray, anatomy: np.ndarray, floor: float) -> np.ndarray:
    height = anatomy[:, 1]
    points = points + (0.005 + 0.004 * (1 - smoothstep(height, 0.0, 0.03)))[:, None] * normals
    points[:, 1] = np.maximum(points[:, 1], floor - 0.014)
    return points


def _layer_points(layer: int, body: UnclothedBody, matrix: sparse.csr_matrix, smooth: dict) -> np.ndarray:
    """(P, 3) rest positions of a layer whose vertices are `matrix` (P, B) of the body's."""
    anatomy = matrix @ body.template
    if layer == SHIRT:
        return _cut_shirt(matrix @ smooth["shirt"], anatomy, body.joints)
    if layer == TROUSERS:
        return _cut_trousers(matrix @ smooth["trousers"], anatomy, body.joints)
    if layer == HAIR:
        return _cut_hair(matrix @ smooth["hair"], matrix @ smooth["normals"], anatomy)
    if layer == SHOES:
        return _cut_shoes(
            matrix @ smooth["shoes"], matrix @ smooth["normals"], anatomy, body.vertices[:, 1].min()
        )
    return matrix @ body.vertices


def dress(body: UnclothedBody, rounds: int = 2) -> ClothedSubject:
    """Clothe a shaped body. rounds: of Loop subdivision (2 for pictures of 512 pixels)."""
    matrix, faces = subdivide(body.faces, len(body.vertices), rounds)
    anatomy = matrix @ body.template
    smooth = {
        "shirt": _smoothed(body, 12, 0.010),
        "trousers": _smoothed(body, 10, 0.005),
        "hair": _smoothed(body, 6, 0.0),
        "shoes": _smoothed(body, 6, 0.003),
        "normals": vertex_normals(body.vertices, body.faces),
    }
    parts = []
    for layer in (SKIN, HAIR, SHIRT, TROUSERS, SHOES):
        select, layer_faces = clip(faces, _coverage(layer, anatomy))
        layer_matrix = sparse.csr_matrix(select @ matrix)
        points = _layer_points(layer, body, layer_matrix, smooth)
        parts.append((layer, layer_matrix, points, layer_faces))
    starts = np.cumsum([0] + [len(points) for _, _, points, _ in parts[:-1]])
    whole = sparse.vstack([part[1] for part in parts]).tocsr()
    all_faces = np.concatenate([part[3] + start for part, start in zip(parts, starts, strict=True)])
    rest = np.concatenate([part[2] for part in parts])
    return ClothedSubject(
        rest=rest.astype(np.float32),
        normals=vertex_normals(rest, all_faces).astype(np.float32),
        anatomy=(whole @ body.template).astype(np.float32),
        layer=np.repeat([part[0] for part in parts], [len(part[2]) for part in parts]).astype(np.uint8),
        weights=sparse.csr_matrix(whole @ sparse.csr_matrix(body.weights), dtype=np.float32),
        faces=all_faces.astype(np.int32),
        face_layer=np.repeat([part[0] for part in parts], [len(part[3]) for part in parts]).astype(np.uint8),
        joints=body.joints,
        from_body=sparse.csr_matrix(whole, dtype=np.float32),
    )
