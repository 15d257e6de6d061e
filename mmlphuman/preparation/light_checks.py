"""Does light stay as it is, over time and from camera to camera?

Data path: a few pictures and masks of every camera, posed surface points -> factors of colour -> Findings.
Shape letters: C cameras, F frames that are looked at, P surface points, h, w of the reduced pictures.

Over time the background tells, which does not move. Between cameras the person's surface tells: two cameras that see
the same point at one time should see it in the same colour, whatever clothes and light are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD, decode_image, decode_mask
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.file_checks import camera_name
from mmlphuman.preparation.findings import OK, WARNING, Finding, cut_list
from mmlphuman.preparation.fit_measure import project_points, reduce_picture, undistort_picture

SIDE = 256  # pixels of the pictures that are compared
DARKEST, BRIGHTEST = 12, 243  # of 255: what is beyond tells no factor
DARK_SKIN = 40  # of 255: in the person's darker colours the lens's glare tells more than the light
LEAST_BACKGROUND = 0.05  # share of the picture
SPARE = 5  # pixels about the mask that are not background
TIME_FACTOR = 0.08  # of brightness, in one camera's background
CAMERA_FACTOR = 0.15  # of brightness, against the other cameras
CAMERA_TINT = (
    0.12  # of red or blue over green; a real capture with a window had 0.09, and a brightness of 0.09
)
HIDDEN = 0.04  # metres behind the nearest point
CELL = 3  # pixels of the grid in which that is looked for
EVERY = 5  # surface points are enough
LEAST_SHARED = 200  # points that two cameras both see


@dataclass(frozen=True)
class Photograph:
    """A reduced picture without lens distortion."""

    frame: int
    camera: int
    colors: np.ndarray  # (h, w, 3) float32, 0 to 255
    mask: np.ndarray  # (h, w) bool
    K: np.ndarray  # (3, 3)
    w2c: np.ndarray  # (4, 4)


def load_photograph(layout: CaptureLayout, frame: int, camera: int) -> Photograph:
    """ValueError or OSError where files cannot be read."""
    calibrated = layout.cameras[camera]
    path = layout.image_path(camera, frame)
    colors = decode_image(path, cv2.IMREAD_COLOR_RGB)
    alpha = decode_mask(layout.mask_path(camera, frame), path)
    colors, K = reduce_picture(colors, calibrated.K, SIDE)
    alpha, _ = reduce_picture(alpha, calibrated.K, SIDE)
    colors, alpha = (undistort_picture(pixels, K, calibrated) for pixels in (colors, alpha))
    return Photograph(frame, camera, colors.astype(np.float32), alpha > MASK_THRESHOLD, K, calibrated.w2c)


def check_light(
    layout: CaptureLayout, photographs: Sequence[Photograph], points: Mapping[int, np.ndarray]
) -> list[Finding]:
    """photographs: of a few frames and all cameras; points: (P, 3) posed surface points of each of those frames."""
    return [_over_time(layout, photographs), _between_cameras(layout, photographs, points)]


def _over_time(layout: CaptureLayout, photographs: Sequence[Photograph]) -> Finding:
    check = "light over time"
    extremes = {}
    for camera in sorted({photo.camera for photo in photographs}):
        own = [photo for photo in photographs if photo.camera == camera]
        factors = background_factors(own)
        if len(factors) > 1:
            low, high = min(factors, key=factors.__getitem__), max(factors, key=factors.__getitem__)
            extremes[camera] = (factors[high] / factors[low] - 1, low, high)
    if not extremes:
        return Finding(check, OK, "not measured: no background is seen, or too few frames")
    changing = [camera for camera in extremes if extremes[camera][0] > TIME_FACTOR]
    if not changing:
        return Finding(
            check, OK, f"backgrounds keep their brightness to {max(e[0] for e in extremes.values()):.1%}"
        )
    changing.sort(key=lambda camera: -extremes[camera][0])
    named = [
        f"{camera_name(layout, camera)} by {extremes[camera][0]:.0%} from frame {extremes[camera][1]} to "
        f"{extremes[camera][2]}"
        for camera in changing
    ]
    shared = len(changing) > max(1, len(extremes) // 2)
    what = (
        "the light changes in most cameras (clouds, flicker, a lamp?)"
        if shared
        else "the brightness of a camera changes; lock its exposure and white balance"
    )
    return Finding(check, WARNING, what, cut_list(named))


def background_factors(photographs: Sequence[Photograph]) -> dict[int, float]:
    """frame -> brightness of one camera's background over its median; frames without enough background are left out."""
    if len(photographs) < 2:
        return {}
    kernel = np.ones((2 * SPARE + 1,) * 2, np.uint8)
    grey = np.stack([photo.colors.mean(2) for photo in photographs])
    free = np.stack([cv2.dilate(photo.mask.view(np.uint8), kernel) == 0 for photo in photographs])
    usual = np.ma.median(np.ma.array(grey, mask=~free), 0).filled(0)
    tells = (usual > DARKEST) & (usual < BRIGHTEST)
    factors = {}
    for photo, values, usable in zip(photographs, grey, free & tells, strict=True):
        if usable.mean() > LEAST_BACKGROUND:
            factors[photo.frame] = float(np.median(values[usable] / usual[usable]))
    return factors


