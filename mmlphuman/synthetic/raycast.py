"""Photographs of the clothed subject: posing, ray casting, anti-aliased images and masks.

Data path: pose -> drives -> displaced T-pose mesh -> skinning (G = A(pose), no pose blend shapes) -> rays of each
camera -> RGB image and grey mask, uint8. Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5).
Shape letters: P vertices, R ray hits, H, W image height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from mmlphuman.body.kinematics import forward_kinematics
from mmlphuman.synthetic import appearance
from mmlphuman.synthetic import skeleton as sk
from mmlphuman.synthetic.folds import Cloth, StillCloth, pose_drives
from mmlphuman.synthetic.garments import ClothedSubject

SUPERSAMPLING = 2  # samples a pixel and axis
TRIANGLE_REACH = 0.018  # metres; no point of the subject's surface is farther from a vertex


@dataclass(frozen=True)
class Camera:
    """A calibrated camera of the synthetic studio."""

    name: str
    rotation: np.ndarray  # (3, 3) world to camera; x right, y down, z forward
    translation: np.ndarray  # (3,)
    intrinsics: np.ndarray  # (3, 3) pixels
    width: int
    height: int
    distortion: np.ndarray  # (5,) k1 k2 p1 p2 k3

    @property
    def center(self) -> np.ndarray:
        return -self.rotation.T @ self.translation


@dataclass(frozen=True)
class PosedMesh:
    """The subject in the world at one frame, ready for rays."""

    vertices: np.ndarray  # (P, 3) float32
    attributes: np.ndarray  # (P, 7) float32: normal, anatomical coordinates, light left in valleys
    faces: np.ndarray
    face_layer: np.ndarray
    scene: EmbreeScene


def _smooth_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(P, 3) float32 area-weighted vertex normals, not normalised."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face_normals = np.cross(b - a, c - a)
    corners = faces.ravel()
    repeated = np.repeat(face_normals, 3, axis=0)
    return np.stack([np.bincount(corners, repeated[:, d], len(vertices)) for d in range(3)], 1).astype(
        np.float32
    )


def pose_vertices(subject: ClothedSubject, points: np.ndarray, pose: np.ndarray, translation: np.ndarray):
    """(P, 3) float32 world positions of T-pose points. pose: (165,) axis-angle; translation: (3,)."""
    transforms = forward_kinematics(
        torch.from_numpy(np.asarray(pose, np.float64)), torch.from_numpy(subject.joints), list(sk.PARENTS)
    ).numpy()
    transforms[:, :3, 3] += translation
    blended = (subject.weights @ transforms[:, :3].reshape(sk.NUM_JOINTS, 12).astype(np.float32)).reshape(
        -1, 3, 4
    )
    return np.einsum("pij,pj->pi", blended[:, :, :3], points) + blended[:, :, 3]


def pose_mesh(
    subject: ClothedSubject,
    cloth: Cloth | StillCloth,
    pose: np.ndarray,
    translation: np.ndarray,
    flesh: np.ndarray | None = None,
) -> PosedMesh:
    """Displace by the cloth's folds, skin, and hand to the ray tracer.

    pose: (165,) SMPL-X axis-angle; flesh: (P, 3) displacement of the T-pose by the body's own blend shapes.
    """
    points, light = cloth.displace(subject, pose_drives(pose[3:66]))
    if flesh is not None:
        points = points + flesh
    vertices = pose_vertices(subject, points, pose, translation)
    normals = _smooth_normals(vertices, subject.faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + np.float32(1e-12)
    attributes = np.concatenate([normals, subject.anatomy, light[:, None]], 1).astype(np.float32)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices, subject.faces)
    return PosedMesh(vertices, attributes, subject.faces, subject.face_layer, scene)


def pixel_rays(camera: Camera, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(R, 3) unit world directions through image points (columns, rows), in pixels, of the distorted photo.

    OpenCV numbers a pixel's centre j, this program j + 0.5; distortion is undone in OpenCV's numbers so that
    cv2.undistort turns the photo into the ideal image of the same intrinsics.
    """
    points = np.stack([columns, rows], 1).astype(np.float64)
    if np.any(camera.distortion):
        undone = cv2.undistortPoints(points[:, None] - 0.5, camera.intrinsics, camera.distortion)[:, 0]
        points = undone * camera.intrinsics[[0, 1], [0, 1]] + camera.intrinsics[:2, 2] + 0.5
    local = (points - camera.intrinsics[:2, 2]) / camera.intrinsics[[0, 1], [0, 1]]
    directions = local @ camera.rotation[:2] + camera.rotation[2]
    return directions / np.sqrt(1 + (local * local).sum(1, keepdims=True))


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """(P, 2) pixel positions of world points (P, 3) in the photo, distortion included."""
    local = points @ camera.rotation.T + camera.translation
    focal, middle = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2]
    if not np.any(camera.distortion):
        return local[:, :2] / local[:, 2:] * focal + middle
    local = local / local[:, 2:] - [*(0.5 / focal), 0]  # OpenCV's first pixel centre is 0, see pixel_rays
    return (
        cv2.projectPoints(local, np.zeros(3), np.zeros(3), camera.intrinsics, camera.distortion)[0][:, 0]
        + 0.5
    )


