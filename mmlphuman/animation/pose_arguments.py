"""The command line's words for choosing poses out of a file: one set of flags for every command. Without torch.

Data path: command line -> PoseOptions -> pose_file.read_pose_file.
"""

from __future__ import annotations

import argparse

from mmlphuman.animation.pose_file import CLEAN_UPS, HANDS_FROM, UP_ROTATIONS, PoseOptions


def add_pose_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --begin --count --stride --up --clean_up --no_translation --hands; `pose_options` reads them."""
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


def pose_options(args: argparse.Namespace) -> PoseOptions:
    """What the flags of `add_pose_arguments` say; `read_pose_file` checks the values."""
    return PoseOptions(
        begin=args.begin,
        count=args.count,
        stride=args.stride,
        up=args.up,
        clean_up=args.clean_up,
        translation=not args.no_translation,
        hands=args.hands,
    )
