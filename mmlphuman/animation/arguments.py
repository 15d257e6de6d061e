"""The command line's words for an animation: poses of a file, cameras and how they move, video, speed. Without torch.

Data path: command line -> PoseOptions -> pose_file.read_pose_file; -> cameras, motion and frame rate ->
camera_path.make_shots -> render_sequence.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from mmlphuman.animation.camera_choice import choose_cameras
from mmlphuman.animation.camera_file import MAX_SIZE, CameraView
from mmlphuman.animation.pose_file import (
    CLEAN_UPS,
    DEFAULT_FPS,
    HANDS_FROM,
    UNITS,
    UP_ROTATIONS,
    PoseOptions,
    PoseSequence,
    read_pose_file,
)
from mmlphuman.picture_files import check_fps


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --cam_path, --pose_path and all that says how they are rendered; those of the poses as well."""
    add = parser.add_argument_group("any poses and cameras").add_argument
    add_flag = partial(add, action="store_true")
    add(
        "--cam_path",
        nargs="+",
        metavar="CAMERA",
        help="camera files as the viewer saves them, lists of them, ids of cameras of --model_dir's capture (held-out "
        "ones too), CALIBRATION#ID of any calibration that script/import_capture.py reads; each sees every pose, "
        "unless --camera_path is given",
    )
    add(
        "--pose_path",
        type=Path,
        metavar="POSES",
        help="poses of a capture, a video estimator, AMASS or EasyMocap: npz, npy, JSON, or a folder of a file a frame",
    )
    add_flag(
        "--turntable",
        help="the one camera circles the person once while the sequence runs: about the pelvis's mean place, round "
        "the world's axis (x, y or z, either way) nearest to the camera's own up direction",
    )
    add_flag(
        "--camera_path",
        help="one camera moves round the person, through all of --cam_path, while the sequence runs",
    )
    add_flag("--follow", help="the cameras go with the person, at the distance of the first frame")
    add("--width", type=int, metavar="PIXELS", help="instead of the camera file's; fovx stays")
    add("--height", type=int, metavar="PIXELS", help="instead of the camera file's; fovx stays")
    add(
        "--video",
        type=float,
        nargs="?",
        const=0.0,
        metavar="FPS",
        help=f"write an MP4 too (default rate: the pose file's own, or {DEFAULT_FPS:g})",
    )
    add_flag("--show_distance", help="a strip under the video: how far the pose is from training")
    add_flag("--test_speed", help="write no pictures; measure milliseconds of frames and their stages")
    add("--speed_frames", type=int, metavar="N", help="frames to measure (default: the poses, 50 to 200)")
    add_pose_arguments(parser)


def check_render_arguments(args: argparse.Namespace) -> None:
    """Raises ValueError for flags of `add_render_arguments` that do not go together or lack others."""
    if args.cam_path is None or args.pose_path is None:
        raise ValueError("--cam_path and --pose_path are needed together")
    if args.turntable and args.camera_path:
        raise ValueError("--turntable and --camera_path exclude each other: the camera moves in one way")
    moving = args.turntable or args.camera_path
    if args.test_speed and (moving or args.video is not None or len(args.cam_path) > 1):
        raise ValueError("--test_speed looks through one standing --cam_path and writes no video")
    if args.show_distance and args.video is None:
        raise ValueError("--show_distance is shown in the video: give --video too")


def read_cameras(args: argparse.Namespace) -> list[CameraView]:
    """The cameras of --cam_path in the wanted size."""
    for name in ("width", "height"):
        size = getattr(args, name)
        if size is not None and not 1 <= size <= MAX_SIZE:
            raise ValueError(f"--{name}: {size} pixels are not possible; give 1 to {MAX_SIZE}")
    return [
        view
        for word in args.cam_path
        for view in choose_cameras(word, args.model_dir, args.width, args.height)
    ]


def camera_motion(args: argparse.Namespace) -> str:
    """One of camera_path.MOTIONS."""
    return "turntable" if args.turntable else "path" if args.camera_path else "held"


def video_fps(args: argparse.Namespace, sequence: PoseSequence) -> float | None:
    """A video's frames a second, by default the poses' own; None if no video is wanted."""
    return None if args.video is None else check_fps(args.video or sequence.playback_fps)


def add_pose_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --begin --count --stride --up --units --clean_up --no_translation --hands; `pose_options` reads them."""
    default = PoseOptions()
    poses = parser.add_argument_group("poses", "which frames of --pose_path, and how its poses are taken")
    poses.add_argument(
        "--begin", type=int, default=default.begin, metavar="N", help="first frame, from 0 (default 0)"
    )
    poses.add_argument("--count", type=int, metavar="N", help="number of frames (default: to the end)")
    poses.add_argument(
        "--stride", type=int, default=default.stride, metavar="N", help="take every Nth frame (default 1)"
    )
    poses.add_argument(
        "--up",
        choices=tuple(UP_ROTATIONS),
        default=default.up,
        help="the axis that points up in the file's world; AMASS: z; write --up=-y (default y)",
    )
    poses.add_argument(
        "--units",
        choices=tuple(UNITS),
        help="of the file's translations (default: metres, unless they look otherwise)",
    )
    poses.add_argument(
        "--clean_up",
        choices=CLEAN_UPS,
        default=default.clean_up,
        help="published: the published viewer's mending of AMASS poses (default none)",
    )
    poses.add_argument("--no_translation", action="store_true", help="leave the person at the origin")
    poses.add_argument(
        "--hands",
        choices=HANDS_FROM,
        default=default.hands,
        help="hand poses: the file's, or one for all frames (default file)",
    )


def pose_options(args: argparse.Namespace, face: bool) -> PoseOptions:
    """What the flags of `add_pose_arguments` say; `read_pose_file` checks the values. face: whether the avatar was
    trained with it."""
    return PoseOptions(
        begin=args.begin,
        count=args.count,
        stride=args.stride,
        up=args.up,
        clean_up=args.clean_up,
        translation=not args.no_translation,
        hands=args.hands,
        face=face,
        units=args.units,
    )


def read_poses(
    args: argparse.Namespace, model_file: str, pelvis: np.ndarray, face: bool = False
) -> PoseSequence:
    """The poses of --pose_path, placed as those of training.

    model_file, face: as `read_pose_file` and PoseOptions have them; pelvis: (3,) the root joint of the avatar's T-pose.
    """
    return read_pose_file(args.pose_path, pose_options(args, face), model_file).about_pelvis(pelvis)


def tell_poses(sequence: PoseSequence) -> None:
    """Prints what the file was taken for, and on stderr what looks wrong."""
    print(sequence.told, flush=True)
    for doubt in sequence.doubts:
        print(f"warning: {doubt}", file=sys.stderr, flush=True)
