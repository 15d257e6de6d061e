"""Trains an avatar on a capture.

python train.py --config config/avrex_zzr.yaml --data_dir CAPTURE --out_dir MODEL [--resume [auto]] [key=value ...]
python train.py --out_dir MODEL --resume [iterations=N]      go on with a run that has begun, or make it longer
python train.py --config ... --data_dir CAPTURE --out_dir NEW --init_from MODEL     a new run from a trained avatar
torchrun --nproc_per_node=GPUS train.py ...      one process a GPU; on several hosts with --nnodes and --rdzv_endpoint

Asked to stop (SIGTERM, SIGUSR1, Ctrl-C; SIGHUP, SIGQUIT, SIGXCPU), it finishes its step, saves itself and ends with
status 75.
A run can be watched while it goes on: in a browser at the address that it prints, or with viewer/net_viewer.py.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from mmlphuman.command import run_command
from mmlphuman.streaming.server import ListenAddress, add_viewer_arguments, viewer_address


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        help="YAML settings, e.g. config/demo.yaml; given again, over the ones before: config/published.yaml. With "
        "--resume over the run's own, which --out_dir remembers: what differs is told, or refused if it would make "
        "another run",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="capture folder; with --resume by default the one that the run began with",
    )
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="model folder to make (or, with --resume, continue)"
    )
    parser.add_argument(
        "--resume",
        choices=["auto"],
        metavar="[auto]",
        help="continue the run in --out_dir at its newest whole checkpoint, with its own settings and capture; start "
        "it if there is none, which takes --config and --data_dir. iterations=N makes a run longer, a finished one, "
        "too: learning rates go on as those of a run of N iterations",
    )
    parser.add_argument(
        "--init_from",
        type=Path,
        metavar="MODEL",
        help="start a new run from a trained avatar: a model folder, an avatar.pt, or a compact .safetensors file. "
        "Its Gaussians, bases and MLPs are the start, and its light where people stand in the same place. The "
        "settings must describe an avatar of the same make (--config MODEL/config.yaml does), the capture the same "
        "body. Parts that were switched on stay so (their iteration_* become 0); losses follow the schedule from 0; "
        "optimisers, learning rates, corrections of the capture and the range of training's poses are new",
    )
    parser.add_argument(
        "--other_capture",
        action="store_true",
        help="--resume although cameras, poses or betas are not those that the run began with",
    )
    add_viewer_arguments(parser)
    parser.add_argument("--no_viewer", action="store_true", help="serve no live viewer")
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="write to --out_dir/profile where the run's time goes: a table of its phases, and the kernels and a trace "
        "(for ui.perfetto.dev) of so many steps",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of --config")
    args = parser.parse_intermixed_args(spell_out_resume(sys.argv[1:]))  # settings may stand between flags
    if not args.resume and not (args.config and args.data_dir):
        raise ValueError(
            "a new run needs --config and --data_dir; only one that has begun goes on (--resume) without"
        )
    return args


def spell_out_resume(words: list[str]) -> list[str]:
    """`--resume` alone is `--resume auto`; what follows it then is not its value."""
    spelled = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        spelled.append(word)
        if word == "--resume" and following != "auto":
            spelled.append("auto")
    return spelled


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch

from mmlphuman.config import Config, load_config
from mmlphuman.measures.lpips import load_lpips
from mmlphuman.model_folder import list_checkpoints
from mmlphuman.processes import Ranks
from mmlphuman.resources import memory_for
from mmlphuman.streaming.live_training import live_training
from mmlphuman.training.guarding import EXIT_STATUS, Preemption
from mmlphuman.training.loop import Trainer, poses_per_step
from mmlphuman.training.monitor import Monitor, NoMonitor
from mmlphuman.training.resume import RecordedRun, resume_run, update_record
from mmlphuman.training.run_setup import (
    apply_determinism,
    build_scene,
    create_model_folder,
    fetch_ahead,
    lock_run,
    never_switched_on,
    refuse_occupied,
    write_run_record,
)
from mmlphuman.training.starting_avatar import StartingAvatar
from mmlphuman.training.step_times import Trace, write_table


def main(args: argparse.Namespace) -> None:
    loaded = time.monotonic()
    recorded, start = None, None
    if args.resume and list_checkpoints(args.out_dir):
        recorded = RecordedRun.read(args.out_dir, args.config, args.overrides, args.data_dir, args.init_from)
        config, args.data_dir = recorded.config, recorded.data_dir
    elif args.config and args.data_dir:
        config = load_config(args.config, args.overrides)
        if args.init_from is not None:
            start = StartingAvatar.load(args.init_from, config)
            config = start.settings(config)
    else:
        raise ValueError(
            f"--out_dir {args.out_dir} holds no checkpoint to go on from; to start a run give --config and --data_dir"
        )
    config = apply_determinism(config)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    # Of recorded steps, whose parameters' gradients are added up on the stream that they were recorded on.
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
    lpips = load_lpips(config.vgg_path) if config.lambda_lpips > 0 else None
    # Nobody leaves the others before rank 0 has saved; until then a signal is only noted.
    with Preemption() as preemption, Ranks.from_environment(config.device) as ranks:
        poses_per_step(config, ranks)  # complains before the long part
        viewers = None if args.no_viewer or not ranks.first else viewer_address(args)
        if viewers is not None and viewers.asked_for:
            viewers.check()
        with memory_for(
            "the run does not fit; lower init_num_gs, image_scaling, views_per_pose or num_workers"
        ):
            fetching = fetch_ahead(ranks.device)
            trainer = prepare(args, config, lpips, ranks, recorded, start)
            fetching.join()  # before processes are started that would inherit it half done
            trainer.times.phases |= {
                "start: modules": loaded - STARTED,
                "start: capture, avatar": time.monotonic() - loaded,
            }
            steps = (config.iterations - trainer.iteration) // trainer.poses_per_step
            trainer.trace = Trace(args.profile * ranks.first, steps)
            finished = train(args.out_dir, trainer, viewers, preemption)
            if args.profile and ranks.first:
                told = "" if trainer.recorded_step is None else trainer.recorded_step.told()
                write_table(args.out_dir, trainer.times.table(time.monotonic() - STARTED, told))
    if not finished:
        if ranks.first:
            by = preemption.asked_by or "another process"
            with suppress(OSError):  # the terminal may have gone
                print(f"stopped by {by}; train.py --resume goes on", file=sys.stderr, flush=True)
        sys.exit(EXIT_STATUS)


def prepare(
    args: argparse.Namespace,
    config: Config,
    lpips: Callable | None,
    ranks: Ranks,
    recorded: RecordedRun | None,
    start: StartingAvatar | None,
) -> Trainer:
    """A new run with its model folder, or the one to be continued; rank 0 decides which. recorded: of the latter, as
    this rank found it; start: what a new one begins with."""
    if args.resume and ranks.any_rank(ranks.first and bool(list_checkpoints(args.out_dir))):
        if ranks.first:
            lock_run(args.out_dir)
        trainer = resume_run(
            config, args.data_dir, args.out_dir, lpips, ranks.device, ranks, args.other_capture
        )
        if recorded is not None and ranks.first:
            update_record(args.out_dir, recorded)
        about = "" if recorded is None else f": {recorded.text()}"
        ranks.say(f"resuming {args.out_dir} at iteration {trainer.iteration}{about}")
        return trainer
    with ranks.first_before_others():
        if ranks.first:
            refuse_occupied(args.out_dir)  # before the long part
        scene = build_scene(config, args.data_dir, ranks.say, start)
    trainer = Trainer(config, scene, lpips, ranks.device, ranks=ranks)
    if late := never_switched_on(config):
        ranks.say(f"note: the run ends before {', '.join(late)}: what these switch on takes no part")

    def fill(folder: Path) -> None:
        write_run_record(folder, config, args.data_dir, scene, start)
        trainer.save(folder)

    if ranks.first:
        create_model_folder(args.out_dir, fill)
        lock_run(args.out_dir)
    return trainer


def train(model_dir: Path, trainer: Trainer, viewers: ListenAddress | None, preemption: Preemption) -> bool:
    """To the last iteration, served to `viewers` meanwhile; False if it was asked to stop before."""
    config, ranks, device = trainer.config, trainer.ranks, trainer.device
    if device.type == "cuda":
        torch.set_num_threads(1)  # others would spin between steps on the cores that read samples
    poses, started = config.iterations - trainer.iteration, time.monotonic()
    with (
        Monitor(model_dir, trainer.iteration, config.iterations) if ranks.first else NoMonitor() as monitor,
        trainer.stream,  # its processes start before there are viewers, whose connections they would hold
        live_training(trainer, model_dir, viewers) if viewers is not None else nullcontext() as watcher,
    ):
        finished = trainer.run(model_dir, monitor, watcher, preemption)
    if not finished:
        return False
    ranks.say(f"trained avatar: {model_dir}")
    for line in trainer.refinement.report():
        ranks.say(line)
    if poses > 0:
        milliseconds = 1000 * (time.monotonic() - started) * trainer.poses_per_step / poses
        share = f" of {trainer.poses_per_step} poses" * (trainer.poses_per_step > 1)
        busy = trainer.times.gpu_busy()
        gpu = "" if busy is None else f"; GPU busy {busy:.1%} of the time between steps' begin and end"
        ranks.say(f"{milliseconds:.1f} ms per step{share}, tests and checkpoints included{gpu}")
    if device.type == "cuda":
        ranks.say(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    return True


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
