"""Everything before the first step: from a capture and settings to datasets, body and avatar.

Data path: capture folder + Config -> Scene -> loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import trimesh

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.build import build_avatar, build_layout, load_template
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.weight_volume import find_or_make_weight_volume
from mmlphuman.capture.dataset import CaptureDataset, select_frames
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.frame_filter import filter_frames
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.config import Config
from mmlphuman.pose_layout import BODY_POSE


@dataclass(frozen=True)
class Scene:
    training: CaptureDataset
    held_out: CaptureDataset
    avatar: Avatar
    pose_space: PoseSpace
    template: trimesh.Trimesh | None = None  # of a new run, which writes it; a resumed one has it already


def training_dataset(config: Config, layout: CaptureLayout, poses: SmplParams) -> CaptureDataset:
    """The training images, without the frames that config cuts out or finds repeated.

    Only training frames are filtered: scores are comparable with others' only on every frame of a protocol, and
    a repeated pose harms no score.
    """
    frames = select_frames(config.begin_ith_frame, config.num_train_frame, config.frame_interval)
    return CaptureDataset(
        layout,
        poses,
        frames=filter_frames(frames, poses, config.min_pose_change, config.skip_frames),
        camera_ids=config.train_cam_ids or list(range(len(layout.cameras))),
        image_scaling=config.image_scaling,
        edge_radius=config.edge_radius,
        in_memory=config.data_in_memory,
    )


def test_dataset(config: Config, layout: CaptureLayout, poses: SmplParams) -> CaptureDataset:
    return CaptureDataset(
        layout,
        poses,
        frames=select_frames(config.test.begin_ith_frame, config.test.num_frame, config.test.frame_interval),
        camera_ids=config.test.cam_ids,
        image_scaling=config.test.image_scaling,
        edge_radius=config.edge_radius,
        in_memory=False,
    )


def build_scene(config: Config, data_dir: Path, say=print) -> Scene:
    """Opens the capture and places a new avatar on its body. Raises ValueError or OSError, one line each."""
    layout = open_capture(data_dir)
    poses = read_smpl_params(layout.pose_path)
    training, held_out = training_dataset(config, layout, poses), test_dataset(config, layout, poses)
    read_one_of_each_camera(training)
    frames = sorted({frame for frame, _ in training.pairs})
    pose_space = PoseSpace.fit(torch.from_numpy(poses.poses[frames][:, BODY_POSE]), config.pca_components)
    body = load_body(config.smpl_pkl_path, poses.betas)
    volume = find_or_make_weight_volume(layout.weight_volume_path, body, config.weight_volume_resolution, say)
    template = load_template(layout.template_path, body)
    say(
        f"placing {config.init_num_gs:,} Gaussians, {config.num_verts:,} control points and "
        f"{config.num_features} MLPs on the surface"
    )
    avatar = build_avatar(config, build_layout(config, body, template, volume))
    return Scene(training, held_out, avatar, pose_space, template)


def read_one_of_each_camera(dataset: CaptureDataset) -> None:
    """Raises before anything is written for a fault that a camera's files share, such as masks of another size."""
    first = {camera: frame for frame, camera in reversed(dataset.pairs)}
    for camera, frame in first.items():
        dataset.sample(frame, (camera,))
