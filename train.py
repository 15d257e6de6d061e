"""Trains an avatar on a capture.

python train.py --config config/avrex_zzr.yaml --data_dir CAPTURE --out_dir MODEL [--resume] [key=value ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mmlphuman.command import choose_device, run_command
from mmlphuman.config import load_config
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
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of --config")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    config = load_config(args.config, args.overrides)
    device = choose_device(config.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    lpips = load_lpips(config.vgg_path) if config.lambda_lpips > 0 else None

    if args.resume and list_checkpoints(args.out_dir):
        trainer = resume_run(config, args.data_dir, args.out_dir, lpips, device)
        print(f"resuming {args.out_dir} at iteration {trainer.iteration}")
    else:
        refuse_occupied(args.out_dir)  # before the long part
        scene = build_scene(config, args.data_dir)
        trainer = Trainer(config, scene, lpips, device)

        def fill(folder: Path) -> None:
            write_run_record(folder, config, args.data_dir, scene)
            trainer.save(folder)

        create_model_folder(args.out_dir, fill)

    steps, started = config.iterations - trainer.iteration, time.monotonic()
    with Monitor(args.out_dir, trainer.iteration, config.iterations) as monitor:
        trainer.run(args.out_dir, monitor)
    print(f"trained avatar: {args.out_dir}")
    if steps:
        print(
            f"{1000 * (time.monotonic() - started) / steps:.1f} ms per step, tests and checkpoints included"
        )
    if device.type == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


if __name__ == "__main__":
    run_command(main)
