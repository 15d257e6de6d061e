"""Makes a compact model: one safe file that test.py and visualize.py load like a model folder.

    python script/compact.py --model_dir MODEL --out avatar.safetensors [--level small] [--keep 0.3]
    python script/compact.py --model_dir MODEL --out FOLDER --level high small tiny    FOLDER/high.safetensors, ...
    python script/compact.py ... --data_dir CAPTURE [--test] [--config FILE] [key=value ...]    scores full and compact
    python script/compact.py ... --data_dir CAPTURE --novel 80 20    also on 20 frames from 80 on, as --test draws them

Levels: high loses less than 0.1 dB inside the person, small about 0.1, tiny about 0.5. Numbers are stored as exactly as
pictures of the training poses show them; Gaussians whose colour, shape and opacity hardly change lose their bases.
Prints what it saves and what it costs; with several levels FOLDER/levels.json has it too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

from mmlphuman.command import run_command

LEVEL_NAMES = ("high", "small", "tiny")  # of export.precision, which needs torch


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

from mmlphuman.animation.camera_file import camera_list_of, cameras_of_list
from mmlphuman.avatar.build import read_template_mesh
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.body.kinematics import canonical_pose, rotation_matrices
from mmlphuman.capture.dataset import CaptureDataset, test_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device, require_writable, versions
from mmlphuman.config import Config
from mmlphuman.evaluation.metrics import score_picture
from mmlphuman.evaluation.render_to_files import rendered_pictures
from mmlphuman.evaluation.score_table import ScoreTable, comparison
from mmlphuman.export.compact import Carried, encode, load_compact, pack
from mmlphuman.export.compact_report import (
    MEGABYTE,
    compare,
    full_tensors,
    part_sizes,
    size_table,
)
from mmlphuman.export.precision import LEVELS, Looked
from mmlphuman.export.pruning import Selection, camera_in_front
from mmlphuman.files import atomic_write
from mmlphuman.model_folder import (
    TEMPLATE_NAME,
    folder_of,
    load_model,
    poses_to_score,
    training_frames,
    with_settings,
)
from mmlphuman.types import Pose

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


def read_cameras(model_dir: Path) -> list[dict] | None:
    """The content of cameras.json, once it is seen to be sound; None where there is none."""
    content = camera_list_of(model_dir)
    if content is None:
        return None
    cameras_of_list(content, str(model_dir))
    assert isinstance(content, list)
    return content


def carried_of(model_dir: Path, trained: TrainedAvatar) -> Carried:
    """What there is of it in the model folder."""
    frames, template = training_frames(model_dir, trained.config), folder_of(model_dir) / TEMPLATE_NAME
    kept = trained.pose_space.training_poses  # the file's; former versions kept the body's numbers alone
    if frames is not None and (
        len(frames) != len(kept) or (frames.poses[:, :3].any() and not kept[:, :3].any())
    ):
        frames = None
    return Carried(frames, read_template_mesh(template) if template.is_file() else None)


def describe(selection: Selection) -> str:
    total, kept, of_sh1 = len(selection.order), selection.num_properties, selection.num_sh1
    return (
        f"{kept:,} of {total:,} Gaussians keep their bases ({kept / total:.0%}), {of_sh1:,} of them those of view "
        f"dependence; estimated for this pruning: {selection.psnr:.1f} dB on the person"
    )


def first_view(trained: TrainedAvatar, cameras: list[dict] | None, carried: Carried) -> dict:
    """The first of the capture's cameras, or one in front of the body; and the world's direction up, which is the
    body's mean one."""
    pose, up = canonical_pose(), torch.tensor([0.0, 1.0, 0.0])
    translation = torch.zeros(3)
    if carried.frames is not None:
        roots = rotation_matrices(torch.from_numpy(carried.frames.poses[:, :3]))
        up = torch.nn.functional.normalize(roots[:, :, 1].mean(0), dim=0)
        pose = torch.from_numpy(carried.frames.poses[0])
        translation = torch.from_numpy(carried.frames.translations[0])
    if cameras:
        return {name: cameras[0][name] for name in ("w2c", "K", "width", "height")} | {"up": up.tolist()}
    posed = Pose(pose, translation, torch.eye(3)).to(trained.device)
    xyz = trained.avatar(posed, trained.active).posed.xyz.cpu()
    root = rotation_matrices(pose[:3])
    # In the root's own axes the camera is in front and upright.
    own = xyz @ root
    low, high = own.amin(0), own.amax(0)
    camera = camera_in_front((low + high) / 2, float((high - low).max()), 0.0, 0.0)
    w2c = camera.w2c[0].clone()
    w2c[:3, :3] = w2c[:3, :3] @ root.T
    return {
        "w2c": w2c.flatten().tolist(),
        "K": camera.intrinsics[0].flatten().tolist(),
        "width": camera.width,
        "height": camera.height,
        "up": up.tolist(),
    }


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    full = load_model(args.model_dir).to(device)
    if full.avatar.is_compact:
        raise ValueError(f"--model_dir {args.model_dir}: is a compact model already; give the model folder")
    tests = open_tests(args, full)
    cameras, carried = read_cameras(args.model_dir), carried_of(args.model_dir, full)
    view = first_view(full, cameras, carried)
    files = files_of(args)
    require_writable(args.out.parent if len(files) == 1 else args.out, "--out")  # no late surprise
    looked = Looked(full)
    scores = {name: {"full": test.score(full)} for name, test in tests.items()}
    levels = {}
    for name, path in files.items():
        made = looked.compacted(LEVELS[name], args.keep)
        selection = made.selection
        stored = encode(made.trained, carried, made.steps)
        record = {
            "level": name, "bases": selection.num_properties, "sh1_bases": selection.num_sh1, **versions()
        }  # fmt: skip
        with atomic_write(path) as file:
            file.write(pack(stored, made.trained, record, cameras, view))
        print(f"level {name}: {describe(selection)}")
        print(size_table(part_sizes(full_tensors(full)), part_sizes(stored)))
        compact = load_compact(path).to(device)  # what was written, not what was meant
        # In standard form Gaussians keep their order: the selection's is the full avatar's.
        against = compare(full, compact, selection.order)
        print(against.text())
        for of_test, test in tests.items():
            scores[of_test][name] = test.score(compact)
        print(f"written  {path}, {path.stat().st_size / MEGABYTE:.2f} MB")
        levels[name] = {
            "bytes": path.stat().st_size,
            "parts": part_sizes(stored),
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
