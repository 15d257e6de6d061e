"""Files at the program's edges: reading untrusted npz archives and writing so that a file is whole or absent.

Nothing from outside is ever unpickled: archives are opened with `allow_pickle=False` and only the arrays that
are asked for are read, so a publisher's file with pickled extras still loads.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmlphuman.resources import OutOfMemory, memory_for, require_memory

# What damage makes numpy and zipfile raise: wrong sums, cut streams, unknown compression or a password
# (RuntimeError), a header that claims more than there is.
UNREADABLE_MEMBER = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,  # of a header, tokenize's included
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(
    path: str | Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The named arrays of an npz archive; an optional one that is absent is left out.

    Raises FileNotFoundError if there is no such file and ValueError, naming the file and the array, if it is
    not an npz archive, an array is missing, damaged or holds pickled objects.
    """
    with _open_npz(path) as archive:
        missing = [key for key in required if key not in archive.files]
        if missing:
            raise ValueError(
                f"{path}: array '{missing[0]}' is missing; it holds {', '.join(archive.files) or 'nothing'}"
            )
        arrays = {}
        for key in [*required, *(key for key in optional if key in archive.files)]:
            try:
                with memory_for(f"array '{key}' of {path} does not fit"):
                    require_memory(unpacked_bytes(archive, key), f"array '{key}' of {path} does not fit")
                    arrays[key] = archive[key]
            except OutOfMemory:
                raise
            except UNREADABLE_MEMBER as error:
                raise ValueError(
                    f"{path}: array '{key}' cannot be read (damaged, or holds pickled objects)"
                ) from error
            if arrays[key].dtype.kind not in "biuf":
                raise ValueError(f"{path}: array '{key}' is not numeric (its type is {arrays[key].dtype})")
    return arrays


def unpacked_bytes(archive: np.lib.npyio.NpzFile, key: str) -> int:
    """Which its index claims, before anything is unpacked."""
    assert archive.zip is not None, "open"
    member = archive.zip.NameToInfo.get(f"{key}.npy")
    return 0 if member is None else member.file_size


def npz_names(path: str | Path) -> tuple[str, ...]:
    """The names of an npz archive's arrays, by which formats are told apart; raises as `read_npz` does."""
    with _open_npz(path) as archive:
        return tuple(archive.files)


def _open_npz(path: str | Path) -> np.lib.npyio.NpzFile:
    """The archive, none of its arrays read yet."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError, SyntaxError) as error:
        raise ValueError(f"{path}: not a readable npz file (damaged or another format)") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: a single array, not an npz archive")
    return archive


def require_plain(path: str | Path) -> None:
    """FileNotFoundError if nothing is there, ValueError for what is no plain file: a pipe would be waited for, and a
    device read without end."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path}: not a plain file (a folder, pipe or device)")


def read_plain_file(path: str | Path) -> bytes:
    """Raises as `require_plain`, or OSError."""
    require_plain(path)
    return Path(path).read_bytes()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it appears, complete, only when the block ends without an exception.

    The bytes go to `.NAME.PID.partial` beside it, which is renamed over `path` at the end. A killed process
    can leave that partial file behind, never half a `path`. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
