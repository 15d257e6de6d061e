"""The capture that a fit makes: frames that all cameras took at the same time, its report and contact sheet.

Data path: Footage, masks, Rig, FittedPerson -> frames numbered anew (Renumbering) -> OUT/images, OUT/masks, cameras,
poses and body -> report.md, contact_sheet.png -> FittedCapture.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmlphuman.capture.formats import open_capture
from mmlphuman.fitting.body_fit import FittedPerson
from mmlphuman.fitting.fit_request import FitRequest
from mmlphuman.fitting.footage import Footage
from mmlphuman.fitting.observations import Landmarks, Rig
from mmlphuman.fitting.report import frames_to_show, write_contact_sheet, write_report
from mmlphuman.fitting.rig import CameraChange
from mmlphuman.fitting.writing import write_capture


@dataclass(frozen=True)
class FittedCapture:
    folder: Path
    body_file: Path
    frames: int
    overlap: float  # mean of body and masks, NaN without masks
    worst: float  # of a frame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Renumbering:
    """Frame k of the capture is picture k + first - shifts[v] of camera v: cameras that were whole frames late are no
    longer. What is less than a frame stays in the rig."""

    shifts: tuple[int, ...]  # V
    first: int  # the footage's time that is frame 0
    frames: int

    @classmethod
    def of(cls, time_offsets: np.ndarray, frames: int) -> Renumbering:
        """ValueError where no frame is left that all cameras saw."""
        # Where half a frame stays either way, no picture is given up for it.
        shifts = (np.sign(time_offsets) * np.floor(np.abs(time_offsets) + 0.25)).astype(int)
        first, last = max(0, int(shifts.max())), frames + min(0, int(shifts.min()))
        if last <= first:
            raise ValueError(
                f"cameras are up to {np.ptp(shifts)} frames apart, of {frames}: no frame was seen by all"
            )
        return cls(tuple(shifts.tolist()), first, last - first)

    def pictures(self, view: int) -> slice:
        """Of the footage, that are the capture's."""
        start = self.first - self.shifts[view]
        return slice(start, start + self.frames)

    def of_pictures(self, values: np.ndarray) -> np.ndarray:
        """(V, F, ...) by picture -> (V, frames, ...)."""
        return np.stack([values[view, self.pictures(view)] for view in range(len(self.shifts))])

    def of_times(self, values: np.ndarray) -> np.ndarray:
        """(F, ...) by time -> (frames, ...)."""
        return values[self.first : self.first + self.frames]


def finish(
    request: FitRequest,
    footage: Footage,
    masks: Path,
    rig: Rig,
    changes: Sequence[CameraChange],
    person: FittedPerson,
    landmarks: Landmarks,
    notes: Sequence[str],
) -> FittedCapture:
    """The capture itself, in frames that all cameras took at the same time; the report and the contact sheet."""
    new = Renumbering.of(rig.time_offsets, footage.frames)
    notes = tuple(dict.fromkeys(notes))
    if any(new.shifts):
        late = ", ".join(
            f"{camera.name} {shift:+d}"
            for camera, shift in zip(rig.cameras, new.shifts, strict=True)
            if shift
        )
        notes = (
            *notes,
            f"pictures are numbered anew, whole frames that cameras were late: {late}; {new.frames} remain",
        )
    for view, camera in enumerate(rig.cameras):
        for frame, number in enumerate(range(footage.frames)[new.pictures(view)]):
            picture = footage.image(view, number)
            name = f"{camera.name}/{frame:08d}"
            _place(picture, request.out / "images" / f"{name}{picture.suffix}")
            _place(masks / camera.name / f"{number:08d}.png", request.out / "masks" / f"{name}.png")
    rig = replace(rig, time_offsets=rig.time_offsets - np.array(new.shifts))
    landmarks = Landmarks(new.of_pictures(landmarks.places), new.of_pictures(landmarks.confidence))
    fit = replace(
        person.fit,
        poses=new.of_times(person.fit.poses),
        translations=new.of_times(person.fit.translations),
        overlap=new.of_pictures(person.fit.overlap),
    )
    person = replace(person, fit=fit, landmark_errors=new.of_pictures(person.landmark_errors))
    body_file = write_capture(request.out, rig, fit, request.body)
    find_image = open_capture(request.out).find_image
    write_results(request.out, request.body, rig, changes, person, landmarks, find_image, notes)
    return summary(request.out, body_file, person, notes)


def _place(source: Path, target: Path) -> None:
    """Once more under another name, not twice on the disk where that is possible. What is there stays."""
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_symlink():
            target.symlink_to(source.resolve())
        else:
            target.hardlink_to(source)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)


def write_results(
    folder: Path,
    body: Path,
    rig: Rig,
    changes: Sequence[CameraChange],
    person: FittedPerson,
    landmarks: Landmarks | None,
    find_image: Callable[[int, int], Path | None],
    notes: Sequence[str],
) -> None:
    """The report and the contact sheet. changes: of the cameras, by the fit; find_image: of a view and a frame."""
    fit = person.fit
    write_report(folder / "report.md", fit, changes, person.landmark_errors, notes, len(fit.poses))
    shown = frames_to_show(fit)
    write_contact_sheet(folder / "contact_sheet.png", rig, fit, body, find_image, landmarks, shown)


def summary(folder: Path, body_file: Path, person: FittedPerson, notes: Sequence[str]) -> FittedCapture:
    """Of the capture in `folder`, for the user."""
    overlap = person.fit.overlap
    seen = np.isfinite(overlap).any(0)
    of_frame = np.nanmean(overlap[:, seen], 0) if seen.any() else np.array([np.nan])
    frames = len(person.fit.poses)
    return FittedCapture(
        folder, body_file, frames, float(of_frame.mean()), float(of_frame.min()), tuple(notes)
    )
