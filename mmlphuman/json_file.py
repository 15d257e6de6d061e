"""Untrusted JSON files: reading them, and numbers out of their objects, with errors a user can act on."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

import numpy as np


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError if it is no JSON or names a field twice."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # no JSON, no text, a name twice, brackets without end
        raise ValueError(f"{path}: not readable as JSON ({error})") from error


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    """The object of `pairs`; Python's reader would silently keep the last of two equal names."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} appears twice in one object")
    return entries


def numbers(where: str, entry: dict, field: str, count: int) -> np.ndarray:
    """(count,) float64 of `entry[field]`; nested lists are read row by row, a single number stands for itself.

    Raises ValueError, beginning with `where`, if the field is missing or is anything but `count` finite numbers.
    """
    if field not in entry:
        raise ValueError(f"{where}: {field} is missing")
    values = _flatten(entry[field])
    # JSON's true and "3.0" would become numbers, silently.
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{where}: {field} must be {_wanted(count)}, got {reprlib.repr(entry[field])}")
    if len(values) != count:
        raise ValueError(f"{where}: {field} must be {_wanted(count)}, got {len(values)}")
    try:
        array = np.array(values, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        array = np.full(count, np.inf)
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {field} holds numbers that are not finite")
    return array


def _wanted(count: int) -> str:
    return "a number" if count == 1 else f"{count} numbers"


def _flatten(value: object) -> list:
    return [number for item in value for number in _flatten(item)] if isinstance(value, list) else [value]
