"""What viewers ask besides pictures: where the surface is, how a camera path goes; and joints turned by hand.

Data path: PointQuestion, PathQuestion -> PointAnswer, PathAnswer; Turns of a PoseRequest -> its joints; the training
frames -> the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import camera_path, camera_up, nearest_axis
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.body.kinematics import forward_kinematics
from mmlphuman.pose_layout import NUM_JOINTS
from mmlphuman.streaming.messages import PathAnswer, PathQuestion, Turn
from mmlphuman.streaming.render_modes import PosedView, expected_depth

SOLID = 0.5  # alpha from which a pixel shows the person
FLOOR_POSES = 200  # of the training frames, evenly spread, that tell where the floor is
SOLE = 0.03  # metres from the feet's joints down to the floor


def pixel_view(camera: CameraView, column: int, row: int) -> CameraView:
    """The camera that sees just one pixel of `camera`'s picture."""
    K = camera.intrinsics - np.array([[0, 0, column], [0, 0, row], [0, 0, 0]])
    return CameraView(camera.w2c, camera.fovx, 1, 1, K)


def surface_point(view: PosedView) -> np.ndarray | None:
    """(3,) where in the world the person's surface is that a view of one pixel shows; None if it shows none."""
    depth, alpha = (image.item() for image in expected_depth(view))
    if alpha < SOLID:
        return None
    w2c, K = (matrices[0].double().cpu().numpy() for matrices in (view.cameras.w2c, view.cameras.intrinsics))
    ray = np.linalg.solve(K, [0.5, 0.5, 1])
    return w2c[:3, :3].T @ (depth * ray - w2c[:3, 3])


def answer_path(question: PathQuestion, center: np.ndarray) -> PathAnswer:
    """test.py --camera_path's way, for a person whose pelvis is at `center` (3,) on average. ValueError for keys of
    several sizes."""
    up = nearest_axis(np.sum([camera_up(view) for view in question.keys], 0))
    views = camera_path(question.keys, question.count, center, up)
    return PathAnswer(question.id, tuple(replace(view, fovx=float(view.fovx)) for view in views))


def turned(joints: np.ndarray, turns: Sequence[Turn]) -> np.ndarray:
    """(165,) axis-angle -> the same with some joints turned further, about their own axes: x, then y, then z."""
    joints = joints.reshape(NUM_JOINTS, 3).copy()
    for joint, *angles in turns:
        turn = Rotation.from_rotvec(joints[joint]) * Rotation.from_euler("XYZ", angles)
        joints[joint] = turn.as_rotvec()
    return joints.ravel()


@torch.no_grad()
def floor_height(avatar: Avatar, poses: np.ndarray, translations: np.ndarray, up: np.ndarray) -> float:
    """Where along `up` (3,) the person stands: what the lowest joint of poses (F, 165), placed by translations
    (F, 3), reaches in most frames."""
    chosen = np.unique(np.linspace(0, len(poses) - 1, FLOOR_POSES).round().astype(int))
    joints = avatar.joints.double().cpu()
    transforms = forward_kinematics(torch.from_numpy(poses[chosen]).double(), joints, avatar.bone_parents)
    places = (transforms[..., :3, :3] @ joints[:, :, None])[..., 0] + transforms[..., :3, 3]
    heights = (places.numpy() + translations[chosen][:, None]) @ up
    return float(np.median(heights.min(1))) - SOLE
