"""Camera files: what comes back, what is made of a file by other programs, and one line for every fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman.animation.camera_file import (
    CameraView,
    camera_from_json,
    camera_to_json,
    read_camera_file,
    read_camera_list,
    write_camera_file,
)

IDENTITY = np.eye(4).ravel().tolist()


def some_view(seed: int = 0, width: int = 640, height: int = 480, fovx: float = 40.0) -> CameraView:
    rng = np.random.default_rng(seed)
    w2c = np.eye(4)
    w2c[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    w2c[:3, 3] = rng.normal(0, 3, 3)
    return CameraView(w2c, fovx, width, height)


def entry(**changes) -> dict:
    """A good camera with fields changed, or removed by `...`."""
    fields = {"w2c": IDENTITY, "K": [1.0] * 9, "fovx": 40.0, "height": 480, "width": 640} | changes
    return {name: value for name, value in fields.items() if value is not ...}


def changed(index: int, value: object, numbers: list = IDENTITY) -> list:
    return [*numbers[:index], value, *numbers[index + 1 :]]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_comes_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    view = some_view(seed, int(rng.integers(1, 16385)), int(rng.integers(1, 16385)), rng.uniform(0.5, 178))
    write_camera_file(tmp_path / "cam.json", view)
    back = read_camera_file(tmp_path / "cam.json")
    np.testing.assert_allclose(back.w2c, view.w2c, rtol=0, atol=1e-9)
    assert back.fovx == view.fovx and (back.width, back.height) == (view.width, view.height)
    np.testing.assert_allclose(back.intrinsics, view.intrinsics, rtol=1e-12)


def test_the_file_is_as_the_format_says(tmp_path):
    view = some_view()
    write_camera_file(tmp_path / "cam.json", view)
    content = json.loads((tmp_path / "cam.json").read_text())
    assert sorted(content) == ["K", "fovx", "height", "w2c", "width"] and content == camera_to_json(view)
    np.testing.assert_array_equal(np.reshape(content["w2c"], (4, 4)), view.w2c)
    np.testing.assert_array_equal(np.reshape(content["K"], (3, 3)), view.intrinsics)
    assert [path.name for path in tmp_path.iterdir()] == ["cam.json"], "nothing half-written is left"


def test_intrinsics_follow_from_the_field_of_view():
    view = some_view(width=640, height=480, fovx=90.0)
    np.testing.assert_allclose(view.intrinsics, [[320, 0, 320], [0, 320, 240], [0, 0, 1]])
    edge = np.array([-math.tan(math.radians(45)), 0, 1])  # the left border of the field of view
    assert (view.intrinsics @ edge)[0] == pytest.approx(0)
    np.testing.assert_allclose(view.w2c @ [*view.center, 1], [0, 0, 0, 1], atol=1e-12)


def test_k_of_a_camera_file_is_not_looked_at(tmp_path):
    for K in (..., None, [9.0] * 9, "text"):
        view = camera_from_json(entry(K=K), "cam")
        np.testing.assert_allclose(view.intrinsics[:2, 2], [320, 240])


def test_rounded_matrices_become_exactly_rigid():
    view = some_view(3)
    rounded = view.w2c.round(4)
    assert np.abs(rounded[:3, :3] @ rounded[:3, :3].T - np.eye(3)).max() > 1e-6
    back = camera_from_json(entry(w2c=rounded.tolist()), "cam").w2c  # nested rows are read as well
    np.testing.assert_allclose(back[:3, :3] @ back[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(back, view.w2c, atol=1e-4)
    assert camera_from_json(entry(width=640.0), "cam").width == 640


FIELD_FAULTS = {
    **{
        f"{field} missing": ({field: ...}, [f"{field} is missing"])
        for field in ("w2c", "fovx", "height", "width")
    },
    "w2c of 12": ({"w2c": IDENTITY[:12]}, ["w2c must be 16 numbers, got 12"]),
    "w2c null": ({"w2c": None}, ["w2c must be 16 numbers, got None"]),
    "w2c text": ({"w2c": changed(3, "0")}, ["w2c must be 16 numbers"]),
    "w2c true": ({"w2c": changed(0, True)}, ["w2c must be 16 numbers", "True"]),
    "w2c NaN": ({"w2c": changed(3, math.nan)}, ["w2c", "not finite"]),
    "w2c infinite": ({"w2c": changed(3, -math.inf)}, ["w2c", "not finite"]),
    "w2c giant whole number": ({"w2c": changed(3, 10**400)}, ["w2c", "not finite"]),
    "w2c zero": ({"w2c": [0.0] * 15 + [1.0]}, ["w2c is not rigid"]),
    "w2c scaled": ({"w2c": np.diag([2.0, 2, 2, 1]).ravel().tolist()}, ["w2c is not rigid", "3"]),
    "w2c sheared": ({"w2c": changed(1, 0.01)}, ["w2c is not rigid", "0.01"]),
    "w2c overflowing": ({"w2c": changed(0, 1e200)}, ["w2c is not rigid"]),
    "w2c mirrored": ({"w2c": np.diag([1.0, -1, 1, 1]).ravel().tolist()}, ["w2c mirrors"]),
    "w2c last row": ({"w2c": changed(14, 1.0)}, ["w2c must end with the row 0 0 0 1"]),
    "w2c by columns": ({"w2c": changed(12, 2.0)}, ["w2c must end with the row 0 0 0 1"]),
    "w2c light years away": ({"w2c": changed(3, 1e20)}, ["w2c", "1e+20 m away"]),
    **{
        f"fovx {value}": ({"fovx": value}, ["fovx is", "0.1 to 179"])
        for value in (0, 180, -40, 179.99, 360, 1e-9)
    },
    "fovx NaN": ({"fovx": math.nan}, ["fovx", "not finite"]),
    "fovx text": ({"fovx": "40"}, ["fovx must be a number, got '40'"]),
    "fovx true": ({"fovx": True}, ["fovx must be a number, got True"]),
    "fovx null": ({"fovx": None}, ["fovx must be a number, got None"]),
    "two fovx": ({"fovx": [40, 30]}, ["fovx must be a number, got 2"]),
    "zero height": ({"height": 0}, ["height is 0", "1 to 16384"]),
    "negative width": ({"width": -640}, ["width is -640", "1 to 16384"]),
    "60,000 pixels": ({"width": 60_000}, ["width is 60000", "1 to 16384"]),
    "giant width": ({"width": 10**30}, ["width is 1", "1 to 16384"]),
    "half pixels": ({"height": 480.5}, ["height must be a whole number, got 480.5"]),
    "infinite height": ({"height": math.inf}, ["height", "not finite"]),
    "true height": ({"height": True}, ["height must be a number, got True"]),
    "height text": ({"height": "480"}, ["height must be a number, got '480'"]),
    "height an object": ({"height": {}}, ["height must be a number"]),
}


def assert_one_line(caught, path: Path, names: list[str]) -> None:
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300 and str(path) in text, text
    for name in names:
        assert name in text, f"{name!r} is not in: {text}"


@pytest.mark.parametrize("fault", FIELD_FAULTS)
def test_fault_in_a_field(tmp_path, fault):
    changes, names = FIELD_FAULTS[fault]
    path = tmp_path / "cam.json"
    path.write_text(json.dumps(entry(**changes)))
    with pytest.raises(ValueError) as caught:
        read_camera_file(path)
    assert_one_line(caught, path, names)
    path.write_text(json.dumps([entry(id=0, K=[500, 0, 320, 0, 500, 240, 0, 0, 1]) | entry(id=0, **changes)]))
    if ... not in changes.values():
        with pytest.raises(ValueError) as caught:
            read_camera_list(path)
        assert_one_line(caught, path, ["camera 0", *names])


FILE_FAULTS = {
    "empty": (b"", "not readable as JSON"),
    "no JSON": (b"w2c: 1", "not readable as JSON"),
    "cut": (json.dumps(entry()).encode()[:100], "not readable as JSON"),
    "no text": (b"\xff\xfe\x00\x01{}", "not readable as JSON"),
    "endless brackets": (b"[" * 100_000, "not readable as JSON"),
    "field twice": (b'{"fovx": 40, "fovx": 50}', "'fovx' appears twice"),
    "a list": (json.dumps([entry()]).encode(), "holds a list"),
    "a number": (b"40", "must hold one object"),
    "null": (b"null", "must hold one object"),
    "too large": (b" " * 1_000_001, "1,000,001 bytes"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_what_is_no_camera_file(tmp_path, fault):
    data, name = FILE_FAULTS[fault]
    path = tmp_path / "cam.json"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        read_camera_file(path)
    assert_one_line(caught, path, [name])
    with pytest.raises(FileNotFoundError) as caught:
        read_camera_file(tmp_path / "other.json")
    assert_one_line(caught, tmp_path / "other.json", ["no such file"])


@pytest.mark.parametrize(
    "view",
    [
        some_view(fovx=math.nan),
        some_view(fovx=180.0),
        some_view(width=0),
        CameraView(np.zeros((4, 4)), 40.0, 4, 4),
    ],
)
def test_nothing_unreadable_is_written(tmp_path, view):
    write_camera_file(tmp_path / "cam.json", some_view())
    before = (tmp_path / "cam.json").read_bytes()
    with pytest.raises(ValueError):
        write_camera_file(tmp_path / "cam.json", view)
    assert (tmp_path / "cam.json").read_bytes() == before


# --- cameras.json -------------------------------------------------------------------------------------------

OFF_CENTRE = [500.0, 0, 300, 0, 510, 260, 0, 0, 1]


def test_camera_list_keeps_ids_and_calibration(tmp_path):
    views = {3: some_view(3), 0: some_view(0)}
    content = [camera_to_json(view) | {"id": key, "K": OFF_CENTRE} for key, view in views.items()]
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    back = read_camera_list(tmp_path / "cameras.json")
    assert list(back) == [3, 0]
    for key, view in views.items():
        np.testing.assert_allclose(back[key].w2c, view.w2c, atol=1e-9)
        np.testing.assert_array_equal(back[key].intrinsics, np.reshape(OFF_CENTRE, (3, 3)))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"id": ...}, "id is missing"),
        ({"id": -1}, "id is -1"),
        ({"id": 0.5}, "id must be a whole number"),
        ({"id": 7}, "id 7 appears twice"),
        ({"K": ...}, "K is missing"),
        ({"K": OFF_CENTRE[:8]}, "K must be 9 numbers"),
        ({"K": [-500, *OFF_CENTRE[1:]]}, "focal lengths"),
        ({"K": [*OFF_CENTRE[:2], 1e5, *OFF_CENTRE[3:]]}, "principal point"),
    ],
)
def test_fault_in_a_camera_list(tmp_path, changes, name):
    good = entry(id=7, K=OFF_CENTRE)
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps([good, entry(**{"id": 8, "K": OFF_CENTRE} | changes)]))
    with pytest.raises(ValueError) as caught:
        read_camera_list(path)
    assert_one_line(caught, path, [name])


@pytest.mark.parametrize("content", [[], {}, entry(), None])
def test_what_is_no_camera_list(tmp_path, content):
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        read_camera_list(path)
    assert_one_line(caught, path, ["must hold a list of cameras"])
