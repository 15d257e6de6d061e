"""Cameras from pictures of a checkerboard or a ChArUco board.

Data path: each camera's pictures -> where the board's corners are -> lens of each camera from its own pictures ->
places of the cameras from pictures of one time in which several see the board -> Calibration -> calibration.json.
Shape letters: V cameras, F times (pictures with one number were taken at once), N corners of a board.

In between everything follows OpenCV: pixel centres are whole numbers, and the board's x runs along its rows, y down,
z into it. A printed board has its corners in one order only if one of its sides counts an even number of squares and
the other an odd one; other boards look the same upside down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import lil_matrix
from tqdm import tqdm

from mmlphuman.calibrations.calibration import Calibration, opencv_camera
from mmlphuman.capture.calibration import calibration_content
from mmlphuman.capture.formats import VIDEO_ENDINGS
from mmlphuman.capture.picture_names import is_picture
from mmlphuman.files import atomic_write

MOST_LENS_VIEWS = 40  # of a camera; more take minutes and tell nothing new
MOST_SHARED_TIMES = 60
FEWEST_VIEWS, GOOD_VIEWS = 3, 10  # of a camera's lens
FEWEST_CORNERS = 6  # of a ChArUco board, in a picture that counts
REACH = 0.7  # of the distance to the next edge that is not the corner's own
SMALLEST_REACH, LARGEST_REACH = 2, 12  # pixels to each side of a corner
SMALLEST_SQUARE = 8  # pixels of a square's narrower side: a board seen edge-on tells little, and that wrongly
OUTLIER = 4.0  # times the median error of a camera's corners
SURE = 0.3  # pixels; errors that are larger count less than squared
LARGE_ERROR = 1.0  # pixels, root mean square
LEAST_TILT = 12.0  # degrees that the board should turn about, or the focal length is a guess
LEAST_COVER = 0.4  # of the picture's width and height, that corners should have been seen in
BOARD_AXES_TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y up where the board lies on the floor


@dataclass(frozen=True)
class Board:
    """A flat board of squares. With markers in its white squares it is a ChArUco board, which may be seen in part."""

    columns: int  # squares along a row, as printed
    rows: int
    square: float  # metres, a square's side
    marker: float | None = None  # metres, a marker's side; None: a plain checkerboard
    dictionary: str = "DICT_4X4_50"  # of the markers, OpenCV's name

    def __post_init__(self):
        if min(self.columns, self.rows) < 3 or not 0 < self.square < 10:
            raise ValueError(
                f"board of {self.columns}x{self.rows} squares of {self.square:g} m: at least 3x3 squares are needed, "
                "and their side in metres"
            )
        if self.marker is None and (self.columns + self.rows) % 2 == 0:
            raise ValueError(
                f"a checkerboard of {self.columns}x{self.rows} squares looks the same upside down; take one with an "
                "even and an odd number of squares, or a ChArUco board"
            )
        if self.marker is not None and not 0 < self.marker < self.square:
            raise ValueError(
                f"board: markers of {self.marker:g} m must be smaller than squares of {self.square:g} m"
            )
        if self.marker is not None and not isinstance(getattr(cv2.aruco, self.dictionary, None), int):
            raise ValueError(f"board: OpenCV knows no markers '{self.dictionary}'; such as DICT_4X4_50")

    @property
    def corners(self) -> np.ndarray:
        """(N, 3) inner corners in the board's axes, row by row."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        return self.square * np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)

    def charuco(self) -> cv2.aruco.CharucoBoard:
        markers = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, self.marker or 0, markers)


@dataclass(frozen=True)
class BoardView:
    """The corners that one picture shows."""

    corners: np.ndarray  # (n,) int64 numbers of the board's corners
    places: np.ndarray  # (n, 2) pixels, OpenCV's


@dataclass(frozen=True)
class BoardViews:
    """One camera's pictures in which the board was found."""

    size: tuple[int, int]  # (width, height)
    views: dict[int, BoardView]  # by the number of the picture


@dataclass(frozen=True)
class Lens:
    K: np.ndarray  # (3, 3) OpenCV's pixels
    dist: np.ndarray  # (5,)
    error: float  # pixels, root mean square


@dataclass(frozen=True)
class BoardCalibration:
    calibration: Calibration  # metres; y up, the floor at 0, if the board lay on it at `floor_time`
    floor_time: int
    lens_errors: dict[str, float]  # pixels, root mean square of each camera's own pictures
    errors: dict[str, float]  # and of the pictures that place the cameras
    notes: tuple[str, ...]

    def write(self, path: Path) -> None:
        """calibration.json, as captures have it."""
        content = calibration_content(self.calibration.cameras)
        with atomic_write(path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())


