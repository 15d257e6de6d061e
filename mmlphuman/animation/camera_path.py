"""Which camera sees which pose: held cameras, a turntable, a path through saved cameras; all may follow the person.
Without torch.

Data path: saved cameras (CameraView) + PoseSequence -> Shots: one CameraView for every pose -> render_sequence.
Shape letter: F poses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, RotationSpline

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import PoseSequence

MOTIONS = ("held", "turntable", "path")
ON_AXIS = 1e-9  # metres
FOLLOW_SECONDS = 0.5  # of the Gaussian that smooths the person's way for a camera that follows


def held(view: CameraView, count: int) -> list[CameraView]:
    """One view for `count` frames."""
    _check_count(count)
    return [view] * count


def turntable(
    view: CameraView, center: np.ndarray, up: np.ndarray, count: int, turns: float = 1.0
) -> list[CameraView]:
    """`count` views, from `view` on, carried about the axis `up` through `center`.

    center: (3,) metres. up: (3,), of any length. turns: of the camera, counter-clockwise seen from above, negative
    the other way; the last frame is one step short of the end, so that a whole turn repeats without a stop.
    Distance, height and tilt stay. Raises ValueError for an axis of no length.
    """
    _check_count(count)
    center, up = np.asarray(center, np.float64), np.asarray(up, np.float64)
    length = np.linalg.norm(up)
    if not (np.isfinite(center).all() and np.isfinite(turns) and 0 < length < np.inf):
        raise ValueError(
            f"turntable: center {center}, up {up}, turns {turns} must be finite, and up not zero"
        )
    axis, arm = up / length, view.center - center
    rotations = Rotation.from_rotvec(2 * np.pi * turns / count * np.arange(count)[:, None] * axis).as_matrix()
    return [
        replace(view, w2c=_w2c(view.w2c[:3, :3] @ rotation.T, center + rotation @ arm))
        for rotation in rotations
    ]


def camera_path(
    views: Sequence[CameraView], count: int, center: np.ndarray, up: np.ndarray
) -> list[CameraView]:
    """`count` views on a smooth path from the first of `views` through all, in equal times, to the last.

    The way goes round the axis `up` (3,) through `center` (3,), from each camera to the next the shorter way: distance
    from the axis, height and angle are splines with continuous velocity and acceleration, and so is how the camera is
    held against its direction to the axis. Cameras that look at the person look at the person all along. Fields of view
    keep between those of their neighbours. One view is held. Raises ValueError if the image sizes differ.
    """
    _check_count(count)
    if not views:
        raise ValueError("a camera path needs at least one camera")
    for number, view in enumerate(views):
        if (view.width, view.height) != (views[0].width, views[0].height):
            raise ValueError(
                f"camera path: camera {number} is of {view.width}x{view.height} pixels but camera 0 of "
                f"{views[0].width}x{views[0].height}; all cameras of a path need one size"
            )
    if len(views) == 1:
        return held(views[0], count)
    keys = np.arange(len(views))
    times = np.linspace(0, len(views) - 1, count)
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    arms = np.stack([view.center for view in views]) - center
    radii, angles, toward = _around(arms, up)
    to_world = Rotation.from_matrix(np.stack([view.w2c[:3, :3].T for view in views]))
    holds = RotationSpline(keys, Rotation.from_rotvec(angles[:, None] * up).inv() * to_world)(times)

    def spline(values: np.ndarray) -> np.ndarray:
        return CubicSpline(keys, values, bc_type="natural")(times)

    turns = Rotation.from_rotvec(spline(angles)[:, None] * up)
    centers = (
        center
        + turns.apply(np.exp(spline(np.log(radii)))[:, None] * toward)
        + spline(arms @ up)[:, None] * up
    )
    rotations = (turns * holds).as_matrix().transpose(0, 2, 1)
    fovs = PchipInterpolator(keys, [view.fovx for view in views])(times)
    K = [None] * count
    if any(view.K is not None for view in views):
        K = PchipInterpolator(keys, np.stack([view.intrinsics for view in views]))(times)
    return [
        replace(views[0], w2c=_w2c(rotations[i], centers[i]), fovx=float(fovs[i]), K=K[i])
        for i in range(count)
    ]


def _around(arms: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V, 3) from the axis's point to each camera -> distances from the axis (V,), angles about it (V,) without jumps,
    the direction (3,) of angle zero. A camera on the axis has the angle of its neighbour."""
    across = arms - (arms @ up)[:, None] * up
    radii = np.linalg.norm(across, axis=1)
    farthest = int(radii.argmax())
    any_across = np.linalg.svd(up[None])[2][1]
    toward = any_across if radii[farthest] < ON_AXIS else across[farthest] / radii[farthest]
    angles = np.arctan2(across @ np.cross(up, toward), across @ toward)
    known = np.flatnonzero(radii >= ON_AXIS)
    if len(known):
        nearest = known[np.abs(np.arange(len(arms))[:, None] - known).argmin(1)]
        angles = angles[nearest]
    return np.maximum(radii, ON_AXIS), np.unwrap(angles), toward


