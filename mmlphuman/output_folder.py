"""Folders that commands fill with results: which ones they may, so that new results never lie among others' files.

A folder is new, empty, or holds an earlier output of the very same program, known by the record that this wrote there
(output.json): then the files that the record names go first. Anything else is refused. Of what a record does not name
nothing is ever removed, nor anything outside the folder, whatever a record says.
Order: require_output before the long part; begin_output when the first file is about to be written. Whatever ends a
program after that, the record names all that it can have left.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from mmlphuman.command import require_writable
from mmlphuman.files import atomic_write
from mmlphuman.json_file import read_json

RECORD = "output.json"
NAMED_AT_MOST = 3  # of the files in the way


def is_free(folder: Path) -> bool:
    """Whether a folder is new or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def require_output(folder: Path, program: str, flag: str = "--out_dir", mark: str | None = None) -> None:
    """ValueError, one line, unless `program` may fill `folder` with results and can write there; makes it.

    program: as the user knows it, with what tells its kinds of results apart: "test.py --data_dir". mark: a file by
    which a program that goes on in its folder, instead of beginning anew, knows it.
    """
    known = mark is not None and (folder / mark).is_file()
    if folder.is_dir() and not (known or is_free(folder)) and (found := holds(folder)) != program:
        what = f"an output of {found}" if found else _described(folder)
        raise ValueError(f"{flag} {folder} holds {what}; name a new folder, or empty this one yourself")
    require_writable(folder, flag)


def begin_output(folder: Path, program: str, files: Iterable[Path | str]) -> None:
    """Takes away what an earlier output of `program` left, and records the new one.

    files: all that will be written, below `folder`. ValueError and OSError as `require_output`, which stands before.
    """
    if not is_free(folder):
        require_output(folder, program)
        _remove_recorded(folder)
    names = sorted({Path(file).as_posix() for file in files})
    record = {"program": program, "command": sys.argv, "files": names}
    with atomic_write(folder / RECORD) as file:
        file.write(json.dumps(record, indent=0).encode())


def holds(folder: Path) -> str | None:
    """The program whose record lies in `folder`; None where there is none that can be read."""
    program = _record(folder).get("program")
    return program if isinstance(program, str) else None


def _record(folder: Path) -> dict:
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _remove_recorded(folder: Path) -> None:
    files = _record(folder).get("files")
    root, emptied = folder.resolve(), set()
    for name in files if isinstance(files, list) else ():
        if not isinstance(name, str) or not name or "\0" in name:
            continue
        path = folder / PurePosixPath(name)
        parent = path.parent.resolve()
        if ".." in path.parts[len(folder.parts) :] or not parent.is_relative_to(root):
            continue  # a record may be a stranger's
        if path.is_file() or path.is_symlink():
            path.unlink()
            emptied.add(path.parent)
    for parent in emptied - {folder}:
        with suppress(OSError):  # somebody's file is in there
            parent.rmdir()


def _described(folder: Path) -> str:
    if (folder / "checkpoints").is_dir():
        return "a trained model"
    names = sorted(path.name for path in folder.iterdir())
    return f"other files ({', '.join(names[:NAMED_AT_MOST])}{', ...' * (len(names) > NAMED_AT_MOST)})"
