"""script/make_demo.py: makes once, keeps what it made, never overwrites anything else."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params

SCRIPT = Path(__file__).resolve().parents[2] / "script" / "make_demo.py"


@pytest.fixture
def command(monkeypatch, synthetic_body):
    """Calls the command with arguments; the body file is linked instead of built."""
    spec = importlib.util.spec_from_file_location("make_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "write_body", lambda path, seed: os.link(synthetic_body, path))

    def call(*arguments):
        small = ["--size", "32", "--cameras", "2", "--frames", "1", "--novel_frames", "1", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["make_demo.py", *small, *map(str, arguments)])
        module.main()

    return call


def test_makes_once_and_keeps(command, tmp_path, capsys):
    folder = tmp_path / "capture"
    command("--out_dir", folder)
    assert len(list(folder.glob("*/*.jpg"))) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SMPLX_NEUTRAL.npz", "capture"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    command("--out_dir", folder)
    assert "already made" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="other options"):
        command("--out_dir", folder, "--seed", 1)


def test_never_overwrites(command, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="did not write"):
        command("--out_dir", folder)
    body = tmp_path / "SMPLX_MALE.npz"
    body.write_bytes(b"licensed")
    with pytest.raises(ValueError, match="another body file"):
        command("--out_dir", tmp_path / "new", "--smplx_path", body)
    assert body.read_bytes() == b"licensed"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SMPLX_MALE.npz", "mine"]


def test_failure_leaves_nothing_half_written(command, tmp_path, monkeypatch):
    import mmlphuman.synthetic.layouts as layouts

    monkeypatch.setattr(layouts.cv2, "imwrite", lambda *_: False)  # as OpenCV says that the disk is full
    with pytest.raises(OSError, match="could not write"):
        command("--out_dir", tmp_path / "capture")
    assert [p.name for p in tmp_path.iterdir()] == ["SMPLX_NEUTRAL.npz"]


def test_other_layout(command, tmp_path):
    command("--out_dir", tmp_path / "capture", "--layout", "actorshq")
    capture = open_capture(tmp_path / "capture")
    assert len(capture.cameras) == 2 and len(read_smpl_params(capture.pose_path)) == 2
    for camera in range(2):
        for frame in range(2):
            assert capture.image_path(camera, frame).is_file() and capture.mask_path(camera, frame).is_file()
    with pytest.raises(ValueError, match="other options"):
        command("--out_dir", tmp_path / "capture")


def test_distortion_is_part_of_the_stamp(command, tmp_path):
    lens = ("-0.1", "0.02", "0", "0", "0")
    command("--out_dir", tmp_path / "capture", "--layout", "thuman4", "--distortion", *lens)
    assert json.loads((tmp_path / "capture" / "demo.json").read_text())["distortion"] == [-0.1, 0.02, 0, 0, 0]
    assert open_capture(tmp_path / "capture").cameras[0].dist.tolist() == [-0.1, 0.02, 0, 0, 0]
    with pytest.raises(ValueError, match="other options"):
        command("--out_dir", tmp_path / "capture", "--layout", "thuman4")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--size", "8x9"), "at least 16"),
        (("--size", "big"), "--size big"),
        (("--size", "100000"), "at most 134,217,728 are possible"),
        (("--cameras", 0), "--cameras 0"),
        (("--layout", "actorshq", "--distortion", 0.1, 0, 0, 0, 0), "actorshq layout has no lens distortion"),
        (("--distortion", "nan", 0, 0, 0, 0), "--distortion nan"),
        (("--distortion", 3, 0, 0, 0, 0), "--distortion 3.0"),
        (("--pose_error", -1, 0), "--pose_error -1.0 0.0"),
        (("--color_cast", 1.5), "--color_cast 1.5"),
        (("--ceiling", "--ceiling_cameras", 2), "--ceiling_cameras 2: cameras are 0 to 1"),
        (("--ceiling_cameras", 1), "goes with --ceiling"),
    ],
)
def test_bad_options_say_which(command, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        command("--out_dir", tmp_path / "capture", *arguments)
    assert not list(tmp_path.iterdir())


def test_stamp_names_the_options(command, tmp_path):
    command("--out_dir", tmp_path / "capture", "--seed", 3)
    stamp = json.loads((tmp_path / "capture" / "demo.json").read_text())
    assert stamp["seed"] == 3 and stamp["size"] == [32, 32] and stamp["layout"] == "avatarrex"


def test_default_subject_has_the_stamp_it_always_had(command, tmp_path):
    command("--out_dir", tmp_path / "capture")
    assert (tmp_path / "capture" / "demo.json").read_text() == (
        '{"version": 1, "size": [32, 32], "layout": "avatarrex", "cameras": 2, "frames": 1, "novel_frames": 1, '
        '"seed": 0}\n'
    )
    assert sorted(p.name for p in (tmp_path / "capture").iterdir()) == [
        *("22010700", "22010701", "calibration_full.json", "demo.json", "smpl_params.npz")
    ]


def test_hard_subject_tells_its_sets(command, tmp_path, capsys):
    hard = ("--subject", "hard", "--novel_frames", 2, "--pose_error", 3, 1, "--color_cast", 0.1)
    command("--out_dir", tmp_path / "capture", *hard, "--ceiling", "--ceiling_cameras", 1)
    stamp = json.loads((tmp_path / "capture" / "demo.json").read_text())
    assert stamp["subject"] == "hard" and stamp["ceiling"] == [1]
    assert stamp["pose_error"] == [3, 1] and stamp["color_cast"] == 0.1
    assert stamp["sets"] == {"training": [0, 0], "near": [1, 2], "middle": [3, 4], "far": [5, 6]}
    assert "training frames 0-0, near 1-2, middle 3-4, far 5-6" in capsys.readouterr().out
    assert len(list((tmp_path / "capture" / "ceiling").iterdir())) == 7
    assert len(read_smpl_params(open_capture(tmp_path / "capture").pose_path)) == 7
    command("--out_dir", tmp_path / "capture", *hard, "--ceiling", "--ceiling_cameras", 1)
    assert "already made" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other options"):
        command("--out_dir", tmp_path / "capture")
