"""Before the first step: what a repeatable run may use, a model folder that is whole and takes one run at a time."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mmlphuman.capture.dataset import training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.training.resume import resume_run
from mmlphuman.training.run_setup import (
    LOCK_NAME,
    apply_determinism,
    build_scene,
    create_model_folder,
    lock_run,
    never_switched_on,
    read_one_of_each_camera,
    refuse_occupied,
    write_run_record,
)
from tests.tiny_run import tiny_settings
from tests.training.test_loop import assert_same_state, fresh, run

HOLD = """
import sys, time
from pathlib import Path
from mmlphuman.training.run_setup import lock_run
lock_run(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def switched_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [True, False])
def test_two_runs_on_a_cpu_are_equal_bit_for_bit(tiny_config, capture, tmp_path, deterministic):
    config = apply_determinism(replace(tiny_config, deterministic=deterministic))
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert_same_state(*(run(fresh(config, capture), tmp_path / name) for name in ("one", "two")))


def test_only_what_can_be_repeated_is_used():
    config = apply_determinism(default_config(deterministic=True))
    assert (config.kernels, config.rasterizer) == ("plain", "torch")
    assert apply_determinism(default_config()) == default_config()


def test_a_rasteriser_that_cannot_is_refused_with_one_line():
    with pytest.raises(ValueError, match="deterministic: gsplat.*rasterizer: torch") as error:
        apply_determinism(default_config(deterministic=True, rasterizer="gsplat"))
    assert "\n" not in str(error.value)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("face", [False, True])
@pytest.mark.parametrize("expression", ["moves", "still", "none"])
def test_mlps_see_an_expression_that_moves_where_the_face_is_asked_for(
    tiny_config, capture, tmp_path, face, expression
):
    """Else the run is the same bit for bit as one without it."""
    config, own = replace(tiny_config, iterations=1), tmp_path / "capture"
    shutil.copytree(capture, own)
    with np.load(own / "smpl_params.npz") as file:
        arrays = {key: array for key, array in file.items() if key != "expression"}
    frames = len(arrays["transl"])
    if expression != "none":
        still = np.full((frames, 10), 0.3, np.float32)
        arrays["expression"] = still + (expression == "moves") * np.linspace(0, 1, frames)[:, None]
    arrays["jaw_pose"] = np.zeros((frames, 3), np.float32)
    np.savez(own / "smpl_params.npz", **arrays)
    scene, before = build_scene(replace(config, face=face), own), build_scene(config, capture)
    inputs, seen = scene.avatar.mlp_inputs, before.avatar.mlp_inputs
    assert (inputs.max() > 165) == (face and expression == "moves")
    poses = scene.pose_space.training_poses[:, 165:]
    assert poses.any() == (face and expression != "none")
    if inputs.max() > 165:
        assert torch.equal(inputs[:, :-10], seen)
    else:
        for name, value in before.avatar.state_dict().items():
            assert torch.equal(scene.avatar.state_dict()[name], value), name


def test_a_weight_volume_is_made_only_where_it_is_needed(tiny_config, capture):
    """On the body's own mesh exact weights need none; a template, and the published method, do."""
    path, template = capture / "gaussian" / "lbs_weights_grid.npz", capture / "gaussian" / "template.ply"
    path.unlink(missing_ok=True)  # of other tests
    exact = build_scene(tiny_config, capture)
    assert not path.exists()
    read = build_scene(replace(tiny_config, skinning_weights="volume"), capture)
    assert path.exists()
    weights = exact.avatar.lbs_weights, read.avatar.lbs_weights
    assert torch.equal(exact.avatar.xyz, read.avatar.xyz) and not torch.equal(*weights)
    path.unlink()
    exact.template.export(template)
    try:
        build_scene(tiny_config, capture)
        assert path.exists()
    finally:
        template.unlink()
        path.unlink()


def test_a_model_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"

    def fail(folder):
        (folder / "config.yaml").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        create_model_folder(target, fail)
    assert list(tmp_path.iterdir()) == []
    target.mkdir()  # an empty folder is welcome
    create_model_folder(target, lambda folder: (folder / "config.yaml").write_text("whole"))
    assert (target / "config.yaml").read_text() == "whole"
    with pytest.raises(ValueError, match="is not empty; choose another folder"):
        refuse_occupied(target)
    (tmp_path / "link").symlink_to("elsewhere")  # to another disk, say
    create_model_folder(tmp_path / "link", lambda folder: (folder / "config.yaml").write_text("whole"))
    assert (tmp_path / "elsewhere" / "config.yaml").is_file() and (tmp_path / "link").is_symlink()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"is being trained by process {other.pid} on "):
            lock_run(tmp_path)
    finally:
        other.kill()
        other.wait()
    time.sleep(0.1)
    lock_run(tmp_path)
    assert "process" in (tmp_path / LOCK_NAME).read_text()


def test_useless_masks_are_refused_before_the_first_step(tiny_config, capture, tmp_path):
    copy = shutil.copytree(capture, tmp_path / "capture")
    layout = open_capture(copy)
    for frame in range(24):
        path = layout.mask_path(1, frame)
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 255)
    with pytest.raises(ValueError, match=r"^camera 1: mask .* shows nobody: no value is above \d,") as error:
        build_scene(tiny_config, copy)
    assert "\n" not in str(error.value)
    others = training_dataset(
        replace(tiny_config, train_cam_ids=[0, 2]), layout, read_smpl_params(layout.pose_path)
    )
    read_one_of_each_camera(others)


