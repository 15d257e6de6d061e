"""script/compare_variants.py: a tiny study from the capture to the tables, going on, what fails, and wrong use."""

import csv
import importlib.util
import json
import os
import shutil
import sys
from unittest import mock

import pytest

from mmlphuman.picture_files import image_name
from tests.commands.runs import ROOT, call_here, one_error_line

COMMAND = "script/compare_variants.py"
STUDY = """
subjects:
  tiny:
    data_dir: CAPTURE
    smpl_path: BODY
    settings: {device: cpu, train_cam_ids: [0, 1], num_train_frame: 24, num_workers: 0, edge_radius: 1,
      weight_volume_resolution: 16, init_num_gs: 400, num_verts: 60, num_features: 8, pca_components: 5,
      lambda_lpips: 0, vgg_path: none.pth, iterations: 4, iteration_dxyz_basis: 1, iteration_gsparam_basis: 1}
    sets:
      views: {cam_ids: [3], num_frame: 2, frame_interval: 4}
      near: {cam_ids: [2, 3], begin_ith_frame: 24, num_frame: 2}
variants:
  default: {test_mode: [clamp, none]}
  static: {settings: {iteration_dxyz_basis: 1000, iteration_gsparam_basis: 1000}}
"""


@pytest.fixture(scope="module")
def capture(tiny_capture, tmp_path_factory):
    """The tiny capture with ceiling pictures of camera 3: black ones."""
    folder = tmp_path_factory.mktemp("with_ceiling") / "capture"
    shutil.copytree(tiny_capture, folder)
    (folder / "ceiling").mkdir()
    return folder


@pytest.fixture(scope="module")
def study(capture, synthetic_body, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(STUDY.replace("CAPTURE", str(capture)).replace("BODY", str(synthetic_body)))
    return path


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    """The whole study, two runs at once: (folder, what was printed)."""
    out_dir = tmp_path_factory.mktemp("studies") / "out"
    status, printed, errors = call_here(COMMAND, "--study", study, "--out_dir", out_dir, "--jobs", 2)
    assert status == 0, errors
    return out_dir, printed


def lines_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def script():
    spec = importlib.util.spec_from_file_location("compare_variants", ROOT / COMMAND)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_variants"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_scored_and_the_table_is_made_of_it(done):
    out_dir, printed = done
    assert "2 runs, 2 to train, 2 at once" in printed and "tiny/static/seed0: trained in" in printed
    lines = lines_of(out_dir / "scores.csv")
    counted = {}
    for line in lines:
        key = line["variant"], line["set"], line["test_mode"]
        counted[key] = counted.get(key, 0) + 1
        assert 0 < float(line["psnr_inside"]) < 60 and float(line["sharpness"]) >= 0 and line["lpips"] == ""
    assert counted == {
        **{("default", "views", "none"): 2, ("default", "near", "clamp"): 4, ("default", "near", "none"): 4},
        **{("static", "views", "none"): 2, ("static", "near", "clamp"): 4},
    }
    text = (out_dir / "table.txt").read_text()
    assert text in printed and "default, as they are" in text and "(frame 2" in text
    views = [
        float(line["psnr_inside"]) for line in lines if (line["variant"], line["set"]) == ("static", "views")
    ]
    row = next(
        line for line in (out_dir / "table.md").read_text().splitlines() if line.startswith("| static")
    )
    assert row.split("|")[2].strip() == f"{sum(views) / 2:.2f}"


def test_scores_are_those_of_the_evaluation_script(done, capture):
    out_dir, _ = done
    pictures = out_dir / "tiny" / "default" / "seed0" / "pictures" / "near_clamp"
    status, _, errors = call_here(
        *("script/eval.py", "--truth", pictures / "gt", "--render", pictures / "render"),
        *(
            "--mask",
            pictures / "mask",
            "--out_dir",
            out_dir.parent / "eval",
            "device=cpu",
            "vgg_path=none.pth",
        ),
    )
    assert status == 0, errors
    result = json.loads((out_dir.parent / "eval" / "scores.json").read_text())["results"]["render"]
    theirs = {(image["camera"], image["frame"]): image for image in result["images"]}
    ours = [line for line in lines_of(out_dir / "scores.csv") if line["test_mode"] == "clamp"]
    assert len(theirs) == 4
    for line in (line for line in ours if line["variant"] == "default"):
        other = theirs[int(line["camera"]), int(line["frame"])]
        for name in ("psnr", "psnr_inside", "psnr_edge", "ssim", "sharpness"):
            assert float(line[name]) == pytest.approx(other[name], abs=1e-5)


def test_finished_runs_are_kept_and_the_ceiling_comes_in(done, study, capture):
    out_dir, _ = done
    first = {path: path.stat().st_mtime_ns for path in out_dir.rglob("*.pn[gt]")}
    tables = (out_dir / "table.txt").read_text()
    status, printed, errors = call_here(COMMAND, "--study", study, "--out_dir", out_dir)
    assert status == 0, errors
    assert "2 runs, 0 to train" in printed and "trained in" not in printed and "scored in" not in printed
    assert first == {path: path.stat().st_mtime_ns for path in out_dir.rglob("*.pn[gt]")}
    assert (out_dir / "table.txt").read_text() == tables
    # Ceiling pictures of one set; those of the other are not all there.
    (out_dir / "tiny" / "ceiling" / "scored.json").unlink()
    drawn = out_dir / "tiny" / "static" / "seed0" / "pictures" / "views" / "gt"
    for frame in (0, 4):
        shutil.copy(drawn / image_name("gt", 3, frame).name, capture / "ceiling")
    status, printed, _ = call_here(COMMAND, "--study", study, "--out_dir", out_dir)
    assert status == 0 and "no ceiling for near" in printed
    ceiling = [line for line in lines_of(out_dir / "scores.csv") if line["variant"] == "ceiling"]
    assert [(line["set"], line["seed"], line["psnr_inside"]) for line in ceiling] == [
        ("views", "", "inf")
    ] * 2
    assert "ceiling" in (out_dir / "table.txt").read_text()


def test_other_sets_are_scored_again_without_training(done, study):
    out_dir, _ = done
    change = ("subjects.tiny.sets.near.num_frame=1", "variants.default.test_mode=[pca]")
    status, printed, errors = call_here(
        COMMAND, "--study", study, "--out_dir", out_dir, "--variants", "default", *change
    )
    assert status == 0, errors
    assert "0 to train" in printed and "tiny/default/seed0: scored in" in printed
    modes = [line["test_mode"] for line in lines_of(out_dir / "scores.csv") if line["set"] == "near"]
    assert modes == ["pca"] * 2
    pictures = out_dir / "tiny" / "default" / "seed0" / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == ["near_pca", "views"]


def test_a_run_that_was_removed_is_scored_again(done, study, tmp_path):
    """Its scores are those of the model that is there."""
    out_dir = tmp_path / "out"
    shutil.copytree(done[0], out_dir)
    module, folder = script(), out_dir / "tiny" / "static" / "seed0"
    runs = module.runs_of(module.load_study([study]), out_dir)
    assert "static,0" in scores_text(module, study, runs, out_dir)
    shutil.rmtree(folder / "model")
    assert "static,0" not in scores_text(module, study, runs, out_dir)
    with mock.patch.object(module.subprocess, "Popen"):
        module.Training.start(next(run for run in runs if run.variant == "static"), 0, 1)
    assert not (folder / "scored.json").exists()


def scores_text(module, study, runs, out_dir):
    module.write_tables(module.load_study([study]), runs, out_dir)
    return (out_dir / "scores.csv").read_text()


def test_a_run_with_other_settings_is_refused(done, study):
    out_dir, _ = done
    result = call_here(
        COMMAND, "--study", study, "--out_dir", out_dir, "variants.default.settings.light=none"
    )
    one_error_line(result, "default/seed0/model was trained with light: place, now it is none")


def test_what_fails_is_told_and_the_others_go_on(study, tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import sys\nprint('step 1')\nsys.exit('error: no memory')\n")
    module = script()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--study", str(study), "--out_dir", str(tmp_path / "out")])
    with pytest.raises(
        ValueError, match="2 of 2 runs failed, .*tiny/default/seed0: error: no memory .*log.txt"
    ):
        module.main(module.parse_arguments())
    log = (tmp_path / "out" / "tiny" / "static" / "seed0" / "log.txt").read_text()
    assert log.startswith("$ python ") and "--resume --no_viewer" in log and "step 1" in log


def test_a_request_to_stop_reaches_the_trainings(study, tmp_path, monkeypatch):
    """They get SIGTERM, by which train.py saves itself; nothing further is begun."""
    (tmp_path / "train.py").write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(75)))\n"
        f"os.kill({os.getpid()}, signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    module = script()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--study", str(study), "--out_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        module.main(module.parse_arguments())
    assert ended.value.code == 75
    assert "saved" in (tmp_path / "out" / "tiny" / "default" / "seed0" / "log.txt").read_text()
    assert not (tmp_path / "out" / "tiny" / "static").exists()


