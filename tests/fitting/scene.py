"""A person who moves among cameras, and landmarks of it as networks give them: noisy, wrong at times, swapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.body.smplx_model import GEOMETRY_KEYS, Body, load_body
from mmlphuman.capture.layout import CalibratedCamera, distortion
from mmlphuman.files import read_npz
from mmlphuman.fitting.observations import LANDMARKS, Landmarks
from mmlphuman.fitting.posed_body import landmark_source
from mmlphuman.synthetic.motion import BETAS, make_motion

SIZE = (640, 960)
FRAMES = 4  # of the scene that tests share


@dataclass(frozen=True)
class Scene:
    body: Body
    motion: dict[str, np.ndarray]
    poses: np.ndarray  # (F, 165)
    vertices: np.ndarray  # (F, B, 3)
    joints: np.ndarray  # (F, 55, 3)
    landmarks: np.ndarray  # (F, K, 3)
    cameras: tuple[CalibratedCamera, ...]


def small_body(body_path: Path, path: Path) -> Path:
    """The body file without what fitting does not read, which takes most of the time."""
    arrays = read_npz(body_path, GEOMETRY_KEYS)
    arrays["shapedirs"] = arrays["shapedirs"][:, :, :10]
    np.savez(path, **arrays)
    return path


def ring(
    count: int, dist=(-0.05, 0.1, 0.001, -0.0005, 0.0), radius: float = 3.5
) -> tuple[CalibratedCamera, ...]:
    """Cameras all around at heights of 0.9 to 1.9 m, that look at the person's middle."""
    cameras = []
    for index in range(count):
        turn = 2 * np.pi * index / count + 0.2
        centre = np.array([radius * np.sin(turn), 0.9 + (index * 7 % 5) / 4, radius * np.cos(turn)])
        forward = np.array([0, 0.95, 0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 1, 0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[1150.0, 0, 322], [0, 1148.0, 470], [0, 0, 1]])
        cameras.append(
            CalibratedCamera(f"cam{index}", K, R, -R @ centre, distortion(dist), SIZE, half_pixel=True)
        )
    return tuple(cameras)


def make_scene(body_path: Path, frames: int, cameras: int = 4, seed: int = 0, step: int = 1) -> Scene:
    """step: of the motion, every so many of its frames."""
    betas = BETAS[0]
    body = load_body(body_path, betas)
    # 300 frames, as a capture of ten seconds has; the first ones hold still.
    motion = make_motion(body.joints.numpy().astype(np.float64), 300, 0, seed)
    chosen = slice(30, 30 + step * frames, step)
    motion = {key: value if key == "betas" else value[chosen] for key, value in motion.items()}
    poses = np.zeros((frames, 165), np.float32)
    poses[:, :3], poses[:, 3:66] = motion["global_orient"], motion["body_pose"]
    poses[:, 75:120], poses[:, 120:] = motion["left_hand_pose"], motion["right_hand_pose"]
    vertices, joints = [], []
    for pose, moved in zip(poses, motion["transl"], strict=True):
        transforms = forward_kinematics(torch.from_numpy(pose), body.joints, body.parents)
        blended = blend_transforms(body.lbs_weights, transforms)
        vertices.append(apply_transforms(blended, body.vertices).numpy() + moved)
        joints.append(apply_transforms(transforms, body.joints).numpy() + moved)
    vertices, joints = np.stack(vertices), np.stack(joints)
    places = [
        joints[:, joint] if joint is not None else vertices[:, vertex]
        for joint, vertex in map(landmark_source, LANDMARKS)
    ]
    return Scene(body, motion, poses, vertices, joints, np.stack(places, 1), ring(cameras))


def biased(scene: Scene, metres: float, seed: int = 0) -> np.ndarray:
    """(F, K, 3) landmarks off the body's by about so much, always alike on the body, as a network's hips are."""
    rng = np.random.default_rng(seed)
    offsets = rng.normal(size=(scene.landmarks.shape[1], 3)) * metres / np.sqrt(3)
    offsets[23:] *= 0.2  # hands are small
    world = np.empty_like(scene.landmarks)
    for index, name in enumerate(LANDMARKS):
        joint, vertex = landmark_source(name)
        if joint is None:
            joint = int(scene.body.lbs_weights[vertex].argmax())
        chain = [joint]
        while scene.body.parents[chain[-1]] >= 0:
            chain.append(scene.body.parents[chain[-1]])
        for frame, pose in enumerate(scene.poses.reshape(-1, 55, 3)):
            turn = Rotation.identity()
            for link in reversed(chain):
                turn = turn * Rotation.from_rotvec(pose[link])
            world[frame, index] = scene.landmarks[frame, index] + turn.apply(offsets[index])
    return world


def picture_places(camera: CalibratedCamera, points: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 2) pixels in the distorted picture, by OpenCV's own projection."""
    K = camera.K - 0.5 * camera.half_pixel * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    flat = points.reshape(-1, 1, 3).astype(np.float64)
    pixels, _ = cv2.projectPoints(flat, Rotation.from_matrix(camera.R).as_rotvec(), camera.T, K, camera.dist)
    return pixels.reshape(*points.shape[:-1], 2) + 0.5


def observed(
    points: np.ndarray,
    cameras: tuple[CalibratedCamera, ...],
    noise: float = 0.0,
    outliers: float = 0.0,
    missing: float = 0.0,
    seed: int = 0,
) -> Landmarks:
    """noise: pixels, of each coordinate. outliers, missing: shares. points: (F, K, 3)."""
    rng = np.random.default_rng(seed)
    places = np.stack([picture_places(camera, points) for camera in cameras])
    places += noise * rng.normal(size=places.shape)
    wrong = rng.random(places.shape[:3]) < outliers
    places[wrong] += rng.uniform(-150, 150, (wrong.sum(), 2))
    confidence = rng.uniform(0.5, 1, places.shape[:3])
    confidence[rng.random(places.shape[:3]) < missing] = 0
    return Landmarks(places.astype(np.float32), confidence.astype(np.float32))


def disturbed(
    camera: CalibratedCamera, degrees: float, metres: float, rng: np.random.Generator
) -> CalibratedCamera:
    """Turned about its own centre and moved, each by just so much in a random direction."""
    axis, direction = rng.normal(size=3), rng.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    R = turn @ camera.R
    centre = camera.center + metres * direction / np.linalg.norm(direction)
    return replace(camera, R=R, T=-R @ centre)
