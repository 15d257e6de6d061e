"""The synthetic subject's true canonical surface, and how near a template comes to it.

Truth is the mean over frames of the clothed T-pose surface with the folds and bulges of each frame, skinned to the
canonical pose with the subject's own weights; of all its layers only what can be seen from outside.
Shape letters: S surface samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from scipy.spatial import cKDTree

from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.synthetic.capture_writer import Stage
from mmlphuman.synthetic.folds import pose_drives
from mmlphuman.synthetic.raycast import pose_vertices

SAMPLES = 100_000
DIRECTIONS = 64
OPEN_SHARE = 0.1  # of the directions of a point's half space that must lead outside for it to count as seen
LIFT = 0.0005  # metres a ray starts off its surface


def true_canonical_surface(stage: Stage, frames: Sequence[int], samples: int = SAMPLES) -> np.ndarray:
    """(S, 3) points, evenly random, on the part of the clothed canonical surface that is seen from outside."""
    subject = stage.subject
    drives = [pose_drives(stage.motion["body_pose"][frame]) for frame in frames]
    mean = sum(stage.cloth.displace(subject, drive)[0] for drive in drives) / len(drives)
    pose = canonical_pose().numpy().astype(np.float64)
    vertices = pose_vertices(subject, mean.astype(np.float32), pose, np.zeros(3)).astype(np.float32)
    mesh = trimesh.Trimesh(vertices, subject.faces, process=False)
    points, faces = trimesh.sample.sample_surface(mesh, samples, seed=0)
    return points[_seen_from_outside(vertices, subject.faces, points, mesh.face_normals[faces])]


def _seen_from_outside(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, normals: np.ndarray
) -> np.ndarray:
    """(S,) bool: enough rays from a point leave without meeting the mesh."""
    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, vertices, faces)
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.ascontiguousarray(points + LIFT * normals, np.float32)
    upwards, free = np.zeros(len(points)), np.zeros(len(points))
    for direction in directions.astype(np.float32):
        above = normals @ direction > 0.1
        rays = np.ascontiguousarray(np.broadcast_to(direction, (int(above.sum()), 3)))
        upwards[above] += 1
        free[above] += scene.run(origins[above], rays, query="OCCLUDED") == -1
    return free >= OPEN_SHARE * upwards


def agreement(mesh: trimesh.Trimesh, truth: np.ndarray, tolerance: float = 0.015) -> tuple[float, float]:
    """Share of the mesh's surface within `tolerance` metres of the truth (S, 3), and of the truth of the mesh."""
    points, _ = trimesh.sample.sample_surface(mesh, SAMPLES, seed=0)
    to_truth, _ = cKDTree(truth).query(points, workers=-1)
    to_mesh, _ = cKDTree(points).query(truth, workers=-1)
    return float((to_truth < tolerance).mean()), float((to_mesh < tolerance).mean())
