"""An array of numbers as few bytes that a few lines of any language turn back: whole steps, deflated.

Data path: array -> integers (values / step, rounded) -> differences of neighbouring rows, where that is smaller
-> bytes in planes -> zlib stream; and back. docs/compact_file.md describes it for others.

Shape letters: R rows (the first dimension), C columns (all others together).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = {
    "u8": np.uint8,
    "i8": np.int8,
    "u16": np.uint16,
    "i16": np.int16,
    "i32": np.int32,
    "f32": np.float32,
}
MAX_BYTES = 2**30  # of an array: far beyond any avatar's
# Of zlib, the smaller result: what is stored repeats itself seldom, and a search for long repetitions (level 9 of its
# default strategy) takes fourteen times as long for streams that are larger.
LEVEL, STRATEGIES = 6, (zlib.Z_FILTERED, zlib.Z_RLE)


@dataclass(frozen=True)
class Packed:
    """An array's stream, and what its reader must know."""

    data: bytes
    type: str  # of TYPES
    shape: tuple[int, ...]
    delta: bool  # rows are differences from the row before, modulo the type's range
    shifted: bool = False  # the step of row r is 2^shift[r] times as long

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def entry(self) -> dict[str, Any]:
        """For JSON."""
        return {"type": self.type, "shape": list(self.shape), "delta": self.delta, "shifted": self.shifted}


def packed(array: np.ndarray, shifted: bool = False) -> Packed:
    """Integers in the narrowest type that holds them, or float32."""
    kind = narrowest(array)
    array = np.ascontiguousarray(array, np.dtype(TYPES[kind]).newbyteorder("<"))
    # A stream of whole planes; random numbers' differences are larger than they are themselves.
    choices = [False] if kind == "f32" or len(array) < 2 else [False, True]
    streams = {delta: _deflated(_planes(array, delta)) for delta in choices}
    delta = min(streams, key=lambda choice: len(streams[choice]))
    return Packed(streams[delta], kind, array.shape, delta, shifted)


def _deflated(content: bytes) -> bytes:
    results = []
    for strategy in STRATEGIES:
        compressor = zlib.compressobj(LEVEL, strategy=strategy)
        results.append(compressor.compress(content) + compressor.flush())
    return min(results, key=len)


def narrowest(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        return "f32"
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for kind in ("u8", "i8", "u16", "i16", "i32"):
        limits = np.iinfo(TYPES[kind])
        if limits.min <= low and high <= limits.max:
            return kind
    raise ValueError(f"whole numbers from {low} to {high} do not fit into 32 bits")


def unpacked(data: bytes, entry: Any) -> np.ndarray:
    """The array of `Packed.entry`. ValueError for an entry or a stream that nothing has written."""
    kind, shape, delta = _checked(entry)
    count = int(np.prod(shape, dtype=np.int64)) * np.dtype(TYPES[kind]).itemsize
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, count + 1)  # never more than the entry says
    except zlib.error as error:
        raise ValueError("its stream is damaged") from error
    if len(found) != count or not reader.eof or reader.unused_data:
        raise ValueError(f"its stream is not of the {count} bytes that its shape says")
    return _from_planes(found, kind, shape, delta)


def _checked(entry: Any) -> tuple[str, tuple[int, ...], bool]:
    if not isinstance(entry, Mapping) or entry.get("type") not in tuple(
        TYPES
    ):  # as a tuple: a list has no hash
        raise ValueError(
            "it is described by no entry of `tensors`, or of a type that this program does not know"
        )
    shape, delta = entry.get("shape"), entry.get("delta")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ValueError("its entry's shape is no list of sizes")
    size = 8
    for factor in shape:  # of Python's integers, which do not overflow
        size *= factor
    if size > MAX_BYTES or len(shape) > 4:
        raise ValueError(f"its entry's shape {shape} is larger than any avatar's")
    if not isinstance(delta, bool) or not isinstance(entry.get("shifted"), bool):
        raise ValueError("its entry's delta and shifted must be true or false")
    return entry["type"], tuple(shape), delta


def _planes(array: np.ndarray, delta: bool) -> bytes:
    """Byte 0 of all of column 0, column 1, ..., then byte 1: what is alike lies together."""
    columns = np.ascontiguousarray(_table(array).T)  # (C, R)
    if delta:
        whole = columns.view(f"<u{columns.itemsize}")
        columns = np.diff(whole, axis=1, prepend=whole.dtype.type(0))
    as_bytes = columns.view(np.uint8).reshape(*columns.shape, columns.itemsize)
    return np.ascontiguousarray(as_bytes.transpose(2, 0, 1)).tobytes()


def _from_planes(data: bytes, kind: str, shape: tuple[int, ...], delta: bool) -> np.ndarray:
    dtype = np.dtype(TYPES[kind]).newbyteorder("<")
    rows = shape[0] if shape else 1
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    values = np.ascontiguousarray(planes.T).view(dtype).reshape(-1, rows) if rows else np.empty((0, 0), dtype)
    if delta:
        whole = values.view(f"<u{dtype.itemsize}")
        values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(dtype)
    return np.ascontiguousarray(values.T).reshape(shape).astype(TYPES[kind], copy=False)


def _table(array: np.ndarray) -> np.ndarray:
    """(R, C)."""
    rows = array.shape[0] if array.ndim else 1
    return array.reshape(rows, -1) if array.size else array.reshape(rows, 0)
