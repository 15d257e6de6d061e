"""What may be wrong with a camera whose body projects off its masks: tries the usual mistakes.

Data path: Shots of a camera + posed points -> the mistake whose undoing makes body and mask overlap -> text.

Every entry of `MISTAKES` turns the camera as given into the one it would be if that mistake had been made. The
calibration is never changed; the user is told which reading of it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmlphuman.preparation.fit_measure import ReducedMask, overlap, project_points

FITS = 0.5  # overlap (intersection over union) that a right camera reaches even with loose clothes
CLEARLY_BETTER = 0.15  # than as given


@dataclass(frozen=True)
class Reading:
    """A camera, as one may read its calibration."""

    w2c: np.ndarray  # (4, 4)
    K: np.ndarray  # (3, 3)
    size: tuple[int, int]  # (w, h)


def _scaled(factor: float) -> Callable[[Reading], Reading]:
    def change(reading: Reading) -> Reading:
        w2c = reading.w2c.copy()
        w2c[:3, 3] *= factor
        return replace(reading, w2c=w2c)

    return change


def _axes(*signs: float) -> Callable[[Reading], Reading]:
    return lambda reading: replace(reading, w2c=np.diag([*signs, 1.0]) @ reading.w2c)


def _world_axes(*signs: float) -> Callable[[Reading], Reading]:
    return lambda reading: replace(reading, w2c=reading.w2c @ np.diag([*signs, 1.0]))


def _inverted(reading: Reading) -> Reading:
    return replace(reading, w2c=np.linalg.inv(reading.w2c))


def _transposed(reading: Reading) -> Reading:
    w2c = reading.w2c.copy()
    w2c[:3, :3] = w2c[:3, :3].T
    return replace(reading, w2c=w2c)


def _centre_as_translation(reading: Reading) -> Reading:
    w2c = reading.w2c.copy()
    w2c[:3, 3] = -w2c[:3, :3] @ w2c[:3, 3]
    return replace(reading, w2c=w2c)


def _mirrored_picture(x: bool, y: bool) -> Callable[[Reading], Reading]:
    def change(reading: Reading) -> Reading:
        flip = np.eye(3)
        for axis, on in enumerate((x, y)):
            if on:
                flip[axis, axis], flip[axis, 2] = -1, reading.size[axis]
        return replace(reading, K=flip @ reading.K)

    return change


def _scaled_intrinsics(factor: float) -> Callable[[Reading], Reading]:
    return lambda reading: replace(reading, K=np.diag([factor, factor, 1.0]) @ reading.K)


MISTAKES: tuple[tuple[str, Callable[[Reading], Reading]], ...] = (
    ("its translation is in millimetres (divide T by 1000)", _scaled(1e-3)),
    ("its translation is in centimetres (divide T by 100)", _scaled(1e-2)),
    ("its translation is in kilometres or was divided by 1000 twice (multiply T by 1000)", _scaled(1e3)),
    ("it is camera-to-world (invert R and T)", _inverted),
    ("R is camera-to-world but T world-to-camera (transpose R)", _transposed),
    ("T is the camera's centre (use T = -R centre)", _centre_as_translation),
    (
        "its y and z axes are flipped, the OpenGL convention (negate rows 2 and 3 of R and T)",
        _axes(1, -1, -1),
    ),
    ("its x and y axes are flipped (negate rows 1 and 2 of R and T)", _axes(-1, -1, 1)),
    ("the world's y and z axes are flipped (negate columns 2 and 3 of R)", _world_axes(1, -1, -1)),
    ("its pictures are mirrored left to right", _mirrored_picture(True, False)),
    ("its pictures are upside down", _mirrored_picture(False, True)),
    ("its pictures are turned by 180 degrees", _mirrored_picture(True, True)),
    ("K is of pictures twice as large (halve it)", _scaled_intrinsics(0.5)),
    ("K is of pictures half as large (double it)", _scaled_intrinsics(2.0)),
    ("K is of pictures four times as large (divide it by 4)", _scaled_intrinsics(0.25)),
    ("K is of pictures a quarter as large (multiply it by 4)", _scaled_intrinsics(4.0)),
)


def diagnose(
    views: Sequence[ReducedMask],
    points: Sequence[np.ndarray],
    others: Sequence[tuple[str, Reading]] = (),
) -> str | None:
    """The likeliest mistake in words, None if no reading fits.

    views: of one camera; points: (P, 3) posed body of each view; others: the capture's other cameras at the
    views' size, to recognise pictures that belong to another camera.
    """
    candidates = [(text, change) for text, change in MISTAKES]
    candidates += [
        (f"its pictures are those of {name}", lambda reading, other=other: other) for name, other in others
    ]
    as_given = _overlap(views, points, lambda reading: reading)
    scores = [_overlap(views, points, change) for _, change in candidates]
    best = int(np.argmax(scores))
    if scores[best] < FITS or scores[best] < as_given + CLEARLY_BETTER:
        return None
    return f"{candidates[best][0]}: then overlap is {scores[best]:.2f} instead of {as_given:.2f}"


def _overlap(views, points, change: Callable[[Reading], Reading]) -> float:
    """Mean over the views."""
    values = []
    for view, body in zip(views, points, strict=True):
        reading = change(Reading(view.w2c, view.K, view.size))
        projection = project_points(body, reading.w2c, reading.K, view.size)
        values.append(overlap(view.mask, projection.silhouette()))
    return float(np.nan_to_num(values).mean())
