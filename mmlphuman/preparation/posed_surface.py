"""The body's surface as points: posed, projected, and as a silhouette.

Data path: Body -> SurfacePoints -> (pose) world points -> (camera) pixels -> silhouette.
Shape letters: P points, J joints, h, w of a reduced picture.

Points instead of triangles, because thousands of silhouettes are needed and a cloud denser than the pixels gives
the same outline in two milliseconds. Depth plays no part: hidden parts project into the mask as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import trimesh
from torch import Tensor

from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.body.smplx_model import Body

NUM_POINTS = 40_000  # over 2 m^2: one every 7 mm
FIRST_HAND_JOINT = {"left": 25, "right": 40}  # 15 joints each, SMPL-X order
HAND_JOINTS = 15
NEAR = 0.05  # metres in front of the camera


@dataclass(frozen=True)
class SurfacePoints:
    """Points spread evenly over the shaped T-pose surface, with their skinning weights."""

    points: Tensor  # (P, 3)
    lbs_weights: Tensor  # (P, J)
    joints: Tensor  # (J, 3)
    parents: tuple[int, ...]
    hands: dict[str, np.ndarray]  # side -> (P,) bool, points that move with its fingers

    def posed(self, pose: Tensor, translation: np.ndarray) -> np.ndarray:
        """(165,) axis-angle and (3,) -> (P, 3) float32 in the world."""
        transforms = forward_kinematics(pose, self.joints, self.parents)
        posed = apply_transforms(blend_transforms(self.lbs_weights, transforms), self.points)
        return posed.numpy() + translation


def spread_points(body: Body, count: int = NUM_POINTS) -> SurfacePoints:
    """The same points every time for the same body."""
    mesh = trimesh.Trimesh(body.vertices.numpy(), body.faces.numpy(), process=False)
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    corners = trimesh.triangles.points_to_barycentric(mesh.triangles[faces], points)
    corner_weights = body.lbs_weights[body.faces[torch.from_numpy(faces)]]
    weights = (torch.from_numpy(corners).float()[:, :, None] * corner_weights).sum(1)
    hands = {
        side: (weights[:, first : first + HAND_JOINTS].sum(1) > 0.5).numpy()
        for side, first in FIRST_HAND_JOINT.items()
    }
    return SurfacePoints(
        torch.from_numpy(np.asarray(points)).float(), weights, body.joints, body.parents, hands
    )


@dataclass(frozen=True)
class Projection:
    """Points as one camera sees them."""

    columns: np.ndarray  # (P,) int, of the pixel each falls into
    rows: np.ndarray  # (P,) int
    in_view: np.ndarray  # (P,) bool: in front of the camera and inside the picture
    pixels_per_metre: float  # at the points' mean depth; 0 if none is in front
    size: tuple[int, int]  # (w, h)

    def silhouette(self) -> np.ndarray:
        """(h, w) bool: pixels that hold a point, with the gaps between points closed."""
        drawn = np.zeros(self.size[::-1], np.uint8)
        drawn[self.rows[self.in_view], self.columns[self.in_view]] = 1
        spacing = self.pixels_per_metre * np.sqrt(
            2.0 / NUM_POINTS
        )  # pixels between neighbours, 2 m^2 of skin
        reach = min(1 + 2 * int(np.ceil(spacing)), 15)
        return cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8)) > 0


def project_points(points: np.ndarray, w2c: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> Projection:
    """(P, 3) world points into a (w, h) picture of a pinhole camera."""
    camera = points @ w2c[:3, :3].T.astype(np.float32) + w2c[:3, 3].astype(np.float32)
    depth = camera[:, 2]
    in_front = depth > NEAR
    homogeneous = camera @ K.T.astype(np.float32)
    pixels = homogeneous[:, :2] / np.where(in_front, depth, 1)[:, None]
    inside = in_front & (pixels >= 0).all(1) & (pixels < size).all(1)
    whole = np.where(inside[:, None], pixels, 0).astype(np.int32)
    scale = float(abs(K[0, 0]) / depth[in_front].mean()) if in_front.any() else 0.0
    return Projection(whole[:, 0], whole[:, 1], inside, scale, size)