def test_a_capture_is_made_by_its_own_command(study, tmp_path, monkeypatch):
    module, asked = script(), []

    def make(words, **_):
        asked.append(words)
        return module.subprocess.CompletedProcess(words, 3)

    monkeypatch.setattr(module.subprocess, "run", make)
    words = ["x", "--study", str(study), "--out_dir", str(tmp_path / "out"), "--subjects", "made"]
    made = "subjects.made={make_demo: --size 64 --frames 9, sets: {views: {cam_ids: [1], num_frame: 2}}}"
    monkeypatch.setattr(sys, "argv", [*words, made])
    with pytest.raises(SystemExit) as ended:
        module.main(module.parse_arguments())
    assert ended.value.code == 3
    folder = tmp_path / "out" / "made"
    assert asked[0][2:] == [
        *("--out_dir", str(folder / "capture"), "--smplx_path", str(folder / "SMPLX_NEUTRAL.npz")),
        *("--size", "64", "--frames", "9"),
    ]


def test_trainings_are_shared_out_over_the_gpus(monkeypatch):
    module = script()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [module.gpu_of(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["2", "5", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert module.gpu_of(1) == {}


def test_wrong_use_ends_with_one_line_and_makes_nothing(study, tmp_path):
    out = ("--study", study, "--out_dir", tmp_path / "out")
    one_error_line(call_here(COMMAND, *out, "--jobs", 0), "--jobs 0")
    one_error_line(call_here(COMMAND, *out, "--variants", "dark"), "--variants dark", "default, static")
    one_error_line(call_here(COMMAND, *out, "subjects.tiny.camera=3"), "command line", "camera")
    one_error_line(call_here(COMMAND, "--study", tmp_path / "no.yaml", *out[2:]), "no.yaml does not exist")
    assert not (tmp_path / "out").exists()
    missing = "subjects.tiny.sets.near.num_frame=40"
    one_error_line(call_here(COMMAND, *out, missing), "near", "frame 28 does not exist")
    one_error_line(call_here(COMMAND, *out, f"subjects.tiny.data_dir={tmp_path}/no"), "no does not exist")


def test_list_only_says_what_there_is_to_do(study, tmp_path):
    status, printed, _ = call_here(COMMAND, "--study", study, "--out_dir", tmp_path / "out", "--list")
    assert status == 0 and "tiny/default/seed0: not begun" in printed
    assert not (tmp_path / "out").exists()
