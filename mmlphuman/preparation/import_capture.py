"""A capture in anybody's form -> one that train.py reads: THuman4.0's layout, pictures as links to where they lie.

Data path: Calibration + SourcePictures (+ poses, a metric scale) -> import_capture -> OUT/calibration.json,
images/CAM/, masks/CAM/, smpl_params.npz.

Frames are counted anew from 0, (number - first) / step of the pictures' own numbers. The folder appears whole or not at
all; the source is only read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.calibrations.calibration import Calibration, with_scale
from mmlphuman.capture import thuman4
from mmlphuman.capture.calibration import calibration_content
from mmlphuman.capture.images import MASK_THRESHOLD, decode_image, decode_mask
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.poses import betas_of_capture
from mmlphuman.files import atomic_folder, free_folder, link_or_copy
from mmlphuman.picture_files import write_png
from mmlphuman.poses.motion_file import read_motion
from mmlphuman.preparation.source_pictures import SourcePictures
from mmlphuman.text import ranges

ASPECT_TOLERANCE = 0.01  # of the two axes' scales, between the calibrated size and the pictures'
MOST_LABELS = 64  # values of a mask that numbers parts of the body
FARTHEST, NEAREST = 50.0, 0.3  # metres between cameras of a capture of a person: beyond lie other units


@dataclass(frozen=True)
class Imported:
    """What was done, for people."""

    frames: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Numbering:
    """Which frame a picture's number is."""

    first: int
    step: int

    def frame(self, number: int) -> int | None:
        frame, rest = divmod(number - self.first, self.step)
        return frame if rest == 0 and frame >= 0 else None


def numbering_of(
    pictures: Sequence[SourcePictures], first: int | None = None, step: int | None = None
) -> Numbering:
    """From the lowest number on, in steps of what all numbers differ by, unless it is told."""
    numbers = sorted({number for camera in pictures for number in camera.images})
    lowest = numbers[0] if first is None else first
    common = math.gcd(*(number - lowest for number in numbers)) if step is None else step
    return Numbering(lowest, max(common, 1))


def import_capture(
    out: Path,
    calibration: Calibration,
    pictures: Sequence[SourcePictures],
    numbering: Numbering,
    poses: Path | None = None,
    factor: float = 1.0,
    copy: bool = False,
) -> Imported:
    """Writes the folder `out`, which must not exist (or be empty). factor: of the calibration's lengths, to metres.

    Raises ValueError for pictures that do not belong to the cameras or to the poses, and for a folder in use.
    """
    out = free_folder(out, "--out")
    frames = 1 + max(frame for camera in pictures for frame in _frames(camera.images, numbering))
    notes = _numbering_notes(pictures, numbering, frames)
    cameras, fitted_notes = fit_to_pictures(calibration, pictures)
    notes += fitted_notes
    cameras = with_scale(cameras, factor)
    notes += _distance_notes(cameras, calibration.is_metric or factor != 1)
    if poses is not None:
        notes += _check_poses(poses, frames)
    else:
        notes.append("no poses: training needs smpl_params.npz there, a pose for each frame (--poses)")
    with atomic_folder(out) as folder:
        content = json.dumps(calibration_content(cameras), indent=1)
        (folder / thuman4.CALIBRATION_FILE).write_text(content + "\n")
        if poses is not None:
            _copy_poses(poses, folder)
        notes += _place_pictures(folder, cameras, pictures, numbering, copy)
    return Imported(frames, tuple(notes))


def fit_to_pictures(
    calibration: Calibration, pictures: Sequence[SourcePictures]
) -> tuple[tuple[CalibratedCamera, ...], list[str]]:
    """The cameras at the size of their pictures; and what had to change."""
    cameras, scaled = [], set()
    for camera, of_camera in zip(calibration.cameras, pictures, strict=True):
        if not of_camera.images:
            cameras.append(camera)
            continue
        path = next(iter(of_camera.images.values()))
        height, width = decode_image(path, cv2.IMREAD_GRAYSCALE).shape
        told = camera.image_size or (width, height)
        scale = width / told[0], height / told[1]
        if abs(scale[0] / scale[1] - 1) > ASPECT_TOLERANCE:
            hint = (
                "are its pictures turned?"
                if (height, width) == told
                else "are they cut, or of another camera?"
            )
            raise ValueError(
                f"{path}: is {width}x{height}, but camera '{camera.name}' was calibrated at {told[0]}x{told[1]}; {hint}"
            )
        if scale != (1, 1):
            scaled.add(f"{told[0]}x{told[1]} to {width}x{height}")
            camera = replace(camera, K=np.array([*scale, 1.0])[:, None] * camera.K)
        cameras.append(replace(camera, image_size=(width, height)))
    notes = [f"intrinsics are scaled from {text}, the pictures' size" for text in sorted(scaled)]
    return tuple(cameras), notes


