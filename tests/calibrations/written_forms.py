"""The same cameras written in every form, by each form's own description and libraries, apart from the readers."""

from __future__ import annotations

import json
import math
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

CV = np.array(
    [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
)  # what OpenCV's K has less: its pixel centres are whole numbers
GL = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Truth:
    """x_camera = R x_world + T, metres; K for pixel centres at +0.5."""

    name: str
    K: np.ndarray
    R: np.ndarray
    T: np.ndarray
    dist: np.ndarray
    size: tuple[int, int]

    @property
    def center(self) -> np.ndarray:
        return -self.R.T @ self.T


def some_cameras(count: int = 3, dist=(-0.2, 0.05, 0.001, -0.002, 0.01), size=(640, 480)) -> list[Truth]:
    rng = np.random.default_rng(count)
    cameras = []
    for number in range(count):
        K = np.array([[600 + 7.25 * number, 0, 311.3 + number], [0, 610.5, 255.75], [0, 0, 1]])
        R, T = Rotation.random(random_state=number).as_matrix(), rng.normal(0, 2, 3)
        cameras.append(Truth(f"cam{number + 1:02d}", K, R, T, np.array(dist, float), size))
    return cameras


# --- COLMAP -------------------------------------------------------------------------------------------------------


def _colmap_lens(dist: np.ndarray) -> tuple[str, int, list[float]]:
    """Model, its number, parameters after focal lengths and principal point."""
    if not dist.any():
        return "PINHOLE", 1, []
    if len(dist) == 5 and dist[4] == 0:
        return "OPENCV", 4, dist[:4].tolist()
    full = np.zeros(8)
    full[: len(dist)] = dist
    return "FULL_OPENCV", 6, full.tolist()


def write_colmap(
    folder: Path, cameras: list[Truth], ending: str = "bin", names=lambda camera: f"{camera.name}.jpg"
):
    folder.mkdir(parents=True, exist_ok=True)
    if ending == "bin":
        lenses, pictures = [struct.pack("<Q", len(cameras))], [struct.pack("<Q", len(cameras))]
        for number, camera in enumerate(cameras, 1):
            _, model, rest = _colmap_lens(camera.dist)
            parameters = [*camera.K[[0, 1, 0, 1], [0, 1, 2, 2]], *rest]
            lenses.append(
                struct.pack("<iiQQ", number, model, *camera.size)
                + struct.pack(f"<{len(parameters)}d", *parameters)
            )
            x, y, z, w = Rotation.from_matrix(camera.R).as_quat()
            pictures.append(
                struct.pack("<i7di", number, w, x, y, z, *camera.T, number) + names(camera).encode() + b"\0"
            )
            pictures.append(struct.pack("<Q", number) + number * struct.pack("<ddq", 1.5, 2.5, -1))  # points
        (folder / "cameras.bin").write_bytes(b"".join(lenses))
        (folder / "images.bin").write_bytes(b"".join(pictures))
        return
    lenses, pictures = ["# Camera list"], ["# Image list"]
    for number, camera in enumerate(cameras, 1):
        model, _, rest = _colmap_lens(camera.dist)
        parameters = [*camera.K[[0, 1, 0, 1], [0, 1, 2, 2]], *rest]
        lenses.append(" ".join(map(str, [number, model, *camera.size, *map(float, parameters)])))
        x, y, z, w = Rotation.from_matrix(camera.R).as_quat()
        pictures += [
            " ".join(map(str, [number, w, x, y, z, *camera.T, number, names(camera)])),
            "1.5 2.5 -1" * (number % 2),
        ]
    (folder / "cameras.txt").write_text("\n".join(lenses) + "\n")
    (folder / "images.txt").write_text("\n".join(pictures) + "\n")


# --- OpenCV's conventions -----------------------------------------------------------------------------------------


def write_easymocap(
    folder: Path, cameras: list[Truth], with_rotation_matrix: bool = True, with_size: bool = True
):
    folder.mkdir(parents=True, exist_ok=True)
    intri = cv2.FileStorage(str(folder / "intri.yml"), cv2.FILE_STORAGE_WRITE)
    extri = cv2.FileStorage(str(folder / "extri.yml"), cv2.FILE_STORAGE_WRITE)
    for file in (intri, extri):
        file.startWriteStruct("names", cv2.FILE_NODE_SEQ)
        for camera in cameras:
            file.write("", camera.name)
        file.endWriteStruct()
    for camera in cameras:
        intri.write(f"K_{camera.name}", camera.K - CV)
        intri.write(f"dist_{camera.name}", camera.dist[None])
        if with_size:
            intri.write(f"W_{camera.name}", camera.size[0])
            intri.write(f"H_{camera.name}", camera.size[1])
        extri.write(f"R_{camera.name}", cv2.Rodrigues(camera.R)[0])
        if with_rotation_matrix:
            extri.write(f"Rot_{camera.name}", camera.R)
        extri.write(f"T_{camera.name}", camera.T[:, None])
    intri.release()
    extri.release()


def write_toml(path: Path, cameras: list[Truth]):
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = []
    for number, camera in enumerate(cameras):
        rows = ", ".join(str([float(x) for x in row]) for row in camera.K - CV)
        tables.append(
            f'[cam_{number}]\nname = "{camera.name}"\nsize = [ {float(camera.size[0])}, {float(camera.size[1])}]\n'
            f"matrix = [ {rows},]\ndistortions = {[float(x) for x in camera.dist]}\n"
            f"rotation = {Rotation.from_matrix(camera.R).as_rotvec().tolist()}\n"
            f"translation = {camera.T.tolist()}\nfisheye = false\n"
        )
    path.write_text("\n".join(tables) + "\n[metadata]\nadjusted = false\nerror = 0.0\n")


def write_qualisys(path: Path, cameras: list[Truth], left: int = 0, top: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = ['<camera active="1" model="Oqus" serial="0"><transform x="0"/></camera>']  # a marker camera
    for camera in cameras:
        R, K = GL @ camera.R, camera.K - CV
        turn = (
            " ".join(f'r{i + 1}{j + 1}="{R[i, j]!r}"' for i in range(3) for j in range(3))
            .replace("np.float64(", "")
            .replace(")", "")
        )
        x, y, z = (1000 * camera.center).tolist()
        k1, k2, p1, p2, k3 = camera.dist.tolist()
        entries.append(
            f'<camera active="1" model="Miqus Video" serial="{camera.name}" viewrotation="0">'
            f'<fov_video left="{left}" top="{top}" right="{left + camera.size[0] - 1}" '
            f'bottom="{top + camera.size[1] - 1}"/>'
            f'<transform {turn} x="{x!r}" y="{y!r}" z="{z!r}"/>'
            f'<intrinsic focalLengthU="{float(64 * K[0, 0])!r}" focalLengthV="{float(64 * K[1, 1])!r}" '
            f'centerPointU="{float(64 * (K[0, 2] + left))!r}" centerPointV="{float(64 * (K[1, 2] + top))!r}" skew="0" '
            f'radialDistortion1="{k1!r}" radialDistortion2="{k2!r}" radialDistortion3="{k3!r}" '
            f'tangentalDistortion1="{p1!r}" tangentalDistortion2="{p2!r}"/></camera>'
        )
    text = (
        "<?xml version='1.0' encoding='ASCII'?>\n<calibration><cameras>\n"
        + "\n".join(entries)
        + "\n</cameras></calibration>\n"
    )
    path.write_text(text)


# --- others -------------------------------------------------------------------------------------------------------


def write_transforms(path: Path, cameras: list[Truth], names=lambda camera: f"images/{camera.name}/0000.png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = []
    for camera in cameras:
        c2w = np.eye(4)
        c2w[:3, :3], c2w[:3, 3] = camera.R.T @ GL, camera.center
        lens = dict(zip(("k1", "k2", "p1", "p2", "k3"), camera.dist.tolist(), strict=True))
        frames.append({
            "file_path": names(camera), "transform_matrix": c2w.tolist(), "w": camera.size[0], "h": camera.size[1],
            "fl_x": camera.K[0, 0], "fl_y": camera.K[1, 1], "cx": camera.K[0, 2], "cy": camera.K[1, 2], **lens,
        })  # fmt: skip
    path.write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}))


