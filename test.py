"""Renders a trained avatar: the test images of a capture, with scores, or any poses seen by any cameras.

python test.py --model_dir MODEL --out_dir IMAGES --data_dir CAPTURE [--test] [--config FILE] [key=value ...]
python test.py --model_dir MODEL --out_dir IMAGES --cam_path CAM.json --pose_path POSES.npz [--test] [--video] ...
python test.py --model_dir MODEL --cam_path CAM.json --pose_path POSES.npz --test_speed [--test]
torchrun --nproc_per_node=N test.py ...     the first two on N GPUs, with the same result
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import json
from dataclasses import replace
from pathlib import Path

from mmlphuman.animation.arguments import (
    add_render_arguments,
    camera_motion,
    check_render_arguments,
    read_cameras,
    read_poses,
    tell_poses,
    video_fps,
)
from mmlphuman.command import choose_device, run_command


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    summary, usage = __doc__.strip().split("\n\n")
    parser = argparse.ArgumentParser(description=summary, usage=usage)
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        help="settings over the model's own, which are the default; given again, over the ones before. "
        "What is drawn or scored otherwise than by the model's own is told",
    )
    parser.add_argument(
        "--model_dir", type=Path, required=True, help="what train.py wrote, or a compact .safetensors file"
    )
    parser.add_argument(
        "--out_dir",
        type=Path,
        help="where pictures, videos and numbers go: a new folder, or that of an earlier such "
        "call, whose files go first",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="capture folder; the `test` part of the settings selects the images"
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="bring novel poses into training's range before the MLPs see them; how: novel_poses in the settings",
    )
    parser.add_argument(
        "--capture_poses",
        action="store_true",
        help="with --data_dir, of a model that refined the poses of its training frames: the capture's all the same",
    )
    parser.add_argument(
        "--background",
        choices=("transparent",),
        help="write renders as RGBA: straight colour, the render's alpha. Scores and contact sheet stay those on the "
        "settings' background (a colour: background=black), videos are drawn on white",
    )
    add_render_arguments(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings over the model's own and those of --config",
    )
    args = parser.parse_intermixed_args()  # settings may stand between flags
    check_arguments(args)
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ValueError for flags that do not go together."""
    if (args.data_dir is None) == (args.cam_path is None and args.pose_path is None):
        raise ValueError("give either --data_dir, or --cam_path and --pose_path")
    if args.data_dir is None:
        check_render_arguments(args)
    elif args.video is not None or args.test_speed:
        raise ValueError("--video and --test_speed go with --cam_path and --pose_path, not with --data_dir")
    if args.capture_poses and args.data_dir is None:
        raise ValueError("--capture_poses goes with --data_dir")
    if args.background and args.test_speed:
        raise ValueError("--test_speed writes no pictures: --background transparent means nothing to it")
    if args.out_dir is None and not args.test_speed:
        raise ValueError("--out_dir is needed: the folder that the pictures go to")


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch

from mmlphuman.animation.camera_path import make_shots
from mmlphuman.animation.render_sequence import Look, tell_out_of_picture
from mmlphuman.avatar.trained import NOVEL_POSES, TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.capture.dataset import test_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import Config
from mmlphuman.evaluation.render_to_files import (
    files_of_animation,
    files_of_capture,
    render_animation,
    render_capture,
)
from mmlphuman.evaluation.shares import RENDER_TIMEOUT
from mmlphuman.evaluation.speed import measure_speed
from mmlphuman.measures.lpips import load_lpips
from mmlphuman.model_folder import load_model, poses_to_score, with_settings
from mmlphuman.output_folder import begin_output, require_output
from mmlphuman.processes import Ranks, started_processes
from mmlphuman.resources import memory_for

# Whose folders are whose: output_folder.
OF_CAPTURE, OF_ANIMATION = "test.py --data_dir", "test.py --pose_path"
# Settings that decide what is drawn.
DECIDING = ("background", "novel_poses", "pca_sigmas")


