"""A capture in each of the three layouts, small enough to damage a copy of it in every test.

Written with OpenCV and numbers by hand, apart from both the readers and the synthetic subject's writers.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CAMERAS = ("22010708", "22053923", "22139905")
FRAMES = 6
WIDTH, HEIGHT = 48, 64
FOCAL = 80.0
EXTENT_OF = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "transl": 3}
CALIBRATIONS = {
    "avatarrex": "calibration_full.json",
    "thuman4": "calibration.json",
    "actorshq": "calibration.csv",
}
LAYOUTS = tuple(CALIBRATIONS)


def camera_pose(index: int) -> tuple[np.ndarray, np.ndarray]:
    """(world-to-camera rotation, centre): on a circle of 2 m about the origin, 120 degrees apart, looking at it."""
    angle = 2 * np.pi * index / len(CAMERAS)
    center = 2 * np.array([np.sin(angle), 0, np.cos(angle)])
    forward, down = -center / 2, np.array([0.0, -1.0, 0.0])
    return np.stack([np.cross(down, forward), down, forward]), center


def camera_entry(index: int) -> dict:
    rotation, center = camera_pose(index)
    return {
        "K": [FOCAL, 0, WIDTH / 2, 0, FOCAL, HEIGHT / 2, 0, 0, 1],
        "R": rotation.ravel().tolist(),
        "T": (-rotation @ center).tolist(),
        "distCoeff": [0.0] * 5,
        "imgSize": [WIDTH, HEIGHT],
    }


def camera_row(index: int) -> str:
    rotation, center = camera_pose(index)
    axis_angle = cv2.Rodrigues(rotation.T)[0].ravel()
    numbers = [WIDTH, HEIGHT, *axis_angle, *center, FOCAL / WIDTH, FOCAL / HEIGHT, 0.5, 0.5]
    return ",".join([CAMERAS[index], *(repr(float(n)) if n % 1 else str(int(n)) for n in numbers)])


def image_path(root: Path, camera: int, frame: int, layout: str = "avatarrex") -> Path:
    name = CAMERAS[camera]
    return {
        "avatarrex": root / name / f"{frame:08d}.jpg",
        "thuman4": root / "images" / name / f"{frame:08d}.jpg",
        "actorshq": root / "rgbs" / name / f"{name}_rgb{frame:06d}.jpg",
    }[layout]


def mask_path(root: Path, camera: int, frame: int, layout: str = "avatarrex") -> Path:
    name = CAMERAS[camera]
    return {
        "avatarrex": root / name / "mask" / "pha" / f"{frame:08d}.jpg",
        "thuman4": root / "masks" / name / f"{frame:08d}.jpg",
        "actorshq": root / "masks" / name / f"{name}_mask{frame:06d}.png",
    }[layout]


def pose_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(0, 0.2, (FRAMES, size)).astype(np.float32) for key, size in EXTENT_OF.items()}
    # Present in the publishers' files, ignored by the published method.
    arrays["jaw_pose"] = np.linspace(0, 1, 3 * FRAMES, dtype=np.float32).reshape(FRAMES, 3)
    arrays["expression"] = np.linspace(-1, 1, 10 * FRAMES, dtype=np.float32).reshape(FRAMES, 10)
    arrays["betas"] = rng.normal(0, 1, (1, 10)).astype(np.float32)
    return arrays


def write_calibration(root: Path, layout: str) -> None:
    path = root / CALIBRATIONS[layout]
    if layout == "actorshq":
        rows = ["name,w,h,rx,ry,rz,tx,ty,tz,fx,fy,px,py", *map(camera_row, range(len(CAMERAS)))]
        path.write_text("\n".join(rows) + "\n")
    else:
        path.write_text(json.dumps({name: camera_entry(index) for index, name in enumerate(CAMERAS)}))


def write_small_capture(root: Path, layout: str = "avatarrex") -> Path:
    """Each image is one colour, 10 * frame + 60 * camera in red, on black; the person is a rectangle."""
    for camera in range(len(CAMERAS)):
        for path_of in (image_path, mask_path):
            path_of(root, camera, 0, layout).parent.mkdir(parents=True, exist_ok=True)
        for frame in range(FRAMES):
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            image[16:48, 16:32] = (255, 128, 10 * frame + 60 * camera)  # OpenCV writes blue first
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[16:48, 16:32] = 255
            for path_of, pixels in ((image_path, image), (mask_path, mask)):
                path = str(path_of(root, camera, frame, layout))
                cv2.imwrite(path, pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])
    write_calibration(root, layout)
    np.savez(root / "smpl_params.npz", **pose_arrays())
    return root