def read_pictures(path: Path, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """(number, grey picture) of a folder's pictures or of every so many frames of a video.

    A picture's number is the last one in its name, or its place where names have none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if is_picture(file.name))
        numbers = [_last_number(file.stem) for file in files]
        known = [number for number in numbers if number is not None]
        if len(set(known)) < len(files):
            numbers = list(range(len(files)))
        for number, file in zip(numbers, files, strict=True):
            image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if image is None:
                raise ValueError(f"{file}: not a readable picture")
            assert number is not None
            yield number, image
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video or folder of pictures")
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise ValueError(f"{path}: not a readable video")
        number = 0
        while video.grab():
            if number % every == 0:
                got, image = video.retrieve()
                if got:
                    yield number, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            number += 1
    finally:
        video.release()


def _last_number(name: str) -> int | None:
    digits = "".join(c if c.isdigit() else " " for c in name).split()
    return int(digits[-1]) if digits else None


def camera_footage(folder: Path) -> dict[str, Path]:
    """Name -> video or folder of pictures, of each camera, in the order of the names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of a video or of pictures for each camera")
    found = {
        path.stem if path.is_file() else path.name: path
        for path in sorted(folder.iterdir())
        if (path.is_file() and path.suffix.lower() in VIDEO_ENDINGS)
        or (path.is_dir() and any(is_picture(file.name) for file in path.iterdir()))
    }
    if not found:
        raise ValueError(f"{folder}: holds neither videos nor folders of pictures, one for each camera")
    return found


def find_boards(
    name: str, pictures: Iterable[tuple[int, np.ndarray]], board: Board, progress: bool = False
) -> BoardViews:
    """The board in a camera's pictures. Raises ValueError if no picture shows it or their sizes differ."""
    detector = None if board.marker is None else cv2.aruco.CharucoDetector(board.charuco())
    size, views, count = None, {}, 0
    for number, image in tqdm(pictures, f"board in {name}", disable=not progress, leave=False):
        count += 1
        shape = (image.shape[1], image.shape[0])
        if size not in (None, shape):
            raise ValueError(f"camera {name}: its pictures have different sizes, {size} and {shape}")
        size = shape
        view = _find_checkerboard(image, board) if detector is None else _find_charuco(image, board, detector)
        if view is not None:
            views[number] = view
    if size is None or not views:
        raise ValueError(
            f"camera {name}: the board of {board.columns}x{board.rows} squares was found in none of its {count} "
            "pictures; count squares, not corners, and show the whole board, well lit"
        )
    return BoardViews(size, views)


def _find_checkerboard(image: np.ndarray, board: Board) -> BoardView | None:
    shape = (board.columns - 1, board.rows - 1)
    found, corners = cv2.findChessboardCorners(
        image,
        shape,
        flags=cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK,
    )
    if not found:  # slower, and sees more
        found, corners = cv2.findChessboardCornersSB(image, shape, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)
    if not found:
        return None
    grid = corners.astype(np.float64).reshape(shape[1], shape[0], 2)
    across, down = grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0]
    if across[0] * down[1] - across[1] * down[0] < 0:  # counted from the other side
        grid = grid[:, ::-1]
    if not _first_square_is_black(image, grid, board):
        grid = grid[::-1, ::-1]
    return _refined(image, board, np.arange(shape[0] * shape[1]), grid.reshape(-1, 2))


def _first_square_is_black(image: np.ndarray, grid: np.ndarray, board: Board) -> bool:
    """True if the square in the board's corner before the first row and column is dark, as OpenCV prints it."""
    flat = board.corners[:, :2].astype(np.float32)
    homography = cv2.findHomography(flat, grid.reshape(-1, 2).astype(np.float32))[0]
    column, row = np.meshgrid(
        np.arange(1, board.columns - 1), np.arange(1, board.rows - 1)
    )  # wholly in the picture
    centres = board.square * (np.stack([column.ravel(), row.ravel()], 1) + 0.5)
    places = cv2.perspectiveTransform(centres[None].astype(np.float32), homography)[0].round().astype(int)
    values = image[places[:, 1].clip(0, image.shape[0] - 1), places[:, 0].clip(0, image.shape[1] - 1)].astype(
        float
    )
    even = (column + row).ravel() % 2 == 0
    return bool(values[even].mean() < values[~even].mean())