def _w2c(rotation: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(4, 4) of a (3, 3) world-to-camera rotation and a (3,) centre."""
    w2c = np.eye(4)
    w2c[:3, :3] = rotation
    w2c[:3, 3] = -rotation @ center
    return w2c


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"a camera path of {count} frames is not possible; 1 or more are needed")


@dataclass(frozen=True)
class Shot:
    """A whole sequence seen from a camera that stands or moves."""

    name: str  # "cam000", by the camera's place on the command line; empty if there is one shot only
    views: list[CameraView]  # F of one image size

    def picture(self, frame: int) -> Path:
        """`render/frame00000012.png`, with several shots `render/cam001_frame00000012.png`."""
        return Path("render") / (f"{self.name}_" * bool(self.name) + f"frame{frame:08d}.png")

    @property
    def video(self) -> str:
        """`video.mp4`, with several shots `cam001.mp4`."""
        return f"{self.name or 'video'}.mp4"


def make_shots(
    cameras: Sequence[CameraView],
    sequence: PoseSequence,
    pelvis: np.ndarray,
    motion: str = "held",
    follow: bool = False,
) -> list[Shot]:
    """The shots of a sequence.

    pelvis: (3,) the root joint in the T-pose, which a turntable circles.
    motion: `held` gives one shot for every camera; `turntable` one that circles the person once, starting at
    the one camera; `path` one that moves smoothly round the person through all cameras. ValueError for too few or too
    many.
    follow: the cameras move along with the person, whose way is smoothed: what they see of the person in the first
    frame they see in all.
    """
    count = len(sequence.frames)
    way = smoothed(pelvis_way(sequence, pelvis), sequence.playback_fps)
    center = way[0] if follow else mean_pelvis(sequence, pelvis)
    shots = _shots(cameras, count, center, motion)
    if follow:
        shots = [replace(shot, views=moved(shot.views, way - way[0])) for shot in shots]
    return shots


def _shots(cameras: Sequence[CameraView], count: int, center: np.ndarray, motion: str) -> list[Shot]:
    if motion == "held":
        several = len(cameras) > 1
        return [
            Shot(f"cam{number:03d}" if several else "", held(view, count))
            for number, view in enumerate(cameras)
        ]
    up = nearest_axis(np.sum([camera_up(view) for view in cameras], 0))
    if motion == "turntable":
        if len(cameras) != 1:
            raise ValueError(
                f"--turntable starts at one camera, but --cam_path names {len(cameras)}; give one"
            )
        return [Shot("", turntable(cameras[0], center, up, count))]
    assert motion == "path", f"{motion} is none of {MOTIONS}"
    if len(cameras) < 2:
        raise ValueError("--camera_path moves between cameras: give two or more to --cam_path")
    return [Shot("", camera_path(cameras, count, center, up))]


def moved(views: Sequence[CameraView], offsets: np.ndarray) -> list[CameraView]:
    """Each view carried by its own of (F, 3) offsets in the world."""
    return [
        replace(view, w2c=_w2c(view.w2c[:3, :3], view.center + offset))
        for view, offset in zip(views, offsets, strict=True)
    ]


def pelvis_way(sequence: PoseSequence, pelvis: np.ndarray) -> np.ndarray:
    """(F, 3) where the root joint is in the world; the root's own rotation leaves it in place."""
    return (pelvis + sequence.translations.astype(np.float64)) @ sequence.rotation.astype(np.float64).T


def smoothed(way: np.ndarray, fps: float) -> np.ndarray:
    """(F, 3) without steps and shakes; beyond both ends it goes on as it came: nobody walks out there."""
    sigma = FOLLOW_SECONDS * fps
    beyond = math.ceil(4 * sigma)  # as far as the filter reaches
    longer = np.pad(way, ((beyond, beyond), (0, 0)), mode="reflect", reflect_type="odd")
    return gaussian_filter1d(longer, sigma, axis=0)[beyond : beyond + len(way)]


def mean_pelvis(sequence: PoseSequence, pelvis: np.ndarray) -> np.ndarray:
    """(3,) where the root joint is in the world on average."""
    return pelvis_way(sequence, pelvis).mean(0)


def camera_up(view: CameraView) -> np.ndarray:
    """(3,) the world direction that is up in the camera's picture (y of a camera points down)."""
    return -view.w2c[1, :3]


def nearest_axis(direction: np.ndarray) -> np.ndarray:
    """(3,) the signed world axis nearest to a direction, such as (0, 1, 0)."""
    axis = np.zeros(3)
    largest = np.abs(direction).argmax()
    axis[largest] = 1.0 if direction[largest] > 0 else -1.0
    return axis