AWAY = {
    "turned about": lambda camera: camera | {"R": turned(camera["R"]), "T": turned(camera["T"])},
    "another unit": lambda camera: camera | {"T": [1000 * number for number in np.ravel(camera["T"])]},
}


def turned(numbers) -> list[float]:
    """Of a camera that looks the other way: half a turn about its y axis."""
    return (np.diag([-1, 1, -1]) @ np.array(numbers, float).reshape(3, -1)).ravel().tolist()


@pytest.mark.parametrize("fault", AWAY)
def test_a_camera_that_looks_elsewhere_is_refused_before_the_first_step(
    tiny_config, capture, tmp_path, fault
):
    copy = shutil.copytree(capture, tmp_path / "capture")
    edit_calibration(
        lambda entries: {
            name: AWAY[fault](camera) if name[-1] == "1" else camera for name, camera in entries.items()
        }
    )(copy)
    with pytest.raises(
        ValueError, match=r"^camera 1: in frame 0 the mask lies \d+ degrees from where"
    ) as error:
        build_scene(tiny_config, copy)
    assert "\n" not in str(error.value)


def edit_calibration(change):
    def edit(root):
        path = root / "calibration_full.json"
        entries = json.loads(path.read_text())
        path.write_text(json.dumps(change(entries) or entries))

    return edit


def edit_poses(**changes):
    def edit(root):
        with np.load(root / "smpl_params.npz") as archive:
            arrays = dict(archive)
        np.savez(root / "smpl_params.npz", **arrays | {k: change(arrays[k]) for k, change in changes.items()})

    return edit


def first_camera(entries):
    return entries[min(entries)]


OTHER_CAPTURES = {
    "a camera moved": (
        edit_calibration(lambda entries: first_camera(entries)["T"].__setitem__(2, 9.0)),
        r"camera 0 \(.*\) stands \d[.\d]* m from where it stood",
    ),
    "reordered": (
        edit_calibration(lambda entries: dict(reversed(entries.items()))),
        r"camera 0 \(.*\) stands .* from where it stood",
    ),
    "another focal length": (
        edit_calibration(lambda entries: first_camera(entries)["K"].__setitem__(0, 99.0)),
        "camera 0 .* has another K",
    ),
    "another lens": (
        edit_calibration(lambda entries: first_camera(entries)["distCoeff"].__setitem__(0, 0.01)),
        "camera 0 .* has another name or distortion",
    ),
    "poses reversed": (edit_poses(body_pose=lambda poses: poses[::-1]), "smpl_params.npz has other poses"),
    "betas": (edit_poses(betas=lambda betas: betas + 0.1), "smpl_params.npz has other betas"),
    "translations": (edit_poses(transl=lambda places: places * 2), "smpl_params.npz has other translations"),
}


@pytest.fixture(scope="module")
def begun(capture, synthetic_body, tmp_path_factory):
    """A model folder with its record and its first checkpoint."""
    folder = tmp_path_factory.mktemp("begun")
    config = tiny_settings(synthetic_body, num_workers=0)
    trainer = fresh(config, capture)
    write_run_record(folder, config, capture, trainer.scene)
    trainer.save(folder)
    return folder, config


@pytest.mark.parametrize("change", OTHER_CAPTURES)
def test_another_capture_than_the_run_began_with_is_one_line_and_can_be_allowed(
    begun, capture, tmp_path, change
):
    (folder, config), (edit, message) = begun, OTHER_CAPTURES[change]
    copy, cpu = shutil.copytree(capture, tmp_path / "capture"), torch.device("cpu")
    assert resume_run(config, copy, folder, None, cpu).iteration == 0
    edit(copy)
    with pytest.raises(ValueError, match=f"is not the capture .*: {message}; .*--other_capture$") as error:
        resume_run(config, copy, folder, None, cpu)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert resume_run(config, copy, folder, None, cpu, other_capture=True).iteration == 0


def test_parts_whose_turn_never_comes_are_named(synthetic_body):
    config = replace(tiny_settings(synthetic_body), iterations=100, lambda_lpips=0.0, iteration_lpips=500)
    config = replace(config, iteration_dxyz_basis=99, iteration_gsparam_basis=100, iteration_sh_degree=500)
    assert never_switched_on(config) == ["iteration_gsparam_basis=100", "iteration_sh_degree=500"]
    assert "iteration_lpips=500" in never_switched_on(replace(config, lambda_lpips=0.1))


@pytest.mark.parametrize("name", ["run.json", "cameras.json", "poses.npz"])
def test_a_record_that_is_no_plain_file_is_not_passed_over(begun, capture, tmp_path, name):
    folder, config = begun
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / name).unlink()
    assert resume_run(config, capture, copy, None, torch.device("cpu")).iteration == 0, (
        "no record is nothing to compare"
    )
    os.mkfifo(copy / name)
    with pytest.raises(ValueError, match=f"{name}: not a plain file"):
        resume_run(config, capture, copy, None, torch.device("cpu"))


def test_of_several_starts_in_one_folder_one_wins_and_the_others_say_why(tmp_path):
    target, starting = tmp_path / "model", tmp_path / f".model.unfinished-{os.getppid()}"
    starting.mkdir()
    (starting / "config.yaml").touch()

    def overtaken(folder):
        (folder / "config.yaml").touch()
        target.mkdir()
        (target / "run.json").touch()

    with pytest.raises(ValueError, match="another run has just begun in --out_dir .*model; choose") as error:
        create_model_folder(target, overtaken)
    assert "\n" not in str(error.value)
    assert (starting / "config.yaml").exists(), "of a start that goes on"
    assert {path.name for path in tmp_path.iterdir()} == {"model", starting.name}
