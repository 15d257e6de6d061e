"""Captures in every form, imported: the same cameras, frames, pictures and masks as the original's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from checked_capture import CAMERAS, FRAMES

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.calibrations.forms import read_calibration
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.layout import distortion
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.preparation import import_capture as module
from mmlphuman.preparation.import_capture import import_capture, numbering_of
from mmlphuman.preparation.source_pictures import SourcePictures, find_pictures, frames_of
from tests.calibrations import written_forms
from tests.calibrations.written_forms import Truth
from tests.commands.runs import call_here, one_error_line

SCRIPT = "script/import_capture.py"


@pytest.fixture(scope="module")
def original(clean_check_captures) -> Path:
    return clean_check_captures("avatarrex")


def truth_of(original: Path) -> list[Truth]:
    """The capture's cameras; it has no distortion."""
    cameras = open_capture(original).cameras
    return [Truth(c.name, c.K, c.R, c.T, np.zeros(5), c.image_size) for c in cameras]


def write_source(
    root: Path, original: Path, image: str, mask: str | None, number=lambda frame: frame
) -> None:
    """The pictures of the original under other names; patterns with {camera} and {number}."""
    layout = open_capture(original)
    for camera, calibrated in enumerate(layout.cameras):
        for frame in range(FRAMES):
            for pattern, path in (
                (image, layout.image_path(camera, frame)),
                (mask, layout.mask_path(camera, frame)),
            ):
                if pattern is not None:
                    target = root / pattern.format(camera=calibrated.name, number=number(frame))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
    shutil.copyfile(original / "smpl_params.npz", root / "smpl_params.npz")


FORMS = {  # how the calibration is written, images, masks, numbers of the frames
    "COLMAP": (lambda root, cameras: written_forms.write_colmap(root / "sparse" / "0", cameras),
               "images/{camera}/{number:04d}.jpg", "masks/{camera}/{number:04d}.jpg", lambda frame: frame + 1),
    "COLMAP text": (lambda root, cameras: written_forms.write_colmap(root, cameras, "txt"),
                    "images/{camera}/{number:04d}.JPG", "mask/{camera}/{number:04d}.JPEG", lambda frame: frame),
    "EasyMocap": (written_forms.write_easymocap, "images/{camera}/{number:06d}.jpg", "mask/{camera}/{number:06d}.jpg",
                  lambda frame: frame),
    "transforms.json": (lambda root, cameras: written_forms.write_transforms(root / "transforms.json", cameras),
                        "images/{camera}/{number:06d}.jpg", "masks/{camera}/{number:06d}.jpg", lambda frame: frame),
    "MVHumanNet": (written_forms.write_mvhumannet, "images_lr/{camera}/{number:04d}_img.jpg",
                   "fmask_lr/{camera}/{number:04d}_img_fmask.jpg", lambda frame: 5 * (frame + 1)),
    "ZJU-MoCap": (lambda root, cameras: written_forms.write_zju(root, cameras, FRAMES), "{camera}/{number:06d}.jpg",
                  "mask_cihp/{camera}/{number:06d}.jpg", lambda frame: frame),
    "Qualisys": (lambda root, cameras: written_forms.write_qualisys(root / "Calib.qca.txt", cameras),
                 "images/{camera}/{camera}_{number:03d}.jpg", "masks/{camera}/{camera}_{number:03d}.jpg",
                 lambda frame: frame),
    "Pose2Sim": (lambda root, cameras: written_forms.write_toml(root / "Calib.toml", cameras),
                 "images/{camera}/{number}.jpg", "masks/{camera}/{number}.jpg", lambda frame: frame),
    "calibration.json": (lambda root, cameras: written_forms.write_json(root / "calibration.json", cameras),
                  "images/{camera}/{number:08d}.jpg", "masks/{camera}/{number:08d}.jpg", lambda frame: frame),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_capture(original, tmp_path, form):
    """By the command, as a user runs it: cameras to 1e-6, and the very samples."""
    write, image, mask, number = FORMS[form]
    truth = truth_of(original)
    write(tmp_path / "source", truth)
    write_source(tmp_path / "source", original, image, mask, number)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    status, said, err = call_here(SCRIPT, "--data_dir", tmp_path / "source", "--out", tmp_path / "imported")
    assert status == 0, err
    assert form.split()[0] in said and f"{FRAMES} frames" in said
    assert ("metric scale" in said) == (form in ("COLMAP", "COLMAP text", "transforms.json"))
    assert ("numbered from" in said) == (number(0) != 0)
    layout, reference = open_capture(tmp_path / "imported"), open_capture(original)
    for camera, true in zip(layout.cameras, truth, strict=True):
        assert camera.name == true.name and camera.image_size == true.size
        for field in ("K", "R", "T"):
            np.testing.assert_allclose(getattr(camera, field), getattr(true, field), atol=1e-6)
    ids, frames = range(CAMERAS), range(FRAMES)
    poses = read_smpl_params(layout.pose_path)
    imported, expected = (
        CaptureDataset(one, poses, frames, ids, edge_radius=3) for one in (layout, reference)
    )
    assert imported.pairs == expected.pairs
    for field in ("images", "masks", "edges"):
        assert (getattr(imported.sample(2, ids), field) == getattr(expected.sample(2, ids), field)).all()
    assert all(path.is_symlink() for path in (tmp_path / "imported" / "images").rglob("*.*"))
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "imported" not in path.parts)
    assert after == before, "the source is only read"


