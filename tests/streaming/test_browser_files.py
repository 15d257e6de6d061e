"""What the page in headless Chromium writes and reads: camera files, screenshots, pose files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmlphuman.animation import pose_file
from mmlphuman.animation.camera_file import read_camera_file
from tests.streaming.browser import Browser, wait_for
from tests.streaming.page_server import BLUE, MIDDLE, RED, after, settled


def downloaded(browser: Browser, pattern: str) -> Path:
    """Once it is whole: the browser first puts an empty file under its name, and the content beside it."""

    def whole() -> list[Path]:
        found = [path for path in browser.downloads.glob(pattern) if path.stat().st_size]
        return [] if any(browser.downloads.glob("*.crdownload")) else found

    return wait_for(whole)[0]


def test_camera_files_come_back(browser, painter):
    settled(painter, lambda: browser.drag(MIDDLE, (520, 260)))
    saved = painter.last.camera
    browser.click("#save-camera")
    path = downloaded(browser, "camera.json")
    view = read_camera_file(path)
    assert np.allclose(view.w2c, saved.w2c, atol=1e-12)
    assert (view.fovx, view.width, view.height) == (saved.fovx, saved.width, saved.height)
    K = np.array(json.loads(path.read_text())["K"]).reshape(3, 3)
    assert np.allclose(K, view.intrinsics)
    settled(painter, lambda: browser.press("r"))
    loaded = after(painter, lambda: browser.type("#camera-file", str(path))).camera
    assert np.allclose(loaded.w2c, saved.w2c, atol=1e-12) and loaded.fovx == saved.fovx
    path.write_text('{"w2c": [1, 2]}')
    browser.type("#camera-file", str(path))
    wait_for(lambda: "camera.json: is no camera file" in browser.text("#message"))


def test_a_screenshot_is_exact(browser, painter):
    usual = after(painter, lambda: browser.run("document.getElementById('resolution').value = 40")).camera
    browser.press("p")
    image = cv2.imread(str(downloaded(browser, "screenshot_*.png")))[..., ::-1]
    exact = next(request for request in painter.requests if request.encoding == "png").camera
    assert image.shape == (exact.height, exact.width, 3) and exact.width > 2 * usual.width
    assert np.array_equal(np.unique(image.reshape(-1, 3), axis=0), sorted([RED, BLUE]))
    assert after(painter, lambda: browser.drag(MIDDLE, (520, 260))).encoding == "jpeg"


def write_amass(path, save, poses, translations):
    save(path, poses=poses, trans=translations, mocap_frame_rate=np.float64(60), gender="female")


def write_params(path, save, poses, translations):
    """With a face, of more numbers than are used."""
    parts = {
        "global_orient": (0, 3),
        "body_pose": (3, 66),
        "jaw_pose": (66, 69),
        "left_hand_pose": (75, 120),
        "right_hand_pose": (120, 165),
    }
    arrays = {name: poses[:, begin:end] for name, (begin, end) in parts.items()}
    save(path, transl=translations, expression=poses[:, :50], **arrays)


def write_without_hands(path, save, poses, translations):
    save(path, global_orient=poses[:, :3], body_pose=poses[:, 3:], transl=translations)


def write_by_joint(path, save, poses, translations):
    save(path, poses=poses.reshape(len(poses), -1, 3), trans=translations, mocap_frame_rate=60.0)


def write_amass_parts(path, save, poses, translations):
    parts = {"root_orient": poses[:, :3], "pose_body": poses[:, 3:66], "pose_hand": poses[:, 66:]}
    save(path, **parts, trans=translations, mocap_frame_rate=60.0)


def write_model_poses(path, save, poses, translations):
    frames = np.arange(7, 7 + len(poses))
    save(path, poses=poses, translations=translations, frames=frames, expression=poses[:, 9:19])


@pytest.mark.parametrize(
    ("write", "save", "width"),
    [
        (write_amass, np.savez, 156),
        (write_amass, np.savez_compressed, 165),
        (write_params, np.savez_compressed, 165),
        (write_model_poses, np.savez, 165),
        (write_without_hands, np.savez, 66),
        (write_without_hands, np.savez_compressed, 72),
        (write_by_joint, np.savez, 72),
        (write_by_joint, np.savez, 165),
        (write_amass_parts, np.savez, 156),
    ],
)
def test_pose_files_are_read_as_python_reads_them(browser, painter, tmp_path, write, save, width):
    generator = np.random.default_rng(0)
    poses = generator.normal(0, 0.5, (12, width)).astype(np.float32)
    write(tmp_path / "poses.npz", save, poses, generator.normal(0, 1, (12, 3)))
    ours = pose_file.read_pose_file(tmp_path / "poses.npz", pose_file.PoseOptions(face=True))
    after(painter, lambda: browser.type("#pose-file", str(tmp_path / "poses.npz")))
    pose = settled(painter, lambda: browser.press("\ue014")).pose
    assert pose.kind == "given" and f"frame {ours.frames[1]} (2/12)" in browser.text("#transport")
    assert np.allclose(pose.joints, ours.poses[1], atol=1e-7)
    assert np.allclose(pose.expression, ours.expression(1), atol=1e-7)
    assert np.allclose(pose.translation, ours.translations[1], atol=1e-6)
    assert np.array_equal(pose.rotation, np.eye(3))


def test_a_file_without_poses_is_refused(browser, painter, tmp_path):
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    browser.type("#pose-file", str(tmp_path / "other.npz"))
    wait_for(
        lambda: browser.text("#message") == "other.npz: global_orient is missing; the file holds numbers"
    )
    write_params(tmp_path / "cm.npz", np.savez, np.zeros((3, 165), np.float32), np.full((3, 3), 120.0))
    browser.type("#pose-file", str(tmp_path / "cm.npz"))
    wait_for(
        lambda: browser.text("#message").startswith("cm.npz: its first frame lies 207.8 from the origin")
    )
    (tmp_path / "text.npz").write_text("no zip")
    browser.type("#pose-file", str(tmp_path / "text.npz"))
    wait_for(lambda: browser.text("#message") == "text.npz: is no .npz file, or is cut short")
