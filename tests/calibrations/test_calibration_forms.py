"""Every form of calibration gives the very cameras it was written of, and says in one line what is wrong with it."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from written_forms import (
    fovx,
    some_cameras,
    write_colmap,
    write_easymocap,
    write_json,
    write_mvhumannet,
    write_qualisys,
    write_toml,
    write_transforms,
    write_zju,
)

from mmlphuman.calibrations.forms import read_calibration

OPENCV = (-0.2, 0.05, 0.001, -0.002, 0.0)
RATIONAL = (0.1, -0.2, 0.001, 0.002, 0.03, 0.2, -0.1, 0.05)
PRISM = (*RATIONAL, 0.001, -0.001, 0.002, 0.003)


def assert_same(read, truth, rtol: float = 1e-9) -> None:
    for camera, true in zip(read, truth, strict=True):
        assert camera.name == true.name and camera.half_pixel
        np.testing.assert_allclose(camera.K, true.K, rtol=rtol)
        np.testing.assert_allclose(camera.R, true.R, atol=rtol)
        np.testing.assert_allclose(camera.T, true.T, atol=rtol)
        expected = np.zeros(len(camera.dist))
        expected[: len(true.dist)] = true.dist
        np.testing.assert_allclose(camera.dist, expected, atol=rtol)


def centred(cameras):
    """MVHumanNet has one K for all, its principal point in the middle."""
    width, height = cameras[0].size
    K = np.array([[600.0, 0, width / 2], [0, 600, height / 2], [0, 0, 1]])
    return [replace(camera, K=K, dist=np.zeros(5)) for camera in cameras]


@pytest.mark.parametrize("ending", ["bin", "txt"])
@pytest.mark.parametrize("dist", [(0,) * 5, OPENCV, RATIONAL])
def test_colmap(tmp_path, ending, dist):
    truth = some_cameras(4, dist)
    write_colmap(tmp_path / "sparse" / "0", truth, ending)
    for path in (tmp_path, tmp_path / "sparse" / "0", tmp_path / "sparse" / "0" / f"images.{ending}"):
        read = read_calibration(path)
        assert_same(read.cameras, truth)
        assert not read.is_metric and [camera.image_size for camera in read.cameras] == [(640, 480)] * 4


@pytest.mark.parametrize(("model", "parameters", "dist"), [
    (0, [500, 320, 240], [0, 0, 0, 0, 0]), (2, [500, 320, 240, 0.1], [0.1, 0, 0, 0, 0]),
    (3, [500, 320, 240, 0.1, -0.2], [0.1, -0.2, 0, 0, 0]),
])  # fmt: skip
def test_colmap_lenses_with_one_focal_length(tmp_path, model, parameters, dist):
    write_colmap(tmp_path, some_cameras(1))
    lens = struct.pack("<QiiQQ", 1, 1, model, 640, 480) + struct.pack(f"<{len(parameters)}d", *parameters)
    (tmp_path / "cameras.bin").write_bytes(lens)
    (camera,) = read_calibration(tmp_path).cameras
    assert camera.K.tolist() == [[500, 0, 320], [0, 500, 240], [0, 0, 1]] and camera.dist.tolist() == dist


def test_colmap_folders_are_cameras_that_stand_still(tmp_path):
    truth = some_cameras(2, (0,) * 5)
    twice = [replace(camera, name=f"{camera.name}/{frame:04d}") for camera in truth for frame in range(3)]
    write_colmap(tmp_path, twice)
    assert_same(read_calibration(tmp_path).cameras, truth)
    twice[4] = replace(twice[4], T=twice[4].T + 0.1)
    write_colmap(tmp_path, twice)
    with pytest.raises(ValueError, match=r"camera 'cam02' has several poses .*cam02/0000.jpg"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("with_rotation_matrix", [True, False])
@pytest.mark.parametrize("dist", [OPENCV[:4], OPENCV, RATIONAL, PRISM])
def test_easymocap(tmp_path, with_rotation_matrix, dist):
    truth = some_cameras(3, dist)
    write_easymocap(tmp_path, truth, with_rotation_matrix)
    for path in (tmp_path, tmp_path / "intri.yml", tmp_path / "extri.yml"):
        read = read_calibration(path)
        assert_same(read.cameras, truth)
        assert read.is_metric and read.cameras[0].image_size == (640, 480)
    write_easymocap(tmp_path, truth, with_size=False)
    assert read_calibration(tmp_path).cameras[0].image_size is None


def test_easymocap_as_its_own_program_writes_it(tmp_path):
    """Numbers as text of few digits, camera names of digits, other line ends."""
    matrix = "{}: !!opencv-matrix\r\n  rows: {}\r\n  cols: {}\r\n  dt: d\r\n  data: [{}]\r\n"
    names = '%YAML:1.0\r\n---\r\nnames:\r\n  - "01"\r\n'
    eye = "1.000, 0.000, 0.000, 0.000, 1.000, 0.000, 0.000, 0.000, 1.000"
    (tmp_path / "intri.yml").write_text(
        names + matrix.format("K_01", 3, 3, "600.000, 0.000, 319.500, 0.000, 600.000, 239.500, 0.000, 0.000, 1.000")
        + matrix.format("dist_01", 1, 5, "1e-05, 0., -.5, 0.000, 0.000")
    )  # fmt: skip
    (tmp_path / "extri.yml").write_text(
        names + matrix.format("Rot_01", 3, 3, eye) + matrix.format("T_01", 3, 1, "0, 0, 3")
    )
    (camera,) = read_calibration(tmp_path).cameras
    assert (
        camera.name == "01"
        and camera.K[:2, 2].tolist() == [320, 240]
        and camera.dist.tolist() == [1e-5, 0, -0.5, 0, 0]
    )
    assert camera.T.tolist() == [0, 0, 3]


def test_toml(tmp_path):
    for dist in (OPENCV[:4], OPENCV):
        truth = some_cameras(3, dist)
        write_toml(tmp_path / "Calib_scene.toml", truth)
        assert_same(read_calibration(tmp_path).cameras, truth)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (16, 40)])
def test_qualisys(tmp_path, left, top):
    truth = some_cameras(3)
    write_qualisys(tmp_path / "Calib.qca.txt", truth, left, top)
    read = read_calibration(tmp_path)
    assert_same(read.cameras, truth)
    assert read.cameras[0].image_size == (640, 480)


def test_transforms(tmp_path):
    truth = some_cameras(3)
    write_transforms(tmp_path / "transforms.json", truth)
    read = read_calibration(tmp_path)
    assert_same(read.cameras, truth)
    assert read.image_folder == "images" and not read.is_metric


def test_transforms_of_an_angle_and_pictures_that_tell_their_size(tmp_path):
    truth = centred(some_cameras(2))
    write_transforms(tmp_path / "transforms_train.json", truth, lambda camera: f"./train/{camera.name}")
    content = json.loads((tmp_path / "transforms_train.json").read_text())
    frames = [{key: frame[key] for key in ("file_path", "transform_matrix")} for frame in content["frames"]]
    (tmp_path / "transforms_train.json").write_text(
        json.dumps({"camera_angle_x": fovx(truth[0]), "frames": frames})
    )
    with pytest.raises(
        ValueError, match=r"frame 0: w and h are missing, and so is the picture .*train/cam01"
    ):
        read_calibration(tmp_path)
    (tmp_path / "train").mkdir()
    for camera in truth:
        cv2.imwrite(str(tmp_path / "train" / f"{camera.name}.png"), np.zeros((480, 640, 3), np.uint8))
    assert_same(read_calibration(tmp_path).cameras, truth)


def test_mvhumannet(tmp_path):
    truth = centred(some_cameras(3))
    write_mvhumannet(tmp_path, truth)
    read = read_calibration(tmp_path)
    assert_same(read.cameras, truth)
    assert read.cameras[0].image_size == (640, 480)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_zju(tmp_path, protocol):
    truth = some_cameras(3)
    write_zju(tmp_path, truth, frames=2, protocol=protocol)
    read = read_calibration(tmp_path)
    assert_same(read.cameras, truth)
    assert read.pictures[1] == ("cam02/000000.jpg", "cam02/000001.jpg")


def test_published_layouts_are_taken_as_they_are(tmp_path):
    truth = some_cameras(2)
    write_json(tmp_path / "calibration.json", truth)
    for camera, true in zip(read_calibration(tmp_path).cameras, truth, strict=True):
        assert camera.K.tolist() == true.K.tolist() and not camera.half_pixel


# --- what is wrong, in one line -----------------------------------------------------------------------------------


def edited(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_nothing_known_and_several(tmp_path):
    with pytest.raises(ValueError, match=r"no calibration that is known here; known are COLMAP"):
        read_calibration(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_calibration(tmp_path / "absent.toml")
    write_toml(tmp_path / "Calib.toml", some_cameras(1))
    write_qualisys(tmp_path / "Calib.qca.txt", some_cameras(1))
    with pytest.raises(ValueError, match=r"several calibrations, Calib.qca.txt, Calib.toml; name the one"):
        read_calibration(tmp_path)
    assert read_calibration(tmp_path / "Calib.toml").cameras[0].name == "cam01"


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p.write_bytes(p.read_bytes()[:50]), r"cameras.bin: ends too early"),
    (lambda p: (images := p.with_name("images.bin")).write_bytes(images.read_bytes()[:100]), "images.bin: ends"),
    (lambda p: p.with_name("images.bin").unlink(), r"images.bin: no such file; a model of COLMAP has cameras.bin and"),
    (lambda p: p.write_bytes(struct.pack("<QiiQQ", 1, 1, 5, 640, 480)), r"model OPENCV_FISHEYE .*image_undistorter"),
    (lambda p: p.write_bytes(struct.pack("<QiiQQ", 1, 1, 77, 640, 480)), r"camera 1: model number 77"),
    (lambda p: p.write_bytes(struct.pack("<Q", 2**60)), r"cameras.bin: ends too early"),
    (lambda p: p.write_bytes(struct.pack("<Q", 0)), r"picture 'cam01.jpg' is of camera 1, which cameras.bin lacks"),
    (lambda p: p.with_name("images.bin").write_bytes(struct.pack("<Q", 0)), r"holds no picture"),
])  # fmt: skip
def test_faults_of_colmap(tmp_path, change, message):
    write_colmap(tmp_path, some_cameras(2))
    change(tmp_path / "cameras.bin")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_calibration(tmp_path / "cameras.bin")
    assert "\n" not in str(caught.value)


def test_faults_of_colmap_text(tmp_path):
    write_colmap(tmp_path, some_cameras(1), "txt")
    edited(tmp_path / "cameras.txt", "640", "wide")
    with pytest.raises(ValueError, match=r"cameras.txt: line 2: .* is no number"):
        read_calibration(tmp_path)
    write_colmap(tmp_path, some_cameras(1), "txt")
    (tmp_path / "images.txt").write_text("1 2 3\n\n")
    with pytest.raises(ValueError, match=r"images.txt: line 1 needs IMAGE_ID QW"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(("file", "old", "new", "message"), [
    ("intri.yml", "K_cam02", "K_other", "intri.yml: K_cam02 is missing"),
    ("extri.yml", "T_cam01", "T_other", "extri.yml: T_cam01 is missing"),
    ("intri.yml", "names", "nomes", None),  # extri.yml has them, too
    ("intri.yml", "data: [ 600.", "data: [ [600.], 600.", "K_cam01 must be 9 numbers"),
    ("intri.yml", "data: [ 600.", "data: [ .Nan, 600.", "K_cam01"),
    ("extri.yml", "Rot_cam01: !!opencv-matrix", "Rot_cam01: 3\nother: !!opencv-matrix", "Rot_cam01 must be a matrix"),
    ("extri.yml", "%YAML", "[" * 3000, "not readable as OpenCV's YAML"),
    ("extri.yml", "Rot_cam01: !!opencv-matrix", "Rot_cam01: !!python/object/apply:os.system", "Rot_cam01"),
])  # fmt: skip
def test_faults_of_easymocap(tmp_path, file, old, new, message):
    write_easymocap(tmp_path, some_cameras(2))
    edited(tmp_path / file, old, new)
    if message is None:
        assert len(read_calibration(tmp_path).cameras) == 2
        return
    if "python" in new:  # a tag is a word like another: the matrix is read, nothing is called
        assert len(read_calibration(tmp_path).cameras) == 2
        return
    with pytest.raises(ValueError, match=message):
        read_calibration(tmp_path)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("fisheye = false", "fisheye = true", "camera 'cam_0' is a fisheye"),
    ("fisheye = false", "rotation_count = 1", "rotation_count is 1"),
    ("rotation =", "turn =", "camera 'cam_0': rotation is missing"),
    ("matrix = [ [", "matrix = [ [1, ", "matrix must be 9 numbers, got 10"),
    ("distortions = [", "distortions = [1, ", "distortions must be 0, 4, 5, 8 or 12 numbers, got 6"),
    ("[cam_0]", "[cam_0", "not readable as TOML"),
])  # fmt: skip
def test_faults_of_toml(tmp_path, old, new, message):
    path = tmp_path / "Calib.toml"
    write_toml(path, some_cameras(2))
    edited(path, old, new)
    with pytest.raises(ValueError, match=message):
        read_calibration(path)


@pytest.mark.parametrize(("old", "new", "message"), [
    ('r11="', 'q11="', "camera 'cam01': transform: r11 is missing"),
    ("<fov_video", "<fov_other", "camera 'cam01': fov_video is missing"),
    ('x="', 'x="far', "transform: x must be a number"),
    ("<calibration>", "<calibration", "not readable as XML"),
    ("<calibration>", '<!DOCTYPE a [<!ENTITY b "c">]><calibration>', "defines entities"),
    ("Miqus Video", "Arqus", None),
])  # fmt: skip
def test_faults_of_qualisys(tmp_path, old, new, message):
    path = tmp_path / "Calib.qca.txt"
    write_qualisys(path, some_cameras(2))
    if message is None:  # a camera that only sees markers is none of ours
        edited(path, old, new)
        assert [camera.name for camera in read_calibration(path).cameras] == ["cam02"]
        return
    text = path.read_text().replace('<transform x="0"/>', "")
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_calibration(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"transform_matrix": [1] * 16}, "frame 0: transform_matrix is not rigid"),
    ({"transform_matrix": ...}, "frame 0: transform_matrix is missing"),
    ({"camera_model": "OPENCV_FISHEYE"}, "frame 0: camera_model 'OPENCV_FISHEYE' is not known"),
    ({"k4": 0.1}, "frame 0: k4 is not 0"),
    ({"fl_x": ..., "fl_y": ..., "camera_angle_x": 40}, "camera_angle_x is 40; radians"),
    ({"fl_x": 1e9}, "focal lengths"),
    ({"file_path": 3}, "frame 0 must be an object with file_path"),
])  # fmt: skip
def test_faults_of_transforms(tmp_path, changes, message):
    path = tmp_path / "transforms.json"
    write_transforms(path, some_cameras(2))
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content["frames"][0][key] = value
        if value is ...:
            del content["frames"][0][key]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_calibration(path)