def some_capture(root: Path, original: Path) -> list[SourcePictures]:
    write_source(root, original, "images/{camera}/{number:04d}.jpg", "masks/{camera}/{number:04d}.jpg")
    written_forms.write_toml(root / "Calib.toml", truth_of(original))
    return find_pictures(root, read_calibration(root))


def test_half_pixel_reaches_the_undistortion(original, tmp_path):
    """A distorted camera, imported of an OpenCV form: a point's picture is where the pinhole camera with the imported K
    sees it, pixel centres at +0.5."""
    truth = truth_of(original)
    dist = np.array([4.0, -0.1, 0.01, -0.02, 0.05, 0.1, 0.05, 0.02])
    truth[0] = replace(truth[0], dist=dist)
    root = tmp_path / "source"
    write_source(root, original, "images/{camera}/{number:04d}.jpg", "masks/{camera}/{number:04d}.jpg")
    written_forms.write_toml(root / "Calib.toml", truth)
    point = np.array([0.12, -0.2, 1.0])
    (place,) = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), truth[0].K - written_forms.CV, dist)[
        0
    ][:, 0]
    width, height = truth[0].size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))  # OpenCV's: whole numbers are centres
    blob = 255 * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / 18)
    for folder in ("images", "masks"):
        for path in (root / folder / truth[0].name).iterdir():
            cv2.imwrite(str(path), blob.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])
    calibration = read_calibration(root)
    import_capture(
        tmp_path / "out", calibration, pictures := find_pictures(root, calibration), numbering_of(pictures)
    )
    layout = open_capture(tmp_path / "out")
    np.testing.assert_allclose(layout.cameras[0].dist, dist)
    shutil.copyfile(original / "smpl_params.npz", layout.pose_path)
    dataset = CaptureDataset(layout, read_smpl_params(layout.pose_path), range(FRAMES), [0])
    weight = dataset.sample(0, [0]).images[0, ..., 0].numpy().astype(float)
    found = np.array([((columns + 0.5) * weight).sum(), ((rows + 0.5) * weight).sum()]) / weight.sum()
    seen = (truth[0].K @ point)[:2]
    assert np.linalg.norm(place + 0.5 - seen) > 2, "the distortion matters here"
    np.testing.assert_allclose(found, seen, atol=0.1)


def test_copies_where_links_are_impossible(original, tmp_path, monkeypatch):
    pictures = some_capture(tmp_path / "source", original)
    calibration = read_calibration(tmp_path / "source")

    def refuse(*_, **__):
        raise PermissionError("no links here")

    with monkeypatch.context() as context:
        context.setattr(Path, "symlink_to", refuse)
        done = import_capture(tmp_path / "out", calibration, pictures, numbering_of(pictures))
    assert any(
        f"{2 * CAMERAS * FRAMES} files are copies: this folder takes no links" in note for note in done.notes
    )
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    done = import_capture(tmp_path / "wanted", calibration, pictures, numbering_of(pictures), copy=True)
    assert not any("copies" in note for note in done.notes)
    assert len(list((tmp_path / "wanted" / "masks").rglob("*.jpg"))) == CAMERAS * FRAMES


