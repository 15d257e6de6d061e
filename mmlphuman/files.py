"""Files at the program's edges: reading untrusted npz archives and writing so that a file is whole or absent.

Nothing from outside is ever unpickled: archives are opened with `allow_pickle=False` and only the arrays that
are asked for are read, so a publisher's file with pickled extras still loads. A file that would have to be unpickled is
named as what it is, with the line of Python by which its owner makes an npz of it.
"""

from __future__ import annotations

import csv
import io
import lzma
import math
import os
import shlex
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import IO, BinaryIO

import numpy as np

from mmlphuman.resources import OutOfMemory, memory_for, require_memory

# What damage makes numpy and zipfile raise: wrong sums, cut streams, unknown compression or a password
# (RuntimeError), a header without end (TokenError) or of no sense (SyntaxError, TypeError), or one that claims more
# than there is.
UNREADABLE_MEMBER = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    TokenError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)

# What a file that is no npz begins with.
BEGINNINGS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "PyTorch"),
    (b"\x80\x02", "pickle"), (b"\x80\x03", "pickle"), (b"\x80\x04", "pickle"), (b"\x80\x05", "pickle"),
    (b"\x89HDF\r\n", "HDF5"), (b"MATLAB ", "MATLAB"), (b"HIERARCHY", "BVH"), (b"Kaydara FBX", "FBX"),
    (b"; FBX", "FBX"), (b"glTF", "glTF"),
)  # fmt: skip
PICKLED_SUFFIXES = {
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "joblib",
}
UNPICKLED_BY = {  # kind: its module, and how it reads the file sys.argv[1]
    "PyTorch": ("torch", 'torch.load(f, map_location="cpu", weights_only=False)'),
    "pickle": ("pickle", 'pickle.load(open(f, "rb"), encoding="latin1")'),
    "joblib": ("joblib", "joblib.load(f)"),
    "NumPy": ("numpy", "numpy.load(f, allow_pickle=True).item()"),
}


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
            if not isinstance(arrays[key], np.ndarray):  # a member without the suffix .npy: its bytes
                raise ValueError(f"{path}: '{key}' is no array")
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


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], int, int]:
    """(shape, bytes an entry, bytes of the header) of an npy stream; objects count nothing: numpy refuses them."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, 0 if dtype.hasobject else dtype.itemsize, stream.tell()


def _open_npz(path: str | Path) -> np.lib.npyio.NpzFile:
    """The archive, none of its arrays read yet."""
    path = Path(path)
    require_plain(path)
    refuse_foreign(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except UNREADABLE_MEMBER as error:
        raise ValueError(f"{path}: not a readable npz file (damaged or another format)") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: a single array, not an npz archive")
    return archive


def require_plain(path: str | Path) -> None:
    """FileNotFoundError if nothing is there, ValueError for what is no plain file: a pipe would be waited for, and a
    device read without end."""
    if not Path(path).exists():
        if Path(path).is_symlink():
            raise FileNotFoundError(f"{path}: a link that leads nowhere, to {Path(path).readlink()}")
        raise FileNotFoundError(f"{path}: no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path}: not a plain file (a folder, pipe or device)")


def read_plain_file(path: str | Path) -> bytes:
    """Raises as `require_plain`, or OSError."""
    require_plain(path)
    return Path(path).read_bytes()


def read_npy(path: str | Path) -> np.ndarray:
    """The one array of an npy file. Raises as `read_npz` does."""
    path = Path(path)
    require_plain(path)
    try:
        with path.open("rb") as stream:
            shape, itemsize, start = _npy_header(stream)
            if start + math.prod(shape) * itemsize > path.stat().st_size:
                raise ValueError("the header claims more than there is")
            stream.seek(0)
            array = np.lib.format.read_array(stream, allow_pickle=False) if itemsize else None
    except UNREADABLE_MEMBER as error:
        raise ValueError(f"{path}: not a readable npy file (damaged or another format)") from error
    if array is None:
        raise ValueError(_pickled(path, "NumPy"))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: its array is not numeric (its type is {array.dtype})")
    return array


def refuse_foreign(path: Path) -> None:
    """ValueError that names a file of another format and says what to do with it; what is unknown passes."""
    with path.open("rb") as file:
        beginning = file.read(1024)
    kind = next((kind for start, kind in BEGINNINGS if beginning.startswith(start)), None)
    if beginning.startswith(b"PK"):
        with suppress(*UNREADABLE_MEMBER), zipfile.ZipFile(path) as archive:
            if any(name.endswith("/data.pkl") for name in archive.namelist()):
                kind = "PyTorch"
    elif kind == "pickle" and (b"joblib" in beginning or path.suffix == ".joblib"):
        kind = "joblib"
    elif (
        kind is None
        and not beginning.startswith(b"\x93NUMPY")
        and path.suffix in PICKLED_SUFFIXES
        and beginning
    ):
        # Compressed by joblib, or the oldest kind of pickle, which is text.
        kind = "joblib" if beginning[:1] in b"x\x1f" else PICKLED_SUFFIXES[path.suffix]
    if kind in UNPICKLED_BY:
        raise ValueError(_pickled(path, kind))
    if kind in ("HDF5", "MATLAB"):
        raise ValueError(
            f"{path}: a file of {kind}, which is not read here; save its arrays with numpy.savez"
        )
    if kind is not None:
        raise ValueError(
            f"{path}: a file of {kind}: a skeleton of its own, not SMPL-X; retarget its motion to SMPL-X (Blender's "
            "SMPL-X add-on does) and export it as an AMASS npz"
        )


def _pickled(path: Path, kind: str) -> str:
    """What to do with a file that only unpickling opens."""
    module, load = UNPICKLED_BY[kind]
    modules = ", ".join(dict.fromkeys(("sys", "numpy", module)))
    flat = (  # dictionaries within dictionaries become names as outer/inner
        'flat = lambda d, p="": {k: v for n, x in d.items() for k, v in '
        '(flat(x, f"{p}{n}/") if isinstance(x, dict) else {f"{p}{n}": x}).items()}'
    )
    code = f'import {modules}; f = sys.argv[1]; {flat}; numpy.savez(f + ".npz", **flat({load}))'
    return (
        f"{path}: a {kind} file of pickled objects, which can run any code and is never opened here; if you trust it, "
        f"make {path.name}.npz of it: python -c '{code}' {shlex.quote(str(path))}"
    )


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Replaces the file as a whole: whoever reads it, at any time, sees no half row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def free_folder(path: str | Path, flag: str = "--out_dir", hint: str = "") -> Path:
    """The place of a folder that is to be made whole: absent or empty, links to it followed.

    ValueError, one line, where something is there already. hint: what else could be done if it is not empty.
    """
    place = Path(os.path.realpath(path))
    if place == Path.cwd():
        raise ValueError(f"{flag} '{path}' is the folder that you are in; name a new one")
    if place.exists() and not place.is_dir():
        raise ValueError(f"{flag} {path} is a file; name a new folder")
    if place.is_dir() and any(place.iterdir()):
        raise ValueError(f"{flag} {path} is not empty; {hint}choose another folder")
    return place


def link_or_copy(source: Path, target: Path, copy: bool = False) -> str:
    """A link, or where the file system has none (or copies are wanted) a copy; which of the two."""
    if not copy:
        try:
            target.symlink_to(source.resolve())
            return "link"
        except (OSError, NotImplementedError):
            pass
    shutil.copyfile(source, target)
    return "copy"


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes that name when the block ends without an exception, and is gone
    else. An empty folder of that name may be there."""
    path = Path(os.path.realpath(path))
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.exists():
            path.rmdir()
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
