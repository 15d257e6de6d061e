"""What a capture's files say by themselves, before any body is projected: gaps and strays, unreadable and useless ones.

Data path: CaptureLayout, number of poses -> Survey (one listing per folder) -> Findings; Sampled pictures -> Findings.
Shape letters: C cameras, F frames of the pose file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.masks import MaskMeasures, why_empty
from mmlphuman.capture.picture_names import FolderListing, is_picture
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding, cut_list, name_numbers
from mmlphuman.preparation.fit_measure import Fit, ReducedMask, SizeMismatch

SAME_PLACE = 1e-6  # metres and rotation entries: two cameras this close are one, entered twice
MOST_DIGITS = 18  # of a frame's number
IN_VIEW = 0.3  # share of the body in the picture from which a mask must show it


@dataclass(frozen=True)
class Survey:
    """What lies in the folders."""

    images: np.ndarray  # (C, F) bool, the file is there
    masks: np.ndarray  # (C, F) bool
    strays: dict[Path, list[str]]  # folder -> image files in it that belong to no frame of the pose file
    twice: tuple[Path, ...] = ()  # folder / stem of pictures that are there with several endings

    @property
    def pairs(self) -> np.ndarray:
        """(C, F) bool: both are there."""
        return self.images & self.masks


def survey_files(layout: CaptureLayout, frames: int) -> Survey:
    """List each folder once and look the frames that the names in it speak of up in the listing: there may be many more
    poses than pictures."""
    listing = FolderListing()
    numbers = [
        _frames_named(layout.image_path, camera) | _frames_named(layout.mask_path, camera)
        for camera in range(len(layout.cameras))
    ]
    expected: dict[Path, set[str]] = defaultdict(set)  # stems
    present = {}
    for kind, path_of, find_in in (
        ("images", layout.image_path, layout.find_image),
        ("masks", layout.mask_path, layout.find_mask),
    ):
        found = np.zeros((len(layout.cameras), frames), bool)
        for camera in range(len(layout.cameras)):
            for frame in sorted(number for number in numbers[camera] if number < frames):
                path = find_in(camera, frame, listing.find)
                found[camera, frame] = path is not None
                if path is not None:
                    expected[path.parent].add(path.stem)
            expected[path_of(camera, 0).parent]  # a folder without any is looked into as well
        present[kind] = found
    strays, twice = {}, []
    for folder, stems in expected.items():
        names = sorted(_pictures(folder))
        unknown = [name for name in names if Path(name).stem not in stems]
        if unknown:
            strays[folder] = unknown
        twice += [
            folder / stem for stem, count in Counter(Path(name).stem for name in names).items() if count > 1
        ]
    return Survey(present["images"], present["masks"], strays, tuple(sorted(twice)))


def frames_on_disk(layout: CaptureLayout) -> int:
    """One more than the highest frame number among the images: for captures whose pose file cannot be read."""
    found = (_frames_named(layout.image_path, camera) for camera in range(len(layout.cameras)))
    return 1 + max((frame for frames in found for frame in frames), default=-1)


def _pictures(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if is_picture(file.name)] if folder.is_dir() else []


def _frames_named(path_of: Callable[[int, int], Path], camera: int) -> set[int]:
    """Those that the names in the camera's folder speak of."""
    names = _pictures(path_of(camera, 0).parent)
    return {number for number in map(_numbering(path_of, camera), names) if number is not None}


def _numbering(path_of: Callable[[int, int], Path], camera: int) -> Callable[[str], int | None]:
    """Of a picture's name the number of its frame; None for other files."""
    start, end = _around_number(path_of(camera, 0).stem, path_of(camera, 1).stem)

    def number(name: str) -> int | None:
        stem = Path(name).stem
        digits = stem[len(start) : len(stem) - len(end)]
        whole = (
            stem.startswith(start)
            and stem.endswith(end)
            and digits.isdecimal()
            and len(digits) <= MOST_DIGITS
        )
        return int(digits) if whole else None

    return number


