"""A capture in the AvatarReX layout, written with OpenCV, small enough to damage a copy of it in every test."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CAMERAS = ("22010708", "22053923", "22139905")
FRAMES = 6
WIDTH, HEIGHT = 48, 64
EXTENT_OF = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "transl": 3}


def camera_entry(index: int) -> dict:
    """Cameras on a circle of 2 m radius about the origin, 120 degrees apart, looking at it."""
    angle = 2 * np.pi * index / len(CAMERAS)
    center = 2 * np.array([np.sin(angle), 0, np.cos(angle)])
    forward, down = -center / 2, np.array([0.0, -1.0, 0.0])
    rotation = np.stack([np.cross(down, forward), down, forward])
    return {
        "K": [80.0, 0, WIDTH / 2, 0, 80.0, HEIGHT / 2, 0, 0, 1],
        "R": rotation.ravel().tolist(),
        "T": (-rotation @ center).tolist(),
        "distCoeff": [0.0] * 5,
        "imgSize": [WIDTH, HEIGHT],
    }


def image_path(root: Path, camera: int, frame: int) -> Path:
    return root / CAMERAS[camera] / f"{frame:08d}.jpg"


def mask_path(root: Path, camera: int, frame: int) -> Path:
    return root / CAMERAS[camera] / "mask" / "pha" / f"{frame:08d}.jpg"


def pose_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(0, 0.2, (FRAMES, size)).astype(np.float32) for key, size in EXTENT_OF.items()}
    # Present in the publishers' files, ignored by the method.
    arrays["jaw_pose"] = np.ones((FRAMES, 3), np.float32)
    arrays["expression"] = np.ones((FRAMES, 10), np.float32)
    arrays["betas"] = rng.normal(0, 1, (1, 10)).astype(np.float32)
    return arrays


def write_small_capture(root: Path) -> Path:
    """Each image is one colour, 10 * frame + 60 * camera in red, on black; the person is a rectangle."""
    for camera in range(len(CAMERAS)):
        mask_path(root, camera, 0).parent.mkdir(parents=True)
        for frame in range(FRAMES):
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            image[16:48, 16:32] = (255, 128, 10 * frame + 60 * camera)  # OpenCV writes blue first
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[16:48, 16:32] = 255
            cv2.imwrite(str(image_path(root, camera, frame)), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
            cv2.imwrite(str(mask_path(root, camera, frame)), mask, [cv2.IMWRITE_JPEG_QUALITY, 100])
    calibration = {name: camera_entry(index) for index, name in enumerate(CAMERAS)}
    (root / "calibration_full.json").write_text(json.dumps(calibration))
    np.savez(root / "smpl_params.npz", **pose_arrays())
    return root
