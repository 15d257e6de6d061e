"""Take a trained avatar into other tools: Gaussians for splatting viewers, meshes, or a page that any browser plays.

    python script/export.py --model_dir MODEL --out avatar.ply
    python script/export.py --model_dir MODEL --out FOLDER --pose_path POSES.npz [--begin 10 --count 50] [--test]
    python script/export.py --model_dir MODEL --out avatar.glb --pose_path POSES.npz
    python script/export.py --model_dir MODEL --out FOLDER --format web [--pose_path POSES.npz] [--test]

ply       3D Gaussian splatting PLY (SuperSplat and others), one file a frame
mesh_ply  the template mesh, coloured and posed, one file a frame
glb       the template mesh with its skeleton of 55 SMPL-X joints, one file, animated if there are several frames
web       a folder for any web server: a page that poses and draws the avatar in the browser, see docs/web_player.md

Without --pose_path the avatar stands in the canonical pose and looks as in the mean of the training poses. Several
frames of ply or mesh_ply go to FOLDER/frame00000012.ply, numbered as in the pose file. An existing file is replaced; a
folder is a new one, or that of an earlier call, whose files go first.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
from pathlib import Path

from mmlphuman.animation.arguments import add_pose_arguments, read_poses, tell_poses
from mmlphuman.command import choose_device, require_writable, run_command

PLY_UP, PLY_DEGREES = ("-y", "y", "z"), (1, 3)
SUFFIXES = {"ply": ".ply", "mesh_ply": ".ply", "glb": ".glb", "web": ""}


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
        "--out", type=Path, required=True, help="FILE.ply, FILE.glb, or folder for several frames"
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
        default="-y",
        help="of ply: the file's axis that points up; default -y, which splatting viewers expect (write --ply_up=-y)",
    )
    parser.add_argument(
        "--ply_degree",
        type=int,
        choices=PLY_DEGREES,
        default=3,
        help="of ply: 1 writes 104 bytes a Gaussian in place of 248, and says the same; not all viewers read it",
    )
    parser.add_argument("--template", type=Path, help="template mesh; default: the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add_pose_arguments(parser)
    args = parser.parse_args()
    args.format = args.format or format_of(args.out)
    return args


def format_of(out: Path) -> str:
    """By the file's name. ValueError for an ending that is nobody's; "scan.2" is a folder."""
    ending = out.suffix.lower()
    if out.is_dir() or not ending[1:].isalpha() or ending == ".ply":
        return "ply"
    if ending == ".glb":
        return "glb"
    raise ValueError(f"--out {out}: no format ends in {ending}; name a .ply or .glb file, or a folder")


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch
from tqdm import tqdm

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.export.compact_model import make_compact
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
from mmlphuman.export.web import web_names, write_web
from mmlphuman.model_folder import is_compact, load_model
from mmlphuman.output_folder import begin_output, require_output
from mmlphuman.types import Pose

PROGRAM = "export.py"  # whose folders are whose: output_folder


def choose_outputs(out: Path, kind: str, sequence: PoseSequence | None) -> list[Path]:
    """A file for each frame (one in all for glb); refuses what cannot be meant, before any work is done."""
    suffix = SUFFIXES[kind]
    if kind == "web":
        if out.suffix.lower() in (".ply", ".glb") or (out.exists() and not out.is_dir()):
            raise ValueError(f"--out {out}: --format web is written as a folder; name a new one")
        return [out / name for name in web_names(sequence)]
    frames = ["canonical"] if sequence is None else [f"frame{frame:08d}" for frame in sequence.frames]
    if out.suffix.lower() == suffix:  # a file
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder, but its name is a file's; name another")
        if len(frames) > 1 and kind != "glb":
            raise ValueError(
                f"--out {out} is one file, but there are {len(frames)} frames; give a folder or --count 1"
            )
        return [out]
    if kind == "glb":
        raise ValueError(f"--out {out}: glb is one file for all frames; name it .glb")
    if out.suffix.lower() in (".ply", ".glb"):
        raise ValueError(f"--out {out}: --format {kind} is written as {suffix}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} exists and is no folder; name a folder, or a file ending in {suffix}")
    return [out / f"{frame}{suffix}" for frame in frames]


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


def export_web(
    args: argparse.Namespace, trained: TrainedAvatar, sequence: PoseSequence | None, paths: list[Path]
) -> None:
    """A compact file is taken as it is; of a model folder one is made, as script/compact.py does by default."""
    require_output(args.out, PROGRAM, "--out")
    if sequence is not None:
        tell_poses(sequence)
    compact = is_compact(args.model_dir)
    avatar = args.model_dir.read_bytes() if compact else make_compact(args.model_dir, trained).content
    begin_output(args.out, PROGRAM, [path.name for path in paths])
    write_web(args.out, avatar, sequence, args.model_dir.resolve().stem, args.test)


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
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
    if args.format != "ply":
        template = read_template(args.template) if args.template else template_of(args.model_dir)
    attached = None if template is None else attach_mesh(template, trained.avatar)
    if paths == [args.out]:
        require_writable(args.out.parent, "--out")
    else:
        require_output(args.out, PROGRAM, "--out")
        begin_output(args.out, PROGRAM, [path.name for path in paths])
    if sequence is not None:
        tell_poses(sequence)

    for index, path in enumerate(tqdm(paths, desc="export", unit="frame", disable=len(paths) == 1)):
        pose, features = posed_frame(trained, sequence, index, args.test)
        if attached is None:  # --format ply
            posed = trained.avatar(pose, trained.active, features).posed
            write_gaussian_ply(path, posed, args.ply_up, args.ply_degree)
        elif args.format == "mesh_ply":
            mesh = dress_mesh(attached, trained, features)
            write_mesh_ply(path, pose_vertices(mesh, trained.avatar, pose), mesh)
        else:  # one look for all frames: that of the mean training pose, unless there is but one
            several = sequence is not None and len(sequence.frames) > 1
            mesh = dress_mesh(attached, trained, mean_pose(trained) if several else features)
            write_glb(path, mesh, trained.avatar, sequence)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
