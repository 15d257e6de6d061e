"""Pickled plain data without unpickling: dicts, lists, words, numbers, arrays of numbers; nothing else is called.

Data path: camera_scale.pkl of MVHumanNet, annots.npy of ZJU-MoCap -> plain Python and numpy values.

A pickle is a program: it names functions and has them called. Here the few names that numpy's arrays need stand for
functions of this file, which only put arrays of plain numbers together; any other name ends the reading. What a
pickle can do with the objects that these functions return is to set their state, which they check.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 500_000_000
DEPTH = 12  # of what is read: dicts and lists in each other
KINDS = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} | {"b1"}


class _Type:
    """Stands for numpy.dtype: a plain number's type, or that of arrays of objects."""

    def __init__(self, name: object):
        if name not in KINDS and name not in ("O", "O8"):
            raise pickle.UnpicklingError(f"an array of type {str(name)[:20]!r}")
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a damaged type of numbers")
        self.order = state[1]

    @property
    def holds_objects(self) -> bool:
        return self.name.startswith("O")

    def read(self, data: object, shape: tuple[int, ...], by_columns: bool = False) -> np.ndarray:
        if not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("a damaged array")
        try:
            return (
                np.frombuffer(data, np.dtype(self.order + self.name))
                .reshape(shape, order="F" if by_columns else "C")
                .copy()
            )
        except (ValueError, TypeError) as error:
            raise pickle.UnpicklingError("a damaged array") from error


class _Array:
    """Stands for numpy.ndarray while its state is not there."""

    def __init__(self):
        self.value: Any = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("a damaged array")
        _, shape, kind, by_columns, data = state
        shape = _shape(shape)
        if not isinstance(kind, _Type):
            raise pickle.UnpicklingError("a damaged array")
        if kind.holds_objects:
            if not isinstance(data, list) or len(data) != np.prod(shape, dtype=np.int64):
                raise pickle.UnpicklingError("a damaged array")
            self.value = data[0] if shape == () else data
        else:
            self.value = kind.read(data, shape, bool(by_columns))


def _shape(shape: object) -> tuple[int, ...]:
    if (
        not isinstance(shape, tuple)
        or not all(type(side) is int and side >= 0 for side in shape)
        or len(shape) > 8
    ):
        raise pickle.UnpicklingError("a damaged array")
    return shape


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Functions of this file in the place of those few that are named; made anew, so that none can be changed."""
        functions = {
            "_reconstruct": lambda *_: _Array(),
            "scalar": lambda kind, data: (
                kind.read(data, ()).item() if type(kind) is _Type else _refuse("a number")
            ),
            "ndarray": lambda *_: _refuse("a call"),
            "dtype": lambda name, *_: _Type(name),
            "_frombuffer": lambda data, kind, shape, order: _array(data, kind, shape, order),
            "encode": lambda text, how: _bytes(text, how),
        }
        modules = {"encode": ("_codecs",), "ndarray": ("numpy",), "dtype": ("numpy",)}
        inside = [f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")]
        if name not in functions or module not in modules.get(name, inside):
            raise pickle.UnpicklingError(f"'{module[:40]}.{name[:40]}', which is code")
        return functions[name]

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("something of another program")


def _refuse(what: str) -> Any:
    raise pickle.UnpicklingError(f"{what} that is damaged")


def _array(data: object, kind: object, shape: object, order: object) -> _Array:
    if not isinstance(kind, _Type) or order not in ("C", "F"):
        raise pickle.UnpicklingError("a damaged array")
    array = _Array()
    array.value = kind.read(data, _shape(shape), order == "F")
    return array


def _bytes(text: object, how: object) -> bytes:
    if not isinstance(text, str) or how != "latin1":
        raise pickle.UnpicklingError("damaged bytes")
    return text.encode("latin1")


def read_plain_pickle(path: str | Path) -> Any:
    """The plain data of a pickle file, or of a .npy file that holds one object.

    Raises FileNotFoundError, or ValueError for a file with anything else in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, too many for a file of cameras")
    data = path.read_bytes()
    try:
        if data.startswith(b"\x93NUMPY"):
            data = _after_header(data)
        return _plain(_Reader(io.BytesIO(data), encoding="latin1").load(), DEPTH, {})
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: is a pickle that holds {error}; only plain numbers and words are read"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(
            f"{path}: not readable as a pickle of plain data ({type(error).__name__})"
        ) from error


def _after_header(data: bytes) -> bytes:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.kind != "O" or shape != ():
        raise pickle.UnpicklingError("an array where one object is needed")
    return file.read()


def _plain(value: object, depth: int, done: dict[int, Any]) -> Any:
    """Arrays as what they hold; done: by identity, since one list may stand in a thousand places. UnpicklingError for
    what is no plain data, or too deep."""
    if value is None or isinstance(value, str | bytes | int | float | np.ndarray):
        return value
    if depth == 0:
        raise pickle.UnpicklingError("lists in lists without end")
    if id(value) not in done:
        if isinstance(value, _Array):
            plain = _plain(value.value, depth - 1, done)
        elif isinstance(value, dict):
            plain = {
                key: _plain(item, depth - 1, done)
                for key, item in value.items()
                if isinstance(key, str | int)
            }
        elif isinstance(value, list | tuple):
            plain = [_plain(item, depth - 1, done) for item in value]
        else:
            raise pickle.UnpicklingError(f"a {type(value).__name__}")
        done[id(value)] = plain
    return done[id(value)]
