"""Pictures of any program, matched with the true ones by name, so that programs are compared on the same pixels.

Data path: folder of true pictures, a folder for each program, perhaps one of masks -> MatchedFolders -> ImagePair.

Files match by their path below the folder, without the suffix. `cam007_frame00000120`, as test.py writes, is camera 7
and frame 120; of other names the subfolder stands for the camera and the name for the frame. All pictures are taken
as they are: the background should be white in all of them. A file with transparency is refused, because nobody can
tell what its maker would lay it on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD, decode_image
from mmlphuman.capture.picture_names import ENDINGS, is_picture
from mmlphuman.evaluation.metrics import ImagePair
from mmlphuman.picture_files import laid_on

OUR_NAME = re.compile(r"cam(\d+)_frame(\d+)")  # picture_files.image_name
SMALLEST = 6  # pixels a side: SSIM's window reaches 5 beyond its pixel
NAMED_AT_MOST = 3  # of the files without a match


@dataclass(frozen=True)
class MatchedFolders:
    """names: what all folders have; the files of each by these names."""

    names: tuple[str, ...]
    truth: dict[str, Path]
    renders: dict[str, dict[str, Path]]  # by program
    masks: dict[str, Path] | None
    notes: tuple[str, ...]  # about files without a match

    def pictures(self, program: str, names: Sequence[str] | None = None) -> Iterator[ImagePair]:
        """One program's pictures, all or those of these names. ValueError, naming the files, for unfit ones and for
        sizes that differ."""
        for name in self.names if names is None else names:
            truth_path, render_path = self.truth[name], self.renders[program][name]
            truth, render = read_picture(truth_path), read_picture(render_path)
            _require_size(render, render_path, truth, truth_path)
            mask = None
            if self.masks is not None:
                mask = read_mask(self.masks[name])
                _require_size(mask, self.masks[name], truth, truth_path)
            camera, frame = camera_and_frame(name)
            yield ImagePair(camera, frame, truth, render, mask)


def match_folders(truth: Path, renders: Sequence[Path], masks: Path | None = None) -> MatchedFolders:
    """Finds the pictures that all folders have. ValueError or FileNotFoundError if there are none.

    renders: a folder for each program; its name is the folder's, with as many parent folders as it takes to tell
    them apart.
    """
    folders = {f"--truth {truth}": list_pictures(truth)}
    programs = dict(zip(program_names(renders), renders, strict=True))
    found = {program: list_pictures(folder) for program, folder in programs.items()}
    folders |= {f"--render {programs[program]}": files for program, files in found.items()}
    if masks is not None:
        folders[f"--mask {masks}"] = list_pictures(masks)
    common = set.intersection(*(set(files) for files in folders.values()))
    if not common:
        examples = ", ".join(f"{label} has {next(iter(files))}" for label, files in folders.items())
        raise ValueError(f"no picture has the same name in every folder: {examples}")
    notes = []
    for label, files in folders.items():
        alone = sorted(set(files) - common)
        if alone:
            shown = ", ".join(alone[:NAMED_AT_MOST]) + ", ..." * (len(alone) > NAMED_AT_MOST)
            notes.append(
                f"{len(alone)} of {len(files)} pictures in {label} are left out, others lack them: {shown}"
            )
    return MatchedFolders(
        names=tuple(sorted(common)),
        truth=folders[f"--truth {truth}"],
        renders=found,
        masks=None if masks is None else folders[f"--mask {masks}"],
        notes=tuple(notes),
    )


def list_pictures(folder: Path) -> dict[str, Path]:
    """Every PNG and JPEG below a folder, by its relative path without the suffix (hidden files are left alone)."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not is_picture(path.name) or any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        if name in files:
            raise ValueError(f"{files[name]} and {path} have one name; keep one of them")
        files[name] = path
    if not files:
        raise ValueError(f"{folder}: holds no {', '.join(ENDINGS)} file")
    return files


def read_picture(path: Path, background: Sequence[float] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB. ValueError, naming the file, for anything but 8-bit colour without transparency.

    background: RGB in [0, 1] to lay a transparent one on; None refuses it.
    """
    pixels = decode_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path}: has {pixels.dtype} pixels; write it with 8 bits a channel")
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and background is not None:
        pixels = laid_on(pixels, background[::-1])
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        raise ValueError(f"{path}: is partly transparent; lay it on white and write it without alpha")
    if min(pixels.shape[:2]) < SMALLEST:
        height, width = pixels.shape[:2]
        raise ValueError(
            f"{path}: is {width}x{height}; pictures that are scored have at least {SMALLEST} pixels a side"
        )
    if pixels.ndim != 3:
        raise ValueError(f"{path}: is a grey picture; write it in colour")
    return np.ascontiguousarray(pixels[..., ::-1])  # OpenCV keeps blue first


def read_mask(path: Path) -> np.ndarray:
    """(H, W) bool, True on the person. ValueError, naming the file, for one that cannot be read."""
    return decode_image(path, cv2.IMREAD_GRAYSCALE) > MASK_THRESHOLD


def program_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ from each other."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) != len(paths):
        raise ValueError("--render names one folder twice")
    for length in range(1, max(map(len, paths)) + 1):
        names = [PurePosixPath(*parts[-length:]).as_posix() for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def camera_and_frame(name: str) -> tuple[int | str, int | str]:
    """Of a relative path without suffix."""
    path = PurePosixPath(name)
    ours = OUR_NAME.fullmatch(path.name)
    if ours:
        return int(ours[1]), int(ours[2])
    return ("" if path.parent == PurePosixPath() else path.parent.as_posix()), path.name


def _require_size(pixels: np.ndarray, path: Path, truth: np.ndarray, truth_path: Path) -> None:
    if pixels.shape[:2] != truth.shape[:2]:
        height, width = pixels.shape[:2]
        true_height, true_width = truth.shape[:2]
        raise ValueError(
            f"{path} is {width}x{height} but {truth_path} is {true_width}x{true_height} (width x height)"
        )
