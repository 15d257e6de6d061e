"""Everything before the first step: the settings of a repeatable run, datasets, body and avatar, the model folder.

Data path: capture folder + Config -> Scene -> loop; Config + Scene -> what the model folder tells about its run.
A model folder is made whole, and takes one run at a time: two would overwrite each other's checkpoints and logs. The
lock is the operating system's, on a file in the folder: it goes with the process, however that ends.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh

from mmlphuman.animation.camera_file import camera_list
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.build import build_avatar, build_layout, load_template
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.body.smplx_model import load_body, other_body
from mmlphuman.body.weight_volume import find_or_make_weight_volume
from mmlphuman.capture.dataset import CaptureDataset, test_dataset, training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.masks import check_direction, check_masks
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import versions
from mmlphuman.config import Config, save_config
from mmlphuman.files import free_folder
from mmlphuman.model_folder import POSES_FILE, SETTINGS_FILE, TEMPLATE_NAME, list_checkpoints
from mmlphuman.pose_layout import NUM_JOINTS
from mmlphuman.resources import memory_for, require_memory
from mmlphuman.training.starting_avatar import StartingAvatar

CUBLAS_WORKSPACE = ":4096:8"  # one of the two that cuBLAS documents as reproducible
DATA_DIR, STARTED_FROM = "data_dir", "init_from"  # of what RUN_NAME records
RUN_NAME, CAMERAS_NAME = "run.json", "cameras.json"  # what a run was begun with; POSES_FILE as well
BYTES_A_NUMBER = 4
LOCK_NAME = "run.lock"  # says who trains here, or who did last


def apply_determinism(config: Config) -> Config:
    """The settings of a run that is repeatable if `deterministic` asks for it: plain kernels and the PyTorch rasteriser
    in the place of `auto`. To be called before the GPU is used.

    ValueError for a rasteriser that cannot: gsplat adds gradients in the order in which they happen to come.
    """
    if not config.deterministic:
        return config
    if config.rasterizer == "gsplat":
        raise ValueError(
            "deterministic: gsplat is not, it adds in no fixed order; use rasterizer: torch (or auto), or "
            "deterministic: false"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    return replace(config, kernels="plain", rasterizer="torch")


@dataclass(frozen=True)
class Scene:
    """What a run trains and on what."""

    training: CaptureDataset
    held_out: CaptureDataset
    avatar: Avatar
    pose_space: PoseSpace
    template: trimesh.Trimesh | None = None  # of a new run, which writes it; a resumed one has it already


def build_scene(config: Config, data_dir: Path, say=print, start: StartingAvatar | None = None) -> Scene:
    """Opens the capture and places a new avatar on its body, or takes `start`. Raises ValueError or OSError, one line
    each."""
    require_memory(
        BYTES_A_NUMBER * config.init_num_gs * numbers_of_a_gaussian(config),
        f"init_num_gs: {config.init_num_gs:,} Gaussians do not fit; lower it",
    )
    layout = open_capture(data_dir)
    poses = read_smpl_params(layout.pose_path, config.face, config.smpl_pkl_path)
    say(poses.told)
    training, held_out = training_dataset(config, layout, poses), test_dataset(config, layout, poses)
    read_one_of_each_camera(training)
    frames = training.seen_frames
    pose_space = PoseSpace.fit(torch.from_numpy(poses.features(frames)), config.pca_components)
    body = load_body(config.smpl_pkl_path, poses.betas)
    if another := other_body(data_dir, Path(config.smpl_pkl_path)):
        say(f"note: {another}")
    translations = torch.from_numpy(poses.translations[frames])
    if start is not None:
        start.check_body(body)
        lit = "" if start.light_up(translations) else "; people stand in another place, the light starts anew"
        say(
            f"starting from {start.path}, iteration {start.iteration:,}: its Gaussians, bases and MLPs, with "
            f"{' = '.join([*start.switched_on, '0']) if start.switched_on else 'nothing switched on'}; optimisers and "
            f"learning rates are new{lit}"
        )
        surface = start.surface(layout.template_path, body)
        return Scene(training, held_out, start.avatar, pose_space, surface)
    template, volume = load_template(layout.template_path, body), None
    if config.skinning_weights == "volume" or layout.template_path.is_file():
        path, resolution = layout.weight_volume_path, config.weight_volume_resolution
        volume = find_or_make_weight_volume(path, body, resolution, say)
    say(
        f"placing {config.init_num_gs:,} Gaussians, {config.num_verts:,} control points and "
        f"{config.num_features} MLPs on the surface"
    )
    moves = bool(np.ptp(poses.expressions_of(frames), 0).any())
    with memory_for("an avatar of these init_num_gs, num_verts, num_features and hidden_widths does not fit"):
        avatar = build_avatar(config, build_layout(config, body, template, volume, translations, moves))
    return Scene(training, held_out, avatar, pose_space, template)


def numbers_of_a_gaussian(config: Config) -> int:
    """Skinning weights, neighbours, properties, and their bases, at least."""
    return NUM_JOINTS + 12 + 23 + 20 * config.num_gsparam_bases


def read_one_of_each_camera(dataset: CaptureDataset) -> None:
    """Raises before anything is written for a fault that a camera's files share, such as masks of another size, or
    that show nobody, or somebody elsewhere than its calibration."""
    frames: dict[int, list[int]] = {}
    for frame, camera in dataset.pairs:
        frames.setdefault(camera, []).append(frame)
    for camera, of_it in sorted(frames.items()):
        sample = dataset.sample(of_it[0], (camera,))
        try:
            layout = dataset.layout
            check_masks(
                [(layout.mask_path(camera, frame), layout.image_path(camera, frame)) for frame in of_it]
            )
        except ValueError as error:
            raise ValueError(f"camera {camera}: {error}") from error
        check_direction(sample)


def fetch_ahead(device: torch.device) -> threading.Thread:
    """Loads in another thread what the first step will need, seconds of reading from disk, while this one computes
    where Gaussians lie. What cannot be loaded is complained of where it is needed."""

    def fetch() -> None:
        modules = ["torch._dynamo"]  # torch.optim wants it
        if device.type == "cuda":
            with suppress(RuntimeError):
                torch.zeros(1, device=device)
            modules += ["triton", "gsplat.cuda._wrapper", "gsplat.cuda._backend"]
        for name in modules:
            with suppress(Exception):
                importlib.import_module(name)

    # No daemon: a process that ends while extensions are being loaded is aborted.
    thread = threading.Thread(target=fetch, name="fetch ahead")
    thread.start()
    return thread


def never_switched_on(config: Config) -> list[str]:
    """`key=value` of each part of the avatar or of the loss whose turn comes after the last iteration."""
    keys = ["iteration_dxyz_basis", "iteration_gsparam_basis", "iteration_sh_degree"]
    if config.lambda_lpips > 0:
        keys += ["iteration_lpips", "iteration_lpips_random_patch"]
    return [f"{key}={getattr(config, key)}" for key in keys if getattr(config, key) >= config.iterations]


def refuse_occupied(model_dir: Path) -> Path:
    """Where the folder will be. ValueError where a new run would land on something: nothing is ever overwritten."""
    return free_folder(model_dir, hint="continue it with --resume, or " * bool(list_checkpoints(model_dir)))


def create_model_folder(model_dir: Path, fill: Callable[[Path], None]) -> None:
    """Makes a new model folder that is complete from the moment it exists: `fill` writes into a temporary one."""
    model_dir = refuse_occupied(model_dir)
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    for leftover in model_dir.parent.glob(f".{model_dir.name}.unfinished-*"):
        if not _is_alive(leftover.name.rpartition("-")[2]):
            shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed in here
    temporary = model_dir.with_name(f".{model_dir.name}.unfinished-{os.getpid()}")
    temporary.mkdir()
    try:
        fill(temporary)
        try:
            temporary.rename(model_dir)
        except OSError as error:
            if not model_dir.exists():
                raise
            raise ValueError(
                f"another run has just begun in --out_dir {model_dir}; choose another folder, or go on with --resume "
                "when it has ended"
            ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _is_alive(process: str) -> bool:
    """Whether a process of this host has that number."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return process.isdecimal()
    return True


