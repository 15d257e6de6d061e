"""Photographs beside renders: the right file, undistorted, of the asked view; nothing for whoever asks wrongly."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmlphuman.animation.camera_file import CameraView, fovx_of
from mmlphuman.backend import PYTORCH
from mmlphuman.capture.layout import CalibratedCamera, CaptureLayout, distortion
from mmlphuman.streaming.live_scene import LiveScene
from mmlphuman.streaming.messages import PhotographRequest
from mmlphuman.streaming.photographs import Photographs
from tests.streaming.live_scenes import FRAMES, view

SIZE = (120, 90)  # width, height


def stripes(levels: int = 6) -> np.ndarray:
    """Colours that tell their place, smooth, so that interpolation errs little."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    return (np.stack([x, y, 0.5 + 0.5 * np.sin(levels * x) * y], -1) * 255).astype(np.uint8)


def calibrated(name: str, stands: CameraView, dist=()) -> CalibratedCamera:
    K = np.array([[150.0, 0, 57], [0, 150, 48], [0, 0, 1]])
    return CalibratedCamera(name, K, stands.w2c[:3, :3], stands.w2c[:3, 3], distortion(dist), SIZE)


@pytest.fixture
def layout(tmp_path) -> CaptureLayout:
    cameras = (calibrated("a", view(0.0)), calibrated("b", view(1.0), (-0.5, 0.1, 0, 0)))
    for camera in cameras:
        (tmp_path / camera.name).mkdir()
        for frame in range(100, 104):
            picture = stripes(frame - 95)[..., ::-1]
            cv2.imwrite(str(tmp_path / camera.name / f"{frame:04d}.png"), picture)
    return CaptureLayout(tmp_path, cameras, "{camera}/{frame:04d}.jpg", "{camera}/mask/{frame:04d}.png", 1)


def view_of(camera: CalibratedCamera, size=SIZE, focal=150.0) -> CameraView:
    return CameraView(camera.w2c, fovx_of(focal, size[0]), *size)


def test_the_photograph_is_moved_to_the_middle_and_scaled(layout):
    """A render has its principal point in the middle: 60, 45 where the camera's is 57, 48."""
    source = stripes(101 - 95)
    taken = Photographs(layout).read(0, 101, view_of(layout.cameras[0]))
    assert np.array_equal(taken[:87, 3:], source[3:, :117])
    assert not taken[87:].any() and not taken[:, :3].any()
    half = Photographs(layout).read(0, 101, view_of(layout.cameras[0], (60, 45), 75.0))
    small = cv2.resize(taken, (60, 45), interpolation=cv2.INTER_AREA)
    assert np.abs(half[4:40, 4:56].astype(int) - small[4:40, 4:56]).max() <= 8


def test_the_lens_is_undone_as_training_undoes_it(layout):
    camera = layout.cameras[1]
    source = stripes(103 - 95)
    taken = Photographs(layout).read(1, 103, view_of(camera))
    straight = cv2.undistort(source, camera.K, camera.dist)
    assert np.abs(taken[5:80, 10:110].astype(int) - straight[8:83, 7:107]).max() <= 3
    assert np.abs(taken[5:80, 10:110].astype(int) - source[8:83, 7:107]).max() > 10, "the lens bends nothing"


@pytest.mark.parametrize(
    ("camera_id", "frame", "change", "words"),
    [
        (2, 101, {}, "camera 2 has no photograph from here"),
        (1, 101, {}, "camera 1 has no photograph from here"),  # stands elsewhere
        (0, 99, {}, "camera 0 has no photograph of frame 99"),
        (0, 10**15, {}, "no photograph of frame"),
        (0, 101, {"width": 4096, "height": 4096}, "too many"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(layout, camera_id, frame, change, words):
    with pytest.raises(ValueError, match=words) as error:
        Photographs(layout).read(camera_id, frame, replace(view_of(layout.cameras[0]), **change))
    assert "\n" not in str(error.value)


def test_damage_is_said(layout, tmp_path):
    file = tmp_path / "a" / "0101.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="cut short"):
        Photographs(layout).read(0, 101, view_of(layout.cameras[0]))


def test_another_capture_is_refused(layout):
    photographs = Photographs(layout)
    photographs.check_cameras({0: view(0.0), 1: view(1.0)})
    for cameras in ({0: view(0.1)}, {2: view(0.0)}):
        with pytest.raises(ValueError, match="not the capture of this model"):
            photographs.check_cameras(cameras)


def test_a_scene_serves_them(trained, layout):
    cameras = {id: view_of(layout.cameras[id]) for id in (0, 1)}
    poses, translations = np.zeros((FRAMES, 165)), np.zeros((FRAMES, 3))
    frames = [103, 101, *range(200, 198 + FRAMES)]
    scene = LiveScene(
        trained,
        PYTORCH,
        poses,
        translations,
        frames,
        cameras,
        "",
        held_out=[1],
        photographs=Photographs(layout),
    )
    welcome = scene.welcome(training=False)
    assert welcome.photographs and [entry.trained for entry in welcome.cameras] == [True, False]
    drawn = scene.serve(PhotographRequest(1, cameras[0], 0, 1))  # position 1 is frame 101
    assert np.array_equal(drawn.image, Photographs(layout).read(0, 101, cameras[0]))
    scene.serve(PhotographRequest(1, cameras[1], 1, 0))
    for position, words in ((2, "no photograph of frame 200"), (FRAMES, "frame: position")):
        with pytest.raises(ValueError, match=words):
            scene.serve(PhotographRequest(1, cameras[0], 0, position))
    without = LiveScene(trained, PYTORCH, poses, translations, frames, cameras, "")
    assert not without.welcome(training=False).photographs
    with pytest.raises(ValueError, match="there are no photographs"):
        without.serve(PhotographRequest(1, cameras[0], 0, 0))
