"""Untrusted JSON files: reading them, and numbers out of their objects, with errors a user can act on."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmlphuman.files import require_plain

MAX_BYTES = 64_000_000  # a calibration has some 600 a camera
MAX_NUMBERS = 100_000  # of a field; nobody asks for more than 16


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError if it is no JSON or names a field twice."""
    path = Path(path)
    require_plain(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, too many to be read as JSON")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # no JSON, no text, a name twice, brackets without end
        raise ValueError(f"{path}: not readable as JSON ({error})") from error


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    """The object of `pairs`; Python's reader would silently keep the last of two equal names."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{repeated!r} appears twice in one object")
    return entries


def numbers(where: str, entry: dict, field: str, count: int | Sequence[int]) -> np.ndarray:
    """(count,) float64 of `entry[field]`; nested lists are read row by row, a single number stands for itself.

    count: how many there must be, or all the possible ones. Raises ValueError, beginning with `where`, if the field is
    missing or is anything but so many finite numbers.
    """
    if field not in entry:
        raise ValueError(f"{where}: {field} is missing")
    values = _flatten(entry[field])
    # JSON's true and "3.0" would become numbers, silently.
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{where}: {field} must be {_wanted(count)}, got {reprlib.repr(entry[field])}")
    if len(values) not in ((count,) if isinstance(count, int) else count):
        raise ValueError(f"{where}: {field} must be {_wanted(count)}, got {len(values)}")
    try:
        array = np.array(values, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        array = np.full(len(values), np.inf)
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {field} holds numbers that are not finite")
    return array


def _wanted(count: int | Sequence[int]) -> str:
    if isinstance(count, int):
        return "a number" if count == 1 else f"{count} numbers"
    return f"{', '.join(map(str, count[:-1]))} or {count[-1]} numbers"


def _flatten(value: object) -> list:
    """Lists in lists in order, however deep: brackets may go farther down than Python's stack."""
    flat, waiting = [], [value]
    while waiting and len(flat) <= MAX_NUMBERS:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += reversed(item)
        else:
            flat.append(item)
    return flat
