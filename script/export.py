"""Take a trained avatar into other tools: Gaussians for splatting viewers, meshes, or a page that any browser plays.

    python script/export.py --model_dir MODEL --out avatar.ply
    python script/export.py --model_dir MODEL --out FOLDER --pose_path POSES.npz [--begin 10 --count 50] [--test]
    python script/export.py --model_dir MODEL --out avatar.glb --pose_path POSES.npz
    python script/export.py --model_dir MODEL --out avatar.glb --format rigged_splat_glb [--pose_path POSES.npz]
    python script/export.py --model_dir MODEL --out avatar.usdc --pose_path POSES.npz
    python script/export.py --model_dir MODEL --out FOLDER --format web [--level small] [--pose_path POSES.npz] [--test]

ply        3D Gaussian splatting PLY (SuperSplat and others), one file a frame
spz, sog   the same in a tenth of the space: Niantic's format (version 3 or 4), PlayCanvas's (version 2), one file a
           frame
splat_glb  Gaussians in glTF, KHR_gaussian_splatting as of its release candidate, one file a frame
rigged_splat_glb  the same in the canonical pose with the skeleton of 55 SMPL-X joints, without what poses change, one
           file, animated if there are several frames
usd        Gaussians in .usd, .usda, .usdc or .usdz, one file, animated if there are several frames; needs usd-core
mesh_ply   the template mesh, coloured and posed, one file a frame
glb        the template mesh with a texture and its skeleton of 55 SMPL-X joints, one file, animated if there are
           several frames
web        a folder for any web server: a page that poses and draws the avatar in the browser, see docs/web_player.md

Without --pose_path the avatar stands in the canonical pose and looks as in the mean of the training poses. Several
frames of formats that hold one go to FOLDER/frame00000012.ply, numbered as in the pose file. An existing file is
replaced; a folder is a new one, or that of an earlier call, whose files go first.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
from pathlib import Path

from mmlphuman.animation.arguments import add_pose_arguments, read_poses, tell_poses
from mmlphuman.command import choose_device, require_writable, run_command
from mmlphuman.export import LEVEL_NAMES

PLY_UP, PLY_DEGREES, SPZ_VERSIONS = ("-y", "y", "z"), (3, 1), (3, 4)
USD = (".usd", ".usda", ".usdc", ".usdz")
SUFFIXES = {  # of each format the endings, the first for files in a folder
    "ply": (".ply",),
    "spz": (".spz",),
    "sog": (".sog",),
    "splat_glb": (".glb",),
    "rigged_splat_glb": (".glb",),
    "usd": USD,
    "mesh_ply": (".ply",),
    "glb": (".glb",),
    "web": (),  # a folder of its own
}
ONE_FILE = ("glb", "rigged_splat_glb", "usd")  # for all frames
MESHES = ("mesh_ply", "glb")
# The file's axis that points up where nothing else is asked for; glTF and USD say y themselves.
UP = {"ply": "-y", "sog": "-y", "spz": "y"}
# Of a flag.
FORMATS_OF = {
    "ply_up": tuple(UP),
    "ply_degree": ("ply",),
    "spz_version": ("spz",),
    "template": MESHES,
    "level": ("web",),
    "megabytes": ("web",),
}
# Flags that without --pose_path say nothing, but for web's --test.
OF_POSES = ("begin", "count", "stride", "test")


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    what, _, how = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=what, epilog=how, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model_dir", type=Path, required=True, help="what train.py wrote, or a compact .safetensors file"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="FILE.ply, .spz, .sog, .glb, .usd..., or folder for several frames",
    )
    parser.add_argument("--format", choices=SUFFIXES, help="default: by the name of --out; a folder's is ply")
    parser.add_argument("--pose_path", type=Path, help="poses in any form that test.py takes")
    parser.add_argument(
        "--test",
        action="store_true",
        help="bring novel poses into training's range before the MLPs see them, as novel_poses of the model's "
        "settings says; of web: the page begins so",
    )
    parser.add_argument(
        "--ply_up",
        choices=PLY_UP,
        help="of ply, sog, spz: the file's axis that points up; default: what viewers expect, -y (of spz y). Write "
        "--ply_up=-y",
    )
    parser.add_argument(
        "--ply_degree",
        type=int,
        choices=PLY_DEGREES,
        help="of ply: 3 (the default), or 1, which writes 104 bytes a Gaussian in place of 248 and says the same; not "
        "all viewers read it",
    )
    parser.add_argument(
        "--level",
        choices=LEVEL_NAMES,
        help="of web: how small the avatar's file is made of a model folder (see compact.py); default: high",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        metavar="MB",
        help="of web: the avatar's file, at most (see compact.py); default: by the level",
    )
    parser.add_argument(
        "--spz_version",
        type=int,
        choices=SPZ_VERSIONS,
        help="of spz: 3 (gzip, the default) is read by more programs; PlayCanvas's engine reads 4 (Zstandard) alone",
    )
    parser.add_argument("--template", type=Path, help="template mesh; default: the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add_pose_arguments(parser)
    args = parser.parse_args()
    args.format = args.format or format_of(args.out)
    for name, formats in FORMATS_OF.items():
        if getattr(args, name) is not None and args.format not in formats:
            others = ", ".join(formats)
            parser.error(
                f"--{name} is of {others}, not of {args.format}; give --format {formats[0]}, or leave it out"
            )
    for name in () if args.pose_path else OF_POSES:
        if getattr(args, name) != parser.get_default(name) and (name, args.format) != ("test", "web"):
            parser.error(f"--{name} is of poses; give --pose_path, too")
    if args.megabytes is not None and not args.megabytes > 0:
        parser.error(f"--megabytes {args.megabytes:g}: give a size above 0")
    return args


def format_of(out: Path) -> str:
    """By the file's name. ValueError for an ending that is nobody's; "scan.2" is a folder."""
    ending = out.suffix.lower()
    if out.is_dir() or not ending[1:].isalpha():
        return "ply"
    for name in ("ply", "spz", "sog", "usd", "glb"):
        if ending in SUFFIXES[name]:
            return name
    raise ValueError(
        f"--out {out}: no format ends in {ending}; name a .ply, .spz, .sog, .glb or .usd file, or a folder"
    )


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch
from tqdm import tqdm

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.export.compact_model import ModelToCompact
from mmlphuman.export.gltf import write_glb
from mmlphuman.export.mesh import (
    attach_mesh,
    dress_mesh,
    pose_vertices,
    read_template,
    template_of,
    write_mesh_ply,
)
from mmlphuman.export.ply import write_gaussian_ply
from mmlphuman.export.splat_files import write_rigged_splat_glb, write_sog, write_splat_glb, write_spz
from mmlphuman.export.splats import Splats, average_splats, splats_of
from mmlphuman.export.usd import require_usd, write_usd
from mmlphuman.export.web import web_names, write_web
from mmlphuman.model_folder import is_compact, load_model
from mmlphuman.output_folder import begin_output, require_output
from mmlphuman.types import Pose

PROGRAM = "export.py"  # whose folders are whose: output_folder


def choose_outputs(out: Path, kind: str, sequence: PoseSequence | None) -> list[Path]:
    """A file for each frame (one in all for some formats); refuses what cannot be meant, before any work is done."""
    suffixes = SUFFIXES[kind]
    if kind == "web":
        is_file = any(out.suffix.lower() in others for others in SUFFIXES.values())
        if is_file or (out.exists() and not out.is_dir()):
            raise ValueError(f"--out {out}: --format web is written as a folder; name a new one")
        return [out / name for name in web_names(sequence)]
    frames = ["canonical"] if sequence is None else [f"frame{frame:08d}" for frame in sequence.frames]
    if out.suffix.lower() in suffixes:  # a file
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder, but its name is a file's; name another")
        if len(frames) > 1 and kind not in ONE_FILE:
            raise ValueError(
                f"--out {out} is one file, but there are {len(frames)} frames; give a folder or --count 1"
            )
        return [out]
    if kind in ONE_FILE:
        raise ValueError(f"--out {out}: {kind} is one file for all frames; name it {suffixes[0]}")
    if any(out.suffix.lower() in others for others in SUFFIXES.values()):
        raise ValueError(f"--out {out}: --format {kind} is written as {suffixes[0]}")
    if out.exists() and not out.is_dir():
        raise ValueError(
            f"--out {out} exists and is no folder; name a folder, or a file ending in {suffixes[0]}"
        )
    return [out / f"{frame}{suffixes[0]}" for frame in frames]


def mean_pose(trained: TrainedAvatar) -> torch.Tensor:
    """(175,) of training."""
    return trained.pose_space.training_poses.mean(0)


def posed_frame(trained: TrainedAvatar, sequence: PoseSequence | None, index: int, project: bool):
    """-> the pose on the avatar's device and what the MLPs see, (175,)."""
    if sequence is None:
        pose = Pose(canonical_pose(), torch.zeros(3), torch.eye(3)).to(trained.device)
        return pose, mean_pose(trained)
    pose = sequence.pose(index).to(trained.device)
    return pose, trained.features(pose, project)