def test_a_failure_leaves_nothing(original, tmp_path, monkeypatch):
    pictures = some_capture(tmp_path / "source", original)
    calibration = read_calibration(tmp_path / "source")
    monkeypatch.setattr(module, "_place", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        import_capture(tmp_path / "out", calibration, pictures, numbering_of(pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("")
    with pytest.raises(ValueError, match="--out .*is not empty"):
        import_capture(tmp_path / "out", calibration, pictures, numbering_of(pictures))


def test_smaller_pictures_scale_the_intrinsics(original, tmp_path):
    """As MVHumanNet's are half the calibrated size: a point stays at the same share of the picture."""
    root = tmp_path / "source"
    pictures = some_capture(root, original)
    calibration = read_calibration(root)
    double = tuple(
        replace(
            camera,
            K=np.diag([2.0, 2, 1]) @ camera.K,
            image_size=(2 * camera.image_size[0], 2 * camera.image_size[1]),
        )
        for camera in calibration.cameras
    )
    done = import_capture(
        tmp_path / "out", replace(calibration, cameras=double), pictures, numbering_of(pictures)
    )
    assert any("intrinsics are scaled from 384x384 to 192x192" in note for note in done.notes)
    for camera, expected in zip(open_capture(tmp_path / "out").cameras, calibration.cameras, strict=True):
        np.testing.assert_allclose(camera.K, expected.K, rtol=1e-12)
    wide = tuple(replace(camera, image_size=(384, 192)) for camera in calibration.cameras)
    with pytest.raises(
        ValueError, match=r"is 192x192, but camera '22010700' was calibrated at 384x192; are they cut"
    ):
        import_capture(
            tmp_path / "other", replace(calibration, cameras=wide), pictures, numbering_of(pictures)
        )
    assert not (tmp_path / "other").exists()


def test_masks_that_number_parts_become_black_and_white(original, tmp_path):
    root = tmp_path / "source"
    some_capture(root, original)
    for path in (root / "masks").rglob("*.jpg"):
        person = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 128
        cv2.imwrite(
            str(path.with_suffix(".png")),
            np.where(person, np.arange(person.shape[1]) % 19 + 1, 0).astype(np.uint8),
        )
        path.unlink()
    calibration = read_calibration(root)
    done = import_capture(
        tmp_path / "out", calibration, pictures := find_pictures(root, calibration), numbering_of(pictures)
    )
    assert any(f"masks of {CAMERAS} cameras number parts of the body" in note for note in done.notes)
    layout, reference = open_capture(tmp_path / "out"), open_capture(original)
    mask = cv2.imread(str(layout.mask_path(1, 3)), cv2.IMREAD_GRAYSCALE)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 128) == (cv2.imread(str(reference.mask_path(1, 3)), cv2.IMREAD_GRAYSCALE) > 128)).all()


def test_alpha_stands_for_masks(original, tmp_path):
    root = tmp_path / "source"
    some_capture(root, original)
    for path in sorted((root / "images").rglob("*.jpg")):
        mask = cv2.imread(str(root / "masks" / path.parent.name / path.name), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path.with_suffix(".PNG")), np.dstack([cv2.imread(str(path)), mask]))
        path.unlink()
    shutil.rmtree(root / "masks")
    calibration = read_calibration(root)
    pictures = find_pictures(root, calibration)
    done = import_capture(
        tmp_path / "out", calibration, pictures, numbering_of(pictures), poses=root / "smpl_params.npz"
    )
    assert done.notes == () and not (tmp_path / "out" / "masks").exists()
    poses = read_smpl_params(original / "smpl_params.npz")
    imported, expected = (
        CaptureDataset(open_capture(folder), poses, range(FRAMES), range(CAMERAS), edge_radius=2)
        for folder in (tmp_path / "out", original)
    )
    assert imported.pairs == expected.pairs
    assert (imported.sample(3, [1]).masks == expected.sample(3, [1]).masks).all()
    assert (imported.sample(3, [1]).images == expected.sample(3, [1]).images).all()


def test_what_is_missing_is_told(original, tmp_path):
    root = tmp_path / "source"
    some_capture(root, original)
    (root / "smpl_params.npz").unlink()
    shutil.rmtree(root / "masks")
    shutil.rmtree(root / "images" / "22010701")
    (root / "images" / "22010700" / "0003.jpg").unlink()
    for camera in ("22010702", "22010703"):
        (root / "images" / camera / "0003.jpg").unlink()
    calibration = read_calibration(root)
    done = import_capture(
        tmp_path / "out", calibration, pictures := find_pictures(root, calibration), numbering_of(pictures)
    )
    told = "\n".join(done.notes)
    for part in (
        "no poses",
        "no pictures of 22010701",
        "no masks of 22010700, 22010702, 22010703",
        "no camera has the frames 3",
    ):
        assert part in told, told
    assert [camera.name for camera in open_capture(tmp_path / "out").cameras] == [
        c.name for c in calibration.cameras
    ]


def test_poses_must_reach_the_frames(original, tmp_path):
    root = tmp_path / "source"
    some_capture(root, original)
    with np.load(root / "smpl_params.npz") as arrays:
        short = {key: array[:5] if len(array) == FRAMES else array for key, array in arrays.items()}
    np.savez(root / "smpl_params.npz", **short)
    result = call_here(SCRIPT, "--data_dir", root, "--out", tmp_path / "out")
    one_error_line(result, "smpl_params.npz: holds 5 poses", f"{FRAMES} frames", "--first and --step")
    status, said, err = call_here(
        SCRIPT, "--data_dir", root, "--out", tmp_path / "out", "--step", 2, "--first", 1
    )
    assert status == 0 and "4 numbers are no frame" in said, said + err


