"""Boards drawn here are found, and the cameras that saw them come out where they were."""

import functools
import json

import cv2
import numpy as np
import pytest

from mmlphuman.capture.calibration import read_json_calibration
from mmlphuman.fitting.board import (
    Board,
    BoardView,
    BoardViews,
    calibrate_boards,
    calibrate_lens,
    camera_footage,
    find_boards,
    read_pictures,
)

SIZE = (800, 600)
K = np.array([[760.0, 0, 405], [0, 755, 292], [0, 0, 1]])  # OpenCV's
DIST = np.array([-0.12, 0.05, 0.001, -0.0015, 0])
CHECKERBOARD = Board(columns=8, rows=5, square=0.12)
CHARUCO = Board(columns=6, rows=5, square=0.16, marker=0.12)
DOT = 0.002  # metres, a pixel of the drawn board
FLAT = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # the axes of a board that lies face up -> world


def looking(place, at=(0, 0, 0)) -> np.ndarray:
    """World (y up) to camera."""
    z = np.subtract(at, place) / np.linalg.norm(np.subtract(at, place))
    x = np.cross(z, [0, 1, 0])
    x /= np.linalg.norm(x)
    w2c = np.eye(4)
    w2c[:3, :3] = np.stack([x, np.cross(z, x), z])
    w2c[:3, 3] = -w2c[:3, :3] @ place
    return w2c


def board_pose(board: Board, middle, turn=(0, 0, 0)) -> np.ndarray:
    """Board to world: face up, turned by a rotation vector about its middle."""
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array(turn, float))[0] @ FLAT.T
    pose[:3, 3] = middle - pose[:3, :3] @ (board.square / 2 * np.array([board.columns, board.rows, 0]))
    return pose


def drawn(board: Board) -> np.ndarray:
    """The board, seen from its face, with a white border of a square."""
    side = round(board.square / DOT)
    if board.marker is not None:
        image = board.charuco().generateImage((board.columns * side, board.rows * side))
    else:
        row, column = np.mgrid[: board.rows, : board.columns]
        image = np.kron((row + column) % 2 * 255, np.ones((side, side))).astype(np.uint8)
    return np.pad(image, side, constant_values=255)


@functools.cache
def rays() -> np.ndarray:
    """(1200, 1600, 3) directions, 2x2 a pixel."""
    x, y = np.meshgrid(np.arange(-0.25, SIZE[0] - 0.5, 0.5), np.arange(-0.25, SIZE[1] - 0.5, 0.5))
    pixels = np.stack([x.ravel(), y.ravel()], 1)
    flat = cv2.undistortPoints(pixels[:, None], K, DIST).reshape(*x.shape, 2)
    return np.concatenate([flat, np.ones((*x.shape, 1))], 2)


def photograph(board: Board, pose: np.ndarray, w2c: np.ndarray) -> np.ndarray:
    """What the camera sees of the board: every pixel's rays, 2x2 of them, are traced to the board's plane."""
    texture = drawn(board)
    to_board = np.linalg.inv(w2c @ pose)
    starts, directions = to_board[:3, 3], rays() @ to_board[:3, :3].T
    hit = starts + directions * (-starts[2] / directions[..., 2])[..., None]
    places = ((hit[..., :2] + board.square) / DOT - 0.5).astype(np.float32)
    image = cv2.remap(texture, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderValue=110)
    return cv2.GaussianBlur(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA), (3, 3), 0)


RING = [looking([2 * np.sin(a), 1.4, 2 * np.cos(a)], (0, 0.3, 0)) for a in np.deg2rad([0, 55, 110])]
NAMES = ("front", "side", "back")


def times(board: Board) -> dict[int, np.ndarray]:
    """Poses of the board: first on the floor, then held in the air."""
    rng = np.random.default_rng(3)
    held = {
        number: board_pose(board, rng.uniform(-0.2, 0.2, 3) + [0, 0.3, 0], rng.uniform(-0.4, 0.4, 3))
        for number in range(1, 9)
    }
    return {0: board_pose(board, np.zeros(3))} | held


