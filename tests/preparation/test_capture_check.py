"""check_capture: clean captures pass in every layout; every planted fault is named in its row."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from checked_capture import CAMERAS, FRAMES

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.masks import MaskMeasures
from mmlphuman.preparation.capture_check import check_capture, read_mean_hands
from mmlphuman.preparation.file_checks import check_twin_cameras
from mmlphuman.preparation.findings import ERROR, OK, WARNING, overall
from mmlphuman.preparation.fit_measure import ReducedMask, project_points
from mmlphuman.preparation.misalignment import late_cameras
from mmlphuman.synthetic.layouts import LAYOUTS

CALIBRATION = "calibration_full.json"
NAMES = [f"{22010700 + camera}" for camera in range(CAMERAS)]


def image_file(root: Path, camera: int, frame: int) -> Path:
    return root / NAMES[camera] / f"{frame:08d}.jpg"


def mask_file(root: Path, camera: int, frame: int) -> Path:
    return root / NAMES[camera] / "mask" / "pha" / f"{frame:08d}.jpg"


def contents(root: Path) -> dict[Path, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clean_capture_is_sound_and_unchanged(clean_check_captures, synthetic_body, layout):
    root = clean_check_captures(layout)
    before = contents(root)
    checked = check_capture(root, synthetic_body, 0)
    assert [finding for finding in checked.findings if finding.result != OK] == []
    assert len(checked.samples) == CAMERAS * FRAMES
    assert min(sample.fit.inside for sample in checked.samples) > 0.95
    assert contents(root) == before


# --- planting ------------------------------------------------------------------------------------------------


def edit_cameras(root: Path, cameras, change: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple]) -> None:
    """change: K, R, T -> the same, changed."""
    calibration = json.loads((root / CALIBRATION).read_text())
    for camera in cameras:
        entry = calibration[NAMES[camera]]
        arrays = np.reshape(entry["K"], (3, 3)), np.reshape(entry["R"], (3, 3)), np.array(entry["T"])
        for key, array in zip("KRT", change(*arrays), strict=True):
            entry[key] = array.ravel().tolist()
    (root / CALIBRATION).write_text(json.dumps(calibration))


def edit_poses(root: Path, key: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    with np.load(root / "smpl_params.npz") as archive:
        arrays = dict(archive)
    arrays[key] = change(arrays[key])
    np.savez(root / "smpl_params.npz", **arrays)


def edit_masks(root: Path, cameras, frames, change: Callable[[np.ndarray], np.ndarray]) -> None:
    edit_pictures([mask_file(root, c, f) for c in cameras for f in frames], change)


def edit_pictures(paths: list[Path], change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in paths:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(path), change(pixels), [cv2.IMWRITE_JPEG_QUALITY, 100])


def all_pictures(root: Path, camera: int) -> list[Path]:
    return [path(root, camera, frame) for path in (image_file, mask_file) for frame in range(FRAMES)]


def swap_cameras(root: Path, first: int, second: int) -> None:
    calibration = json.loads((root / CALIBRATION).read_text())
    a, b = NAMES[first], NAMES[second]
    calibration[a], calibration[b] = calibration[b], calibration[a]
    (root / CALIBRATION).write_text(json.dumps(calibration))


def add_row(amount: np.ndarray, frame: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[frame] += amount
        return array

    return change


def damage_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = np.random.default_rng(0).bytes(40)
    path.write_bytes(data)


def with_hole(mask: np.ndarray) -> np.ndarray:
    depth = cv2.distanceTransform((mask > 128).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return cv2.circle(mask, (int(column), int(row)), 6, 0, cv2.FILLED)


FLIP_YZ = np.diag([1.0, -1, -1])
PICTURE_FAULTS = {
    "image missing": (
        lambda root: image_file(root, 1, 2).unlink(),
        ("missing images", WARNING, ["camera 1 (22010701) frames 2", "image"]),
    ),
    "image and mask missing": (
        lambda root: [image_file(root, 1, 2).unlink(), mask_file(root, 1, 2).unlink()],
        (
            "missing images",
            WARNING,
            [f"1 of {CAMERAS * FRAMES}", "camera 1 (22010701) frames 2", "image and mask"],
        ),
    ),
    "masks missing": (
        lambda root: [mask_file(root, 2, frame).unlink() for frame in (0, 3, 4)],
        ("missing masks", WARNING, [f"3 of {CAMERAS * FRAMES}", "camera 2 (22010702) frames 0, 3-4"]),
    ),
    "frame missing": (
        lambda root: [image_file(root, camera, 5).unlink() for camera in range(CAMERAS)],
        ("frames", WARNING, [f"1 of {FRAMES} frames", "frames 5"]),
    ),
    "camera's folder missing": (
        lambda root: shutil.rmtree(root / NAMES[3]),
        ("files of cameras", ERROR, ["1 of 4 cameras", "camera 3 (22010703)", "no images in", "no masks in"]),
    ),
    "mask folder missing": (
        lambda root: shutil.rmtree(root / NAMES[3] / "mask"),
        ("files of cameras", ERROR, ["camera 3 (22010703)", "no masks in"]),
    ),
    "no pictures": (
        lambda root: [shutil.rmtree(root / name) for name in NAMES],
        ("frames", ERROR, ["no frame of the pose file has a picture"]),
    ),
    "more pictures than poses": (
        lambda root: shutil.copy(image_file(root, 0, 5), image_file(root, 0, FRAMES)),
        ("files without a pose", WARNING, ["1 image files", "22010700: 00000008.jpg"]),
    ),
    "image cut short": (
        lambda root: image_file(root, 2, 4).write_bytes(image_file(root, 2, 4).read_bytes()[:-200]),
        ("image files", ERROR, ["frame 4 camera 2", "cut short", "00000004.jpg"]),
    ),
    "mask is text": (
        lambda root: mask_file(root, 2, 4).write_text("<html>404</html>"),
        ("image files", ERROR, ["frame 4 camera 2", "not a readable image", "pha/00000004.jpg"]),
    ),
    "image damaged in the middle": (
        lambda root: damage_in_the_middle(image_file(root, 1, 2)),
        ("image files", ERROR, ["frame 2 camera 1", "00000002.jpg: damaged (Corrupt JPEG data"]),
    ),
    "mask of another size": (
        lambda root: edit_masks(root, [1], [3], lambda mask: cv2.resize(mask, (96, 96))),
        ("picture sizes", ERROR, ["frame 3 camera 1", "192x192", "96x96"]),
    ),
    "pictures of another size than calibrated": (
        lambda root: edit_pictures(all_pictures(root, 1), lambda pixels: cv2.resize(pixels, (96, 96))),
        ("picture sizes", ERROR, [f"{FRAMES} sampled pictures", "camera 1", "96x96", "camera is 192x192"]),
    ),
    "empty mask": (
        lambda root: edit_masks(root, [0], [1], np.zeros_like),
        ("empty masks", ERROR, ["1 sampled masks", "camera 0 (22010700) frames 1"]),
    ),
    "masks of 0 and 1": (
        lambda root: edit_masks(root, range(CAMERAS), range(FRAMES), lambda mask: mask // 200),
        ("empty masks", ERROR, [f"{CAMERAS * FRAMES} sampled masks", "no value is above 2, ", "above 128"]),
    ),
    "full mask": (
        lambda root: edit_masks(root, [0], [1], lambda mask: np.full_like(mask, 255)),
        ("full masks", ERROR, ["1 sampled masks", "camera 0 (22010700) frames 1"]),
    ),
    "black and white swapped": (
        lambda root: edit_masks(root, [3], range(FRAMES), lambda mask: 255 - mask),
        ("full masks", ERROR, ["black and white swapped", "camera 3 (22010703) frames 0-7"]),
    ),
    "hole in a mask": (
        lambda root: edit_masks(root, [1], [2], with_hole),
        ("mask holes", WARNING, ["frame 2 camera 1 (22010701)"]),
    ),
    "somebody else in a mask": (
        lambda root: edit_masks(
            root, [1], [2], lambda mask: cv2.rectangle(mask, (4, 20), (24, 120), 255, cv2.FILLED)
        ),
        ("mask far from body", WARNING, ["frame 2 camera 1 (22010701)"]),
    ),
    "pictures mirrored": (
        lambda root: edit_pictures(all_pictures(root, 1), lambda pixels: pixels[:, ::-1]),
        ("cameras see the body", ERROR, ["camera 1 (22010701)", "mirrored left to right"]),
    ),
    "pictures upside down": (
        lambda root: edit_pictures(all_pictures(root, 1), lambda pixels: pixels[::-1]),
        ("cameras see the body", ERROR, ["camera 1 (22010701)", "upside down"]),
    ),
}
CAMERA_FAULTS = {
    "translation in millimetres": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (K, R, 1000 * T)),
        ("cameras see the body", ERROR, ["1 of 4", "camera 2 (22010702)", "millimetres"]),
    ),
    "all translations in millimetres": (
        lambda root: edit_cameras(root, range(CAMERAS), lambda K, R, T: (K, R, 1000 * T)),
        ("cameras see the body", ERROR, ["4 of 4", "camera 0", "camera 3", "millimetres"]),
    ),
    "translation in centimetres": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (K, R, 100 * T)),
        ("cameras see the body", ERROR, ["camera 2 (22010702)", "centimetres"]),
    ),
    "camera to world": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (K, R.T, -R.T @ T)),
        ("cameras see the body", ERROR, ["camera 2 (22010702)", "camera-to-world (invert R and T)"]),
    ),
    "T is the centre": (
        lambda root: edit_cameras(root, [1], lambda K, R, T: (K, R, -R.T @ T)),
        ("cameras see the body", ERROR, ["camera 1 (22010701)", "T is the camera's centre"]),
    ),
    "R transposed": (
        lambda root: edit_cameras(root, [1], lambda K, R, T: (K, R.T, T)),
        ("cameras see the body", ERROR, ["camera 1 (22010701)", "transpose R"]),
    ),
    "OpenGL axes": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (K, FLIP_YZ @ R, FLIP_YZ @ T)),
        ("cameras see the body", ERROR, ["camera 2 (22010702)", "OpenGL"]),
    ),
    "mirroring R": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (K, np.diag([-1, 1, 1]) @ R, T)),
        ("calibration", ERROR, [CALIBRATION, "22010702", "R mirrors"]),
    ),
    "two cameras swapped": (
        lambda root: swap_cameras(root, 0, 1),
        ("cameras see the body", ERROR, ["2 of 4", "pictures are those of camera 1 (22010701)"]),
    ),
    "one camera twice": (
        lambda root: edit_cameras(root, [1, 3], lambda K, R, T: (K, np.eye(3), np.array([0, 0, 3.0]))),
        ("cameras", WARNING, ["camera 1 (22010701) and camera 3 (22010703)"]),
    ),
    "K of pictures twice as large": (
        lambda root: edit_cameras(root, [2], lambda K, R, T: (np.diag([2, 2, 1]) @ K, R, T)),
        ("cameras see the body", ERROR, ["camera 2 (22010702)", "K is of pictures twice as large"]),
    ),
    "focal length 15% too short": (
        lambda root: edit_cameras(
            root, [2], lambda K, R, T: (K * [[0.85, 1, 1], [1, 0.85, 1], [1, 1, 1]], R, T)
        ),
        ("body size", WARNING, ["camera 2 (22010702) 1.1"]),
    ),
    "calibration missing": (
        lambda root: (root / CALIBRATION).unlink(),
        ("calibration", ERROR, ["no capture of a known format", CALIBRATION]),
    ),
}
POSE_FAULTS = {
    "not a number": (
        lambda root: edit_poses(root, "body_pose", add_row(np.nan, 3)),
        ("pose file", ERROR, ["smpl_params.npz", "'body_pose'", "frame 3"]),
    ),
    "pose file missing": (
        lambda root: (root / "smpl_params.npz").unlink(),
        ("pose file", ERROR, ["smpl_params.npz", "no such file"]),
    ),
    "turned round for one frame": (
        lambda root: edit_poses(root, "global_orient", add_row(np.array([0, np.pi, 0]), 3)),
        ("pose jumps", WARNING, ["frame 2-3", "the whole body turns 1"]),
    ),
    "moved for one frame": (
        lambda root: edit_poses(root, "transl", add_row(np.array([0.7, 0, 0]), 3)),
        ("pose jumps", WARNING, ["frame 2-3 moves", "frame 3-4 moves"]),
    ),
    "one frame's pose off the pictures": (
        lambda root: edit_poses(root, "transl", add_row(np.array([0.7, 0, 0.7]), 3)),
        ("frames fit", WARNING, [f"1 of {FRAMES}", "frame 3 "]),
    ),
    "angles in degrees": (
        lambda root: edit_poses(root, "body_pose", np.degrees),
        ("pose file", ERROR, ["degrees"]),
    ),
    "shape of another body model": (
        lambda root: edit_poses(root, "betas", lambda betas: betas * 40),
        ("pose numbers", WARNING, ["betas["]),
    ),
    "body elsewhere": (
        lambda root: edit_poses(root, "transl", lambda transl: transl + [0, 10, 0]),
        ("body in view", WARNING, ["4 cameras", "sees 0%"]),
    ),
    "translation in millimetres": (
        lambda root: edit_poses(root, "transl", lambda transl: transl * 1000),
        ("cameras see the body", ERROR, ["4 of 4", "translation in other units"]),
    ),
    "hands never fitted": (
        lambda root: edit_poses(root, "left_hand_pose", np.zeros_like),
        ("hand poses", WARNING, ["left hand is zero"]),
    ),
}


FAULTS = {
    f"{kind}: {name}": fault
    for kind, group in (("pictures", PICTURE_FAULTS), ("cameras", CAMERA_FAULTS), ("poses", POSE_FAULTS))
    for name, fault in group.items()
}
# Rows that come from folders, calibration and pose file whole; few pictures need to be looked at for them.
NOT_SAMPLED = {"calibration", "pose file", "cameras", "pose numbers", "pose jumps", "hand poses", "frames"}
NOT_SAMPLED |= {"files of cameras", "missing images", "missing masks", "files without a pose"}
IN_EVERY_FRAME = {"cameras see the body", "body in view", "body size"}  # a few tell what all would


def frames_for(check: str) -> int:
    """To be sampled; 0: all."""
    return 1 if check in NOT_SAMPLED else 4 if check in IN_EVERY_FRAME else 0


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_named(capture_copy, synthetic_body, fault):
    plant, (check, result, words) = FAULTS[fault]
    plant(capture_copy)
    before = contents(capture_copy)
    checked = check_capture(capture_copy, synthetic_body, frames_for(check))
    rows = [finding for finding in checked.findings if finding.check == check]
    assert len(rows) == 1 and rows[0].result == result, checked.findings
    text = f"{rows[0].what}: {rows[0].where}"
    assert "\n" not in text
    for word in words:
        assert word in text, text
    assert overall(checked.findings) in {ERROR, result}
    assert contents(capture_copy) == before


def test_hands_relative_to_the_mean(capture_copy, synthetic_body):
    mean = read_mean_hands(synthetic_body)
    edit_poses(capture_copy, "left_hand_pose", lambda pose: pose - mean[75:120])
    edit_poses(capture_copy, "right_hand_pose", lambda pose: pose - mean[120:165])
    row = next(
        f for f in check_capture(capture_copy, synthetic_body, 0).findings if f.check == "hand convention"
    )
    assert row.result == WARNING and "flat_hand_mean=False" in row.what, row


def findings_of(root: Path, body: Path, check: str) -> list:
    return [finding for finding in check_capture(root, body, 0).findings if finding.check == check]


@pytest.mark.parametrize("unit", [0.37, 25.4])
def test_cameras_without_metric_scale_are_named_with_the_factor(capture_copy, synthetic_body, unit):
    edit_cameras(capture_copy, range(CAMERAS), lambda K, R, T: (K, R, unit * T))
    (row,) = findings_of(capture_copy, synthetic_body, "metric scale")
    factor = float(row.what.split("times ")[1].split()[0])
    assert row.result == ERROR and factor == pytest.approx(1 / unit, rel=0.03), row
    assert f"import_capture.py --scale {factor:.4g}" in row.what


def rename_pictures(root: Path, shift: int) -> None:
    """Frame n's pictures get the number n + shift; those below zero go."""
    for path_of in (image_file, mask_file):
        for camera in range(CAMERAS):
            order = reversed(range(FRAMES)) if shift > 0 else range(FRAMES)
            for frame in order:
                path = path_of(root, camera, frame)
                path.replace(path_of(root, camera, frame + shift)) if frame + shift >= 0 else path.unlink()