def write_run_record(
    folder: Path, config: Config, data_dir: Path, scene: Scene, start: StartingAvatar | None = None
) -> None:
    """Writes config.yaml, run.json, cameras.json, poses.npz and template.ply into `folder`."""
    dataset = scene.training
    assert scene.template is not None, "a new run has one"
    save_config(config, folder / SETTINGS_FILE)
    record = {
        DATA_DIR: str(Path(data_dir).absolute()),
        "command": sys.argv,
        **versions(),
        "lenses": lenses(dataset),
    }
    if start is not None:
        record[STARTED_FROM] = start.record()
    (folder / RUN_NAME).write_text(json.dumps(record, indent=2))
    (folder / CAMERAS_NAME).write_text(json.dumps(camera_list(dataset), indent=1))
    frames = dataset.seen_frames
    poses = dataset.poses
    np.savez(
        folder / POSES_FILE,
        frames=frames,
        betas=poses.betas,
        poses=poses.poses[frames],
        translations=poses.translations[frames],
        expression=poses.expressions_of(frames),
    )
    scene.template.export(folder / TEMPLATE_NAME)


def lenses(dataset: CaptureDataset) -> dict[str, list]:
    """Camera id -> its name, which is where its pictures lie, and the distortion that is taken out of them."""
    cameras = {camera: dataset.layout.cameras[camera] for camera in dataset.camera_ids}
    return {str(camera): [entry.name, entry.dist.tolist()] for camera, entry in cameras.items()}


def lock_run(model_dir: Path) -> None:
    """Locks the folder for the rest of this process; ValueError, one line, if another process trains in it.

    Where the system or the folder knows no such locks nothing happens.
    """
    try:
        import fcntl
    except ImportError:
        return
    path = Path(model_dir) / LOCK_NAME
    # Not closed: that would open the lock. A record lock, which processes that read samples do not inherit.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        owner = path.read_text().strip() or "another process"
        os.close(descriptor)
        raise ValueError(
            f"{model_dir} is being trained by {owner}; stop that run, or choose another --out_dir"
        ) from error
    except OSError:
        os.close(descriptor)
        return
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # a full disk: locked all the same
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