def _frames(files: dict[int, Path], numbering: Numbering) -> dict[int, Path]:
    found = {numbering.frame(number): path for number, path in files.items()}
    return {frame: path for frame, path in found.items() if frame is not None}


def _numbering_notes(pictures: Sequence[SourcePictures], numbering: Numbering, frames: int) -> list[str]:
    numbers = {number for camera in pictures for number in camera.images}
    left_out = sum(numbering.frame(number) is None for number in numbers)
    notes = []
    if (numbering.first, numbering.step) != (0, 1):
        by = f" in steps of {numbering.step}" * (numbering.step > 1)
        notes.append(f"pictures are numbered from {numbering.first}{by}: {numbering.first} is frame 0 now")
    if left_out:
        notes.append(f"{left_out} numbers are no frame then, their pictures are left out")
    gaps = set(range(frames)) - {numbering.frame(number) for number in numbers}
    if gaps:
        notes.append(f"no camera has the frames {ranges(gaps)}")
    return notes


def _distance_notes(cameras: Sequence[CalibratedCamera], metric: bool) -> list[str]:
    centers = np.stack([camera.center for camera in cameras])
    size = np.linalg.norm(centers - np.median(centers, 0), axis=1).max()
    if not metric:
        return [
            "the cameras have no metric scale: give --scale, or --height of the person, unless poses are in this unit; "
            "script/check_capture.py names the factor where there are poses"
        ]
    if len(cameras) > 1 and not NEAREST < size < FARTHEST:
        return [f"the cameras are up to {size:.3g} m from their middle: is the unit right? give --scale"]
    return []


def _check_poses(path: Path, frames: int) -> list[str]:
    """The one place where an import reads poses."""
    motion = read_motion(path)
    betas_of_capture(path, motion)
    count = len(motion)
    if count < frames:
        raise ValueError(
            f"{path}: holds {count} poses, the pictures are {frames} frames; give --first and --step, the number of "
            "the first pose's picture and that from pose to pose"
        )
    if count > frames:
        return [f"{count} poses for {frames} frames: are the first ones meant? else give --first and --step"]
    return []


def _copy_poses(poses: Path, folder: Path) -> None:
    """As they are: whatever form they have, train.py reads it under these names (layout.POSE_FILES)."""
    if poses.is_dir():
        shutil.copytree(poses, folder / "smpl_params")
    else:
        shutil.copyfile(
            poses, folder / ("smpl_params.json" if poses.suffix.lower() == ".json" else "smpl_params.npz")
        )


def _place_pictures(
    folder: Path,
    cameras: Sequence[CalibratedCamera],
    pictures: Sequence[SourcePictures],
    numbering: Numbering,
    copy: bool,
) -> list[str]:
    placed = {"link": 0, "copy": 0}
    labelled, without_images, without_masks = [], [], []
    for camera, of_camera in zip(cameras, pictures, strict=True):
        images, masks = _frames(of_camera.images, numbering), _frames(of_camera.masks, numbering)
        if not images:
            without_images.append(camera.name)
            continue
        for frame, path in images.items():
            placed[_place(path, folder / "images" / camera.name / f"{frame:08d}{path.suffix}", copy)] += 1
        if not masks:
            if not _has_alpha(next(iter(images.values()))):
                without_masks.append(camera.name)
            continue
        labels = _holds_labels(next(iter(masks.values())))
        if labels:
            labelled.append(camera.name)
        for frame, path in masks.items():
            target = folder / "masks" / camera.name / f"{frame:08d}{'.png' if labels else path.suffix}"
            if labels:
                pixels = decode_image(path, cv2.IMREAD_GRAYSCALE)
                write_png(target, pixels > 0)
            else:
                placed[_place(path, target, copy)] += 1
    notes = []
    if placed["copy"] and not copy:
        notes.append(f"{placed['copy']} files are copies: this folder takes no links")
    if labelled:
        notes.append(f"masks of {len(labelled)} cameras number parts of the body: copied as black and white")
    if without_images:
        notes.append(f"no pictures of {', '.join(without_images)}; these cameras keep their ids")
    if without_masks:
        notes.append(
            f"no masks of {', '.join(without_masks)}: training needs them in masks/CAM (--masks), or as alpha"
        )
    return notes


def _place(source: Path, target: Path, copy: bool) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    return link_or_copy(source, target, copy)


def _has_alpha(path: Path) -> bool:
    try:
        decode_mask(path, path)
    except ValueError:
        return False
    return True


def _holds_labels(path: Path) -> bool:
    """Masks whose numbers are parts of the body: few values, all dark."""
    values = np.unique(decode_image(path, cv2.IMREAD_GRAYSCALE))
    return 0 < values[-1] <= MASK_THRESHOLD and len(values) <= MOST_LABELS
