"""The synthetic studio: a ring of cameras that see the whole motion.

Place: body + motion -> cameras, with the field of view fitted to where the person goes.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from mmlphuman.synthetic.garments import ClothedSubject, UnclothedBody
from mmlphuman.synthetic.raycast import Camera, pose_vertices

RING_RADIUS = 3.4  # metres
CAMERA_HEIGHTS = (1.05, 1.75)  # metres, alternating
FILL = 0.97  # share of the picture that the motion's extent takes at most
CLOTH_MARGIN = 0.03  # metres of cloth around the body
NO_DISTORTION = np.zeros(5)


def full_pose(motion: dict[str, np.ndarray], frame: int) -> np.ndarray:
    """(165,) SMPL-X pose of a frame; the eyes look ahead."""
    body, hands = ("global_orient", "body_pose", "jaw_pose"), ("left_hand_pose", "right_hand_pose")
    parts = [motion[key][frame] for key in body] + [np.zeros(6, np.float32)]
    return np.concatenate(parts + [motion[key][frame] for key in hands])


def _look_at(eye: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation, -rotation @ eye


def _extent(body: UnclothedBody, motion: dict[str, np.ndarray]) -> np.ndarray:
    """(E, 3) a sample of the places that skin reaches during the motion."""
    chosen, empty = slice(None, None, 10), np.zeros(0)
    skin = ClothedSubject(
        *(empty, empty, empty, empty),
        sparse.csr_matrix(body.weights[chosen], dtype=np.float32),
        *(empty, empty),
        body.joints,
        sparse.csr_matrix((0, 0)),
    )
    points = body.vertices[chosen].astype(np.float32)
    frames = range(len(motion["transl"]))
    return np.concatenate(
        [pose_vertices(skin, points, full_pose(motion, f), motion["transl"][f]) for f in frames]
    )


def camera_ring(
    body: UnclothedBody,
    motion: dict[str, np.ndarray],
    num_cameras: int,
    size: tuple[int, int],
    distortion: np.ndarray = NO_DISTORTION,
    radius: float = RING_RADIUS,
) -> list[Camera]:
    """Cameras around the subject, the first in front of it, one focal length for all.

    size: (width, height) pixels; distortion: k1 k2 p1 p2 k3 of every camera; radius: of the ring, metres.
    """
    width, height = size
    reached = _extent(body, motion).astype(np.float64)
    target = np.array([0.0, (reached[:, 1].min() + reached[:, 1].max()) / 2, 0.0])
    poses = []
    for index in range(num_cameras):
        angle = 2 * np.pi * index / num_cameras
        eye = np.array([radius * np.sin(angle), CAMERA_HEIGHTS[index % 2], radius * np.cos(angle)])
        poses.append(_look_at(eye, target))
    focal = np.inf
    for rotation, translation in poses:
        local = reached @ rotation.T + translation
        slopes = (np.abs(local[:, :2]) + CLOTH_MARGIN) / local[:, 2:]
        focal = min(focal, FILL * width / 2 / slopes[:, 0].max(), FILL * height / 2 / slopes[:, 1].max())
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return [
        Camera(
            f"{22010700 + index}", rotation, translation, intrinsics, width, height, np.asarray(distortion)
        )
        for index, (rotation, translation) in enumerate(poses)
    ]


def color_casts(num_cameras: int, share: float, seed: int) -> np.ndarray:
    """(C, 3) factors of each camera's red, green and blue: a gain and a white balance, each off by up to `share`."""
    rng = np.random.default_rng([seed, 4])
    gain = 1 + share * rng.uniform(-1, 1, (num_cameras, 1))
    return gain * (1 + share * rng.uniform(-1, 1, (num_cameras, 3)))
