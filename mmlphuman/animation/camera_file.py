"""Camera files -> CameraView and back. Without torch.

Data path: CAM.json of the viewer, or cameras.json of a model folder -> CameraView -> camera paths, rendering.

A camera file is {"w2c": 16 numbers row by row, "K": 9, "fovx": degrees, "height": h, "width": w}. Reading it, K is not
looked at: it is rebuilt from fovx, square pixels and the principal point in the middle of the image. Only
cameras.json, which lists all cameras of a training run's calibration, keeps the K that it holds; a compact file holds
the same list.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlphuman.capture.layout import ROTATION_TOLERANCE, CalibratedCamera, check_cameras, distortion
from mmlphuman.files import atomic_write
from mmlphuman.json_file import numbers, read_json

if TYPE_CHECKING:
    from mmlphuman.capture.dataset import CaptureDataset  # needs torch

MAX_FILE_BYTES = 1_000_000  # a camera has some 600, cameras.json of 160 cameras 150,000
MAX_SIZE = 16384  # pixels of a side: what images and videos can have
MIN_FOVX, MAX_FOVX = 0.1, 179.0  # degrees; at the ends the picture is a point or the tangent runs away
MAX_DISTANCE = 1e4  # metres from the origin; single precision knows half millimetres no more
LAST_ROW_TOLERANCE = 1e-6  # programs that invert a camera-to-world matrix leave rounding there


@dataclass(frozen=True)
class CameraView:
    """One pinhole camera: x right, y down, looking along +z."""

    w2c: np.ndarray  # (4, 4) float64 world to camera, metres
    fovx: float  # degrees, horizontal field of view
    width: int
    height: int
    # (3, 3) pixels of just this width and height, for a calibrated camera; its principal point may be off the middle.
    K: np.ndarray | None = None

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) float64, pixels: K, or where there is none the centred one of fovx."""
        if self.K is not None:
            return self.K
        focal = self.width / (2 * math.tan(math.radians(self.fovx) / 2))
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1]])

    @property
    def center(self) -> np.ndarray:
        """(3,) where the camera is in the world."""
        return -self.w2c[:3, :3].T @ self.w2c[:3, 3]


def read_camera_file(path: str | Path) -> CameraView:
    """Reads one camera. Raises FileNotFoundError, or ValueError that names file, field and value."""
    content = _read(path)
    if isinstance(content, list):
        raise ValueError(
            f"{path}: holds a list; a camera file is one object with w2c, fovx, height and width"
        )
    return camera_of_file(content, str(path))


def camera_of_file(content: object, where: str) -> CameraView:
    """The camera of a file that a person may have written; says what is likely meant where it is not right."""
    if isinstance(content, dict) and "w2c" not in content:
        raise ValueError(
            f"{where}: w2c is missing, where the camera stands (16 numbers row by row, world to camera): save a camera "
            "in the viewer, or take one of the model's by its id, with --width and --height (docs/cameras.md)"
        )
    view = camera_from_json(content, where)
    if view.fovx <= math.pi and not _narrow_indeed(content, view):
        raise ValueError(
            f"{where}: fovx is {view.fovx:g} degrees, a keyhole; is it in radians? "
            f"Then {math.degrees(view.fovx):g} degrees is meant"
        )
    return view


def _narrow_indeed(content: object, view: CameraView) -> bool:
    """Whether K says so, too: what the viewer writes agrees with itself."""
    assert isinstance(content, dict)
    try:
        focal = numbers("", content, "K", 9)[0]
    except ValueError:
        return False
    return bool(np.isclose(focal, view.intrinsics[0, 0], rtol=0.01))


def write_camera_file(path: str | Path, view: CameraView) -> None:
    """Writes a camera file, whole or not at all; ValueError for a camera that `read_camera_file` would refuse.

    K is written for other programs: a principal point outside the middle does not come back.
    """
    content = camera_to_json(view)
    camera_from_json(content, str(path))
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def read_camera_list(path: str | Path, trained_only: bool = False) -> dict[int, CameraView]:
    """Camera id -> camera, of a model folder's cameras.json, with the K of the capture's calibration.

    trained_only: without those that training did not see. Raises FileNotFoundError, or ValueError that names file,
    camera, field and value.
    """
    return cameras_of_list(_read(path), str(path), trained_only)


def read_model_cameras(model: str | Path) -> dict[int, CameraView]:
    """Camera id -> camera, of a model folder, one checkpoint's folder or a compact file. Raises ValueError if there
    are none."""
    content = camera_list_of(model)
    if content is None:
        how = (
            "holds no cameras; make it anew with script/compact.py, or"
            if Path(model).is_file()
            else "holds no cameras.json;"
        )
        raise ValueError(f"{model}: {how} give a camera file")
    return cameras_of_list(content, str(model))


def camera_list_of(model: str | Path) -> object | None:
    """What a model's list of cameras holds, for `cameras_of_list`; None where there is none. model: as
    `read_model_cameras` takes it."""
    model = Path(model)
    if model.suffix != ".safetensors":
        path = cameras_of_folder(model)
        return None if path is None else _read(path)
    import safetensors  # only those who have such a file need it

    try:
        with safetensors.safe_open(model, framework="np") as file:
            text = (file.metadata() or {}).get("cameras", "null")
        if len(text) > MAX_FILE_BYTES:
            raise ValueError(f"{len(text):,} bytes are too many")
        return json.loads(text)
    except FileNotFoundError:
        raise
    except Exception as error:  # damage surfaces as any of the library's types
        raise ValueError(f"{model}: its cameras cannot be read (damaged, or another format)") from error


