"""Which files a capture has: gaps and strays, from one listing per folder.

Data path: CaptureLayout, number of poses -> Survey -> Findings.
Shape letters: C cameras, F frames of the pose file.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding, cut_list, name_numbers

SAME_PLACE = 1e-6  # metres and rotation entries: two cameras this close are one, entered twice


@dataclass(frozen=True)
class Survey:
    """What lies in the folders."""

    images: np.ndarray  # (C, F) bool, the file is there
    masks: np.ndarray  # (C, F) bool
    strays: dict[Path, list[str]]  # folder -> image files in it that belong to no frame of the pose file

    @property
    def pairs(self) -> np.ndarray:
        """(C, F) bool: both are there."""
        return self.images & self.masks


def survey_files(layout: CaptureLayout, frames: int) -> Survey:
    """List each folder once and look every expected name up in the listing."""
    listed: dict[Path, set[str]] = {}
    expected: dict[Path, set[str]] = defaultdict(set)
    present = {}
    for kind, path_of in (("images", layout.image_path), ("masks", layout.mask_path)):
        found = np.zeros((len(layout.cameras), frames), bool)
        for camera in range(len(layout.cameras)):
            for frame in range(frames):
                path = path_of(camera, frame)
                folder, name = path.parent, path.name
                if folder not in listed:
                    listed[folder] = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
                expected[folder].add(name)
                found[camera, frame] = name in listed[folder]
        present[kind] = found
    strays = {}
    for folder, names in listed.items():
        suffixes = {Path(name).suffix for name in expected[folder]}
        unknown = sorted(name for name in names - expected[folder] if Path(name).suffix in suffixes)
        if unknown:
            strays[folder] = unknown
    return Survey(present["images"], present["masks"], strays)


def frames_on_disk(layout: CaptureLayout) -> int:
    """One more than the highest frame number among the images: for captures whose pose file cannot be read."""
    last = -1
    for camera in range(len(layout.cameras)):
        folder = layout.image_path(camera, 0).parent
        start, end = _around_number(layout.image_path(camera, 0).name, layout.image_path(camera, 1).name)
        for file in folder.iterdir() if folder.is_dir() else ():
            number = file.name[len(start) : len(file.name) - len(end)]
            if file.name.startswith(start) and file.name.endswith(end) and number.isdecimal():
                last = max(last, int(number))
    return last + 1


def _around_number(zero: str, one: str) -> tuple[str, str]:
    """What stands before and after the frame number in a file's name, from the names of frames 0 and 1."""
    place = next(i for i, (a, b) in enumerate(zip(zero, one, strict=True)) if a != b)
    return zero[:place].rstrip("0"), zero[place + 1 :]


def check_files(layout: CaptureLayout, survey: Survey) -> list[Finding]:
    """Rows on missing cameras, frames, images and masks, and on files without a pose."""
    silent = ~survey.pairs.any(1)
    rows = [_cameras_without_pairs(layout, survey, silent), _frames_without_pairs(survey)]
    heard = ~silent[:, None] & survey.pairs.any(0)  # the rest is already said
    rows.append(_gaps(layout, "missing images", heard & ~survey.images & ~survey.masks, "image and mask"))
    rows[-1] = _merge(
        rows[-1], _gaps(layout, "missing images", heard & ~survey.images & survey.masks, "image")
    )
    rows.append(_gaps(layout, "missing masks", heard & ~survey.masks & survey.images, "mask"))
    rows.append(_strays(layout, survey))
    return rows


def check_twin_cameras(layout: CaptureLayout) -> Finding:
    """One camera entered twice, e.g. copied in the calibration file."""
    w2c = np.stack([camera.w2c for camera in layout.cameras])
    twins = [
        f"{camera_name(layout, first)} and {camera_name(layout, second)}"
        for first in range(len(w2c))
        for second in range(first + 1, len(w2c))
        if np.abs(w2c[first] - w2c[second]).max() < SAME_PLACE
    ]
    if twins:
        return Finding("cameras", WARNING, "cameras with the same pose, entered twice?", cut_list(twins))
    return Finding("cameras", OK, f"{len(w2c)} cameras")


def camera_name(layout: CaptureLayout, camera: int) -> str:
    """'camera 3 (22010703)': the id that settings use, and the name in the calibration file."""
    return f"camera {camera} ({layout.cameras[camera].name})"


def _cameras_without_pairs(layout: CaptureLayout, survey: Survey, silent: np.ndarray) -> Finding:
    if not silent.any():
        return Finding("files of cameras", OK, "every camera has images with masks")
    examples = []
    for camera in np.flatnonzero(silent):
        lacking = [
            f"no {kind} in {path.parent}"
            for kind, found, path in (
                ("images", survey.images, layout.image_path(camera, 0)),
                ("masks", survey.masks, layout.mask_path(camera, 0)),
            )
            if not found[camera].any()
        ]
        reason = ", ".join(lacking) or "no frame has both"
        examples.append(f"{camera_name(layout, camera)}: {reason}")
    return Finding(
        "files of cameras",
        ERROR,
        f"{silent.sum()} of {len(silent)} cameras have no image with a mask; mend their folders or leave "
        "them out of train_cam_ids and test.cam_ids",
        cut_list(examples, "; "),
    )


def _frames_without_pairs(survey: Survey) -> Finding:
    frames = survey.pairs.shape[1]
    lost = np.flatnonzero(~survey.pairs.any(0))
    if len(lost) == 0:
        return Finding("frames", OK, f"all {frames} frames of the pose file have pictures")
    if len(lost) == frames:
        return Finding("frames", ERROR, "no frame of the pose file has a picture with a mask in any camera")
    return Finding(
        "frames",
        WARNING,
        f"{len(lost)} of {frames} frames have a pose but no picture with a mask in any camera; keep them "
        "out of the frame range where they lie at its ends",
        f"frames {name_numbers(lost)}",
    )


def _gaps(layout: CaptureLayout, check: str, missing: np.ndarray, kind: str) -> Finding:
    """missing: (C, F) bool."""
    if not missing.any():
        return Finding(check, OK, "no gaps")
    worst = sorted(np.flatnonzero(missing.any(1)), key=lambda camera: -missing[camera].sum())
    where = [f"{camera_name(layout, c)} frames {name_numbers(np.flatnonzero(missing[c]))}" for c in worst]
    what = f"{missing.sum()} of {missing.size} pictures lack their {kind}; training leaves them out"
    return Finding(check, WARNING, what, cut_list(where, "; "))


def _merge(first: Finding, second: Finding) -> Finding:
    """Two rows of one check as one."""
    if OK in (first.result, second.result):
        return second if first.result == OK else first
    return Finding(first.check, first.result, first.what, f"{first.where}; {second.what}: {second.where}")


def _strays(layout: CaptureLayout, survey: Survey) -> Finding:
    if not survey.strays:
        return Finding("files without a pose", OK, "none")
    count = sum(map(len, survey.strays.values()))
    where = [f"{folder.relative_to(layout.root)}: {names[0]}" for folder, names in survey.strays.items()]
    return Finding(
        "files without a pose",
        WARNING,
        f"{count} image files belong to no frame of the pose file (other names, or frames after its end)",
        cut_list(where, "; "),
    )
