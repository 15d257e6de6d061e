"""Calibrates cameras that have filmed a checkerboard or a ChArUco board.

    python script/calibrate_cameras.py --data_dir BOARD_VIDEOS --board 9x6 --square 0.03 --out calibration.json

BOARD_VIDEOS holds a video, or a folder of pictures, for each camera; frames of the same number were taken at once. The
board is moved through the place where the person will be, turned in all directions, and seen by two cameras and more
at a time; at --floor it lies on the floor, face up: there y is 0.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mmlphuman.command import require_writable, run_command
from mmlphuman.fitting.board import Board, calibrate_boards, camera_footage, find_boards, read_pictures


def board_size(text: str) -> tuple[int, int]:
    if (found := re.fullmatch(r"(\d+)x(\d+)", text)) is None:
        raise argparse.ArgumentTypeError(f"{text}: COLUMNSxROWS of squares is needed, such as 9x6")
    return int(found[1]), int(found[2])


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data_dir",
        type=Path,
        required=True,
        help="folder of a video or a folder of pictures for each camera",
    )
    add("--out", type=Path, required=True, help="calibration.json to write")
    add("--board", type=board_size, required=True, metavar="COLUMNSxROWS", help="squares, not corners")
    add(
        "--square",
        type=float,
        required=True,
        metavar="METRES",
        help="a square's side, as measured on the print",
    )
    add("--marker", type=float, metavar="METRES", help="a marker's side: it is a ChArUco board")
    add("--dictionary", default="DICT_4X4_50", help="of the markers, OpenCV's name (default: %(default)s)")
    add("--every", type=int, default=5, help="of videos every so many frames (default: %(default)s)")
    add("--floor", type=int, metavar="NUMBER", help="of the frame in which the board lies on the floor")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.every < 1:
        raise ValueError(f"--every {args.every}: 1 or more is needed")
    if args.floor is not None and args.floor < 0:
        raise ValueError(f"--floor {args.floor}: frames are numbered from 0 on")
    if args.out.suffix != ".json" or args.out.is_dir():
        raise ValueError(f"--out {args.out}: name a file that ends in .json")
    require_writable(args.out.absolute().parent, "--out")
    columns, rows = args.board
    board = Board(columns, rows, args.square, args.marker, args.dictionary)
    seen = {
        name: find_boards(name, read_pictures(path, args.every), board, progress=True)
        for name, path in camera_footage(args.data_dir).items()
    }
    calibrated = calibrate_boards(seen, board, args.floor)
    calibrated.write(args.out)
    for name, error in calibrated.errors.items():
        print(f"camera {name}: corners fit to {error:.2f} pixels where they place it")
    for note in calibrated.notes:
        print(f"note         {note}")
    print(f"written      {args.out}: metres, y up from the board of frame {calibrated.floor_time}")


if __name__ == "__main__":
    run_command(main)