def _between_cameras(
    layout: CaptureLayout, photographs: Sequence[Photograph], points: Mapping[int, np.ndarray]
) -> Finding:
    check = "light between cameras"
    gains = camera_gains(photographs, points)
    if len(gains) < 2:
        return Finding(check, OK, "not measured: no two cameras see the same side of the person")
    named = []
    for camera, gain in gains.items():
        brightness, red, blue = gain[1], gain[0] - gain[1], gain[2] - gain[1]
        told = []
        if abs(brightness) > np.log1p(CAMERA_FACTOR):
            told.append(f"{np.exp(brightness):.2f} times as bright")
        for name, tint in (("red", red), ("blue", blue)):
            if abs(tint) > np.log1p(CAMERA_TINT):
                told.append(f"{np.exp(tint):.2f} times as {name}")
        if told:
            named.append(f"{camera_name(layout, camera)} {' and '.join(told)}")
    if named:
        return Finding(
            check,
            WARNING,
            "cameras see the same skin and clothes in other colours than the rest: train with "
            "refine_camera_colors=true",
            cut_list(named),
        )
    worst = max(float(np.abs(np.expm1(gain)).max()) for gain in gains.values())
    return Finding(check, OK, f"the same points have the same colours to {worst:.0%}")


def camera_gains(
    photographs: Sequence[Photograph], points: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """camera -> (3,) logarithms of its factors of red, green and blue against the cameras that see the same points."""
    cameras = sorted({photo.camera for photo in photographs})
    ratios: dict[tuple[int, int], list[np.ndarray]] = {}  # of pairs of cameras, at the points that both see
    for frame in sorted({photo.frame for photo in photographs}):
        sparse = points[frame][::EVERY]
        seen = {photo.camera: _colors_of(photo, sparse) for photo in photographs if photo.frame == frame}
        for first, second in itertools.combinations(sorted(seen), 2):
            ratio = seen[first] - seen[second]
            ratios.setdefault((first, second), []).append(ratio[np.isfinite(ratio[:, 0])])
    told = {pair: np.concatenate(found) for pair, found in ratios.items()}
    told = {pair: found for pair, found in told.items() if len(found) >= LEAST_SHARED}
    if not told:
        return {}
    # The factors whose ratios these are, by least squares; in the middle they are 1.
    system = np.zeros((len(told), len(cameras)))
    for row, (first, second) in zip(system, told, strict=True):
        row[cameras.index(first)], row[cameras.index(second)] = 1, -1
    weights = np.sqrt([[len(found)] for found in told.values()])
    measured = np.stack([np.median(found, 0) for found in told.values()])
    gains = np.linalg.lstsq(weights * system, weights * measured, rcond=None)[0]
    known = np.flatnonzero(np.abs(system).sum(0) > 0)
    gains -= np.median(gains[known], 0)
    return {cameras[number]: gains[number] for number in known}


def _colors_of(photo: Photograph, points: np.ndarray) -> np.ndarray:
    """(P, 3) logarithms of the colours of the points that the camera sees, NaN for the others."""
    size = photo.mask.shape[1], photo.mask.shape[0]
    projection = project_points(points, photo.w2c, photo.K, size)
    depth = points @ photo.w2c[2, :3] + photo.w2c[2, 3]
    visible = projection.in_view & photo.mask[projection.rows, projection.columns]
    width = size[0] // CELL + 1
    cell = projection.rows // CELL * width + projection.columns // CELL
    nearest = np.full((size[1] // CELL + 1) * width, np.inf)
    np.minimum.at(nearest, cell[projection.in_view], depth[projection.in_view])
    visible &= depth < nearest[cell] + HIDDEN
    # Away from the outline, where the background shines in.
    inner = cv2.erode(photo.mask.view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    visible &= inner[projection.rows, projection.columns]
    values = photo.colors[projection.rows, projection.columns]
    visible &= (values.min(1) > DARK_SKIN) & (values.max(1) < BRIGHTEST)
    return np.where(visible[:, None], np.log(np.maximum(values, 1)), np.nan)