def splats_at(
    trained: TrainedAvatar, sequence: PoseSequence | None, index: int, args: argparse.Namespace
) -> Splats:
    pose, features = posed_frame(trained, sequence, index, args.test)
    posed = trained.avatar(pose, trained.active, features).posed
    try:
        return splats_of(posed, args.ply_up or UP.get(args.format, "y"))
    except ValueError as error:
        raise ValueError(f"frame {index}: {error}") from error


def write_splats(path: Path, splats: Splats, args: argparse.Namespace) -> None:
    if args.format == "ply":
        write_gaussian_ply(path, splats, args.ply_degree or PLY_DEGREES[0])
    elif args.format == "spz":
        write_spz(path, splats, args.spz_version or SPZ_VERSIONS[0])
    elif args.format == "sog":
        write_sog(path, splats)
    else:
        write_splat_glb(path, splats)


def export_web(
    args: argparse.Namespace, trained: TrainedAvatar, sequence: PoseSequence | None, paths: list[Path]
) -> None:
    """A compact file is taken as it is; of a model folder one is made, as script/compact.py does."""
    compact = is_compact(args.model_dir)
    if compact and (args.level or args.megabytes):
        raise ValueError(
            f"--level, --megabytes: --model_dir {args.model_dir} is a compact file, which a page takes as it is; leave "
            "them out, or give the model folder that it was made of"
        )
    require_output(args.out, PROGRAM, "--out")
    if sequence is not None:
        tell_poses(sequence)
    if compact:
        avatar = args.model_dir.read_bytes()
    else:
        level = args.level or LEVEL_NAMES[0]
        avatar = ModelToCompact(args.model_dir, trained).at(level, megabytes=args.megabytes).content
    begin_output(args.out, PROGRAM, [path.name for path in paths])
    write_web(args.out, avatar, sequence, args.model_dir.resolve().stem, args.test)


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    if args.format == "usd":
        require_usd()
    trained = load_model(args.model_dir)
    sequence = None
    if args.pose_path:
        pelvis = trained.avatar.joints[0].cpu().numpy()
        sequence = read_poses(args, trained.config.smpl_pkl_path, pelvis, trained.config.face)
    paths = choose_outputs(args.out, args.format, sequence)
    if args.format == "web":
        export_web(args, trained.to(device), sequence, paths)
    else:
        export_frames(args, trained.to(device), sequence, paths)
    size = sum(path.stat().st_size for path in paths) / 1e6
    written = paths[0] if len(paths) == 1 else f"{len(paths)} files in {args.out}"
    print(f"written  {written}  ({size:.1f} MB)")
    if args.format == "web":
        print(f"to see it: python -m http.server --directory {args.out}, then http://localhost:8000")