def _around_number(zero: str, one: str) -> tuple[str, str]:
    """What stands before and after the frame number in a file's stem, from those of frames 0 and 1."""
    place = next(i for i, (a, b) in enumerate(zip(zero, one, strict=True)) if a != b)
    return zero[:place].rstrip("0"), zero[place + 1 :]


def check_files(layout: CaptureLayout, survey: Survey) -> list[Finding]:
    """Rows on missing cameras, frames, images and masks, and on files without a pose."""
    silent = np.asarray(~survey.pairs.any(1))
    rows = [_cameras_without_pairs(layout, survey, silent), _frames_without_pairs(survey)]
    heard = ~silent[:, None] & survey.pairs.any(0)  # the rest is already said
    rows.append(_gaps(layout, "missing images", heard & ~survey.images & ~survey.masks, "image and mask"))
    rows[-1] = _merge(
        rows[-1], _gaps(layout, "missing images", heard & ~survey.images & survey.masks, "image")
    )
    rows.append(_gaps(layout, "missing masks", heard & ~survey.masks & survey.images, "mask"))
    rows.append(_strays(layout, survey))
    if survey.twice:
        named = [str(path.relative_to(layout.root)) for path in survey.twice]
        what = f"{len(named)} pictures are there with several endings; one is used, remove the other"
        rows.append(Finding("endings", WARNING, what, cut_list(named)))
    return rows


def check_twin_cameras(layout: CaptureLayout) -> Finding:
    """One camera entered twice, e.g. copied in the calibration file."""
    w2c = np.stack([camera.w2c for camera in layout.cameras]).reshape(len(layout.cameras), -1)
    first_of: dict[tuple, int] = {}
    twins = []
    for camera, place in enumerate(map(tuple, np.round(w2c / SAME_PLACE).tolist())):
        if (first := first_of.setdefault(place, camera)) != camera:
            twins.append(f"{camera_name(layout, first)} and {camera_name(layout, camera)}")
    if twins:
        return Finding("cameras", WARNING, "cameras with the same pose, entered twice?", cut_list(twins))
    if len(w2c) == 1:
        return Finding("cameras", WARNING, "one camera: depth, and all that it does not see, is guessed")
    return Finding("cameras", OK, f"{len(w2c)} cameras")


def camera_name(layout: CaptureLayout, camera: int) -> str:
    """'camera 3 (22010703)': the id that settings use, and the name in the calibration file."""
    return f"camera {camera} ({layout.cameras[camera].name})"


def _cameras_without_pairs(layout: CaptureLayout, survey: Survey, silent: np.ndarray) -> Finding:
    if not silent.any():
        return Finding("files of cameras", OK, "every camera has images with masks")
    examples = []
    for camera in np.flatnonzero(silent).tolist():
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
    worst = sorted(np.flatnonzero(missing.any(1)).tolist(), key=lambda camera: -missing[camera].sum())
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


@dataclass(frozen=True)
class Sampled:
    """One looked-at (frame, camera): the view without its pixels, and the fit where there is a body."""

    frame: int
    camera: int
    problem: Exception | None  # why the files could not be used
    mask: MaskMeasures | None = None
    fit: Fit | None = None

    @classmethod
    def of(cls, view: ReducedMask, fit: Fit | None) -> Sampled:
        return cls(view.frame, view.camera, None, view.measures, fit)

    @property
    def is_empty(self) -> bool:
        return self.mask is not None and self.mask.is_empty

    @property
    def is_full(self) -> bool:
        return self.mask is not None and self.mask.is_full


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
    first = why_empty(
        layout.mask_path(empty[0].camera, empty[0].frame), layout.image_path(empty[0].camera, empty[0].frame)
    )
    what = f"{len(empty)} sampled masks show nobody (of the first: {first}); mend or delete such masks, or leave their "
    what += "frames or cameras out"
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
