"""Mistakes that all cameras of a capture share: lengths in another unit, pictures numbered otherwise than poses; and
cameras that take their pictures earlier or later than the rest.

Data path: sampled masks + posed points -> the factor or shift with which bodies lie on masks -> Findings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.camera_diagnosis import CLEARLY_BETTER, FITS
from mmlphuman.preparation.file_checks import camera_name
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding, cut_list
from mmlphuman.preparation.fit_measure import ReducedMask, overlap, project_points

FACTORS = np.geomspace(1e-3, 1e3, 77)  # a fifth from one to the next: bodies overlap by much more
FINER = np.geomspace(0.9, 1.11, 22)  # about the best of them, a hundredth each
COARSE_VIEWS = 4  # that choose among FACTORS
SAME_SCALE = 0.05  # no fit tells less
SHIFTS = (-3, -2, -1, 1, 2, 3)
NEAR_SHIFTS, OTHER_SHIFTS = (-1, 1), (-3, -2, -1.5, -0.5, 0.5, 1.5, 2, 3)  # of one camera
WORSE = -0.01  # in overlap, both a frame earlier and later: as in most cameras, no other time can fit better
LEAST_CAMERA_GAIN = 0.006  # of overlap
LEAST_VIEWS = 6  # that must tell
MOST_AGREE = 0.85  # share of them that gain
LEAST_GAIN = 0.004  # of overlap
IMPORT = "script/import_capture.py"


def check_scale(views: Sequence[ReducedMask], points: Sequence[np.ndarray]) -> Finding | None:
    """views: of several cameras and frames, with the posed points of each: is there a factor for all cameras' positions
    that brings the bodies onto the masks?"""

    def fit(factor: float, few: int | None = None) -> float:
        return _mean_overlap(views[:few], points[:few], factor)

    as_given = fit(1.0)
    coarse = FACTORS[int(np.argmax([fit(factor, COARSE_VIEWS) for factor in FACTORS]))]
    factor = coarse * FINER[int(np.argmax([fit(coarse * finer) for finer in FINER]))]
    best = fit(factor)
    if abs(np.log(factor)) < SAME_SCALE or best < FITS or best < as_given + CLEARLY_BETTER:
        return None
    return Finding(
        "metric scale",
        ERROR,
        f"the cameras' lengths are in another unit than the body's: times {factor:.4g} they fit (overlap {best:.2f} "
        f"instead of {as_given:.2f}); {IMPORT} --scale {factor:.4g} makes such a capture",
    )


def _mean_overlap(views: Sequence[ReducedMask], points: Sequence[np.ndarray], factor: float) -> float:
    values = []
    for view, body in zip(views, points, strict=True):
        w2c = view.w2c.copy()
        w2c[:3, 3] *= factor
        values.append(_overlap(replace(view, w2c=w2c), body))
    return float(np.mean(values))


def check_shift(
    views: Sequence[ReducedMask], points_of: Callable[[int], np.ndarray], frames: int
) -> Finding | None:
    """views: in which the body moves; points_of: the posed points of a frame, of which there are `frames`: do the
    pictures of a frame show the pose of another?"""
    gains: dict[int, list[float]] = {shift: [] for shift in SHIFTS}
    at_zero = []
    for view in views:
        zero = _overlap(view, points_of(view.frame))
        at_zero.append(zero)
        for shift in SHIFTS:
            if 0 <= view.frame + shift < frames:
                gains[shift].append(_overlap(view, points_of(view.frame + shift)) - zero)
    best = max(SHIFTS, key=lambda shift: np.median(gains[shift]) if gains[shift] else -1.0)
    found = np.array(gains[best])
    # Medians and shares: a single frame that is fitted badly says nothing about numbers.
    if len(found) < LEAST_VIEWS or np.median(found) < LEAST_GAIN or (found > 0).mean() < MOST_AGREE:
        return None
    side = "before" if best < 0 else "after"
    count = f"{abs(best)} frames" if abs(best) > 1 else "the frame"
    from_one = ": they are numbered from 1" if best == -1 else ""
    return Finding(
        "frame numbers",
        WARNING,
        f"pictures show the pose of {count} {side} (overlap {np.median(at_zero) + np.median(found):.3f} instead of "
        f"{np.median(at_zero):.3f}){from_one}; {IMPORT} --first {-best} numbers them anew",
    )


def late_cameras(
    views: Sequence[ReducedMask], points_of: Callable[[int], np.ndarray], frames: int
) -> dict[int, tuple[float, float, float]]:
    """camera -> (frames by which it alone is late, its median overlap as given, and then).

    views: of all cameras, in which the body moves. Late by one: its pictures show the pose of the frame before. Parts
    of a frame are looked for between the poses.
    """

    def gains(of_camera: Sequence[ReducedMask], shift: float) -> np.ndarray:
        found = []
        for view in of_camera:
            first, second = int(np.floor(view.frame + shift)), int(np.ceil(view.frame + shift))
            if first >= 0 and second < frames:
                found.append(_overlap(view, (points_of(first) + points_of(second)) / 2) - at_zero[id(view)])
        return np.array(found)

    at_zero = {id(view): _overlap(view, points_of(view.frame)) for view in views}
    by_camera: dict[int, list[ReducedMask]] = {}
    for view in views:
        by_camera.setdefault(view.camera, []).append(view)
    near = {camera: {shift: gains(own, shift) for shift in NEAR_SHIFTS} for camera, own in by_camera.items()}
    late = {}
    for camera, own in by_camera.items():
        tried: dict[float, np.ndarray] = {**near[camera]}
        if max(_middle(gain) for gain in tried.values()) < WORSE:
            continue
        tried |= {shift: gains(own, shift) for shift in OTHER_SHIFTS}
        best = max(tried, key=lambda shift: _middle(tried[shift]))
        gain = tried[best]
        others = [
            _middle(near[other][min(NEAR_SHIFTS, key=lambda s: abs(s - best))])
            for other in near
            if other != camera
        ]
        alike = bool(others) and np.median(others) > _middle(gain) / 2
        if len(gain) < LEAST_VIEWS or (gain > 0).mean() < MOST_AGREE or alike:
            continue
        if _middle(gain) >= LEAST_CAMERA_GAIN:
            zero = float(np.median([at_zero[id(view)] for view in own]))
            late[camera] = (-best, zero, zero + _middle(gain))
    return late


def describe_late(layout: CaptureLayout, late: Mapping[int, tuple[float, float, float]]) -> Finding:
    if not late:
        return Finding("camera times", OK, "no camera is early or late against the others")
    named = []
    for camera, (frames, before, after) in sorted(late.items()):
        count = f"{abs(frames):g} frame" + "s" * (abs(frames) > 1)
        when = "late" if frames > 0 else "early"
        named.append(
            f"{camera_name(layout, camera)} {count} {when} (overlap {after:.3f} instead of {before:.3f})"
        )
    whole = all(float(frames).is_integer() for frames, _, _ in late.values())
    mend = "give its pictures the numbers that fit" if whole else "interpolate or leave the camera out"
    return Finding(
        "camera times",
        WARNING,
        f"{len(late)} camera(s) took their pictures at other times than the rest; {mend}, or fit the capture anew "
        "with script/fit_capture.py, which finds the times",
        cut_list(named),
    )


def _middle(gain: np.ndarray) -> float:
    return float(np.median(gain)) if len(gain) else -1.0


def _overlap(view: ReducedMask, points: np.ndarray) -> float:
    value = overlap(view.mask, project_points(points, view.w2c, view.K, view.size).silhouette())
    return float(np.nan_to_num(value))
