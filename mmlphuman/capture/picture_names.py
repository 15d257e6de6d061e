"""Names of picture files: the one place that knows their endings.

Data path: a layout's expected name -> the file that is there, whatever its ending -> CaptureLayout, checks.

A layout says `00000012.jpg`; people have `00000012.png` or `00000012.JPG` there. Of several files of one stem the one
with the expected ending counts, then they go by `ENDINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ENDINGS = (".png", ".jpg", ".jpeg")  # in any case
WITH_ALPHA = ".png"
USUAL = (*ENDINGS, *(ending.upper() for ending in ENDINGS))


def is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in ENDINGS


def can_have_alpha(path: Path) -> bool:
    return path.suffix.lower() == WITH_ALPHA


def find_picture(expected: Path) -> Path | None:
    """The picture of this stem in this folder; None if there is none. Asks for the usual endings, lists if it must."""
    if expected.is_file():
        return expected
    for ending in USUAL:
        path = expected.with_suffix(ending)
        if path.is_file():
            return path
    if not expected.parent.is_dir():
        return None
    name = pictures_by_stem(expected.parent.iterdir(), expected.suffix).get(expected.stem)
    return None if name is None else expected.with_name(name)


def what_lies_there(expected: Iterable[Path]) -> str:
    """For a message about files that are missing: what the first of their folders that lacks its file holds instead."""
    for path in expected:
        if find_picture(path) is not None:
            continue
        if not path.parent.is_dir():
            return f"; there is no folder {path.parent}"
        names = sorted(file.name for file in path.parent.iterdir() if not file.is_dir())
        if not names:
            return f"; {path.parent} holds no files"
        pictures = [Path(name).stem for name in names if is_picture(name)]
        remedy = "script/import_capture.py links pictures under the names that are needed"
        if not pictures:
            remedy = f"pictures end with {', '.join(ENDINGS)}"
        elif any(_numbered_alike(stem, path.stem) for stem in pictures):
            remedy = "change the frame range"
        return f"; {path.parent} holds {len(names)} files such as {names[0]}: {remedy}"
    return ""


def _numbered_alike(stem: str, other: str) -> bool:
    """Whether two names differ in their digits alone."""
    return re.sub(r"\d", "0", stem) == re.sub(r"\d", "0", other)


class FolderListing:
    """`find` does what `find_picture` does, for thousands of files: each folder is listed once."""

    def __init__(self):
        self._listed: dict[tuple[Path, str], dict[str, str]] = {}

    def find(self, expected: Path) -> Path | None:
        name = self.pictures(expected.parent, expected.suffix).get(expected.stem)
        return None if name is None else expected.with_name(name)

    def pictures(self, folder: Path, ending: str) -> dict[str, str]:
        """Stem -> name of the pictures in `folder`; of several of one stem the one that ends so."""
        key = folder, ending
        if key not in self._listed:
            self._listed[key] = pictures_by_stem(folder.iterdir(), ending) if folder.is_dir() else {}
        return self._listed[key]


def pictures_by_stem(files: Iterable[Path], ending: str = "") -> dict[str, str]:
    def rank(name: str) -> tuple:
        suffix = Path(name).suffix
        return suffix != ending, USUAL.index(suffix) if suffix in USUAL else len(USUAL), name

    names = sorted((file.name for file in files if is_picture(file.name)), key=rank, reverse=True)
    return {Path(name).stem: name for name in names}  # the best of a stem comes last and stays