def _refined(image: np.ndarray, board: Board, numbers: np.ndarray, places: np.ndarray) -> BoardView | None:
    """The corners again, each from the edges about it alone: neither the next corner's nor a marker's."""
    homography = cv2.findHomography(board.corners[numbers, :2].astype(np.float32), places.astype(np.float32))[
        0
    ]
    if homography is None:
        return None
    around = board.square * 0.5 if board.marker is None else (board.square - board.marker) / 2
    flat = board.corners[numbers, :2]
    middle, right, below = (
        cv2.perspectiveTransform((flat + step)[None], homography)[0]
        for step in ([0, 0], [around, 0], [0, around])
    )
    steps = np.stack([right - middle, below - middle], 2)
    narrow = np.linalg.svd(steps, compute_uv=False).min()
    if narrow * board.square / around < SMALLEST_SQUARE:
        return None
    reach = int(REACH * narrow)
    if reach < SMALLEST_REACH:
        return BoardView(numbers, places)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
    window = (min(reach, LARGEST_REACH),) * 2
    better = cv2.cornerSubPix(image, places.astype(np.float32)[:, None].copy(), window, (-1, -1), stop)[:, 0]
    moved = np.linalg.norm(better - places, axis=1)
    return BoardView(numbers, np.where((moved < reach / 2)[:, None], better, places).astype(np.float64))


def _find_charuco(image: np.ndarray, board: Board, detector: cv2.aruco.CharucoDetector) -> BoardView | None:
    places, numbers, _, _ = detector.detectBoard(image)
    if numbers is None or len(numbers) < FEWEST_CORNERS:
        return None
    return _refined(image, board, numbers.ravel().astype(np.int64), places.reshape(-1, 2).astype(np.float64))


def calibrate_lens(
    name: str, size: tuple[int, int], views: Sequence[BoardView], board: Board
) -> tuple[Lens, list[str]]:
    """A camera's K and distortion (k1 k2 p1 p2) from its pictures of the board, and notes on why they are doubtful."""
    chosen = np.unique(np.linspace(0, len(views) - 1, MOST_LENS_VIEWS).round().astype(int))
    views = [views[number] for number in chosen]
    for last in (False, True):
        if len(views) < FEWEST_VIEWS:
            raise ValueError(
                f"camera {name}: {len(views)} pictures show the board well, at least {FEWEST_VIEWS} are needed, and "
                f"{GOOD_VIEWS} turned in different directions are good"
            )
        error, K, dist, turns, shifts = cv2.calibrateCamera(
            [board.corners[view.corners].astype(np.float32) for view in views],
            [view.places.astype(np.float32) for view in views],
            size,
            None,
            None,
            flags=cv2.CALIB_FIX_K3,
        )
        if last:
            break
        projected = [
            cv2.projectPoints(board.corners[view.corners], turn, shift, K, dist)[0].reshape(-1, 2)
            for view, turn, shift in zip(views, turns, shifts, strict=True)
        ]
        off = [np.linalg.norm(a - view.places, axis=1) for a, view in zip(projected, views, strict=True)]
        limit = OUTLIER * np.median(np.concatenate(off))
        kept = [(view, distance <= limit) for view, distance in zip(views, off, strict=True)]
        views = [BoardView(view.corners[k], view.places[k]) for view, k in kept if k.sum() >= FEWEST_CORNERS]
    notes = []
    if len(views) < GOOD_VIEWS:
        notes.append(
            f"camera {name}: only {len(views)} pictures tell about its lens; take {GOOD_VIEWS} or more with the "
            "board near, turned in all directions"
        )
    normals = np.stack([cv2.Rodrigues(turn)[0][:, 2] for turn in turns])
    tilt = np.degrees(
        np.arccos(np.clip(np.abs(normals @ normals.mean(0) / np.linalg.norm(normals.mean(0))), 0, 1))
    )
    if tilt.max() < LEAST_TILT:
        notes.append(
            f"camera {name}: the board was held at one angle only (within {tilt.max():.0f} degrees), so that the "
            "focal length is a guess; tilt it to all sides"
        )
    places = np.concatenate([view.places for view in views])
    cover = np.ptp(places, axis=0) / size
    if cover.min() < LEAST_COVER:
        notes.append(
            f"camera {name}: the board was seen in {100 * cover[0]:.0f} % of the picture's width and "
            f"{100 * cover[1]:.0f} % of its height; show it at the edges too, where the lens bends most"
        )
    if error > LARGE_ERROR:
        notes.append(
            f"camera {name}: corners are {error:.1f} pixels off on average; is the board flat, still and sharp, and "
            "are squares counted right?"
        )
    return Lens(K, dist.ravel()[:5], float(error)), notes