@pytest.mark.parametrize("shift", [1, -2])
def test_pictures_that_are_numbered_otherwise_than_poses(capture_copy, synthetic_body, shift):
    rename_pictures(capture_copy, shift)
    (row,) = findings_of(capture_copy, synthetic_body, "frame numbers")
    assert row.result == WARNING and f"--first {shift} numbers" in row.what, row
    assert ("numbered from 1" in row.what) == (shift == 1)


def test_pictures_of_other_endings_are_found_and_pairs_of_endings_named(capture_copy, synthetic_body):
    for frame in range(FRAMES):
        image_file(capture_copy, 0, frame).rename(image_file(capture_copy, 0, frame).with_suffix(".JPG"))
        path = mask_file(capture_copy, 1, frame)
        assert cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()
    checked = check_capture(capture_copy, synthetic_body, 0)
    assert [finding for finding in checked.findings if finding.result != OK] == []
    path = image_file(capture_copy, 2, 3)
    shutil.copyfile(path, path.with_suffix(".JPEG"))
    (row,) = [f for f in check_capture(capture_copy, synthetic_body, 1).findings if f.check == "endings"]
    assert row.result == WARNING and f"{NAMES[2]}/00000003" in row.where


def test_masks_may_be_the_pictures_alpha(capture_copy, synthetic_body):
    for camera in range(CAMERAS):
        for frame in range(FRAMES):
            image, mask = image_file(capture_copy, camera, frame), mask_file(capture_copy, camera, frame)
            pixels = np.dstack([cv2.imread(str(image)), cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)])
            assert cv2.imwrite(str(image.with_suffix(".png")), pixels)
            image.unlink()
        shutil.rmtree(capture_copy / NAMES[camera] / "mask")
    checked = check_capture(capture_copy, synthetic_body, 0)
    assert [finding for finding in checked.findings if finding.result != OK] == []


