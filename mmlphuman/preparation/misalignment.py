"""Mistakes that all cameras of a capture share: lengths in another unit, pictures numbered otherwise than poses.

Data path: sampled masks + posed points -> the factor or shift with which bodies lie on masks -> Findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mmlphuman.preparation.camera_diagnosis import CLEARLY_BETTER, FITS
from mmlphuman.preparation.findings import ERROR, WARNING, Finding
from mmlphuman.preparation.fit_measure import ReducedMask, overlap, project_points

FACTORS = np.geomspace(1e-3, 1e3, 77)  # a fifth from one to the next: bodies overlap by much more
FINER = np.geomspace(0.9, 1.11, 22)  # about the best of them, a hundredth each
COARSE_VIEWS = 4  # that choose among FACTORS
SAME_SCALE = 0.05  # no fit tells less
SHIFTS = (-3, -2, -1, 1, 2, 3)
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


def _overlap(view: ReducedMask, points: np.ndarray) -> float:
    value = overlap(view.mask, project_points(points, view.w2c, view.K, view.size).silhouette())
    return float(np.nan_to_num(value))