def write_mvhumannet(folder: Path, cameras: list[Truth], scale: float = 120 / 65):
    """All cameras must have the first one's K, its principal point in the middle of the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    intrinsics = {"intrinsics": (cameras[0].K - CV).tolist(), "dist": []}
    extrinsics = {
        f"1_{camera.name}.png": {
            "rotation": camera.R.tolist(),
            "translation": (1000 * camera.T / scale).tolist(),
        }
        for camera in cameras
    }
    (folder / "camera_intrinsics.json").write_text(json.dumps(intrinsics))
    (folder / "camera_extrinsics.json").write_text(json.dumps(extrinsics))
    (folder / "camera_scale.pkl").write_bytes(pickle.dumps(scale))


def write_zju(folder: Path, cameras: list[Truth], frames: int = 2, protocol: int = 4):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "cams": {
            "K": [camera.K - CV for camera in cameras],
            "R": [camera.R for camera in cameras],
            "T": [1000 * camera.T[:, None] for camera in cameras],
            "D": [camera.dist[:, None] for camera in cameras],
        },
        "ims": [
            {
                "ims": [f"{camera.name}/{frame:06d}.jpg" for camera in cameras],
                "kpts2d": np.zeros((len(cameras), 25, 3), np.float32),
            }
            for frame in range(frames)
        ],
    }
    with (folder / "annots.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content, object), file, protocol=protocol)


def write_json(path: Path, cameras: list[Truth]):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        camera.name: {
            "K": camera.K.tolist(), "R": camera.R.tolist(), "T": camera.T.tolist(), "distCoeff": camera.dist.tolist(),
            "imgSize": list(camera.size),
        }
        for camera in cameras
    }  # fmt: skip
    path.write_text(json.dumps(content))


def fovx(camera: Truth) -> float:
    """Radians."""
    return 2 * math.atan(camera.size[0] / (2 * camera.K[0, 0]))
