"""What a model folder tells about its run: settings, cameras, poses, versions, commit."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.config import Config, save_config
from mmlphuman.training.scene import Scene

RECORDED_PACKAGES = ("torch", "gsplat", "numpy", "smplx", "opencv-python-headless", "opencv-python")
TEMPLATE_NAME = "template.ply"  # the surface that the Gaussians were placed on, in the canonical pose


def write_run_record(folder: Path, config: Config, data_dir: Path, scene: Scene) -> None:
    """Writes config.yaml, run.json, cameras.json, poses.npz and template.ply into `folder`."""
    dataset = scene.training
    save_config(config, folder / "config.yaml")
    record = {"data_dir": str(data_dir), "command": sys.argv, **versions()}
    (folder / "run.json").write_text(json.dumps(record, indent=2))
    (folder / "cameras.json").write_text(json.dumps(camera_list(dataset), indent=1))
    frames = sorted({frame for frame, _ in dataset.pairs})
    poses = dataset.poses
    np.savez(
        folder / "poses.npz",
        frames=frames,
        betas=poses.betas,
        poses=poses.poses[frames],
        translations=poses.translations[frames],
    )
    scene.template.export(folder / TEMPLATE_NAME)


def versions() -> dict:
    """Python, packages, GPU and the commit of this checkout, as far as they are known."""
    packages = {}
    for package in RECORDED_PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None  # no git here
    return {
        "python": platform.python_version(),
        "packages": packages,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit,
    }


def camera_list(dataset: CaptureDataset) -> list[dict]:
    """The training cameras, each in the form of a camera file (w2c row-major, K, fovx in degrees)."""
    entries = []
    for camera_id in dataset.camera_ids:
        camera = dataset.cameras((camera_id,))
        intrinsics = camera.intrinsics[0]
        fovx = 2 * math.degrees(math.atan(camera.width / (2 * float(intrinsics[0, 0]))))
        entries.append(
            {
                "id": camera_id,
                "w2c": camera.w2c[0].flatten().tolist(),
                "K": intrinsics.flatten().tolist(),
                "fovx": fovx,
                "height": camera.height,
                "width": camera.width,
            }
        )
    return entries