def score_capture(args: argparse.Namespace, config: Config, trained: TrainedAvatar, notes: list[str]) -> None:
    """All that can be refused is read before the processes meet, so that a mistake is told once."""
    backend = choose_backend(config.rasterizer, config.kernels, choose_device(config.device))
    layout = open_capture(args.data_dir)
    poses = read_smpl_params(layout.pose_path, trained.config.face, config.smpl_pkl_path)
    if not args.capture_poses:
        poses, of_poses = poses_to_score(args.model_dir, trained.config, poses)
        notes = [*notes, *of_poses]
    dataset = test_dataset(config, layout, poses)
    lpips = load_lpips(config.vgg_path) if Path(config.vgg_path).is_file() else None
    require_output(args.out_dir, OF_CAPTURE)
    with Ranks.from_environment(config.device, RENDER_TIMEOUT) as ranks:
        if ranks.first:
            begin_output(args.out_dir, OF_CAPTURE, files_of_capture(dataset))
        ranks.barrier()
        for note in notes:
            ranks.say(f"note: {note}")
        if lpips is None and ranks.first:
            print(
                f"LPIPS is left out: its network's weights are not at {config.vgg_path} "
                "(see smpl_model/README.md)"
            )
        table = render_capture(
            trained.prepared(ranks.device, backend),
            dataset,
            training_cameras=trained.config.train_cam_ids or range(len(layout.cameras)),
            out_dir=args.out_dir,
            background=config.background,
            backend=backend,
            project_pose=args.test,
            transparent=args.background is not None,
            title=f"{args.model_dir.name}, iteration {trained.iteration:,}"
            + (f", poses {NOVEL_POSES[trained.config.novel_poses]}" if args.test else ""),
            lpips=None if lpips is None else lpips.to(ranks.device),
            ranks=ranks,
        )
        if table is not None:
            print(table.text())
            print(f"images, scores.json and contact_sheet.png: {args.out_dir}")


def animate(args: argparse.Namespace, config: Config, trained: TrainedAvatar, notes: list[str]) -> None:
    """All that can be refused is read before the processes meet, so that a mistake is told once."""
    pelvis = trained.avatar.joints[0].cpu().numpy()
    cameras = read_cameras(args)
    sequence = read_poses(args, config.smpl_pkl_path, pelvis, trained.config.face)
    backend = choose_backend(config.rasterizer, config.kernels, choose_device(config.device))
    shots = make_shots(cameras, sequence, pelvis, camera_motion(args), args.follow)
    fps = video_fps(args, sequence)
    misses = tell_out_of_picture(trained, sequence, shots)
    require_output(args.out_dir, OF_ANIMATION)
    with Ranks.from_environment(config.device, RENDER_TIMEOUT) as ranks:
        if ranks.first:
            begin_output(args.out_dir, OF_ANIMATION, files_of_animation(sequence, shots, fps is not None))
        ranks.barrier()
        for note in notes:
            ranks.say(f"note: {note}")
        if ranks.first:
            tell_poses(replace(sequence, doubts=(*sequence.doubts, *misses)))
        if args.background and fps is not None:
            ranks.say("the PNGs are transparent, videos are drawn on white")
        background = torch.tensor(config.background, device=ranks.device)
        look = Look(background, backend, args.test, transparent=args.background is not None)
        distances = render_animation(
            trained.prepared(ranks.device, backend),
            sequence,
            shots,
            args.out_dir,
            look,
            video_fps=fps,
            show_distance=args.show_distance,
            ranks=ranks,
        )
        if ranks.first:
            print(distances.text())
            videos = "".join(f", {shot.video}" for shot in shots if fps is not None)
            print(f"render/, poses.json{videos}: {args.out_dir}")


def time_frames(args: argparse.Namespace, config: Config, trained: TrainedAvatar, notes: list[str]) -> None:
    if started_processes() > 1:
        raise ValueError("--test_speed measures one process; start it without torchrun")
    pelvis = trained.avatar.joints[0].cpu().numpy()
    camera = read_cameras(args)[0]
    sequence = read_poses(args, config.smpl_pkl_path, pelvis, trained.config.face)
    device = choose_device(config.device)
    backend = choose_backend(config.rasterizer, config.kernels, device)
    look = Look(torch.tensor(config.background, device=device), backend, args.test)
    prepared = trained.prepared(device, backend)
    report = measure_speed(prepared, sequence, camera, look, args.speed_frames)
    for note in notes:
        print(f"note: {note}")
    tell_poses(sequence)
    print(report.text())
    print(json.dumps({"test_speed": report.to_json()}))


def main(args: argparse.Namespace) -> None:
    trained = load_model(args.model_dir)
    deciding = ("test", *DECIDING) if args.data_dir is not None else DECIDING
    trained, config, notes = with_settings(trained, args.model_dir, args.config, args.overrides, deciding)
    work = score_capture if args.data_dir is not None else time_frames if args.test_speed else animate
    smaller = (
        "lower test.image_scaling"
        if args.data_dir is not None
        else f"{', '.join(args.cam_path)}: lower width and height"
    )
    with memory_for(f"a picture does not fit; {smaller}"):
        work(args, config, trained, notes)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