def cameras_of_folder(model: Path) -> Path | None:
    """cameras.json of a model folder, or of the one that a checkpoint's folder is in; None where there is none."""
    paths = (folder / "cameras.json" for folder in (model, model.parent.parent))
    return next((path for path in paths if path.is_file()), None)


def cameras_of_list(content: object, where: str, trained_only: bool = False) -> dict[int, CameraView]:
    """See `read_camera_list`; where: begins every message."""
    if not isinstance(content, list) or not content:
        raise ValueError(f"{where}: must hold a list of cameras, as cameras.json of a model folder does")
    views: dict[int, CameraView] = {}
    left_out = set()
    for position, entry in enumerate(content):
        this = f"{where}: camera {position} of the list"
        view = camera_from_json(entry, this)
        camera_id = _whole(this, entry, "id", 0, None)
        if camera_id in views:
            raise ValueError(f"{this}: id {camera_id} appears twice")
        views[camera_id] = replace(view, K=_calibrated(where, this, entry, camera_id, view))
        if entry.get("trained", True) is not True:  # lists of former versions hold no others
            left_out.add(camera_id)
    return {number: view for number, view in views.items() if not (trained_only and number in left_out)}


def camera_list(dataset: CaptureDataset) -> list[dict]:
    """All cameras of the calibration, each in the form of a camera file (w2c row-major, K, fovx in degrees), with its
    id and whether it is `trained` on."""
    entries = []
    for camera_id, camera in dataset.calibrated_cameras().items():
        intrinsics = camera.intrinsics[0]
        entries.append(
            {
                "id": camera_id,
                "trained": camera_id in dataset.camera_ids,
                "w2c": camera.w2c[0].flatten().tolist(),
                "K": intrinsics.flatten().tolist(),
                "fovx": fovx_of(float(intrinsics[0, 0]), camera.width),
                "height": camera.height,
                "width": camera.width,
            }
        )
    return entries


def fovx_of(focal: float, width: int) -> float:
    """Degrees."""
    return 2 * math.degrees(math.atan(width / (2 * focal)))


def camera_to_json(view: CameraView) -> dict:
    """The content of a camera file."""
    return {
        "w2c": [float(number) for number in np.asarray(view.w2c).ravel()],
        "K": [float(number) for number in view.intrinsics.ravel()],
        "fovx": float(view.fovx),
        "height": int(view.height),
        "width": int(view.width),
    }


def camera_from_json(content: object, where: str) -> CameraView:
    """The camera of a camera file's content; fields besides w2c, fovx, height and width are not looked at.

    where: begins every message. Raises ValueError that names field and value. A w2c rounded to few digits is
    made exactly rigid.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must hold one object with w2c, fovx, height and width")
    w2c = _rigid(where, numbers(where, content, "w2c", 16).reshape(4, 4))
    fovx = float(numbers(where, content, "fovx", 1)[0])
    if not MIN_FOVX <= fovx <= MAX_FOVX:
        raise ValueError(f"{where}: fovx is {fovx:g} degrees; {MIN_FOVX:g} to {MAX_FOVX:g} are possible")
    height = _whole(where, content, "height", 1, MAX_SIZE)
    width = _whole(where, content, "width", 1, MAX_SIZE)
    return CameraView(w2c, fovx, width, height)


def _read(path: str | Path) -> object:
    path = Path(path)
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, too many for a file of cameras")
    return read_json(path)


def _whole(where: str, content: dict, field: str, least: int, most: int | None) -> int:
    value = numbers(where, content, field, 1)[0]
    if not value.is_integer():
        raise ValueError(f"{where}: {field} must be a whole number, got {value:g}")
    if value < least or (most is not None and value > most):
        wanted = f"{least} to {most}" if most is not None else f"{least} or more"
        raise ValueError(f"{where}: {field} is {value:.0f}; {wanted} is possible")
    return int(value)


def _rigid(where: str, w2c: np.ndarray) -> np.ndarray:
    """`w2c` with its rotation replaced by the nearest exact one."""
    if not np.allclose(w2c[3], [0, 0, 0, 1], rtol=0, atol=LAST_ROW_TOLERANCE):
        raise ValueError(f"{where}: w2c must end with the row 0 0 0 1, got {reprlib.repr(w2c[3].tolist())}")
    rotation = w2c[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers: told below
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error <= ROTATION_TOLERANCE:
        raise ValueError(
            f"{where}: w2c is not rigid (its rotation times its transpose differs from the identity by {error:.3g})"
        )
    if np.linalg.det(rotation) < 0:
        raise ValueError(
            f"{where}: w2c mirrors (the determinant of its rotation is -1); a rotation is needed"
        )
    distance = np.abs(w2c[:3, 3]).max()
    if distance > MAX_DISTANCE:
        raise ValueError(
            f"{where}: w2c puts the camera {distance:.3g} m away; {MAX_DISTANCE:g} m at most are possible"
        )
    left, _, right = np.linalg.svd(rotation)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = left @ right, w2c[:3, 3]
    return rigid


def _calibrated(file: str, where: str, entry: dict, camera_id: int, view: CameraView) -> np.ndarray:
    """(3, 3) K of an entry of cameras.json, held to the same rules as a capture's calibration."""
    K = numbers(where, entry, "K", 9).reshape(3, 3)
    camera = CalibratedCamera(
        name=str(camera_id),
        K=K,
        R=view.w2c[:3, :3],
        T=view.w2c[:3, 3],
        dist=distortion(),
        image_size=(view.width, view.height),
    )
    check_cameras(Path(file), [camera])
    return K
