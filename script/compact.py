"""Makes a compact model: one safe file that test.py and visualize.py load like a model folder.

    python script/compact.py --model_dir MODEL --out avatar.safetensors [--level small] [--megabytes 5] [--keep 0.3]
    python script/compact.py --model_dir MODEL --out FOLDER --level high small tiny    FOLDER/high.safetensors, ...
    python script/compact.py ... --data_dir CAPTURE [--test] [--config FILE] [key=value ...]    scores full and compact
    python script/compact.py ... --data_dir CAPTURE --novel 80 20    also on 20 frames from 80 on, as --test draws them

Levels: high loses less than 0.1 dB inside the person, small about 0.1, tiny about 0.5 and has at most 8 MB. Numbers are
stored as exactly as pictures of the training poses show them, and less exactly where the file would be too large;
Gaussians whose colour, shape and opacity hardly change lose their bases.
Prints what it saves and what it costs; with several levels FOLDER/levels.json has it too.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

from mmlphuman.command import run_command
from mmlphuman.export import LEVEL_NAMES


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", type=Path, required=True, help="what train.py wrote")
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write, FILE.safetensors; of several levels a folder"
    )
    parser.add_argument(
        "--level", nargs="+", choices=LEVEL_NAMES, default=LEVEL_NAMES[:1], help="how small; default: high"
    )
    parser.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="of the Gaussians that keep their bases, 0 to 1; default: the fewest that leave the person in training "
        "poses as the level says (mmlphuman/export/precision.py)",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        metavar="MB",
        help="of a file, at most (1 MB: 1,000,000 bytes): where the level's is larger, it is stored less exactly; "
        "default: 8 for tiny, no limit for the others",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    scores = parser.add_argument_group("scores of both models on a capture (optional)")
    scores.add_argument("--data_dir", type=Path, help="capture folder")
    scores.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        help="settings over the model's own, whose `test` part selects the images; what differs is told",
    )
    scores.add_argument(
        "--test", action="store_true", help="bring novel poses into training's range, as test.py --test does"
    )
    scores.add_argument(
        "--novel",
        nargs=2,
        type=int,
        metavar=("BEGIN", "COUNT"),
        help="also score these frames of the capture, drawn as with --test",
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
    args.level = list(dict.fromkeys(args.level))
    is_file = args.out.suffix == ".safetensors"
    if len(args.level) == 1 and not is_file:
        raise ValueError(f"--out {args.out}: the file is told by its name; end it in .safetensors")
    if len(args.level) > 1 and (is_file or args.out.is_file()):
        raise ValueError(f"--out {args.out}: several levels are several files; name a folder")
    for path in files_of(args).values():
        if path.exists() and not args.overwrite:
            raise ValueError(f"--out {path} exists; give --overwrite to replace it, or another name")
    if args.keep is not None and not 0 <= args.keep <= 1:
        raise ValueError(f"--keep {args.keep:g}: it is a share of the Gaussians, 0 to 1")
    if args.megabytes is not None and not args.megabytes > 0:
        raise ValueError(f"--megabytes {args.megabytes:g}: give a size above 0")
    if args.data_dir is None and (args.config or args.overrides):
        raise ValueError(
            f"'{[*args.config, *args.overrides][0]}': settings are for scores; give --data_dir, too"
        )
    if args.novel and (args.data_dir is None or args.novel[0] < 0 or args.novel[1] < 1):
        raise ValueError("--novel: needs --data_dir, a first frame of 0 or more and at least one frame")


def files_of(args: argparse.Namespace) -> dict[str, Path]:
    """Level -> file."""
    if len(args.level) == 1:
        return {args.level[0]: args.out}
    return {level: args.out / f"{level}.safetensors" for level in args.level}


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.capture.dataset import CaptureDataset, test_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device, require_writable
from mmlphuman.config import Config
from mmlphuman.evaluation.metrics import score_picture
from mmlphuman.evaluation.render_to_files import rendered_pictures
from mmlphuman.evaluation.score_table import ScoreTable, comparison
from mmlphuman.export.compact_model import ModelToCompact
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.compact_report import (
    MEGABYTE,
    compare,
    full_tensors,
    part_sizes,
    size_table,
)
from mmlphuman.export.pruning import Selection
from mmlphuman.files import atomic_write
from mmlphuman.model_folder import (
    load_model,
    poses_to_score,
    with_settings,
)

DECIDING = ("test", "background", "novel_poses", "pca_sigmas")  # settings that decide what is scored


@dataclass(frozen=True)
class Test:
    """Pictures of a capture to score models on."""

    dataset: CaptureDataset
    config: Config
    project_pose: bool

    def score(self, trained: TrainedAvatar) -> ScoreTable:
        backend = choose_backend(trained.config.rasterizer, trained.config.kernels, trained.device)
        asked = trained.with_novel_poses_of(self.config)
        pictures = rendered_pictures(asked, self.dataset, self.config.background, self.project_pose, backend)
        return ScoreTable.of([score_picture(picture, device=trained.device) for picture in pictures])


def open_tests(args: argparse.Namespace, trained: TrainedAvatar) -> dict[str, Test]:
    """By their names."""
    if args.data_dir is None:
        return {}
    _, config, notes = with_settings(trained, args.model_dir, args.config, args.overrides, DECIDING)
    layout = open_capture(args.data_dir)
    poses = read_smpl_params(layout.pose_path, trained.config.face, config.smpl_pkl_path)
    poses, refined = poses_to_score(args.model_dir, trained.config, poses)
    for note in (*notes, *(line.partition(";")[0] for line in refined)):
        print(f"note: {note}")
    tests = {"test": Test(test_dataset(config, layout, poses), config, args.test)}
    if args.novel:
        begin, count = args.novel
        novel = replace(
            config, test=replace(config.test, begin_ith_frame=begin, num_frame=count, frame_interval=1)
        )
        tests["novel poses"] = Test(test_dataset(novel, layout, poses), novel, True)
    return tests


def describe(selection: Selection) -> str:
    total, kept, of_sh1 = len(selection.order), selection.num_properties, selection.num_sh1
    return (
        f"{kept:,} of {total:,} Gaussians keep their bases ({kept / total:.0%}), {of_sh1:,} of them those of view "
        f"dependence; estimated for this pruning: {selection.psnr:.1f} dB on the person"
    )


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    full = load_model(args.model_dir).to(device)
    if full.avatar.is_compact:
        raise ValueError(f"--model_dir {args.model_dir}: is a compact model already; give the model folder")
    tests = open_tests(args, full)
    files = files_of(args)
    require_writable(args.out.parent if len(files) == 1 else args.out, "--out")  # no late surprise
    model = ModelToCompact(args.model_dir, full)
    scores = {name: {"full": test.score(full)} for name, test in tests.items()}
    levels = {}
    for name, path in files.items():
        made = model.at(name, args.keep, args.megabytes)
        selection = made.selection
        with atomic_write(path) as file:
            file.write(made.content)
        print(f"level {name}: {describe(selection)}")
        if made.coarser:
            print(f"stored {made.coarser:.1f} dB less exactly than the level says, for the file's size")
        print(size_table(part_sizes(full_tensors(full)), part_sizes(made.stored)))
        compact = load_compact(path).to(device)  # what was written, not what was meant
        # In standard form Gaussians keep their order: the selection's is the full avatar's.
        against = compare(full, compact, selection.order)
        print(against.text())
        for of_test, test in tests.items():
            scores[of_test][name] = test.score(compact)
        print(f"written  {path}, {path.stat().st_size / MEGABYTE:.2f} MB")
        levels[name] = {
            "bytes": path.stat().st_size,
            "parts": part_sizes(made.stored),
            "coarser_db": round(made.coarser, 2),
            "gaussians": len(selection.order),
            "bases": selection.num_properties,
            "psnr_against_full": against.psnr,
            "milliseconds": {"full": against.full_ms, "compact": against.compact_ms},
        }
    for of_test, tables in scores.items():
        print(f"{of_test}:\n{comparison(tables)}")
    if len(files) > 1:
        overall = {
            test: {name: table.to_json()["overall"] for name, table in tables.items()}
            for test, tables in scores.items()
        }
        with atomic_write(args.out / "levels.json") as file:
            file.write(json.dumps({"levels": levels, "scores": overall}, indent=1).encode())
        print(f"written  {args.out / 'levels.json'}")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