def calibrate_boards(
    seen: Mapping[str, BoardViews],
    board: Board,
    floor_time: int | None = None,
    lens_views: Mapping[str, BoardViews] | None = None,
    say=print,
) -> BoardCalibration:
    """Lenses and places of the cameras whose pictures show the board.

    seen: of each camera, by its name; pictures of the same number were taken at once. floor_time: the number at which
    the board lay on the floor, face up: its plane is y = 0 and its first corner the origin; without one, the first that
    most cameras see. lens_views: further pictures of single cameras for their lenses, such as with the board near.
    say: called with a line for each camera.
    Raises ValueError, one line, where the cameras cannot be joined.
    """
    notes: list[str] = []
    lenses: dict[str, Lens] = {}
    for name, shared in seen.items():
        own = (lens_views or {}).get(name, BoardViews(shared.size, {}))
        if own.size != shared.size:
            raise ValueError(
                f"camera {name}: pictures for its lens have size {own.size}, the others {shared.size}"
            )
        views = [*own.views.values(), *shared.views.values()]
        lenses[name], doubts = calibrate_lens(name, shared.size, views, board)
        notes += doubts
        say(f"camera {name}: {len(views)} views of the board, lens fits to {lenses[name].error:.2f} pixels")
    names = list(seen)
    times = _shared_times(seen, floor_time)
    rays = {
        (v, time): _undistorted(seen[name].views[time].places, lenses[name])
        for v, name in enumerate(names)
        for time in times
        if time in seen[name].views
    }
    corners = {(v, time): board.corners[seen[names[v]].views[time].corners] for v, time in rays}
    cameras, boards = _chained(names, times, rays, corners)
    focal = np.array([lenses[name].K[[0, 1], [0, 1]].mean() for name in names])
    cameras, boards, residuals = _adjusted(times, rays, corners, cameras, boards, focal)
    errors = {
        name: float(np.sqrt(np.mean(np.concatenate([r for (v, _), r in residuals.items() if v == number]))))
        for number, name in enumerate(names)
    }
    for name, error in errors.items():
        if error > LARGE_ERROR:
            notes.append(
                f"camera {name}: its place leaves corners {error:.1f} pixels off; are its pictures taken at the same "
                "times as the others'?"
            )
    floor = floor_time
    if floor is None:
        floor = max(times, key=lambda time: (sum(time in seen[name].views for name in names), -time))
        notes.append(
            f"the floor is taken to be where the board was in picture {floor}; if it did not lie on the floor there, "
            "say in which picture it does"
        )
    world = np.eye(4)  # board on the floor -> world
    world[:3, :3] = BOARD_AXES_TO_WORLD
    placed = [camera @ boards[floor] @ np.linalg.inv(world) for camera in cameras]
    calibrated = tuple(
        opencv_camera(name, lenses[name].K, w2c[:3, :3], w2c[:3, 3], lenses[name].dist, seen[name].size)
        for name, w2c in zip(names, placed, strict=True)
    )
    return BoardCalibration(
        Calibration(calibrated, "pictures of a board"),
        floor,
        {name: lens.error for name, lens in lenses.items()},
        errors,
        tuple(notes),
    )


def _undistorted(places: np.ndarray, lens: Lens) -> np.ndarray:
    """(n, 2) x / z and y / z of the rays through pixels."""
    return cv2.undistortPoints(places[:, None], lens.K, lens.dist).reshape(-1, 2)


