"""Make the skinning weight volume of a capture, and measure it against the body.

    python script/gen_weight_volume.py --data_dir CAPTURE --smpl_path SMPLX_NEUTRAL.npz

Training makes the same file when it is missing. A file that this program did not make is kept as it is.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from mmlphuman.command import run_command

ROOT = Path(__file__).resolve().parent.parent


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="capture folder")
    parser.add_argument(
        "--smpl_path",
        type=Path,
        default=ROOT / "smpl_model/smplx/SMPLX_NEUTRAL.npz",
        help="SMPL-X model file",
    )
    parser.add_argument("--resolution", type=int, default=128, help="nodes a side")
    parser.add_argument(
        "--out", type=Path, help="file to make; default gaussian/lbs_weights_grid.npz in the capture"
    )
    return parser.parse_args()


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.volume_report import measure_weight_volume
from mmlphuman.body.weight_volume import find_or_make_weight_volume
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params


def main(args: argparse.Namespace) -> None:
    layout = open_capture(args.data_dir)
    body = load_body(args.smpl_path, read_smpl_params(layout.pose_path, model_file=args.smpl_path).betas)
    path = args.out or layout.weight_volume_path
    started = time.monotonic()
    volume = find_or_make_weight_volume(path, body, args.resolution)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # from KiB
    print(f"weight volume: {path}")
    print(f"{time.monotonic() - started:.1f} s, peak memory {peak:.2f} GiB")
    print("Against the body's own weights (absolute differences, summed over the joints):")
    print(measure_weight_volume(volume, body).table())


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
