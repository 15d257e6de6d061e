"""The masks of chosen frames, read once and kept small, and how canonical points project into them.

Data path: CaptureDataset -> MaskView per (frame, camera) -> carving.
Shape letters: P points, J joints, H, W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mmlphuman.body.kinematics import canonical_pose, forward_kinematics, rigid_inverse
from mmlphuman.body.smplx_model import Body
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.types import Pose

NEAREST_DEPTH = 0.1  # metres in front of a camera


@dataclass(frozen=True)
class MaskView:
    """One camera's mask of one frame."""

    frame: int
    pose: Pose
    w2c: Tensor  # (4, 4)
    intrinsics: Tensor  # (3, 3)
    shape: tuple[int, int]  # (H, W)
    bits: np.ndarray  # the mask, eight pixels a byte

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        height, width = self.shape
        return np.unpackbits(self.bits, count=height * width).reshape(self.shape).astype(bool)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (P, 3) -> pixels (P, 2) and depths (P,); pixels mean nothing where depth is not positive."""
        local = points @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        pixels = local @ self.intrinsics.T
        return pixels[:, :2] / local[:, 2:].clamp_min(NEAREST_DEPTH), local[:, 2]

    def metres(self, distance: np.ndarray, points: Tensor) -> Tensor:
        """A map (H, W) of lengths in pixels, read at world points (P, 3) and turned into metres at their depth.

        Points that the camera does not see (beside the picture, behind it) get NaN.
        """
        pixels, depth = self.project(points)
        size = pixels.new_tensor(self.shape[::-1])
        # grid_sample without aligned corners has pixel centres at +0.5, as the cameras have.
        read = F.grid_sample(
            torch.from_numpy(distance)[None, None],
            (2 * pixels / size - 1)[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0, 0, 0]
        seen = (depth > NEAREST_DEPTH) & (pixels >= 0).all(1) & (pixels <= size).all(1)
        return torch.where(seen, read * depth / self.intrinsics[[0, 1], [0, 1]].mean(), torch.nan)


def read_mask_views(dataset: CaptureDataset, frames: Sequence[int]) -> tuple[list[MaskView], int]:
    """The masks of `frames` in all of the data set's cameras, by frame, and how many were empty or full.

    Those are left out. Raises ValueError or OSError naming frame, camera and file if one cannot be read.
    """
    chosen = set(frames)
    pairs = [pair for pair in dataset.pairs if pair[0] in chosen]
    views = []
    for frame, camera_id in tqdm(pairs, desc="reading masks", unit="mask", disable=None):
        sample = dataset.sample(frame, (camera_id,))
        mask = sample.masks[0].numpy()
        if mask.any() and not mask.all():
            w2c, intrinsics = sample.cameras.w2c[0], sample.cameras.intrinsics[0]
            views.append(MaskView(frame, sample.pose, w2c, intrinsics, mask.shape, np.packbits(mask)))
    return views, len(pairs) - len(views)


def contour_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> (H, W) float32 pixels from each pixel's centre to the contour, positive inside.

    The image's border is no contour: a person cut off by it goes on beyond.
    """
    inside = mask.astype(np.uint8)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Centres of neighbouring pixels on both sides of the contour are one apart.
    return np.where(mask, to_outside - 0.5, 0.5 - to_inside).astype(np.float32)


def canonical_to_world(pose: Pose, body: Body) -> Tensor:
    """(J, 3, 4) transforms of the joints from the canonical pose to the world, Rh and Th included."""
    canonical = forward_kinematics(canonical_pose(), body.joints, body.parents)
    joints = forward_kinematics(pose.joints, body.joints, body.parents) @ rigid_inverse(canonical)
    world = pose.rotation @ joints[:, :3]
    world[:, :, 3] += pose.translation  # weights sum to one, so each joint may carry the whole translation
    return world


def pose_points(points: Tensor, weights: Tensor, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """Canonical points (P, 3), weights (P, J), transforms (J, 3, 4) -> world (P, 3), linear parts (P, 3, 3)."""
    blended = (weights @ transforms.flatten(1)).unflatten(1, (3, 4))
    return (blended[:, :, :3] @ points[:, :, None])[:, :, 0] + blended[:, :, 3], blended[:, :, :3]