def test_many_cameras_are_compared_at_once(clean_check_captures):
    """Twins among 20,000 cameras: not each with each."""
    layout = open_capture(clean_check_captures("avatarrex"))
    one = layout.cameras[0]
    cameras = [replace(one, name=f"{n}", T=one.T + [n, 0, 0]) for n in range(20_000)]
    cameras[700] = replace(cameras[700], T=cameras[3].T)
    began = time.process_time()
    row = check_twin_cameras(replace(layout, cameras=tuple(cameras)))
    assert time.process_time() - began < 3
    assert row.result == WARNING and row.where == "camera 3 (3) and camera 700 (700)"
    same = tuple(replace(one, name=f"{n}") for n in range(20_000))  # 200 million pairs
    row = check_twin_cameras(replace(layout, cameras=same))
    assert time.process_time() - began < 6
    assert row.where.startswith("camera 0 (0) and camera 1 (1), ") and row.where.endswith(" more")


def test_one_fault_does_not_hide_another(capture_copy, synthetic_body):
    """NaN in the poses, a cut image, an empty mask and no body file: all four are told at once."""
    edit_poses(capture_copy, "transl", add_row(np.nan, 1))
    image_file(capture_copy, 0, 0).write_bytes(b"")
    edit_masks(capture_copy, [2], [2], np.zeros_like)
    checked = check_capture(capture_copy, synthetic_body.with_name("absent.npz"), 0)
    errors = {finding.check for finding in checked.findings if finding.result == ERROR}
    assert errors == {"pose file", "image files", "empty masks", "body file"}


