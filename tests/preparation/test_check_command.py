"""script/check_capture.py: exit status, report, contact sheet, and where it refuses to write."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import pytest
from checked_capture import CAMERAS

from mmlphuman.capture.formats import open_capture
from mmlphuman.preparation.capture_check import check_capture
from mmlphuman.preparation.findings import report_folder, write_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments) -> (exit status, what was printed)."""
    spec = importlib.util.spec_from_file_location(
        "check_capture_script", ROOT / "script" / "check_capture.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["check_capture.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            script.run_command(lambda: script.main(script.parse_arguments()))
        printed = capsys.readouterr()
        return ended.value.code, printed.out + printed.err

    return run


def test_sound_capture(command, clean_check_captures, synthetic_body, tmp_path):
    root, out = clean_check_captures("avatarrex"), tmp_path / "out"
    status, printed = command("--data_dir", root, "--smpl_path", synthetic_body, "--frames", 3, "--out", out)
    assert status == 0 and printed.strip().splitlines()[-1] == "sound: no error, no warning"
    report = json.loads((out / "report.json").read_text())
    assert report["result"] == "ok" and len(report["fits"]) == 3 * CAMERAS
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert sheet is not None and sheet.std() > 10
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "output.json", "report.json"]


def test_warnings_and_errors(command, capture_copy, synthetic_body, tmp_path):
    arguments = (
        "--data_dir",
        capture_copy,
        "--smpl_path",
        synthetic_body,
        "--frames",
        2,
        "--out",
        tmp_path / "out",
    )
    (capture_copy / "22010701" / "00000002.jpg").unlink()
    status, printed = command(*arguments)
    assert status == 2 and "look at 1 warning(s) first" in printed.splitlines()[-1]
    (capture_copy / "calibration_full.json").write_text("{")
    status, printed = command(*arguments)
    assert status == 1 and "not ready to train: 1 error(s)" in printed.splitlines()[-1]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["result"] == "error"
    assert not (tmp_path / "out" / "contact_sheet.png").exists()  # of the run before: it would mislead


def test_refusals(command, capture_copy, synthetic_body, tmp_path):
    body = ("--smpl_path", synthetic_body)
    status, printed = command("--data_dir", capture_copy, *body, "--out", capture_copy / "report")
    assert status == 1 and "lies in the capture" in printed and len(printed.splitlines()) == 1
    assert not (capture_copy / "report").exists()
    status, printed = command("--data_dir", tmp_path / "absent", *body, "--out", tmp_path / "out")
    assert status == 1 and "does not exist" in printed
    status, printed = command("--data_dir", capture_copy, *body, "--out", tmp_path / "out", "--frames", -1)
    assert status == 1 and "--frames -1" in printed


def test_reports_of_captures_of_one_name_do_not_mix(tmp_path):
    first, second = tmp_path / "a" / "subject", tmp_path / "b" / "subject"
    for capture in (first, second, first, second):  # each finds its own again
        write_report(report_folder(tmp_path, capture) / "report.json", capture, [], {})
    reports = {folder.name: json.loads((folder / "report.json").read_text()) for folder in tmp_path.glob("*")}
    assert {name: report["capture"] for name, report in reports.items()} == {
        "check_subject": str(first),
        "check_subject_2": str(second),
    }
    (tmp_path / "check_subject" / "report.json").write_text("[1")  # damaged: nobody's
    assert report_folder(tmp_path, second).name == "check_subject"


@pytest.mark.parametrize("place", ["cam01.MP4", "videos/cam01.mov"])
def test_a_folder_of_videos_is_told_which_command_to_run(tmp_path, synthetic_body, place):
    folder = tmp_path / "my footage"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_bytes(b"")
    wanted = rf"holds videos \({place}\).*: python script/fit_capture.py --data_dir '{folder}'$"
    with pytest.raises(ValueError, match=wanted):
        check_capture(folder, synthetic_body, 0)
    with pytest.raises(ValueError, match=wanted):
        open_capture(folder)
