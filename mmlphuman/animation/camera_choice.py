"""A word of --cam_path -> the cameras that it means. Without torch.

Data path: id, camera file, list of camera files, CALIBRATION#ID -> CameraViews -> camera paths, rendering.

    3                          a camera of the model's capture, by its id: of MODEL/cameras.json or the compact file
    CAM.json                   a camera file; of a list of them every camera, and LIST.json#2 one
    calibration.json#3         a camera of any calibration that is known (mmlphuman.calibrations), by position or name;
    CAPTURE#cam01              a capture's folder stands for its calibration
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmlphuman.animation.camera_file import (
    CameraView,
    camera_of_file,
    cameras_of_list,
    fovx_of,
    read_model_cameras,
)
from mmlphuman.calibrations.forms import read_calibration
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.json_file import read_json
from mmlphuman.text import ranges

SHOWN_NAMES = 4


def choose_cameras(
    word: str | Path, model: Path, width: int | None = None, height: int | None = None
) -> list[CameraView]:
    """width, height: pixels, in the place of the cameras' own; the horizontal field of view stays.

    Raises FileNotFoundError, or ValueError that names what was asked for and what there is.
    """
    word = str(word)
    if word.isdecimal() and not Path(word).exists():
        views = [_of_model(int(word), model)]
    else:
        file, camera_id = word, None
        if "#" in word and not Path(word).exists():
            file, _, camera_id = word.rpartition("#")
        views = _of_file(Path(file), camera_id, width, height)
    wanted = {name: size for name, size in (("width", width), ("height", height)) if size is not None}
    return [replace(view, K=None, **wanted) for view in views] if wanted else views


def _of_model(camera_id: int, model: Path) -> CameraView:
    try:
        views = read_model_cameras(model)
    except (ValueError, OSError) as error:
        raise ValueError(f"--cam_path {camera_id}: {error}") from error
    if camera_id not in views:
        raise ValueError(f"--cam_path {camera_id}: {model} has the cameras {ranges(views)}")
    return views[camera_id]


def _of_file(path: Path, camera_id: str | None, width: int | None, height: int | None) -> list[CameraView]:
    content = read_json(path) if path.suffix == ".json" or not path.exists() else None
    if isinstance(content, list) and content:
        return _of_list(path, content, camera_id)
    is_camera = isinstance(content, dict) and ("w2c" in content or "fovx" in content)
    if is_camera or (path.suffix == ".json" and not isinstance(content, dict)):
        if camera_id is not None:
            raise ValueError(f"{path}: is one camera; leave out '#{camera_id}'")
        return [camera_of_file(content, str(path))]
    cameras = read_calibration(path).cameras
    by_name = {camera.name: camera for camera in cameras}
    if camera_id in by_name:
        camera = by_name[camera_id]
    elif camera_id is not None and camera_id.isdecimal() and int(camera_id) < len(cameras):
        camera = cameras[int(camera_id)]
    elif camera_id is None and len(cameras) == 1:
        (camera,) = cameras
    else:
        names = ", ".join([*list(by_name)[:SHOWN_NAMES], *["..."] * (len(by_name) > SHOWN_NAMES)])
        said = "say which one" if camera_id is None else f"has no camera '{camera_id}'; say which"
        raise ValueError(
            f"--cam_path {path}: {said}: {path}#ID, a position from 0 to {len(cameras) - 1} or a name ({names})"
        )
    return [view_of_calibrated(path, camera, width, height)]


def _of_list(path: Path, content: list, camera_id: str | None) -> list[CameraView]:
    if all(isinstance(entry, dict) and "id" in entry for entry in content):  # cameras.json of a model
        views = cameras_of_list(content, str(path))
    else:
        views = {
            i: camera_of_file(entry, f"{path}: camera {i} of the list") for i, entry in enumerate(content)
        }
    if camera_id is None:
        return list(views.values())
    if not camera_id.isdecimal() or int(camera_id) not in views:
        raise ValueError(f"--cam_path {path}: has no camera '{camera_id}'; it has {ranges(views)}")
    return [views[int(camera_id)]]


def view_of_calibrated(
    path: Path, camera: CalibratedCamera, width: int | None = None, height: int | None = None
) -> CameraView:
    """The pinhole camera of a calibrated one: what its undistorted pictures show."""
    size = camera.image_size or (width, height)
    if size[0] is None or size[1] is None:
        raise ValueError(f"{path}: camera '{camera.name}' has no image size; give --width and --height")
    return CameraView(camera.w2c, fovx_of(float(camera.K[0, 0]), size[0]), size[0], size[1], camera.K)
