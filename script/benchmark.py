"""Measures how fast this machine draws an avatar, trains it and reads its samples: the speeds of docs/performance.md.

    python script/benchmark.py --out benchmark.json                        published scale on a GPU, a few minutes
    python script/benchmark.py --out benchmark.json --scale demo --only render train      on a CPU
    python script/benchmark.py --out benchmark.json --model_dir MODEL --only render       a trained model
    torchrun --nproc_per_node=2 script/benchmark.py --out benchmark.json --only train     several GPUs against one

The subject is an avatar that nobody trained: as many parameters as the scale has, filled with noise of the size of
trained ones, on the synthetic body. LPIPS's network has random weights, which cost the same.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmlphuman.benchmark import report
from mmlphuman.benchmark.parallel_training import measure_parallel
from mmlphuman.benchmark.rendering import FEWEST_FRAMES, measure_rendering
from mmlphuman.benchmark.sample_reading import measure_samples
from mmlphuman.benchmark.subject import Subject, trained_subject, untrained_subject, workload
from mmlphuman.benchmark.training_step import FEWEST_STEADY, measure_steadiness, measure_training
from mmlphuman.body.smplx_model import load_body
from mmlphuman.command import run_command
from mmlphuman.config import load_config
from mmlphuman.files import atomic_write
from mmlphuman.model_folder import load_model
from mmlphuman.processes import Ranks, started_processes
from mmlphuman.synthetic.body import write_body
from mmlphuman.synthetic.motion import BETAS, make_motion

ROOT = Path(__file__).resolve().parent.parent

PARTS = ("samples", "render", "train", "steady")  # samples first: nothing else runs in the process yet
PUBLISHED_SIZE = (1500, 2048)
MOTION_FRAMES = 60
# Of the untrained avatar's Gaussians, in its compact file; of a model: what compact.py would keep.
KEPT_BASES = 0.3
STEADY_STEPS = 2000


@dataclass(frozen=True)
class Scale:
    config: str  # in config/
    size: tuple[int, int]  # (width, height) pixels
    overrides: tuple[str, ...] = ()


QUICK_BODY = ("weight_volume_resolution=64",)  # seconds instead of half a minute; read once, then forgotten
SCALES = {
    "published": Scale("default.yaml", PUBLISHED_SIZE, QUICK_BODY),
    "demo": Scale("demo.yaml", (512, 512), QUICK_BODY),
    "tiny": Scale(
        "demo.yaml",
        (64, 80),
        ("init_num_gs=600", "num_verts=100", "num_features=8", "weight_volume_resolution=16"),
    ),
}


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file to write: all numbers, versions, sizes"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="default: all; without a GPU all but steady")
    parser.add_argument(
        "--scale",
        choices=list(SCALES),
        help="of the untrained avatar: published (default with a GPU: 200,000 Gaussians, 300 MLPs, 1500x2048), demo "
        "(default without: config/demo.yaml at 512x512), or tiny, which only shows that everything runs",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="instead of the scale's"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument(
        "--model_dir", type=Path, help="draw this model or compact file instead; not for training"
    )
    parser.add_argument("--frames", type=int, default=100, help="drawn in each way, whole and by stages")
    parser.add_argument("--steps", type=int, default=40, help="training steps in each way")
    parser.add_argument(
        "--steady", type=int, help=f"steps in a row, to compare first and last ({STEADY_STEPS})"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="settings over the scale's")
    parser.add_argument(
        "--smpl_path", type=Path, help="body file; default: the synthetic one, made anew (10 s)"
    )
    samples = parser.add_argument_group("reading samples")
    samples.add_argument("--data_dir", type=Path, help="a capture; default: pictures made for the purpose")
    samples.add_argument("--image_scaling", type=float, default=1.0, help="as in the settings")
    samples.add_argument("--samples", type=int, default=64, help="how many are timed in each run")
    samples.add_argument(
        "--workers", type=int, nargs="*", help="reading processes to try; default: 0 2 and one a core"
    )
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"--out {args.out} exists; give --overwrite to replace it, or another name")
    for name, least in (("frames", FEWEST_FRAMES), ("steps", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} {getattr(args, name)}: must be at least {least}")
    if args.steady is not None and args.steady < FEWEST_STEADY:
        raise ValueError(
            f"--steady {args.steady}: at least {FEWEST_STEADY} steps are needed to compare two parts"
        )
    if args.size and min(args.size) < 16:
        raise ValueError(f"--size {args.size[0]} {args.size[1]}: pictures need at least 16 pixels a side")
    if started_processes() > 1 and args.only != ["train"]:
        raise ValueError("several processes train together and measure nothing else; add --only train")
    if args.model_dir and {"train", "steady"} & set(args.only or PARTS):
        raise ValueError("--model_dir: models are drawn here, not trained; add --only render")


def chosen_parts(args: argparse.Namespace, device: torch.device) -> tuple[str, ...]:
    if args.only:
        return tuple(part for part in PARTS if part in args.only)
    return PARTS if device.type == "cuda" or args.steady is not None else PARTS[:-1]


def make_subject(args: argparse.Namespace, folder: Path, device: torch.device) -> tuple[str, Subject]:
    """The avatar to time and what it is; body and motion are written to `folder`."""
    name = args.scale or ("published" if device.type == "cuda" else "demo")
    scale = SCALES[name]
    width, height = args.size or scale.size
    if args.model_dir:
        return str(args.model_dir), trained_subject(load_model(args.model_dir).to(device), (width, height))
    config = load_config(ROOT / "config" / scale.config, [*scale.overrides, *args.set])
    body_path, motion_path = args.smpl_path, folder / "smpl_params.npz"
    if body_path is None:
        body_path = folder / "SMPLX_NEUTRAL.npz"
        write_body(body_path)
    joints = load_body(body_path, BETAS[0]).joints.double().numpy()
    np.savez(motion_path, allow_pickle=False, **make_motion(joints, MOTION_FRAMES, 0, config.seed))
    return f"untrained, {name} scale", untrained_subject(
        config, body_path, motion_path, (width, height), device
    )


def measure(args: argparse.Namespace, ranks: Ranks, result: dict) -> None:
    """Fills `result` and prints each part when it is done."""
    device = ranks.device
    parts = chosen_parts(args, device)

    def show(title: str, text: str) -> None:
        ranks.say(f"\n{title}\n{text}")

    if "samples" in parts:
        workers = sorted({0, 2, os.cpu_count() or 1}) if args.workers is None else args.workers
        width, height = args.size or PUBLISHED_SIZE
        size = width, height
        result["samples"] = measure_samples(args.data_dir, size, args.image_scaling, args.samples, workers)
        show("Reading samples", report.sample_table(result["samples"]))
    if parts == ("samples",):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name, subject = make_subject(args, folder, device)
        avatar, config = subject.trained.avatar, subject.trained.config
        result["subject"] = {"name": name, **workload(subject), "control_points": len(avatar.control_offsets)}
        result["subject"] |= {"anchors": config.num_features}
        ranks.say(f"\n{report.subject_text(result['subject'])}")
        if "render" in parts:
            rows = measure_rendering(subject, args.frames, None if args.model_dir else KEPT_BASES)
            result["render"] = [row.to_json() for row in rows]
            show("Drawing", report.render_table(rows))
        for part in ("train", "steady"):
            (folder / part).mkdir()
        # From here on as train.py does.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
        if ranks.world > 1:
            result["parallel"] = measure_parallel(subject, folder / "train", args.steps, ranks)
            show(f"Training by {ranks.world} processes", report.parallel_table(result["parallel"]))
        elif "train" in parts:
            rows = measure_training(subject, folder / "train", args.steps)
            result["train"] = [row.to_json() for row in rows]
            show("Training", report.training_table(rows))
        if "steady" in parts:
            result["steady"] = measure_steadiness(
                subject, folder / "steady", STEADY_STEPS if args.steady is None else args.steady
            )
            show("Training goes on as it began", report.steady_text(result["steady"]))


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    with Ranks.from_environment(args.device) as ranks:
        result = {"command": sys.argv[1:], "machine": report.machine(ranks.device)}
        ranks.say(report.machine_text(result["machine"]))
        if not ranks.first:
            measure(args, ranks, result)
            return
        # Opened now: a folder that cannot be written to is no late surprise.
        with atomic_write(args.out) as file:
            measure(args, ranks, result)
            file.write((json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        print(f"\nwritten  {args.out}")


if __name__ == "__main__":
    run_command(main)
