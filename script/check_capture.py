"""Checks a capture before training: files, cameras, poses, and whether the body lies in the masks.

    python script/check_capture.py --data_dir CAPTURE --smpl_path smpl_model/smplx/SMPLX_NEUTRAL.npz

Prints a table and writes report.json and contact_sheet.png (the body drawn over images) into --out. Nothing in the
capture is changed.
Exit status: 0 sound, 1 errors, 2 only warnings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmlphuman.command import run_command

ROOT = Path(__file__).resolve().parent.parent

SAMPLED_FRAMES = 24


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.splitlines()[-1])
    parser.add_argument("--data_dir", type=Path, required=True, help="capture folder")
    parser.add_argument("--smpl_path", type=Path, required=True, help="SMPLX_NEUTRAL.npz")
    parser.add_argument(
        "--frames", type=int, default=SAMPLED_FRAMES, help="frames to look at, in all cameras; 0: every one"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the report: a new one, or that of an earlier check, "
        "which goes first; default output/check_CAPTURE",
    )
    return parser.parse_args()


if __name__ == "__main__":  # wrong words end here, before what takes seconds is loaded
    ARGUMENTS = run_command(parse_arguments)

from mmlphuman.output_folder import begin_output, require_output
from mmlphuman.preparation.capture_check import check_capture
from mmlphuman.preparation.findings import (
    EXIT_STATUS,
    REPORT_NAME,
    closing_line,
    format_table,
    overall,
    report_folder,
    write_report,
)
from mmlphuman.preparation.overlays import choose_cells, write_body_sheet

PROGRAM, SHEET = "check_capture.py", "contact_sheet.png"


def main(args: argparse.Namespace) -> None:
    data_dir = args.data_dir.resolve()
    out = (args.out or report_folder(ROOT / "output", data_dir)).resolve()
    if args.frames < 0:
        raise ValueError(f"--frames {args.frames}: must not be negative")
    if out.is_relative_to(data_dir):
        raise ValueError(f"--out {out}: lies in the capture, where nothing is written; name another folder")
    require_output(out, PROGRAM, "--out")
    checked = check_capture(data_dir, args.smpl_path, args.frames, progress=True)
    print(format_table(checked.findings))
    begin_output(out, PROGRAM, [REPORT_NAME, SHEET])
    write_report(out / REPORT_NAME, data_dir, checked.findings, checked.measures())
    print(f"report         {out / REPORT_NAME}")
    cells = choose_cells(checked.samples)
    path = out / SHEET
    if cells:
        layout, params, body = checked.layout, checked.params, checked.body
        assert layout and params and body, "cells show how the posed body fits"
        write_body_sheet(path, layout, params, body, cells, data_dir.name)
        print(f"contact sheet  {path}")
    print(closing_line(checked.findings))
    sys.exit(EXIT_STATUS[overall(checked.findings)])


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