@pytest.fixture(scope="module", params=[CHECKERBOARD, CHARUCO], ids=["checkerboard", "charuco"])
def seen(request):
    """The board, where it was, and what the three cameras found of it."""
    board, poses = request.param, times(request.param)
    found = {}
    for name, w2c in zip(NAMES, RING, strict=True):
        found[name] = find_boards(
            name, ((t, photograph(board, pose, w2c)) for t, pose in poses.items()), board
        )
    return board, poses, found


def test_corners_are_found_where_they_are(seen):
    board, poses, found = seen
    errors = []
    for name, w2c in zip(NAMES, RING, strict=True):
        assert len(found[name].views) >= 6
        for time, view in found[name].views.items():
            pose = w2c @ poses[time]
            true = cv2.projectPoints(board.corners, pose[:3, :3], pose[:3, 3], K, DIST)[0].reshape(-1, 2)
            errors += np.linalg.norm(true[view.corners] - view.places, axis=1).tolist()
    assert np.median(errors) < 0.06 and np.quantile(errors, 0.95) < 0.3


def test_cameras_come_out_where_they_were(seen, tmp_path):
    """To 0.1 degrees and 2.5 mm at 2.4 m, from nine pictures of 800x600 and a lens from others with the board near."""
    board, poses, found = seen
    lens_views = exact_views(board, near(board), 0.05, [np.eye(4)] * 3)
    result = calibrate_boards(found, board, floor_time=0, lens_views=lens_views, say=lambda line: None)
    result.write(tmp_path / "calibration.json")
    cameras = read_json_calibration(tmp_path / "calibration.json")
    # World of the result: first corner of the board is the origin, x along its rows, y up.
    world = np.eye(4)
    world[:3, :3] = FLAT.T
    to_truth = poses[0] @ np.linalg.inv(world)
    for camera, w2c in zip(cameras, RING, strict=True):
        true = w2c @ to_truth
        turn = np.degrees(np.linalg.norm(cv2.Rodrigues(camera.R @ true[:3, :3].T)[0]))
        shift = np.linalg.norm(camera.center + true[:3, :3].T @ true[:3, 3])
        assert turn < 0.1 and shift < 0.0025, (camera.name, turn, shift)
        assert camera.half_pixel and camera.image_size == SIZE
        np.testing.assert_allclose(camera.K, K + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], atol=1.5)
        assert camera.center[1] > 1, "y is up"
    assert max(result.errors.values()) < 0.4 and max(result.lens_errors.values()) < 0.3
    assert set(result.errors) == set(NAMES)


def near(board: Board) -> dict[int, np.ndarray]:
    """The board before a camera, board to camera, filling half of the picture and turned to all sides."""
    rng = np.random.default_rng(5)
    poses = {}
    for number in range(12):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(rng.uniform(-0.5, 0.5, 3))[0]
        size = board.square * np.array([board.columns, board.rows])
        middle = [*rng.uniform([-0.35, -0.25], [0.35, 0.25]), 1.25]
        pose[:3, 3] = middle - pose[:3, :3] @ [*(size / 2), 0]
        poses[number] = pose
    return poses


def exact_views(board, poses, noise=0.0, cameras=RING):
    rng = np.random.default_rng(0)
    views = {}
    for name, w2c in zip(NAMES, cameras, strict=True):
        views[name] = BoardViews(SIZE, {})
        for time, pose in poses.items():
            board_to_camera = w2c @ pose
            places = cv2.projectPoints(
                board.corners, board_to_camera[:3, :3], board_to_camera[:3, 3], K, DIST
            )[0]
            places = places.reshape(-1, 2) + rng.normal(0, noise, (len(board.corners), 2))
            views[name].views[time] = BoardView(np.arange(len(places)), places)
    return views


def test_exact_corners_give_exact_cameras_through_a_chain():
    """The outer cameras never see the board at once."""
    views = exact_views(CHECKERBOARD, times(CHECKERBOARD))
    first, last = views["front"].views, views["back"].views
    chain = {
        "front": BoardViews(SIZE, {time: first[time] for time in range(5)}),
        "side": views["side"],
        "back": BoardViews(SIZE, {time: last[time] for time in range(5, 9)}),
    }
    result = calibrate_boards(chain, CHECKERBOARD, floor_time=0, lens_views=views, say=lambda line: None)
    front, _, back = (camera.w2c for camera in result.calibration.cameras)
    np.testing.assert_allclose(back @ np.linalg.inv(front), RING[2] @ np.linalg.inv(RING[0]), atol=2e-4)
    assert not any("place leaves" in note for note in result.notes)