# --- names --------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(("camera", "names", "numbers"), [
    ("cam1", ["0005_img.jpg", "0010_img.jpg"], [5, 10]),
    ("cam1", ["cam1_rgb000003.jpg", "cam1_rgb000004.PNG"], [3, 4]),
    ("Camera (1)", ["Camera (1)_0001_2019.jpg", "Camera (1)_0002_2019.jpg"], [1, 2]),
    ("1", ["frame_7.jpeg"], [7]),
    ("a", ["10.jpg", "9.jpg", "notes.txt"], [9, 10]),
])  # fmt: skip
def test_the_frame_is_the_number_that_changes(tmp_path, camera, names, numbers):
    assert list(frames_of(touch(tmp_path / "folder", *names), camera)) == numbers


@pytest.mark.parametrize(("names", "message"), [
    (["1_05.jpg", "2_06.jpg"], "several numbers change"),
    (["1.jpg", "1_2.jpg"], "not clear which number"),
    (["first.jpg"], "not clear which number"),
    (["1.jpg", "01.jpg"], "one number"),
])  # fmt: skip
def test_names_without_a_clear_number(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        frames_of(touch(tmp_path / "folder", *names), "cam")


def test_numbering():
    pictures = [SourcePictures({5: Path("a"), 10: Path("b")}, {}), SourcePictures({20: Path("c")}, {})]
    numbering = numbering_of(pictures)
    assert [numbering.frame(number) for number in (5, 10, 20, 7, 0)] == [0, 1, 3, None, None]
    shifted = numbering_of(pictures, first=-10, step=5)
    assert [shifted.frame(number) for number in (5, 10)] == [3, 4]


def test_listed_files_stay_in_the_folder(tmp_path):
    touch(tmp_path / "outside", "0.jpg")
    touch(tmp_path / "source", "readme")
    camera = replace(open_capture_camera(), name="outside")
    listed = Calibration(
        (camera,), "ZJU", pictures=(("../outside/0.jpg", str(tmp_path / "outside" / "0.jpg")),)
    )
    with pytest.raises(ValueError, match="no pictures of the cameras outside"):
        find_pictures(tmp_path / "source", listed)


def open_capture_camera():
    from mmlphuman.capture.layout import CalibratedCamera

    return CalibratedCamera("cam", np.eye(3), np.eye(3), np.zeros(3), distortion(), None, True)


@pytest.mark.parametrize(("flags", "parts"), [
    (("--data_dir", "nowhere"), ["--data_dir nowhere: no such folder"]),
    (("--scale", "-1"), ["--scale -1"]),
    (("--height", "175"), ["--height 175: metres"]),
    (("--step", "0"), ["--step 0"]),
    (("--calibration", "nowhere.toml"), ["nowhere.toml: no such file"]),
    (("--images", "nowhere"), ["no pictures of the cameras", "nowhere", "--images"]),
    (("--masks", "nowhere"), ["--masks nowhere", "22010700"]),
    (("--poses", "nowhere.npz"), ["nowhere.npz: no such file"]),
])  # fmt: skip
def test_mistakes_are_one_line(original, tmp_path, flags, parts):
    some_capture(tmp_path / "source", original)
    result = call_here(SCRIPT, "--data_dir", tmp_path / "source", "--out", tmp_path / "out", *flags)
    one_error_line(result, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- scale --------------------------------------------------------------------------------------------------------


def test_the_scale_is_found_from_the_height(original, tmp_path):
    """COLMAP in a unit of its own: the demo person is 1.71 m tall (its body's T-pose)."""
    root, unit = tmp_path / "source", 3.7
    write_source(root, original, "images/{camera}/{number:04d}.jpg", "masks/{camera}/{number:04d}.jpg")
    truth = [replace(camera, T=unit * camera.T) for camera in truth_of(original)]
    written_forms.write_colmap(root / "sparse", truth)
    status, said, err = call_here(SCRIPT, "--data_dir", root, "--out", tmp_path / "out", "--height", 1.75)
    assert status == 0, err
    (line,) = [line for line in said.splitlines() if line.startswith("scale")]
    assert float(line.split()[1]) == pytest.approx(1 / unit, rel=0.06), said
    status, said, err = call_here(SCRIPT, "--data_dir", root, "--out", tmp_path / "told", "--scale", 1 / unit)
    assert status == 0 and "metric scale" not in said, err
    for camera, true in zip(open_capture(tmp_path / "told").cameras, truth_of(original), strict=True):
        np.testing.assert_allclose(camera.T, true.T, atol=1e-6)
    content = json.loads((tmp_path / "told" / "calibration.json").read_text())
    assert all(entry["pixelCenter"] == 0.5 for entry in content.values())
