"""Trains an avatar on a capture.

python train.py --config config/avrex_zzr.yaml --data_dir CAPTURE --out_dir MODEL [--resume] [key=value ...]

A run can be watched while it goes on: in a browser at the address that it prints, or with viewer/net_viewer.py.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from mmlphuman.command import choose_device, run_command
from mmlphuman.config import Config, load_config
from mmlphuman.streaming.live_training import live_training
from mmlphuman.streaming.viewer_arguments import Address, add_viewer_arguments, viewer_address
from mmlphuman.training.checkpoint import create_model_folder, list_checkpoints, refuse_occupied
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.perceptual import load_lpips
from mmlphuman.training.resume import resume_run
from mmlphuman.training.run_record import write_run_record
from mmlphuman.training.scene import build_scene


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="YAML settings, e.g. config/demo.yaml")
    parser.add_argument("--data_dir", type=Path, required=True, help="capture folder")
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="model folder to make (or, with --resume, continue)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out_dir exactly where it stood"
    )
    add_viewer_arguments(parser)
    parser.add_argument("--no_viewer", action="store_true", help="serve no live viewer")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of --config")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    config = load_config(args.config, args.overrides)
    device = choose_device(config.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    # Of recorded steps, whose parameters' gradients are added up on the stream that they were recorded on.
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
    lpips = load_lpips(config.vgg_path) if config.lambda_lpips > 0 else None
    viewers = None if args.no_viewer else viewer_address(args)
    if viewers is not None and viewers.asked_for:
        viewers.check()
    trainer = prepare(args, config, lpips, device)
    train(args.out_dir, trainer, viewers)


def prepare(
    args: argparse.Namespace, config: Config, lpips: Callable | None, device: torch.device
) -> Trainer:
    """A new run with its model folder, or the one to be continued."""
    if args.resume and list_checkpoints(args.out_dir):
        trainer = resume_run(config, args.data_dir, args.out_dir, lpips, device)
        print(f"resuming {args.out_dir} at iteration {trainer.iteration}")
        return trainer
    refuse_occupied(args.out_dir)  # before the long part
    scene = build_scene(config, args.data_dir)
    trainer = Trainer(config, scene, lpips, device)

    def fill(folder: Path) -> None:
        write_run_record(folder, config, args.data_dir, scene)
        trainer.save(folder)

    create_model_folder(args.out_dir, fill)
    return trainer


def train(model_dir: Path, trainer: Trainer, viewers: Address | None) -> None:
    """To the last iteration, served to `viewers` meanwhile."""
    config, device = trainer.config, trainer.device
    if device.type == "cuda":
        torch.set_num_threads(1)  # others would spin between steps on the cores that read samples
    steps, started = config.iterations - trainer.iteration, time.monotonic()
    with (
        Monitor(model_dir, trainer.iteration, config.iterations) as monitor,
        trainer.stream,  # its processes start before there are viewers, whose connections they would hold
        live_training(trainer, model_dir, viewers) if viewers is not None else nullcontext() as watcher,
    ):
        trainer.run(model_dir, monitor, watcher)
    print(f"trained avatar: {model_dir}")
    if steps:
        print(
            f"{1000 * (time.monotonic() - started) / steps:.1f} ms per step, tests and checkpoints included"
        )
    if device.type == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


if __name__ == "__main__":
    run_command(main)