def test_frames_are_sampled_evenly_and_include_the_ends(capture_copy, synthetic_body):
    frames = {sample.frame for sample in check_capture(capture_copy, synthetic_body, 3).samples}
    assert len(frames) == 3 and {0, FRAMES - 1} <= frames


def test_no_capture_folder(tmp_path, synthetic_body):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        check_capture(tmp_path / "absent", synthetic_body, 0)


# --- one camera, and light ------------------------------------------------------------------------------------


def test_one_camera_that_is_late_is_named(capture_copy, synthetic_body):
    for file_of in (image_file, mask_file):
        before = [file_of(capture_copy, 1, frame).read_bytes() for frame in range(FRAMES)]
        for frame in range(1, FRAMES):
            file_of(capture_copy, 1, frame).write_bytes(before[frame - 1])
    (row,) = findings_of(capture_copy, synthetic_body, "camera times")
    assert row.result == WARNING and NAMES[1] in row.where and "1 frame late" in row.where, row
    assert not any(NAMES[other] in row.where for other in (0, 2, 3))


@pytest.mark.parametrize("shift", [0.5, -1.5])
def test_parts_of_a_frame_are_found_between_poses(shift):
    """A body that walks past three cameras, of which one sees it at other times."""
    rng = np.random.default_rng(0)
    body = rng.uniform([-0.2, -0.9, -0.1], [0.2, 0.9, 0.1], (40_000, 3)).astype(np.float32)

    def points_of(time: float) -> np.ndarray:
        return body + np.float32([0.03 * time, 0, 0])

    def seen(camera: int, frame: int) -> ReducedMask:
        w2c = np.eye(4)
        w2c[:3, 3] = [-0.3, 0.1 * camera, 2.5]
        K, size = np.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]]), (256, 256)
        time = frame - shift * (camera == 2)
        mask = project_points(points_of(time), w2c, K, size).silhouette()
        return ReducedMask(frame, camera, mask, w2c, K, MaskMeasures.of(mask))

    views = [seen(camera, frame) for camera in range(3) for frame in range(2, 12)]
    late = late_cameras(views, points_of, 14)
    assert list(late) == [2] and late[2][0] == shift
    assert late_cameras([view for view in views if view.camera != 2], points_of, 14) == {}


