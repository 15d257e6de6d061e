"""One image and mask: decoding, undistortion, edge band, scaling."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from small_capture import HEIGHT, WIDTH, image_path, mask_path

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.images import edge_band, make_view_reader, opencv_intrinsics

SIZE = (WIDTH, HEIGHT)


def reader_for(root, image_scaling=1.0, edge_radius=3, dist=(0, 0, 0, 0, 0)):
    camera = replace(open_capture(root).cameras[0], dist=np.array(dist, float))
    return make_view_reader(camera, SIZE, image_scaling, edge_radius)


def read(root, **options):
    return reader_for(root, **options).read(image_path(root, 0, 2), mask_path(root, 0, 2))


def test_image_is_rgb_and_mask_is_bool(small_capture):
    view = read(small_capture)
    assert view.image.dtype == np.uint8 and view.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(view.image[30, 24], (20, 128, 255), atol=6)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[16:48, 16:32] = True
    np.testing.assert_array_equal(view.mask, expected)


def test_three_channel_mask_and_threshold(small_capture):
    values = np.full((HEIGHT, WIDTH), 100, np.uint8)
    values[:, 24:] = 160
    path = mask_path(small_capture, 0, 2)
    for pixels in (values, cv2.merge([values] * 3)):
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])
        mask = read(small_capture).mask
        assert mask[:, 28:].all() and not mask[:, :20].any()


def test_edge_band_is_a_disk_either_side_of_the_edge():
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((40, 50)), (0, 0), 4) > 0.5
    radius = 3
    band = edge_band(mask, radius)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for row, column in rng.integers((0, 0), mask.shape, (100, 2)):
        near = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        both = mask[near].any() and not mask[near].all()
        assert band[row, column] == both, (row, column)


def test_image_border_is_no_edge():
    assert not edge_band(np.ones((20, 20), bool), 4).any()
    assert not edge_band(np.eye(20, dtype=bool), 0).any()


def test_scaling_keeps_rays(small_capture):
    full, half = reader_for(small_capture), reader_for(small_capture, image_scaling=0.4)
    assert half.size == (19, 26)  # rounded: the ratios of the two axes differ
    point = np.array([0.3, -0.2, 2.0])
    on_full = (full.intrinsics @ point)[:2] / point[2]
    on_half = (half.intrinsics @ point)[:2] / point[2]
    np.testing.assert_allclose(on_half / half.size, on_full / full.size)
    view = read(small_capture, image_scaling=0.5)
    assert view.image.shape == (32, 24, 3) and view.image.dtype == np.uint8
    assert view.mask.shape == view.edge.shape == (32, 24) and view.mask.dtype == view.edge.dtype == bool
    expected = np.zeros((32, 24), bool)
    expected[8:24, 8:16] = True
    np.testing.assert_array_equal(view.mask, expected)
    assert view.edge[8, 12] and not view.edge[16, 12] and not view.edge[2, 2]


@pytest.mark.parametrize("image_scaling", [0, 1.5, -1])
def test_silly_scaling(small_capture, image_scaling):
    with pytest.raises(ValueError, match="image_scaling must be"):
        reader_for(small_capture, image_scaling=image_scaling)


def test_undistortion_puts_points_where_the_pinhole_camera_sees_them(small_capture):
    dist = np.array([1.5, -0.1, 0.01, -0.02, 0.05])
    reader = reader_for(small_capture, dist=dist)
    points = np.array([[0.15, 0.2, 1.0], [-0.2, 0.1, 1.0], [0.1, -0.28, 1.0]])
    distorted = cv2.projectPoints(points, np.zeros(3), np.zeros(3), reader.intrinsics, dist)[0][:, 0]
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    for point, (x, y) in zip(points, distorted, strict=True):
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
        for path in (image_path(small_capture, 0, 2), mask_path(small_capture, 0, 2)):
            cv2.imwrite(str(path), blob.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])
        view = reader.read(image_path(small_capture, 0, 2), mask_path(small_capture, 0, 2))
        seen = (reader.intrinsics @ point)[:2]
        assert np.linalg.norm(seen - (x, y)) > 1  # the distortion matters here
        weight = view.image[..., 0].astype(float)
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(found, seen, atol=0.5)
        found = np.array([columns[view.mask].mean(), rows[view.mask].mean()])
        np.testing.assert_allclose(found, seen, atol=0.7)


@pytest.mark.parametrize("dist", [
    (0.9, -0.1, 0.01, -0.02), (1.5, -0.1, 0.01, -0.02, 0.05), (0.5, 0.2, 0.01, 0.02, 0.1, -0.8, 0.3, 0.2),
    (0.5, 0.2, 0.01, 0.02, 0.1, -0.8, 0.3, 0.2, 0.05, -0.03, 0.04, 0.02),
])  # fmt: skip
def test_every_model_of_opencv_is_undone(small_capture, dist):
    """The very tables of OpenCV, of a calibration file that holds so many numbers."""
    path = small_capture / "calibration_full.json"
    calibration = json.loads(path.read_text())
    for entry in calibration.values():
        entry["distCoeff"] = list(dist)
    path.write_text(json.dumps(calibration))
    camera = open_capture(small_capture).cameras[0]
    assert camera.dist[: len(dist)].tolist() == list(dist)
    undistortion = make_view_reader(camera, SIZE, 1.0, 3).undistortion
    tables = cv2.initUndistortRectifyMap(camera.K, np.array(dist), None, camera.K, SIZE, cv2.CV_16SC2)
    for table, expected in zip(undistortion.tables, tables, strict=True):
        np.testing.assert_array_equal(table, expected)


def test_half_a_pixel_of_imported_cameras(small_capture):
    """Their K is for pixel centres at +0.5; OpenCV undoes the lens with half a pixel less."""
    camera = replace(
        open_capture(small_capture).cameras[0], dist=np.array([1.5, 0, 0, 0, 0]), half_pixel=True
    )
    shifted = camera.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    np.testing.assert_array_equal(opencv_intrinsics(camera, camera.K), shifted)
    tables = cv2.initUndistortRectifyMap(shifted, camera.dist, None, shifted, SIZE, cv2.CV_16SC2)
    reader = make_view_reader(camera, SIZE, 1.0, 3)
    np.testing.assert_array_equal(reader.undistortion.tables[1], tables[1])
    np.testing.assert_array_equal(reader.intrinsics, camera.K)


def test_mask_of_another_size_names_both_files_and_sizes(small_capture):
    path = mask_path(small_capture, 0, 2)
    cv2.imwrite(str(path), np.zeros((10, 20), np.uint8))
    with pytest.raises(ValueError, match="is 48x64 but its mask .* is 20x10") as caught:
        read(small_capture)
    assert str(path) in str(caught.value) and str(image_path(small_capture, 0, 2)) in str(caught.value)


def test_image_of_another_size_than_calibrated(small_capture):
    for path in (image_path(small_capture, 0, 2), mask_path(small_capture, 0, 2)):
        cv2.imwrite(str(path), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="is 20x10 but its camera's images are 48x64"):
        read(small_capture)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "not a readable image"),
        (lambda data: b"text", "not a readable image"),
        (lambda data: data[: len(data) // 2], "cut short"),
    ],
)
def test_damaged_image_is_named(small_capture, damage, message):
    path = image_path(small_capture, 0, 2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        read(small_capture)
    assert str(path) in str(caught.value)


def naive_view(root, reader_options, dist):
    """Everything at full size, as the method is described; image, mask, edge before scaling."""
    camera = replace(open_capture(root).cameras[0], dist=np.array(dist, float))
    image = cv2.imread(str(image_path(root, 0, 2)), cv2.IMREAD_COLOR_RGB)
    alpha = cv2.imread(str(mask_path(root, 0, 2)), cv2.IMREAD_GRAYSCALE)
    tables = cv2.initUndistortRectifyMap(camera.K, camera.dist, None, camera.K, SIZE, cv2.CV_16SC2)
    image, alpha = (cv2.remap(pixels, *tables, cv2.INTER_LINEAR) for pixels in (image, alpha))
    mask = (alpha > 128).astype(np.uint8)
    radius = reader_options["edge_radius"]
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    edge = cv2.dilate(mask, disk) != cv2.erode(mask, disk)
    scaled = [
        cv2.resize(pixels, reader_options["size"], interpolation=cv2.INTER_AREA)
        for pixels in (image, mask * 255, edge.astype(np.uint8) * 255)
    ]
    return scaled[0], scaled[1] > 128, scaled[2] > 128


@pytest.mark.parametrize("dist", [(0, 0, 0, 0, 0), (1.5, -0.1, 0.01, -0.02, 0.05), (-0.6, 0.1, 0, 0.02, 0)])
@pytest.mark.parametrize("image_scaling", [1.0, 0.5, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_working_in_the_bounding_box_changes_no_value_that_counts(small_capture, dist, image_scaling, seed):
    """Mask and edge band are equal everywhere, colours wherever the mask is True; blobs touch the border too."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    blob = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 6)
    blob = (blob > np.quantile(blob, 0.85)).astype(np.uint8) * 255
    cv2.imwrite(str(image_path(small_capture, 0, 2)), noise)
    cv2.imwrite(str(mask_path(small_capture, 0, 2)), blob)
    reader = reader_for(small_capture, image_scaling, edge_radius=4, dist=dist)
    view = reader.read(image_path(small_capture, 0, 2), mask_path(small_capture, 0, 2))
    image, mask, edge = naive_view(small_capture, {"edge_radius": 4, "size": reader.size}, dist)
    assert mask.any() and edge.any()
    np.testing.assert_array_equal(view.mask, mask)
    np.testing.assert_array_equal(view.edge, edge)
    np.testing.assert_array_equal(view.image[mask], image[mask])


@pytest.mark.parametrize("dist", [(0, 0, 0, 0, 0), (1.5, 0, 0, 0, 0)])
def test_mask_without_a_person(small_capture, dist):
    cv2.imwrite(str(mask_path(small_capture, 0, 2)), np.zeros((HEIGHT, WIDTH), np.uint8))
    view = read(small_capture, dist=dist)
    assert not view.mask.any() and not view.edge.any() and view.image.shape == (HEIGHT, WIDTH, 3)
