"""Pictures and masks of a capture in anybody's folders -> for each camera its files by frame number.

Data path: folder, Calibration -> find_pictures -> SourcePictures -> import_capture.

A camera's pictures are a folder of its name, `IMAGES/CAM/000012.jpg`, or one file, `IMAGES/CAM.jpg`. Of a name the
frame is the one number that differs from file to file, the camera's own name left out: `0005_img_fmask.png` is frame 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmlphuman.calibrations.calibration import Calibration
from mmlphuman.capture.picture_names import find_picture, pictures_by_stem

IMAGE_FOLDERS = ("images", "images_lr", "rgbs", ".")
MASK_FOLDERS = ("masks", "mask", "fmask", "fmask_lr", "mask_cihp", "pha")
BELOW_CAMERA = "mask/pha"  # as AvatarReX has masks


@dataclass(frozen=True)
class SourcePictures:
    """One camera's files by the frame's number in their names."""

    images: dict[int, Path]
    masks: dict[int, Path]


def find_pictures(
    root: Path, calibration: Calibration, images: Path | None = None, masks: Path | None = None
) -> list[SourcePictures]:
    """For each camera of the calibration. images, masks: the folders of the cameras' folders, where they are not among
    the usual ones below `root`. Raises ValueError if no camera has a picture, and for names without a clear number."""
    names = [camera.name for camera in calibration.cameras]
    if calibration.pictures and images is None:
        found = [_listed(root, files) for files in calibration.pictures]
    else:
        usual = [root / folder for folder in dict.fromkeys((calibration.image_folder or ".", *IMAGE_FOLDERS))]
        found = _first_with_files([images] if images else usual, names)
    if not any(found):
        where = str(images) if images else f"{root} and {', '.join(IMAGE_FOLDERS[:-1])} below it"
        shown = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
        raise ValueError(
            f"no pictures of the cameras {shown} in {where}: a folder of each camera's name is looked for, or a "
            "picture of its name; give --images FOLDER"
        )
    if masks is None and calibration.pictures:
        found_masks = _listed_masks(root, calibration.pictures)
    else:
        found_masks = _first_with_files(
            [masks] if masks else [root / folder for folder in MASK_FOLDERS], names
        )
        if masks is None and not any(found_masks):
            found_masks = [frames_of(root / name / BELOW_CAMERA, name) for name in names]
    if masks is not None and not any(found_masks):
        raise ValueError(
            f"--masks {masks}: holds no folder or picture of a camera's name, such as {names[0]}"
        )
    return [SourcePictures(*files) for files in zip(found, found_masks, strict=True)]


def _first_with_files(folders: Iterable[Path], names: Sequence[str]) -> list[dict[int, Path]]:
    """Of the first folder in which any camera has files."""
    found: list[dict[int, Path]] = [{} for _ in names]
    for folder in folders:
        found = []
        for name in names:
            single = find_picture(folder / f"{name}.png")
            found.append(frames_of(folder / name, name) or ({} if single is None else {0: single}))
        if any(found):
            break
    return found


def frames_of(folder: Path, camera: str) -> dict[int, Path]:
    """Frame number -> file, of a camera's folder. ValueError where the names have no clear number."""
    files = pictures_by_stem(folder.iterdir()) if folder.is_dir() else {}
    if not files:
        return {}
    stems = sorted(files)
    runs = {stem: re.findall(r"\d+", stem.removeprefix(camera)) for stem in stems}
    count = len(runs[stems[0]])
    for stem in stems:
        if len(runs[stem]) != count or count == 0:
            raise ValueError(
                f"{folder}: of {files[stems[0]]} and {files[stem]} it is not clear which number is the frame's; name "
                "pictures by their frames, as 000012.jpg"
            )
    changing = [place for place in range(count) if len({runs[stem][place] for stem in stems}) > 1]
    if len(changing) > 1:
        raise ValueError(
            f"{folder}: several numbers change from {files[stems[0]]} to {files[stems[-1]]}; name pictures by their "
            "frames, as 000012.jpg"
        )
    place = changing[0] if changing else count - 1
    numbered = {int(runs[stem][place]): folder / files[stem] for stem in stems}
    if len(numbered) < len(stems):
        raise ValueError(f"{folder}: two pictures have one number (as 1.jpg and 01.jpg); remove one")
    return dict(sorted(numbered.items()))


def _listed(root: Path, files: Sequence[str]) -> dict[int, Path]:
    """Of a list of every frame's file those that are there. Names that lead out of `root` are not followed."""
    found = {}
    for frame, file in enumerate(files):
        path = (
            find_picture(root / file)
            if ".." not in Path(file).parts and not Path(file).is_absolute()
            else None
        )
        if path is not None:
            found[frame] = path
    return found


def _listed_masks(root: Path, pictures: Sequence[Sequence[str]]) -> list[dict[int, Path]]:
    found: list[dict[int, Path]] = [{} for _ in pictures]
    for folder in MASK_FOLDERS:
        if (root / folder).is_dir():
            found = [_listed(root / folder, files) for files in pictures]
        if any(found):
            break
    return found
