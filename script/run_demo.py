"""The whole way on the synthetic subject: capture, training, renders, scores (`make demo`).

Prints each command before it runs it, so that the same can be done by hand with another capture. Started
again after an interruption it goes on where it stopped; remove output/demo to start over.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

from mmlphuman.command import run_shown

ROOT = Path(__file__).resolve().parent.parent
run = partial(run_shown, ROOT)

CAMERAS = 9  # the last one is held out
TRAINING_FRAMES, NOVEL_FRAMES = 40, 10


def main() -> None:
    if __doc__ is None:
        sys.exit("error: PYTHONOPTIMIZE=2 (-OO) takes out the texts that commands need; unset it")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="config/demo.yaml")
    parser.add_argument("--out_dir", type=Path, default=Path("output/demo"))
    parser.add_argument("--size", type=int, default=512, help="pixels a side of the synthetic photographs")
    args = parser.parse_args()
    started = time.monotonic()
    out, capture, model = args.out_dir, args.out_dir / "capture", args.out_dir / "model"

    run(
        *("script/make_demo.py", "--out_dir", capture, "--smplx_path", out / "SMPLX_NEUTRAL.npz"),
        *("--size", args.size, "--cameras", CAMERAS),
        *("--frames", TRAINING_FRAMES, "--novel_frames", NOVEL_FRAMES),
    )
    run("train.py", "--config", args.config, "--data_dir", capture, "--out_dir", model, "--resume")
    test = ("test.py", "--config", args.config, "--model_dir", model, "--data_dir", capture)
    run(*test, "--out_dir", out / "held_out_view")
    novel = (
        f"test.begin_ith_frame={TRAINING_FRAMES}",
        f"test.num_frame={NOVEL_FRAMES}",
        "test.frame_interval=1",
    )
    run(*test, "--out_dir", out / "novel_poses", "--test", *novel)
    run(
        *("test.py", "--model_dir", model, "--out_dir", out / "turntable", "--test"),
        *("--cam_path", 0, "--pose_path", capture / "smpl_params.npz", "--begin", TRAINING_FRAMES),
        *("--turntable", "--video", 5, "--show_distance"),
    )

    scores = {}
    for name in ("held_out_view", "novel_poses"):
        scores[name] = json.loads((ROOT / out / name / "scores.json").read_text())["overall"]
    (ROOT / out / "scores.json").write_text(json.dumps(scores, indent=1))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Look at")
    print(f"  {out}/held_out_view/contact_sheet.png   a camera that training never saw: truth, render, error")
    print(f"  {out}/novel_poses/contact_sheet.png     poses outside the training frames, same camera")
    print(
        f"  {out}/turntable/video.mp4              those poses from all sides, and how far from training they are"
    )
    print(f"  {out}/scores.json")


if __name__ == "__main__":
    main()