@torch.inference_mode()
def export_frames(
    args: argparse.Namespace, trained: TrainedAvatar, sequence: PoseSequence | None, paths: list[Path]
) -> None:
    """All formats but web."""
    template = None
    if args.format in MESHES:
        template = read_template(args.template) if args.template else template_of(args.model_dir)
    attached = None if template is None else attach_mesh(template, trained.avatar, args.format == "glb")
    if paths == [args.out]:
        require_writable(args.out.parent, "--out")
    else:
        require_output(args.out, PROGRAM, "--out")
        begin_output(args.out, PROGRAM, [path.name for path in paths])
    if sequence is not None:
        tell_poses(sequence)
    count = 1 if sequence is None else len(sequence.frames)
    posed_by_others = args.format in ("glb", "rigged_splat_glb")  # no work a frame
    frames = tqdm(range(count), desc="export", unit="frame", disable=count == 1 or posed_by_others)

    if args.format == "usd":
        fps = 30.0 if sequence is None else sequence.playback_fps
        write_usd(args.out, (splats_at(trained, sequence, index, args) for index in frames), fps, count > 1)
    elif args.format == "rigged_splat_glb":
        write_rigged_splat_glb(args.out, average_splats(trained), trained.avatar, sequence)
    elif (
        args.format == "glb"
    ):  # one look for all frames: that of the mean training pose, unless there is but one
        assert attached is not None
        looked = mean_pose(trained) if count > 1 else posed_frame(trained, sequence, 0, args.test)[1]
        write_glb(args.out, dress_mesh(attached, trained, looked, textured=True), trained.avatar, sequence)
    else:
        for index in frames:
            if attached is None:
                write_splats(paths[index], splats_at(trained, sequence, index, args), args)
                continue
            pose, features = posed_frame(trained, sequence, index, args.test)
            mesh = dress_mesh(attached, trained, features)
            write_mesh_ply(paths[index], pose_vertices(mesh, trained.avatar, pose), mesh)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
