"""Sends the poses of a file, in their time and again and again, to pages that draw the avatar themselves.

    python script/stream_poses.py --model_dir MODEL --pose_path POSES.npz [--ip IP] [--port PORT] [--token TOKEN]

MODEL is that of the page's folder (script/export.py --format web); what this prints goes behind the page's address. It
runs until it is interrupted (Ctrl-C). Other sources of poses: mmlphuman/streaming/pose_stream.py.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import time
from pathlib import Path

from mmlphuman.animation.arguments import add_pose_arguments, read_poses, tell_poses
from mmlphuman.command import run_command
from mmlphuman.streaming.messages import DEFAULT_HOST
from mmlphuman.streaming.pose_stream import DEFAULT_POSE_PORT, PoseStream, play


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model_dir", type=Path, required=True, help="what train.py wrote, or a compact .safetensors file"
    )
    parser.add_argument("--pose_path", type=Path, required=True, help="poses in any form that test.py takes")
    parser.add_argument(
        "--ip", default=DEFAULT_HOST, help="address to send at; others than this machine need a token"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_POSE_PORT, help="0: any that is free")
    parser.add_argument("--token", help="word at the address's end (made where one is needed)")
    add_pose_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

from mmlphuman.model_folder import load_model


def main(args: argparse.Namespace) -> None:
    trained = load_model(args.model_dir)
    pelvis = trained.avatar.joints[0].cpu().numpy()
    sequence = read_poses(args, trained.config.smpl_pkl_path, pelvis, trained.config.face)
    tell_poses(sequence)

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    with PoseStream(args.ip, args.port, args.token) as stream:
        print(f"open the page with ?poses={stream.address}", flush=True)
        try:
            play(sequence, stream, wait)
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
