"""Makes a capture of videos or pictures of a person and a calibration: masks, checked cameras, a body in every frame.

    python script/fit_capture.py --data_dir VIDEOS --calibration CALIBRATION --out CAPTURE
    python train.py --config CONFIG --data_dir CAPTURE smpl_pkl_path=CAPTURE/SMPLX_NEUTRAL.npz ...

    python script/fit_capture.py --refine --data_dir CAPTURE --out FOLDER       better poses for a capture that has some

What is doubtful stands in CAPTURE/report.md, what was found is shown in CAPTURE/contact_sheet.png.

VIDEOS holds a video, or a folder of pictures, for each camera, named as the calibration names it. Calibrations are read
in all forms of script/import_capture.py. Started again with the same words it goes on where it stopped; results of
single stages lie in CAPTURE/fit. Landmarks and outlines are found by MediaPipe's networks, which need an environment of
their own:

    python3 -m venv .venv-networks && .venv-networks/bin/pip install mediapipe==0.10.21     # Python 3.10 to 3.12

or brought along: --keypoints (COCO-WholeBody or OpenPose JSON) and --masks. The body file is SMPL-X's, or one without a
licence to sign, by script/make_body.py.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from mmlphuman.command import run_command

ROOT = Path(__file__).resolve().parent.parent


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        required=True,
        help="folder of a video or a folder of pictures for each camera",
    )
    parser.add_argument("--out", type=Path, required=True, help="capture folder to make, or to go on with")
    parser.add_argument("--calibration", type=Path, help="its file or folder, where it is not in --data_dir")
    parser.add_argument(
        "--body",
        type=Path,
        default=ROOT / "smpl_model/smplx/SMPLX_NEUTRAL.npz",
        help="SMPL-X's file, or make_body.py's (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        metavar="FIRST:LAST:STEP",
        default="",
        help="such as 0:99 for the first hundred; default all",
    )
    parser.add_argument("--scale", type=float, default=1, help="of the pictures, such as 0.5 to halve them")
    parser.add_argument(
        "--unit",
        type=float,
        default=1,
        metavar="METRES",
        help="the calibration's, such as 0.001 for millimetres",
    )
    parser.add_argument(
        "--person",
        action="append",
        default=[],
        metavar="CAM,FRAME,X,Y",
        help="whom of several: a place on the person in a picture, or CAM,FRAME,LEFT,TOP,RIGHT,BOTTOM; can be repeated",
    )
    parser.add_argument(
        "--keypoints", type=Path, help="folder of your own landmarks, a file or folder for each camera"
    )
    parser.add_argument("--masks", type=Path, help="folder of your own masks, a folder for each camera")
    parser.add_argument(
        "--refine",
        action="store_true",
        help="--data_dir is a capture with masks and poses: writes better poses and its own body into --out",
    )
    parser.add_argument("--keep_cameras", action="store_true", help="do not refine the calibration")
    parser.add_argument(
        "--networks", type=Path, default=ROOT / ".venv-networks", help="environment of the networks"
    )
    parser.add_argument("--device", default="auto", help="of the body's fit: auto, cpu or cuda")
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    for flag in ("data_dir", "keypoints", "masks"):
        folder = getattr(args, flag)
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"--{flag} {folder}: no such folder")
    if args.calibration is not None and not args.calibration.exists():
        raise FileNotFoundError(f"--calibration {args.calibration}: no such file or folder")
    if not args.body.is_file():
        raise FileNotFoundError(
            f"--body {args.body}: no such file; give SMPL-X's, or make a body without a licence to sign: "
            "script/make_body.py"
        )
    if not 0 < args.scale <= 1:
        raise ValueError(f"--scale {args.scale:g}: above 0 and at most 1 is possible")
    if not (math.isfinite(args.unit) and args.unit > 0):
        raise ValueError(f"--unit {args.unit:g}: a positive factor is needed")
    if args.refine:
        unused = ("calibration", "frames", "person", "masks", "keep_cameras")
        if given := [name for name in unused if getattr(args, name)]:
            raise ValueError(f"--{given[0]} says nothing with --refine, which takes the capture as it is")


def read_words() -> argparse.Namespace:
    args = parse_arguments()
    check_arguments(args)
    return args


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(read_words)

from mmlphuman.command import choose_device
from mmlphuman.fitting.common_times import frame_range
from mmlphuman.fitting.fit_capture import fit_capture, refine_capture
from mmlphuman.fitting.fit_request import FitRequest
from mmlphuman.fitting.fit_results import FittedCapture


def main(args: argparse.Namespace) -> None:
    device = str(choose_device(args.device))
    if args.refine:
        refined = refine_capture(args.data_dir, args.body, args.out, args.keypoints, device, say)
        report(refined)
        print(
            f"try it       {args.out / 'smpl_params.npz'} in the capture, and smpl_pkl_path={refined.body_file}"
        )
        return
    request = FitRequest(
        source=args.data_dir,
        out=args.out,
        calibration=args.calibration or args.data_dir,
        body=args.body,
        networks=args.networks,
        frames=frame_range(args.frames) if args.frames else slice(None),
        scale=args.scale,
        unit=args.unit,
        people=tuple(args.person),
        keypoints=args.keypoints,
        masks=args.masks,
        refine_cameras=not args.keep_cameras,
        device=device,
    )
    made = fit_capture(request, say)
    report(made)
    print(
        f"check it     python script/check_capture.py --smpl_path {made.body_file} --data_dir {made.folder}"
    )


def say(line: str) -> None:
    print(line, flush=True)


def report(made: FittedCapture) -> None:
    for note in made.notes:
        print(f"note         {note}")
    if math.isfinite(made.overlap):
        print(f"overlap      of body and masks {made.overlap:.3f}, in the worst frame {made.worst:.3f}")
    print(f"written      {made.folder}: {made.frames} frames, its body {made.body_file.name}")
    print(f"look at it   {made.folder / 'contact_sheet.png'} and {made.folder / 'report.md'}")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
