"""Renders a capture's test cameras and frames with a trained avatar, and scores them.

python test.py --config config/demo.yaml --model_dir MODEL --out_dir IMAGES --data_dir CAPTURE [--test] [key=value ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device, run_command
from mmlphuman.config import load_config
from mmlphuman.evaluation.render_capture import render_capture
from mmlphuman.training.checkpoint import load_avatar, newest_checkpoint
from mmlphuman.training.perceptual import load_lpips
from mmlphuman.training.scene import test_dataset


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, required=True, help="settings; its `test` part selects the images"
    )
    parser.add_argument("--model_dir", type=Path, required=True, help="what train.py wrote")
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="where images, scores.json and contact_sheet.png go"
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="capture folder")
    parser.add_argument(
        "--test", action="store_true", help="project poses into the training poses' space (novel poses)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of --config")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    config = load_config(args.config, args.overrides)
    device = choose_device(config.device)
    checkpoint = newest_checkpoint(args.model_dir)
    trained = load_avatar(checkpoint)
    trained.avatar.to(device)
    trained.pose_space.to(device)
    layout = open_capture(args.data_dir)
    dataset = test_dataset(config, layout, read_smpl_params(layout.pose_path))
    lpips = None
    if Path(config.vgg_path).is_file():
        lpips = load_lpips(config.vgg_path).to(device)
    else:
        print(
            f"LPIPS is left out: its network's weights are not at {config.vgg_path} (see smpl_model/README.md)"
        )
    table = render_capture(
        trained,
        dataset,
        training_cameras=trained.config.train_cam_ids or range(len(layout.cameras)),
        out_dir=args.out_dir,
        background=config.background,
        project_pose=args.test,
        title=f"{args.model_dir.name}, iteration {trained.iteration:,}"
        + (", projected poses" if args.test else ""),
        lpips=lpips,
    )
    print(table.text())
    print(f"images, scores.json and contact_sheet.png: {args.out_dir}")


if __name__ == "__main__":
    run_command(main)
