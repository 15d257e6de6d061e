"""What a word of --cam_path means: an id, a camera file, a list of them, a camera of any calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from mmlphuman.animation.camera_choice import choose_cameras
from mmlphuman.animation.camera_file import CameraView, camera_to_json, write_camera_file
from tests.calibrations.written_forms import (
    some_cameras,
    write_colmap,
    write_easymocap,
    write_json,
    write_transforms,
)


def view(number: int = 0) -> CameraView:
    w2c = np.eye(4)
    w2c[2, 3] = 3 + number
    return CameraView(w2c, 40.0 + number, 64, 48)


def listed(*ids: int, trained=lambda number: True) -> list[dict]:
    K = [80.0, 0, 30, 0, 80, 20, 0, 0, 1]
    return [
        camera_to_json(view(number)) | {"id": number, "K": K, "trained": trained(number)} for number in ids
    ]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "checkpoints" / "iteration_00000006").mkdir(parents=True)
    (folder / "cameras.json").write_text(json.dumps(listed(0, 1, 2, 8, trained=lambda number: number < 3)))
    return folder


def test_a_number_is_any_camera_of_the_models_capture(model):
    """Held-out ones too, with the calibration's K; of a checkpoint's folder as well."""
    for path in (model, model / "checkpoints" / "iteration_00000006"):
        for word in ("1", "8"):
            (found,) = choose_cameras(word, path)
            assert found.w2c[2, 3] == 3 + int(word) and found.intrinsics[0, 2] == 30
    with pytest.raises(ValueError, match=r"--cam_path 5: .* has the cameras 0-2, 8"):
        choose_cameras("5", model)
    with pytest.raises(ValueError, match=r"--cam_path 5: .*elsewhere: holds no cameras.json"):
        choose_cameras("5", model.parent / "elsewhere")


def test_a_compact_file_has_its_cameras(tmp_path):
    path = tmp_path / "avatar.safetensors"
    tensors = {"a": np.zeros(1, np.float32)}
    safetensors.numpy.save_file(tensors, path, {"cameras": json.dumps(listed(0, 8))})
    assert choose_cameras("8", path)[0].fovx == 48
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(
        ValueError, match=r"avatar.safetensors: holds no cameras; make it anew with script/compact.py"
    ):
        choose_cameras("8", path)
    for content in ("[", "[1]", '[{"id": 0}]', "[" * 5000):
        safetensors.numpy.save_file(tensors, path, {"cameras": content})
        with pytest.raises(ValueError, match="--cam_path 8: .*avatar.safetensors") as caught:
            choose_cameras("8", path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read"):
        choose_cameras("8", path)


def test_camera_files_and_lists_of_them(tmp_path, model):
    write_camera_file(tmp_path / "cam.json", view(2))
    assert choose_cameras(tmp_path / "cam.json", model)[0].fovx == 42
    (tmp_path / "list.json").write_text(json.dumps([camera_to_json(view(i)) for i in range(3)]))
    assert [found.fovx for found in choose_cameras(str(tmp_path / "list.json"), model)] == [40, 41, 42]
    assert [found.fovx for found in choose_cameras(f"{tmp_path / 'list.json'}#1", model)] == [41]
    assert [found.fovx for found in choose_cameras(f"{model / 'cameras.json'}#8", model)] == [48]
    with pytest.raises(ValueError, match=r"list.json: has no camera '3'; it has 0-2"):
        choose_cameras(f"{tmp_path / 'list.json'}#3", model)
    with pytest.raises(ValueError, match=r"cam.json: is one camera; leave out '#1'"):
        choose_cameras(f"{tmp_path / 'cam.json'}#1", model)
    with pytest.raises(FileNotFoundError, match="absent.json: no such file"):
        choose_cameras(f"{tmp_path / 'absent.json'}#1", model)
    (tmp_path / "odd#1.json").write_text(json.dumps(camera_to_json(view(1))))
    assert choose_cameras(str(tmp_path / "odd#1.json"), model)[0].fovx == 41


@pytest.mark.parametrize("form", ["calibration.json", "transforms.json", "colmap", "easymocap"])
def test_a_camera_of_a_calibration(tmp_path, model, form):
    truth = some_cameras(3, (0.0,) * 5)
    path = tmp_path / form
    if form == "colmap":
        write_colmap(path / "sparse" / "0", truth)
    elif form == "easymocap":
        write_easymocap(path, truth)
    else:
        (write_json if form == "calibration.json" else write_transforms)(path, truth)
    for word in (f"{path}#1", f"{path}#cam02"):
        (found,) = choose_cameras(word, model)
        np.testing.assert_allclose(found.intrinsics, truth[1].K, atol=1e-9)
        np.testing.assert_allclose(found.w2c[:3, 3], truth[1].T, atol=1e-9)
        assert (found.width, found.height) == (640, 480)
        assert np.tan(np.radians(found.fovx) / 2) == pytest.approx(320 / truth[1].K[0, 0])
    (small,) = choose_cameras(f"{path}#1", model, width=320, height=240)
    assert (small.width, small.height) == (320, 240) and small.intrinsics[0, 0] == pytest.approx(
        truth[1].K[0, 0] / 2
    )
    with pytest.raises(
        ValueError, match=rf"{form}.*: say which one: .*#ID, a position from 0 to 2 or a name \(cam01, cam02"
    ):
        choose_cameras(str(path), model)
    with pytest.raises(ValueError, match=r"has no camera '7'; say which"):
        choose_cameras(f"{path}#7", model)


def test_the_only_camera_of_a_calibration_needs_no_name(tmp_path, model):
    write_transforms(tmp_path / "transforms.json", some_cameras(1))
    assert choose_cameras(str(tmp_path / "transforms.json"), model)[0].width == 640


def test_a_calibration_without_sizes(tmp_path, model):
    truth = some_cameras(2)
    write_easymocap(tmp_path, truth, with_size=False)
    with pytest.raises(ValueError, match=r"camera 'cam01' has no image size; give --width and --height"):
        choose_cameras(f"{tmp_path}#0", model)
    (found,) = choose_cameras(f"{tmp_path}#0", model, width=640, height=480)
    assert found.intrinsics[0, 0] == pytest.approx(truth[0].K[0, 0])


@pytest.mark.parametrize(("changes", "parts"), [
    ({"w2c": ...}, ["w2c is missing, where the camera stands", "viewer", "--width", "docs/cameras.md"]),
    ({"fovx": 0.698, "K": ...}, ["fovx is 0.698 degrees, a keyhole; is it in radians? Then 39.9925 degrees"]),
    ({"fovx": 0.698, "K": [88, 0, 32, 0, 88, 24, 0, 0, 1]}, ["in radians"]),
])  # fmt: skip
def test_help_with_what_people_write(tmp_path, model, changes, parts):
    content = {key: value for key, value in (camera_to_json(view()) | changes).items() if value is not ...}
    path = tmp_path / "cam.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="cam.json") as caught:
        choose_cameras(path, model)
    for part in parts:
        assert part in str(caught.value)


def test_a_camera_that_is_narrow_indeed(tmp_path, model):
    narrow = CameraView(view().w2c, 1.5, 64, 48)
    write_camera_file(tmp_path / "cam.json", narrow)
    assert choose_cameras(tmp_path / "cam.json", model)[0].fovx == 1.5