@pytest.mark.parametrize("turn", [[0, 0.8, 0], [-0.6, 0, 0]])
def test_a_camera_that_is_turned_a_little_is_named(capture_copy, synthetic_body, turn):
    def turned(K, R, T):
        by = cv2.Rodrigues(np.deg2rad(np.array(turn, float)))[0]
        return K, by @ R, by @ T

    edit_cameras(capture_copy, [2], turned)
    (row,) = findings_of(capture_copy, synthetic_body, "cameras' directions")
    assert row.result == WARNING and NAMES[2] in row.where, row
    assert not any(NAMES[other] in row.where for other in (0, 1, 3))
    right, down = (float(number) for number in re.findall(r"(\d\.\d+) (?:to|down|up)", row.where))
    np.testing.assert_allclose([right, down], np.abs([turn[1], turn[0]]), atol=0.15)
    side = "left" if turn[1] else "up"  # the body is projected to the other side
    assert side in row.where


def test_light_that_changes_over_time_is_named(capture_copy, synthetic_body):
    for frame in range(FRAMES):
        edit_pictures([image_file(capture_copy, 0, frame)], lambda pixels, f=frame: dim(pixels, 1 - 0.03 * f))
    (row,) = findings_of(capture_copy, synthetic_body, "light over time")
    assert row.result == WARNING and f"{NAMES[0]}) by" in row.where and "from frame 7 to 0" in row.where, row
    assert "exposure" in row.what and not any(name in row.where for name in NAMES[1:])
    for camera in (1, 2, 3):
        for frame in range(FRAMES):
            path = image_file(capture_copy, camera, frame)
            edit_pictures([path], lambda pixels, f=frame: dim(pixels, 1 - 0.03 * f))
    (row,) = findings_of(capture_copy, synthetic_body, "light over time")
    assert row.result == WARNING and "in most cameras" in row.what


def test_a_camera_of_other_colours_is_named(capture_copy, synthetic_body):
    pictures = [image_file(capture_copy, 3, frame) for frame in range(FRAMES)]
    edit_pictures(pictures, lambda pixels: dim(pixels, np.array([1.0, 0.95, 0.7])))  # blue first
    (row,) = findings_of(capture_copy, synthetic_body, "light between cameras")
    assert row.result == WARNING and NAMES[3] in row.where and "as red" in row.where, row
    assert not any(name in row.where for name in NAMES[:3])
    assert "refine_camera_colors=true" in row.what


def dim(pixels: np.ndarray, factor) -> np.ndarray:
    return (pixels * factor + 0.5).clip(0, 255).astype(np.uint8)
