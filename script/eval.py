"""Scores a trained avatar by a published protocol or a config, or pictures of any programs against the true ones.

    python script/eval.py --protocol zzr --model_dir MODEL --data_dir CAPTURE
    python script/eval.py --model_dir MODEL --data_dir CAPTURE [--config FILE] [key=value ...]
    python script/eval.py --truth TRUE --render A --render B [--mask MASKS]
    torchrun --nproc_per_node=N script/eval.py ...     any of them on N GPUs, with the same result

Prints a table and writes scores.json into --out_dir. Protocols: subject00 (THuman4.0), zzr (AvatarReX).
Without the networks' weights (smpl_model/) LPIPS and FID are left out.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
from pathlib import Path

from mmlphuman.command import run_command
from mmlphuman.config import DEFAULTS, Config, load_config

MACHINE_KEYS = (
    "device",
    "rasterizer",
    "kernels",
    "vgg_path",
    "smpl_pkl_path",
)  # settings that do not change what is scored


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--protocol", metavar="NAME", help="a published protocol: subject00, zzr")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        help="without --protocol the `test` part of the model's own settings says what to score; these "
        "settings go over them (given again, over the ones before), and what differs is told",
    )
    parser.add_argument("--model_dir", type=Path, help="what train.py wrote, or a compact .safetensors file")
    parser.add_argument("--data_dir", type=Path, help="capture folder")
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="in place of a model: true pictures, on white"
    )
    parser.add_argument(
        "--render", type=Path, action="append", metavar="DIR", help="a program's pictures; may be repeated"
    )
    parser.add_argument(
        "--mask", type=Path, metavar="DIR", help="masks, person > 128; without: whole images only"
    )
    parser.add_argument(
        "--out_dir",
        type=Path,
        default=Path("output/eval"),
        help="of scores.json: a new folder, or that of an earlier call, whose scores go; default output/eval",
    )
    parser.add_argument(
        "--inception_path",
        type=Path,
        help="weights of FID's network; default the file in smpl_model/ that its README names",
    )
    parser.add_argument(
        "--capture_poses",
        action="store_true",
        help="of a model that refined the poses of its training frames: the capture's all the same",
    )
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
    """ValueError for anything but one of the three forms."""
    model_form = (args.protocol, args.config, args.model_dir, args.data_dir)
    folder_form = (args.truth, args.render, args.mask)
    if any(folder_form) and any(model_form):
        raise ValueError("--truth, --render and --mask score pictures of any program; they go with no model")
    if any(folder_form):
        if not (args.truth and args.render):
            raise ValueError("--truth and --render belong together")
    elif not (args.model_dir and args.data_dir):
        raise ValueError("give --model_dir and --data_dir, or --truth and --render; see --help")
    elif args.protocol and args.config:
        raise ValueError("--protocol says what is scored, as --config does; give one of them")
    if args.protocol or args.truth:
        for override in args.overrides:
            if override.partition("=")[0] not in MACHINE_KEYS:
                raise ValueError(
                    f"{override}: what is scored is settled; only {', '.join(MACHINE_KEYS)} can be set"
                )


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch

from mmlphuman.avatar.trained import NOVEL_POSES
from mmlphuman.backend import choose_backend
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device
from mmlphuman.evaluation.evaluate import (
    Networks,
    load_networks,
    metric_notes,
    score_pictures,
    write_score_tables,
)
from mmlphuman.evaluation.fid import WEIGHTS_NAME
from mmlphuman.evaluation.image_folders import match_folders
from mmlphuman.evaluation.protocols import (
    Part,
    config_protocol,
    named_protocol,
    novelty_notes,
    part_dataset,
    training_note,
    training_views,
)
from mmlphuman.evaluation.render_to_files import rendered_pictures
from mmlphuman.evaluation.score_table import ScoreTable, comparison
from mmlphuman.evaluation.shares import RENDER_TIMEOUT, share_of
from mmlphuman.model_folder import load_model, poses_to_score, with_settings
from mmlphuman.output_folder import begin_output, require_output
from mmlphuman.processes import Ranks
from mmlphuman.text import ranges

# Whose folders are whose: output_folder.
PROGRAM, SCORES = "eval.py", "scores.json"
# Settings that decide what is scored; the background is white.
DECIDING = ("test", "novel_poses", "pca_sigmas")


def score_model(args: argparse.Namespace) -> None:
    """The first two forms. All that can be refused is read before the processes meet, so that it is told once."""
    protocol = named_protocol(args.protocol) if args.protocol else None
    trained, config, notes = with_settings(
        load_model(args.model_dir), args.model_dir, args.config, args.overrides, DECIDING
    )
    networks = networks_of(args, config)
    backend = choose_backend(config.rasterizer, config.kernels, choose_device(config.device))
    layout = open_capture(args.data_dir)
    poses = read_smpl_params(layout.pose_path, trained.config.face, config.smpl_pkl_path)
    if not args.capture_poses:
        poses, of_poses = poses_to_score(args.model_dir, trained.config, poses)
        notes += of_poses
    training = training_views(trained.config, len(layout.cameras))
    if protocol is None:
        protocol = config_protocol(config, ", ".join(map(str, args.config or [args.model_dir])), training)
    datasets = [part_dataset(part, protocol, layout, poses) for part in protocol.parts]
    require_output(args.out_dir, PROGRAM)
    note = training_note(protocol, training)
    notes += [note] if note else []
    settings = {
        "protocol": protocol.to_json(),
        "model": {
            "path": str(args.model_dir),
            "iteration": trained.iteration,
            "training_cameras": ranges(training.cameras),
            "training_frames": ranges(training.frames),
            "novel_poses": trained.config.novel_poses,
        },
        "capture": str(args.data_dir),
    }
    tables = {}
    with Ranks.from_environment(config.device, RENDER_TIMEOUT) as ranks:
        trained, networks = trained.prepared(ranks.device, backend), networks.to(ranks.device)
        if ranks.first:
            begin_output(args.out_dir, PROGRAM, [SCORES])
            print(f"{args.model_dir}, iteration {trained.iteration:,}; {protocol.name}: {protocol.source}")
        for part, dataset in zip(protocol.parts, datasets, strict=True):
            pairs = share_of(dataset.pairs, ranks)
            pictures = rendered_pictures(
                trained, dataset, protocol.background, part.project_pose, backend, pairs
            )
            table = score_pictures(pictures, len(pairs), networks, ranks, training.cameras, part.name)
            if table is None:
                continue  # rank 0 has it
            tables[part.name] = table
            print(f"\n{heading(part, table, trained.config.novel_poses)}")
            print(table.text(legend=part is protocol.parts[-1]))
            notes += novelty_notes(part, dataset.pairs, training)
            notes += [note for note in metric_notes(networks, table) if note not in notes]
        if ranks.first:
            finish(args.out_dir, settings, tables, networks, notes)


def score_folders(args: argparse.Namespace) -> None:
    """The third form."""
    config = load_config(DEFAULTS, args.overrides)
    networks = networks_of(args, config)
    matched = match_folders(args.truth, args.render, args.mask)
    require_output(args.out_dir, PROGRAM)
    settings = {
        "truth": str(args.truth),
        "renders": dict(zip(matched.renders, map(str, args.render), strict=True)),
        "masks": None if args.mask is None else str(args.mask),
    }
    with Ranks.from_environment(config.device, RENDER_TIMEOUT) as ranks:
        if ranks.first:
            begin_output(args.out_dir, PROGRAM, [SCORES])
        networks.to(ranks.device)
        names = share_of(matched.names, ranks)
        tables = {}
        for program in matched.renders:
            pictures = matched.pictures(program, names)
            table = score_pictures(pictures, len(names), networks, ranks, title=program)
            if table is not None:  # rank 0 has it
                tables[program] = table
        if not ranks.first:
            return
        first = next(iter(tables.values()))
        print(f"\n{len(matched.names)} pictures of {args.truth}, {sizes(first)}")
        print(first.text() if len(tables) == 1 else comparison(tables))
        notes = [*matched.notes, *metric_notes(networks, first)]
        finish(args.out_dir, settings, tables, networks, notes)


def heading(part: Part, table: ScoreTable, novel_poses: str) -> str:
    cameras = f"camera{'s' * (len(part.cameras) > 1)} {ranges(part.cameras)}"
    poses = NOVEL_POSES[novel_poses] if part.project_pose else "as they are"
    return f"{part.name}: {cameras}, frames {ranges(part.frames)}; {sizes(table)}; poses {poses}"


def sizes(table: ScoreTable) -> str:
    return " and ".join(f"{width}x{height}" for width, height in table.sizes()) + " pixels"


def finish(out_dir: Path, settings: dict, tables: dict, networks: Networks, notes: list[str]) -> None:
    write_score_tables(out_dir / SCORES, settings, tables, networks, notes)
    for note in sorted(notes, key=lambda note: not note.startswith("WARNING")):
        print(note if note.startswith("WARNING") else f"note: {note}")
    print(f"\n{out_dir / SCORES}")


def networks_of(args: argparse.Namespace, config: Config) -> Networks:
    return load_networks(Path(config.vgg_path), args.inception_path or Path("smpl_model") / WEIGHTS_NAME)


def main(args: argparse.Namespace) -> None:
    if args.protocol:
        named_protocol(args.protocol)  # an unknown name ends here, before anything is made
    torch.backends.cudnn.allow_tf32 = False  # scores in full single precision
    if args.truth:
        score_folders(args)
    else:
        score_model(args)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
