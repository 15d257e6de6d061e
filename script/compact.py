"""Makes a compact model: one safe file that test.py and visualize.py load like a model folder.

    python script/compact.py --model_dir MODEL --out avatar.safetensors [--keep 0.3]
    python script/compact.py ... --data_dir CAPTURE [--test] [--config FILE] [key=value ...]    also scores both

MLPs and bases are stored in 8 bits, the rest in half precision (places in full); Gaussians whose colour, shape and
opacity hardly change over the training poses lose their bases. Prints what it saves and what it costs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mmlphuman.command import run_command


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="file to write, FILE.safetensors")
    parser.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="of the Gaussians that keep their bases, 0 to 1; default: the fewest that leave the person in training "
        "poses as it is to the eye (MIN_PSNR in mmlphuman/export/pruning.py)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
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
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out {args.out}: the file is told by its name; end it in .safetensors")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"--out {args.out} exists; give --overwrite to replace it, or another name")
    if args.keep is not None and not 0 <= args.keep <= 1:
        raise ValueError(f"--keep {args.keep:g}: it is a share of the Gaussians, 0 to 1")
    if args.data_dir is None and (args.config or args.overrides):
        raise ValueError(
            f"'{[*args.config, *args.overrides][0]}': settings are for scores; give --data_dir, too"
        )


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.capture.dataset import CaptureDataset, test_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device
from mmlphuman.config import Config
from mmlphuman.evaluation.metrics import score_picture
from mmlphuman.evaluation.render_to_files import rendered_pictures
from mmlphuman.evaluation.score_table import ScoreTable, comparison
from mmlphuman.export.compact import load_compact
from mmlphuman.export.compact_model import make_compact
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


def open_test(args: argparse.Namespace, trained: TrainedAvatar) -> Test:
    _, config, notes = with_settings(trained, args.model_dir, args.config, args.overrides, DECIDING)
    layout = open_capture(args.data_dir)
    poses = read_smpl_params(layout.pose_path, trained.config.face, config.smpl_pkl_path)
    poses, refined = poses_to_score(args.model_dir, trained.config, poses)
    for note in (*notes, *(line.partition(";")[0] for line in refined)):
        print(f"note: {note}")
    return Test(test_dataset(config, layout, poses), config, args.test)


def describe(selection: Selection) -> str:
    total, kept, of_sh1 = len(selection.order), selection.num_properties, selection.num_sh1
    return (
        f"{kept:,} of {total:,} Gaussians keep their bases ({kept / total:.0%}), {of_sh1:,} of them those of view "
        f"dependence; estimated for this pruning: {selection.psnr:.1f} dB on the person"
    )


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    full = load_model(args.model_dir).to(device)
    if full.avatar.is_compact:
        raise ValueError(f"--model_dir {args.model_dir}: is a compact model already; give the model folder")
    test = open_test(args, full) if args.data_dir else None
    with atomic_write(args.out) as file:  # opened now: a folder that cannot be written to is no late surprise
        made = make_compact(args.model_dir, full, args.keep)
        file.write(made.content)
    print(describe(made.selection))
    print(size_table(part_sizes(full_tensors(full)), part_sizes(made.stored)))
    compact = load_compact(args.out).to(device)  # what was written, not what was meant
    print(compare(full, compact, made.selection.order).text())
    if test:
        print(comparison({"full": test.score(full), "compact": test.score(compact)}))
    print(f"written  {args.out}, {args.out.stat().st_size / MEGABYTE:.2f} MB")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
