"""What fitting found, in files: results of stages that can be taken up again, and the capture that train.py reads.

Data path: Rig, Points, BodyFit <-> JSON and npz; Rig, BodyFit, body file -> a capture in THuman4.0's layout:
calibration.json, smpl_params.npz, SMPLX_NEUTRAL.npz beside the images/CAM and masks/CAM that are there already.

Files appear whole or not at all, and hold nothing that would have to be unpickled.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from mmlphuman.body.smplx_model import BODY_FILE, NUM_BETAS
from mmlphuman.capture import thuman4
from mmlphuman.capture.calibration import calibration_content, read_json_calibration
from mmlphuman.capture.poses import SmplParams, smpl_params_arrays
from mmlphuman.files import atomic_write, npz_names, read_npz
from mmlphuman.fitting.observations import BodyFit, Points, Rig
from mmlphuman.fitting.posed_body import read_fitted_body, vertex_normals
from mmlphuman.json_file import numbers, read_json
from mmlphuman.pose_layout import POSE_DIM

POSE_FILE = "smpl_params.npz"
TIME_OFFSET = "timeOffset"  # of a camera in calibration.json, frames; readers that do not know it ignore it


def write_capture(folder: Path, rig: Rig, fit: BodyFit, body_path: Path) -> Path:
    """Cameras, poses and the person's own body file into a capture's folder; returns the body file.

    Training takes it as smpl_pkl_path: the surface stands off from `body_path`'s as the fit found it.
    """
    write_rig(folder / thuman4.CALIBRATION_FILE, rig)
    write_poses(folder / POSE_FILE, fit)
    write_body(folder / BODY_FILE, fit, body_path)
    return folder / BODY_FILE


def write_rig(path: Path, rig: Rig) -> None:
    content = calibration_content(rig.cameras)
    for camera, late in zip(rig.cameras, rig.time_offsets, strict=True):
        content[camera.name][TIME_OFFSET] = float(late)
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read_rig(path: Path) -> Rig:
    """Of any calibration.json; without times all are zero. Raises as `read_json_calibration`."""
    cameras = read_json_calibration(path)
    content = read_json(path)
    offsets = [
        numbers(f"{path}: camera '{camera.name}'", content[camera.name], TIME_OFFSET, 1)[0]
        if TIME_OFFSET in content[camera.name]
        else 0.0
        for camera in cameras
    ]
    return Rig(cameras, np.array(offsets))


def write_poses(path: Path, fit: BodyFit) -> None:
    """smpl_params.npz: full axis-angle, hands against the flat hand."""
    params = SmplParams(fit.betas, fit.poses, fit.translations, np.zeros((len(fit.poses), 10), np.float32))
    _write_npz(path, smpl_params_arrays(params))


def write_body(path: Path, fit: BodyFit, body_path: Path) -> None:
    """A copy of the body file whose template stands off along its normals as the fit found it.

    The normals are those of the shaped body, as when fitted. Arrays that hold pickled objects, which the publisher's
    file has, are left out: nothing here reads them.
    """
    body = read_fitted_body(body_path)
    normals = vertex_normals(body.vertices(torch.from_numpy(fit.betas)), body.faces).numpy()
    if len(normals) != len(fit.normal_offsets):
        raise ValueError(
            f"{body_path}: has {len(normals)} vertices, the fit {len(fit.normal_offsets)}; made with another body"
        )
    arrays = {}
    for name in npz_names(body_path):
        try:
            arrays |= read_npz(body_path, (name,))
        except ValueError:
            continue
    template = arrays["v_template"]
    arrays["v_template"] = (template + normals * fit.normal_offsets[:, None]).astype(template.dtype)
    with atomic_write(path) as file:
        np.savez_compressed(
            file, allow_pickle=False, **arrays
        )  # an open body's blend shapes are mostly zeros


def write_points(path: Path, points: Points) -> None:
    _write_fields(path, points)


def write_fit(path: Path, fit: BodyFit) -> None:
    _write_fields(path, fit)


def read_fit(path: Path) -> BodyFit:
    arrays = _read_fields(path, BodyFit)
    frames = len(arrays["poses"])
    fit = BodyFit(**arrays)
    shapes = fit.betas.shape, fit.poses.shape, fit.translations.shape, fit.normal_offsets.shape[1:]
    if shapes != ((NUM_BETAS,), (frames, POSE_DIM), (frames, 3), ()):
        raise ValueError(
            f"{path}: betas must be ({NUM_BETAS},), poses (F, {POSE_DIM}), translations (F, 3) and normal_offsets (B,)"
        )
    if not all(
        np.isfinite(part).all() for part in (fit.betas, fit.poses, fit.translations, fit.normal_offsets)
    ):
        raise ValueError(f"{path}: holds numbers that are not finite")
    return fit


def _write_fields(path: Path, result: Points | BodyFit) -> None:
    _write_npz(path, {field.name: getattr(result, field.name) for field in fields(result)})


def _read_fields(path: Path, kind: type) -> dict[str, np.ndarray]:
    return read_npz(path, [field.name for field in fields(kind)])


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_json(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode())
