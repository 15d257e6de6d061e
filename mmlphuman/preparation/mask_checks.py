"""What the sampled image and mask files say by themselves, before any body is projected.

Data path: Sampled pictures -> Findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.file_checks import camera_name
from mmlphuman.preparation.findings import ERROR, OK, Finding, cut_list, name_numbers
from mmlphuman.preparation.fit_measure import Fit, Shot, SizeMismatch

EMPTY_SHARE = 5e-4  # of the picture; a person is never smaller
FULL_SHARE = 0.85  # of the picture; a person is never larger
INVERTED_BORDER = 0.6  # share of the picture's border that a mask covers only if black and white are swapped
IN_VIEW = 0.3  # share of the body in the picture from which a mask must show it


@dataclass(frozen=True)
class Sampled:
    """One looked-at (frame, camera): the shot without its pixels, and the fit where there is a body."""

    frame: int
    camera: int
    problem: Exception | None  # why the files could not be used
    mask_share: float = 0.0
    border_share: float = 0.0
    brightest: int = 0
    fit: Fit | None = None

    @classmethod
    def of(cls, shot: Shot, fit: Fit | None) -> Sampled:
        return cls(shot.frame, shot.camera, None, shot.mask_share, shot.border_share, shot.brightest, fit)

    @property
    def is_empty(self) -> bool:
        return self.problem is None and self.mask_share < EMPTY_SHARE

    @property
    def is_full(self) -> bool:
        return self.problem is None and (self.mask_share > FULL_SHARE or self.border_share > INVERTED_BORDER)


def check_pictures(layout: CaptureLayout, samples: Sequence[Sampled]) -> list[Finding]:
    """Rows on unreadable files, sizes, empty and full masks."""
    unreadable = [s for s in samples if s.problem and not isinstance(s.problem, SizeMismatch)]
    mismatched = [s for s in samples if isinstance(s.problem, SizeMismatch)]
    return [
        _problems("image files", f"{len(samples)} sampled pictures readable", unreadable, "cannot be read"),
        _problems("picture sizes", "images, masks and calibration agree", mismatched, "of another size"),
        _check_empty(layout, [s for s in samples if s.is_empty and _body_expected(s)]),
        _check_full(layout, [s for s in samples if s.is_full]),
    ]


def where_sampled(layout: CaptureLayout, samples: Sequence[Sampled]) -> str:
    """'camera 3 (22010703) frames 1, 5-9; ...', the camera with most first."""
    frames: dict[int, list[int]] = {}
    for sample in samples:
        frames.setdefault(sample.camera, []).append(sample.frame)
    worst = sorted(frames, key=lambda camera: -len(frames[camera]))
    return cut_list([f"{camera_name(layout, c)} frames {name_numbers(frames[c])}" for c in worst], "; ")


def _body_expected(sample: Sampled) -> bool:
    return sample.fit is None or sample.fit.in_view > IN_VIEW


def _problems(check: str, fine: str, faulty: Sequence[Sampled], what: str) -> Finding:
    if not faulty:
        return Finding(check, OK, fine)
    messages = [f"frame {s.frame} camera {s.camera}: {s.problem}" for s in faulty]
    return Finding(check, ERROR, f"{len(faulty)} sampled pictures {what}", cut_list(messages, "; "))


def _check_empty(layout: CaptureLayout, empty: Sequence[Sampled]) -> Finding:
    if not empty:
        return Finding("empty masks", OK, "none")
    what = f"{len(empty)} sampled masks show nobody; delete such masks, or leave their frames or cameras out"
    if all(0 < s.brightest < 128 for s in empty):
        brightest = max(s.brightest for s in empty)
        what = f"{len(empty)} sampled masks hold values up to {brightest} only; the person must be above 128"
    return Finding("empty masks", ERROR, what, where_sampled(layout, empty))


def _check_full(layout: CaptureLayout, full: Sequence[Sampled]) -> Finding:
    if not full:
        return Finding("full masks", OK, "none")
    return Finding(
        "full masks",
        ERROR,
        f"{len(full)} sampled masks cover the picture or its border; are black and white swapped, or was "
        "nothing cut out?",
        where_sampled(layout, full),
    )
