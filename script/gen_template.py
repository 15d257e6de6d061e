"""Make a capture's template mesh: the clothed person in the canonical pose, from its masks alone.

    python script/gen_template.py --data_dir CAPTURE [--config config/SUBJECT.yaml] [--smpl_path SMPLX_NEUTRAL.npz]

Writes CAPTURE/gaussian/template.ply, which train.py then starts from, and template.png beside it: the template
posed over photographs. Look at it. An existing template is kept unless --overwrite is given.

Exit status: 0 the template is good; 1 an error, nothing was written; 2 wrong options; 3 written, but doubtful: each
reason is printed on a line that begins with "warning:".
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from trimesh.exchange.ply import export_ply

from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.weight_volume import find_or_make_weight_volume
from mmlphuman.capture.dataset import training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.command import run_command
from mmlphuman.config import Config, default_config, load_config, validate
from mmlphuman.files import atomic_write
from mmlphuman.picture_files import write_png
from mmlphuman.preparation.overlays import template_picture, views_to_show
from mmlphuman.preparation.template import (
    Template,
    TemplateSettings,
    make_template,
    template_warnings,
    well_spread_frames,
)

DOUBTFUL = 3  # exit status
LONGEST_SIDE = 1024  # pixels; larger pictures are scaled down, which loses nothing at millimetres of grid
PICTURES = 6


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    default = TemplateSettings()
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="exit status: 0 good, 1 error (nothing written), 2 wrong options, 3 written but doubtful",
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="capture folder")
    parser.add_argument("--smpl_path", type=Path, help="SMPL-X model file; default: the config's")
    parser.add_argument("--config", type=Path, help="settings whose training frames and cameras are used")
    parser.add_argument(
        "--cameras", type=int, nargs="+", help="camera ids, over those of the config; default all"
    )
    parser.add_argument("--begin", type=int, help="first frame, over the config's; default 0")
    parser.add_argument("--count", type=int, help="frames to choose from, over the config's; default all")
    parser.add_argument("--frames", type=int, default=40, help="well-spread frames to look at (default 40)")
    parser.add_argument(
        "--resolution",
        type=float,
        default=1000 * default.spacing,
        metavar="MM",
        help=f"grid spacing, millimetres (default {1000 * default.spacing:g})",
    )
    parser.add_argument(
        "--reach",
        type=float,
        default=default.reach,
        metavar="M",
        help=f"metres around the body in which cloth is looked for (default {default.reach:g})",
    )
    parser.add_argument(
        "--faces", type=int, default=default.faces, help=f"triangles, about (default {default.faces})"
    )
    parser.add_argument("--out", type=Path, help="mesh to write; default DATA_DIR/gaussian/template.ply")
    parser.add_argument("--picture", type=Path, help="picture to write; default the mesh's name with .png")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing template")
    return parser.parse_args()


def choose_output(args: argparse.Namespace, layout: CaptureLayout) -> tuple[Path, Path]:
    """Mesh and picture; refuses existing ones before any work is done."""
    out = args.out or layout.template_path
    if out.suffix.lower() != ".ply":
        raise ValueError(f"--out {out}: the template is written as PLY; name it .ply")
    picture = args.picture or out.with_suffix(".png")
    for path in (out, picture):
        if path.exists() and not args.overwrite:
            raise ValueError(f"{path} exists; give --overwrite to replace it, or another --out")
    return out, picture


def choose_views(args: argparse.Namespace, layout: CaptureLayout, poses: SmplParams) -> Config:
    """The config's (or all) frames and cameras with the command line's over them, and a sensible scale."""
    config = load_config(args.config) if args.config else default_config(num_train_frame=len(poses))
    changes = {"train_cam_ids": args.cameras, "begin_ith_frame": args.begin, "num_train_frame": args.count}
    if args.begin is not None and args.count is None and not args.config:
        changes["num_train_frame"] = max(len(poses) - args.begin, 1)
    config = replace(config, **{key: value for key, value in changes.items() if value is not None})
    sizes = [camera.image_size for camera in layout.cameras if camera.image_size is not None]
    longest = max((max(size) for size in sizes), default=LONGEST_SIDE)
    scaling = min(config.image_scaling, LONGEST_SIDE / longest)
    config = replace(config, image_scaling=scaling, data_in_memory=False)
    validate(config, "command line")
    return config


def describe(template: Template) -> str:
    mesh = template.mesh
    low, high = mesh.bounds
    size = " x ".join(f"{length:.2f}" for length in high - low)
    return (
        f"template: {len(mesh.faces):,} triangles, {size} m, volume {1000 * mesh.volume:.1f} l "
        f"({template.volume_ratio:.2f} x the body's), {'closed' if mesh.is_watertight else 'with holes'}, "
        f"{1 - template.unseen_share:.0%} of the surface decided by several frames"
    )


def main() -> None:
    args = parse_arguments()
    settings = TemplateSettings(spacing=args.resolution / 1000, reach=args.reach, faces=args.faces)
    layout = open_capture(args.data_dir)
    out, picture_path = choose_output(args, layout)
    settled = load_config(args.config) if args.config else default_config()
    smpl_path = args.smpl_path or settled.smpl_pkl_path
    poses = read_smpl_params(layout.pose_path, model_file=smpl_path)
    config = choose_views(args, layout, poses)
    dataset = training_dataset(config, layout, poses)
    frames = well_spread_frames(poses, {frame for frame, _ in dataset.pairs}, args.frames)
    body = load_body(smpl_path, poses.betas)
    volume = find_or_make_weight_volume(layout.weight_volume_path, body, config.weight_volume_resolution)
    print(f"{len(frames)} well-spread frames, {len(dataset.camera_ids)} cameras")
    template = make_template(dataset, frames, body, volume, settings)
    views = views_to_show(dataset, frames, PICTURES)
    picture = template_picture(template.mesh, dataset, views, body, volume)
    with atomic_write(out) as file:
        file.write(export_ply(template.mesh))
    write_png(picture_path, picture.image)
    print(describe(template))
    print(f"written  {out}\npicture  {picture_path}: does the template fit the person?")
    warnings = template_warnings(template, picture.overlaps)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if warnings:
        sys.exit(DOUBTFUL)


if __name__ == "__main__":
    run_command(main)
