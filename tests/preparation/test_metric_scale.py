"""The person's height in the cameras' unit, against boxes whose height is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman.capture.layout import CalibratedCamera, distortion
from mmlphuman.preparation.metric_scale import directions, factor_of_height, nearest_point, person_height
from mmlphuman.preparation.source_pictures import SourcePictures

SIZE, FOCAL = (400, 500), 450.0


def cameras_around(turn: Rotation, height: float, half_pixel: bool, count: int = 6) -> list[CalibratedCamera]:
    """A ring of 3 units about the z axis at this height, looking at it levelly; the whole world turned by `turn`."""
    cameras = []
    for number in range(count):
        angle = 2 * np.pi * number / count
        center = np.array([3 * np.cos(angle), 3 * np.sin(angle), height])
        forward, down = -np.array([np.cos(angle), np.sin(angle), 0]), np.array([0, 0, -1.0])
        R = np.stack([np.cross(down, forward), down, forward]) @ turn.inv().as_matrix()
        center = turn.apply(center)
        shift = 0.5 * half_pixel
        K = np.array([[FOCAL, 0, 199.5 + shift], [0, FOCAL, 249.5 + shift], [0, 0, 1]])
        dist = distortion((0.1, 0.0, 0.001, 0.0))
        cameras.append(CalibratedCamera(f"{number}", K, R, -R @ center, dist, SIZE, half_pixel))
    return cameras


def draw_pole(camera: CalibratedCamera, ends: np.ndarray, path: Path) -> Path:
    """A thin pole from one point to another, drawn by OpenCV's projection, fine between pixels."""
    K = camera.K - 0.5 * camera.half_pixel * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    points = np.linspace(*ends, 60)
    pixels = cv2.projectPoints(points, cv2.Rodrigues(camera.R)[0], camera.T, K, camera.dist)[0]
    mask = np.zeros(SIZE[::-1], np.uint8)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    top, bottom = pixels.min(0)[0, 1], pixels.max(0)[0, 1]
    middle = pixels.mean(0)[0, 0]
    mask[(np.abs(columns - middle) < 4) & (rows >= top) & (rows <= bottom)] = 255
    assert cv2.imwrite(str(path), mask)
    return path


@pytest.mark.parametrize("half_pixel", [True, False])
@pytest.mark.parametrize("turn", [Rotation.identity(), Rotation.from_rotvec([0.7, -1.0, 0.4])])
def test_height_of_a_pole(tmp_path, half_pixel, turn):
    """It stands off the ring's middle and stoops in most frames; the best of them count, to a pixel of its 240."""
    cameras = cameras_around(turn, 0.9, half_pixel)
    files: list[dict[int, Path]] = [{} for _ in cameras]
    for frame in range(8):
        top = 1.75 if frame < 2 else 1.0
        ends = turn.apply([[0.3, -0.2, 0.05], [0.3, -0.2, 0.05 + top]])
        for number, camera in enumerate(cameras):
            files[number][frame] = draw_pole(camera, ends, tmp_path / f"{number}_{frame}.png")
    found = person_height(cameras, [SourcePictures({}, masks) for masks in files])
    assert found == pytest.approx(1.75, abs=0.004)
    assert factor_of_height(1.75, found) == pytest.approx(1, abs=0.0025)


@pytest.mark.parametrize("half_pixel", [True, False])
def test_directions_are_those_of_the_points_that_are_seen(half_pixel):
    (camera, *_) = cameras_around(Rotation.from_rotvec([0.7, -1.0, 0.4]), 0.9, half_pixel)
    points = np.random.default_rng(0).normal(0, 0.5, (20, 3))
    K = camera.K - 0.5 * half_pixel * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    pixels = cv2.projectPoints(points, cv2.Rodrigues(camera.R)[0], camera.T, K, camera.dist)[0][:, 0]
    rays = points - camera.center
    expected = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    np.testing.assert_allclose(directions(camera, pixels + 0.5 * half_pixel), expected, atol=1e-5)


def test_lines_meet_where_they_meet():
    rng = np.random.default_rng(0)
    point, centers = rng.normal(size=3), rng.normal(size=(4, 3))
    rays = [(point - center) / np.linalg.norm(point - center) for center in centers]
    np.testing.assert_allclose(nearest_point(list(centers), rays), point, atol=1e-10)


def test_nothing_to_measure(tmp_path):
    cameras = cameras_around(Rotation.identity(), 0.9, True)
    path = tmp_path / "empty.png"
    cv2.imwrite(str(path), np.zeros(SIZE[::-1], np.uint8))
    pictures = [SourcePictures({}, {0: path}) for _ in cameras]
    with pytest.raises(ValueError, match="--height: in no frame do two cameras' masks show a whole person"):
        person_height(cameras, pictures)
    with pytest.raises(ValueError, match="no person that stands upright"):
        factor_of_height(1.7, -0.2)