def backdrop(width: int, height: int, tone: float) -> np.ndarray:
    """(H, W, 3) float32 studio backdrop: near white, a little darker to the floor and corners."""
    v = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    u = np.linspace(-1, 1, width, dtype=np.float32)
    level = (0.955 - 0.035 * v.clip(0) ** 2 - 0.015 * v**2) - 0.03 * (u - np.float32(tone)) ** 2
    return level[..., None] * np.array([1.0, 1.0, 0.99], np.float32)


def _pixels_to_search(camera: Camera, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (K,) of the pixels that may see the person: those near a projected vertex."""
    pixels = np.floor(project(camera, vertices)).astype(int)
    seen = np.zeros((camera.height, camera.width), np.uint8)
    inside = (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
    seen[pixels[inside, 1], pixels[inside, 0]] = 1
    nearest = (vertices @ camera.rotation[2] + camera.translation[2]).min()
    reach = int(np.ceil(TRIANGLE_REACH * camera.intrinsics[[0, 1], [0, 1]].max() / nearest)) + 1
    rows, columns = np.nonzero(cv2.dilate(seen, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)))
    return rows, columns


def _at_hits(values: np.ndarray, hits: dict, faces: np.ndarray) -> np.ndarray:
    """(R, A) values of vertices (P, A), interpolated. hits: primID, u, v (R,)."""
    corners, u, v = faces[hits["primID"]], hits["u"], hits["v"]
    met = values[corners[:, 0]] * (1 - u - v)[:, None]
    met += values[corners[:, 1]] * u[:, None]
    met += values[corners[:, 2]] * v[:, None]
    return met


def _shade_hits(
    mesh: PosedMesh,
    hits: dict,
    directions: np.ndarray,
    prints: appearance.Prints,
    light: appearance.Light,
) -> np.ndarray:
    """(R, 3) colours where rays met the mesh. hits: primID, u, v (R,); directions: unit (R, 3)."""
    values, places = (_at_hits(array, hits, mesh.faces) for array in (mesh.attributes, mesh.vertices))
    normals = values[:, :3]
    normals = normals / (np.sqrt((normals * normals).sum(1, keepdims=True)) + np.float32(1e-12))
    layer = mesh.face_layer[hits["primID"]]
    color = appearance.albedo(values[:, 3:6], layer, prints)
    return appearance.shade(color, places, normals, -directions, layer, values[:, 6], light)


def photograph(
    mesh: PosedMesh,
    camera: Camera,
    prints: appearance.Prints,
    light: appearance.Light = appearance.STUDIO_LIGHT,
    white: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """One photo: (H, W, 3) uint8 RGB and (H, W) uint8 anti-aliased mask. white: in place of the backdrop."""
    rows, columns = _pixels_to_search(camera, mesh.vertices)
    step = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    down, right = (offset.ravel() for offset in np.meshgrid(step, step, indexing="ij"))
    # Sub-pixel by sub-pixel.
    directions = pixel_rays(camera, (columns + right[:, None]).ravel(), (rows + down[:, None]).ravel())
    directions = directions.astype(np.float32)
    origins = np.ascontiguousarray(np.broadcast_to(camera.center.astype(np.float32), directions.shape))
    result = mesh.scene.run(origins, directions, query="INTERSECT", output=True)
    hit = np.flatnonzero(result["primID"] >= 0)
    hits = {key: result[key][hit] for key in ("primID", "u", "v")}
    samples = np.zeros((len(directions), 4), np.float32)
    samples[hit, :3] = _shade_hits(mesh, hits, directions[hit], prints, light)
    samples[hit, 3] = 1
    seen = samples.reshape(SUPERSAMPLING**2, -1, 4).mean(0)
    image = backdrop(camera.width, camera.height, 0.4 * camera.rotation[0, 0])
    if white:
        image[:] = 1
    alpha = np.zeros(image.shape[:2], np.float32)
    alpha[rows, columns] = seen[:, 3]
    image[rows, columns] = image[rows, columns] * (1 - seen[:, 3:]) + seen[:, :3]
    return (image * 255 + 0.5).astype(np.uint8), (alpha * 255 + 0.5).astype(np.uint8)