def _shared_times(seen: Mapping[str, BoardViews], floor_time: int | None) -> list[int]:
    """Numbers of the pictures that place the cameras: those seen by most, and the floor's."""
    counts: dict[int, int] = {}
    for views in seen.values():
        for time in views.views:
            counts[time] = counts.get(time, 0) + 1
    if floor_time is not None and floor_time not in counts:
        raise ValueError(f"picture {floor_time}, of the board on the floor: no camera sees the board in it")
    if len(seen) == 1:
        return [floor_time if floor_time is not None else min(counts)]
    shared = sorted(time for time, count in counts.items() if count > 1)
    if len(shared) > MOST_SHARED_TIMES:
        # Evenly over time, from each pair of cameras as many as there are.
        chosen = set(shared[:: -(-len(shared) // MOST_SHARED_TIMES)])
        names = list(seen)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                both = sorted(seen[first].views.keys() & seen[second].views.keys())
                chosen |= set(both[:: max(len(both) // 5, 1)][:5])
        shared = sorted(chosen)
    return sorted({*shared, *([] if floor_time is None else [floor_time])})


def _chained(
    names: Sequence[str],
    times: Sequence[int],
    rays: Mapping[tuple[int, int], np.ndarray],
    corners: Mapping[tuple[int, int], np.ndarray],
) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    """First places: (4, 4) of each camera from the first one's axes, and of the board at each time into those axes.

    Cameras join in the order of how many pictures they share with those that have joined.
    """
    poses = {key: _board_pose(corners[key], rays[key]) for key in rays}  # board -> camera
    joined: dict[int, np.ndarray] = {0: np.eye(4)}
    boards: dict[int, np.ndarray] = {}
    while True:
        for (v, time), pose in poses.items():
            if v in joined and time not in boards:
                boards[time] = np.linalg.inv(joined[v]) @ pose
        waiting = [v for v in range(len(names)) if v not in joined]
        if not waiting:
            return [joined[v] for v in range(len(names))], boards
        shared = {v: [time for time in times if (v, time) in poses and time in boards] for v in waiting}
        best = max(waiting, key=lambda v: len(shared[v]))
        if not shared[best]:
            raise ValueError(
                f"cameras {', '.join(names[v] for v in sorted(joined))} share no view of the board with "
                f"{', '.join(names[v] for v in waiting)}; show it to one of each at once"
            )
        candidates = [poses[best, time] @ np.linalg.inv(boards[time]) for time in shared[best]]
        joined[best] = min(candidates, key=lambda pose: sum(_distance(pose, other) for other in candidates))


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """How far two places are apart; a radian counts as a metre."""
    turn = np.clip((np.trace(first[:3, :3].T @ second[:3, :3]) - 1) / 2, -1, 1)
    return float(np.arccos(turn) + np.linalg.norm(first[:3, 3] - second[:3, 3]))


def _board_pose(corners: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(4, 4) board -> camera of one picture."""
    _, turn, shift = cv2.solvePnP(corners, rays, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    _, turn, shift = cv2.solvePnP(
        corners, rays, np.eye(3), None, turn, shift, useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE
    )
    return _matrix(np.concatenate([turn.ravel(), shift.ravel()]))


def _matrix(parameters: np.ndarray) -> np.ndarray:
    """(4, 4) of a rotation vector and a translation (6,)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(parameters[:3])[0], parameters[3:]
    return pose


def _parameters(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]])


def _adjusted(
    times: Sequence[int],
    rays: Mapping[tuple[int, int], np.ndarray],
    corners: Mapping[tuple[int, int], np.ndarray],
    cameras: Sequence[np.ndarray],
    boards: Mapping[int, np.ndarray],
    focal: np.ndarray,
) -> tuple[list[np.ndarray], dict[int, np.ndarray], dict[tuple[int, int], np.ndarray]]:
    """Bundle adjustment of all but the first camera and of the boards, robust (soft L1).

    Returns cameras, boards, and the squared distance in pixels of each corner of each picture.
    """
    keys = sorted(rays)
    slots = {time: len(cameras) - 1 + number for number, time in enumerate(times)}
    starts = np.cumsum([0, *(2 * len(rays[key]) for key in keys)])
    sparsity = lil_matrix((starts[-1], 6 * (len(cameras) - 1 + len(times))), dtype=int)
    for (v, time), start, stop in zip(keys, starts, starts[1:], strict=False):
        for slot in [slots[time]] + [v - 1] * (v > 0):
            sparsity[start:stop, 6 * slot : 6 * slot + 6] = 1

    def residuals(flat: np.ndarray) -> np.ndarray:
        poses = [_matrix(row) for row in flat.reshape(-1, 6)]
        parts = []
        for v, time in keys:
            pose = poses[slots[time]] if v == 0 else poses[v - 1] @ poses[slots[time]]
            points = corners[v, time] @ pose[:3, :3].T + pose[:3, 3]
            parts.append((focal[v] * (points[:, :2] / points[:, 2:] - rays[v, time])).ravel())
        return np.concatenate(parts)

    start = np.concatenate([_parameters(pose) for pose in [*cameras[1:], *(boards[time] for time in times)]])
    solution = least_squares(
        residuals, start, jac_sparsity=sparsity, loss="soft_l1", x_scale="jac", max_nfev=100
    )
    poses = [_matrix(row) for row in solution.x.reshape(-1, 6)]
    final = residuals(solution.x)
    squared = {
        key: (final[start:stop].reshape(-1, 2) ** 2).sum(1)
        for key, start, stop in zip(keys, starts, starts[1:], strict=False)
    }
    return [np.eye(4), *poses[: len(cameras) - 1]], {time: poses[slots[time]] for time in times}, squared
