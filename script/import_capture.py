"""Makes a capture that train.py reads of pictures and a calibration in the forms that people have.

    python script/import_capture.py --data_dir SOURCE --out CAPTURE [--poses POSES.npz] [--scale F | --height 1.75]

Calibrations of COLMAP, EasyMocap, transforms.json, MVHumanNet, ZJU-MoCap, Qualisys, Pose2Sim, caliscope, anipose and
the three published layouts are found in SOURCE by their names; docs/cameras.md says where pictures and masks are looked
for. Pictures are linked, not copied. SOURCE is only read.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from mmlphuman.calibrations.forms import read_calibration
from mmlphuman.capture.layout import find_pose_file
from mmlphuman.command import run_command
from mmlphuman.preparation.import_capture import fit_to_pictures, import_capture, numbering_of
from mmlphuman.preparation.metric_scale import factor_of_height, person_height
from mmlphuman.preparation.source_pictures import find_pictures

HEIGHTS = (0.4, 2.6)  # metres of people


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="folder of the pictures and the calibration"
    )
    parser.add_argument("--out", type=Path, required=True, help="capture folder to make")
    parser.add_argument("--calibration", type=Path, help="its file or folder, where it is not in --data_dir")
    parser.add_argument("--images", type=Path, help="folder of the cameras' folders, where it is not found")
    parser.add_argument("--masks", type=Path, help="the same of masks (person white, or parts numbered)")
    parser.add_argument(
        "--poses",
        type=Path,
        help="in any form that is read; default: smpl_params.npz of --data_dir, if it is there",
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--scale", type=float, help="metres in the calibration's unit, e.g. 0.001 for millimetres"
    )
    scale.add_argument(
        "--height", type=float, metavar="METRES", help="of the person: the scale is found from the masks"
    )
    parser.add_argument(
        "--first", type=int, help="number of the picture that is frame 0 (default: the lowest)"
    )
    parser.add_argument(
        "--step", type=int, help="from frame to frame (default: what all numbers have in common)"
    )
    parser.add_argument(
        "--copy", action="store_true", help="copies of the pictures, for a folder that will move"
    )
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    if not args.data_dir.is_dir():
        raise FileNotFoundError(f"--data_dir {args.data_dir}: no such folder")
    if args.scale is not None and not (math.isfinite(args.scale) and args.scale > 0):
        raise ValueError(f"--scale {args.scale:g}: a positive factor is needed")
    if args.height is not None and not HEIGHTS[0] <= args.height <= HEIGHTS[1]:
        raise ValueError(f"--height {args.height:g}: metres, {HEIGHTS[0]:g} to {HEIGHTS[1]:g}, are needed")
    if args.step is not None and args.step < 1:
        raise ValueError(f"--step {args.step}: 1 or more is needed")


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    calibration = read_calibration(args.calibration or args.data_dir)
    print(f"calibration  {calibration.form}, {len(calibration.cameras)} cameras")
    pictures = find_pictures(args.data_dir, calibration, args.images, args.masks)
    factor = 1.0 if args.scale is None else args.scale
    if args.height is not None:
        found = person_height(fit_to_pictures(calibration, pictures)[0], pictures)
        factor = factor_of_height(args.height, found)
        print(f"scale        {factor:.5g} (the person is {found:.4g} tall in the calibration's unit)")
    imported = import_capture(
        args.out,
        calibration,
        pictures,
        numbering_of(pictures, args.first, args.step),
        args.poses or find_pose_file(args.data_dir),
        factor,
        args.copy,
    )
    print("cameras      " + ", ".join(f"{i} {camera.name}" for i, camera in enumerate(calibration.cameras)))
    for note in imported.notes:
        print(f"note         {note}")
    print(f"written      {args.out}: {imported.frames} frames")
    print("look at it   python script/check_capture.py --smpl_path ... --data_dir " + str(args.out))


if __name__ == "__main__":
    run_command(main)