def test_doubts_are_told():
    poses = times(CHECKERBOARD)
    flat = {time: board_pose(CHECKERBOARD, [0.02 * time, 0, 0], [0, 0.1 * time, 0]) for time in range(5)}
    views = exact_views(CHECKERBOARD, flat, noise=0.1)["front"].views
    _, notes = calibrate_lens("front", SIZE, list(views.values()), CHECKERBOARD)
    text = "; ".join(notes)
    assert "only 5 pictures" in text and "at one angle only" in text
    result = calibrate_boards(exact_views(CHECKERBOARD, poses), CHECKERBOARD, say=lambda line: None)
    assert any("floor is taken to be" in note and "picture 0" in note for note in result.notes)
    late = exact_views(CHECKERBOARD, poses)  # the last camera's pictures are one late
    late["back"] = BoardViews(SIZE, {time + 1: view for time, view in late["back"].views.items()})
    own = exact_views(CHECKERBOARD, poses)
    result = calibrate_boards(late, CHECKERBOARD, floor_time=0, lens_views=own, say=lambda line: None)
    assert any("taken at the same times" in note for note in result.notes)


def test_what_cannot_be_is_refused(tmp_path):
    poses = times(CHECKERBOARD)
    views = exact_views(CHECKERBOARD, poses)
    apart = views | {"back": BoardViews(SIZE, {time + 100: v for time, v in views["back"].views.items()})}
    with pytest.raises(ValueError, match="share no view of the board with back"):
        calibrate_boards(apart, CHECKERBOARD, lens_views=views, say=str)
    blank = np.zeros((60, 80), np.uint8)
    with pytest.raises(ValueError, match="found in none of its 2 pictures"):
        find_boards("front", [(0, blank), (1, blank)], CHECKERBOARD)
    with pytest.raises(ValueError, match="different sizes"):
        find_boards("front", [(0, blank), (1, blank.T)], CHECKERBOARD)
    with pytest.raises(ValueError, match="picture 77"):
        calibrate_boards(views, CHECKERBOARD, floor_time=77, say=str)
    few = {"front": BoardViews(SIZE, {time: views["front"].views[time] for time in (0, 1)})}
    with pytest.raises(ValueError, match="2 pictures show the board well, at least 3"):
        calibrate_boards(few, CHECKERBOARD, say=str)
    with pytest.raises(ValueError, match="upside down"):
        Board(columns=8, rows=6, square=0.1)
    with pytest.raises(ValueError, match="smaller than squares"):
        Board(columns=6, rows=5, square=0.1, marker=0.2)
    with pytest.raises(ValueError, match="knows no markers"):
        Board(columns=6, rows=5, square=0.1, marker=0.05, dictionary="DICT_9X9")
    with pytest.raises(ValueError, match="neither videos nor folders"):
        camera_footage(tmp_path)


def test_pictures_and_videos_are_read_by_their_numbers(tmp_path):
    images = [np.full((48, 64), 20 * number, np.uint8) for number in range(1, 5)]
    folder = tmp_path / "left"
    folder.mkdir()
    for number, image in zip((3, 7, 12, 20), images, strict=True):
        cv2.imwrite(str(folder / f"view_{number:03d}.png"), image)
    writer = cv2.VideoWriter(str(tmp_path / "right.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    writer.release()
    footage = camera_footage(tmp_path)
    assert list(footage) == ["left", "right"]
    assert [number for number, _ in read_pictures(footage["left"])] == [3, 7, 12, 20]
    frames = list(read_pictures(footage["right"], every=2))
    assert [number for number, _ in frames] == [0, 2]
    assert abs(float(frames[1][1].mean()) - 60) < 4
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not a readable video"):
        next(read_pictures(tmp_path / "notes.mp4"))


def test_written_calibration_is_the_captures(tmp_path):
    views = exact_views(CHECKERBOARD, times(CHECKERBOARD))
    calibrate_boards(views, CHECKERBOARD, floor_time=0, say=str).write(tmp_path / "calibration.json")
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert list(content) == list(NAMES) and content["front"]["pixelCenter"] == 0.5
