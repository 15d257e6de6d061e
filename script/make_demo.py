"""Make the synthetic subject's capture and body file: real formats, nothing to download, no licence.

    python script/make_demo.py --out_dir output/demo/capture [--layout thuman4]
    python script/make_demo.py --subject hard --out_dir output/hard/capture --ceiling --ceiling_cameras 4 9

Started again with the same options it keeps what is there. The folder appears under its name only when it is
complete.

The hard subject walks and turns under a lamp, moves fingers and jaw, has skinning and blend shapes that its body file
does not tell, and wrinkles that cannot be foreseen. --novel_frames is the number of frames of each of its three sets
of other poses, near, middle and far, which follow the training frames in this order; demo.json lists them in "sets".

--ceiling adds ceiling/: every frame of the true body, clothes and light, with wrinkles as on average over the training
frames, on white and without lens distortion. Its names are those of test.py, so that next to a model's pictures in
OUT (test.py ... --out_dir OUT) they are scored by
    python script/eval.py --truth OUT/gt --render OUT/render --render CAPTURE/ceiling --mask OUT/mask
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import MAX_PIXELS
from mmlphuman.files import atomic_folder
from mmlphuman.synthetic.body import write_body
from mmlphuman.synthetic.capture_writer import SUBJECTS, make_capture
from mmlphuman.synthetic.hard_motion import frame_sets
from mmlphuman.synthetic.layouts import LAYOUTS

STAMP = "demo.json"
VERSION = 1  # of what is drawn; raise it when the same options give other pictures
SMALLEST_SIDE = 16  # pixels
LARGEST_POSE_ERROR = 45.0  # degrees, centimetres
LARGEST_DISTORTION = 1.0  # beyond it a lens may fold its picture over, which no calibration describes


def parse_size(text: str) -> tuple[int, int]:
    """'512' or '480x640' -> (width, height) pixels."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size {text}: give one number of pixels, or WIDTHxHEIGHT such as 480x640")
    width, height = int(parts[0]), int(parts[-1])
    if min(width, height) < SMALLEST_SIDE:
        raise ValueError(f"--size {text}: pictures need at least {SMALLEST_SIDE} pixels a side")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"--size {text}: {width}x{height} pixels are too many; at most {MAX_PIXELS:,} are possible"
        )
    return width, height


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder of the capture, made here")
    parser.add_argument("--subject", choices=SUBJECTS, default="demo")
    parser.add_argument(
        "--smplx_path", type=Path, help="body file to write; default SMPLX_NEUTRAL.npz beside the capture"
    )
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), default="avatarrex", help="file layout of the capture"
    )
    parser.add_argument(
        "--distortion",
        type=float,
        nargs=5,
        metavar=("K1", "K2", "P1", "P2", "K3"),
        default=[0.0] * 5,
        help="bend the pictures like a lens, in OpenCV's coefficients, e.g. -0.1 0.02 0.001 -0.001 0; "
        "not for actorshq, whose calibration has none",
    )
    parser.add_argument("--size", default="512", help="pixels a side, or WIDTHxHEIGHT")
    parser.add_argument("--cameras", type=int, default=9, help="cameras in a ring round the person")
    parser.add_argument("--frames", type=int, default=48, help="training frames")
    parser.add_argument(
        "--novel_frames", type=int, default=12, help="frames of other poses, after the training part"
    )
    parser.add_argument(
        "--pose_error",
        type=float,
        nargs=2,
        metavar=("DEG", "CM"),
        default=[0.0, 0.0],
        help="root mean square error of every joint's rotation and of the place, in the training frames of "
        "smpl_params.npz; smpl_params_true.npz has the true poses",
    )
    parser.add_argument(
        "--color_cast",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="each camera's gain and white balance are off by up to this share; color_casts.json has them",
    )
    parser.add_argument("--ceiling", action="store_true", help="also pictures with mean wrinkles")
    parser.add_argument(
        "--ceiling_cameras", type=int, nargs="+", metavar="ID", help="of these cameras; default all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args()


def describe(args: argparse.Namespace, size: tuple[int, int]) -> dict:
    """What determines the capture; written into it."""
    for name, smallest in (("cameras", 1), ("frames", 1), ("novel_frames", 0), ("seed", 0), ("workers", 1)):
        if getattr(args, name) < smallest:
            raise ValueError(f"--{name} {getattr(args, name)}: must be at least {smallest}")
    if any(args.distortion) and not LAYOUTS[args.layout].has_distortion:
        raise ValueError(f"--distortion: the {args.layout} layout has no lens distortion; leave it out")
    if not all(abs(number) <= LARGEST_DISTORTION for number in args.distortion):
        raise ValueError(
            f"--distortion {' '.join(map(str, args.distortion))}: coefficients must lie within "
            f"{-LARGEST_DISTORTION:g} and {LARGEST_DISTORTION:g}"
        )
    if not all(0 <= size <= LARGEST_POSE_ERROR for size in args.pose_error):
        raise ValueError(
            f"--pose_error {' '.join(map(str, args.pose_error))}: give degrees and centimetres from 0 to "
            f"{LARGEST_POSE_ERROR:g}"
        )
    if not 0 <= args.color_cast < 1:
        raise ValueError(f"--color_cast {args.color_cast}: a share from 0 to below 1 is needed, such as 0.1")
    if args.ceiling_cameras and not args.ceiling:
        raise ValueError("--ceiling_cameras goes with --ceiling")
    for camera in args.ceiling_cameras or ():
        if not 0 <= camera < args.cameras:
            raise ValueError(f"--ceiling_cameras {camera}: cameras are 0 to {args.cameras - 1}")
    numbers = {name: getattr(args, name) for name in ("layout", "cameras", "frames", "novel_frames", "seed")}
    lens = {"distortion": args.distortion} if any(args.distortion) else {}
    hard = {"subject": args.subject, "sets": frame_ranges(args)} if args.subject == "hard" else {}
    errors = {
        name: getattr(args, name) for name in ("pose_error", "color_cast") if np.any(getattr(args, name))
    }
    ceiling = {"ceiling": ceiling_cameras(args)} if args.ceiling else {}
    return {"version": VERSION, "size": list(size), **numbers, **lens, **hard, **errors, **ceiling}


def ceiling_cameras(args: argparse.Namespace) -> list[int]:
    if not args.ceiling:
        return []
    return sorted(set(args.ceiling_cameras)) if args.ceiling_cameras else list(range(args.cameras))


def frame_ranges(args: argparse.Namespace) -> dict[str, list[int]]:
    """First and last frame of the training part and of each set of other poses."""
    if args.subject == "hard":
        return frame_sets(args.frames, args.novel_frames)
    ranges = {"training": [0, args.frames - 1]}
    if args.novel_frames:
        ranges["other poses"] = [args.frames, args.frames + args.novel_frames - 1]
    return ranges


def already_made(out_dir: Path, stamp: dict) -> bool:
    """True if out_dir is this very capture; refuses a folder that holds anything else."""
    if not out_dir.exists():
        return False
    if not out_dir.is_dir():
        raise ValueError(f"--out_dir {out_dir}: is a file; name a new folder")
    if not any(out_dir.iterdir()):
        return False
    try:
        found = json.loads((out_dir / STAMP).read_text())
    except (OSError, ValueError):
        raise ValueError(
            f"--out_dir {out_dir}: holds files that this command did not write; name a new folder"
        ) from None
    if found != stamp:
        raise ValueError(
            f"--out_dir {out_dir}: holds a demo made with other options ({json.dumps(found)}); "
            "remove it or name a new folder"
        )
    return True


def put_body(path: Path, seed: int) -> None:
    """Write the body file; a file that is there already must be the same, byte for byte."""
    if not path.exists():
        write_body(path, seed)
        return
    fresh = path.with_name(f".{path.name}.compare-{os.getpid()}.npz")
    try:
        write_body(fresh, seed)
        same = fresh.read_bytes() == path.read_bytes()
    finally:
        fresh.unlink(missing_ok=True)
    if not same:
        raise ValueError(f"--smplx_path {path}: is another body file and is not overwritten; name a new file")


def build(args: argparse.Namespace, size: tuple[int, int], stamp: dict) -> None:
    """Write body and capture; the capture grows in a sibling folder that is renamed when it is whole."""
    print(f"body     {args.smplx_path}", flush=True)
    put_body(args.smplx_path, args.seed)
    with atomic_folder(args.out_dir) as folder:
        make_capture(
            folder,
            args.smplx_path,
            size=size,
            num_cameras=args.cameras,
            num_frames=args.frames,
            num_novel_frames=args.novel_frames,
            seed=args.seed,
            layout=args.layout,
            distortion=args.distortion,
            subject=args.subject,
            pose_error=args.pose_error,
            color_cast=args.color_cast,
            ceiling_cameras=ceiling_cameras(args),
            workers=args.workers,
            progress=True,
        )
        (folder / STAMP).write_text(json.dumps(stamp) + "\n")


def main() -> None:
    args = parse_arguments()
    args.out_dir = args.out_dir.absolute()
    args.smplx_path = (args.smplx_path or args.out_dir.parent / "SMPLX_NEUTRAL.npz").absolute()
    size = parse_size(args.size)
    stamp = describe(args, size)
    if already_made(args.out_dir, stamp) and args.smplx_path.exists():
        print(f"already made with these options, kept: {args.out_dir} and {args.smplx_path}")
        return
    if (args.out_dir / STAMP).exists():
        put_body(args.smplx_path, args.seed)  # only the body file is missing
    else:
        build(args, size, stamp)
    print(f"capture  {args.out_dir}")
    print(f"         {args.cameras} cameras of {size[0]}x{size[1]}, ids 0-{args.cameras - 1}")
    (_, training), *others = frame_ranges(args).items()
    told = f"training frames {training[0]}-{training[1]}"
    print("         " + ", ".join([told, *(f"{name} {first}-{last}" for name, (first, last) in others)]))
    print(f"body     {args.smplx_path}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"make_demo.py: {error}")
