"""Reading one field at a time out of an untrusted JSON object, with an error that names it. Numpy only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

SHOWN = 60  # characters of a wrong value in an error


class ProtocolError(ValueError):
    """A message that breaks the protocol; the text is one line that can be shown to its sender."""


def parse_object(text: str | bytes, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. NaN and infinity, which JSON does not have, are refused."""
    if len(text) > limit:
        raise ProtocolError(f"message of {len(text)} bytes, at most {limit} are read")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, brackets without end
        raise ProtocolError(f"not a JSON message ({_short(error)})") from error
    if not isinstance(content, dict):
        raise ProtocolError(f"a message is a JSON object, not {_short(content)}")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


class Fields:
    """The fields of one object. Each is taken once; `finish` refuses what nobody took."""

    def __init__(self, content: Any, where: str):
        if not isinstance(content, dict):
            raise ProtocolError(f"{where}: an object is needed, not {_short(content)}")
        self._left, self.where = dict(content), where

    def take(self, name: str) -> Any:
        if name not in self._left:
            raise ProtocolError(f"{self.where}: {name} is missing")
        return self._left.pop(name)

    def wrong(self, name: str, wanted: str, value: Any) -> ProtocolError:
        return ProtocolError(f"{self.where}: {name} must be {wanted}, got {_short(value)}")

    def finish(self) -> None:
        if self._left:
            raise ProtocolError(f"{self.where}: unknown field {_short(sorted(self._left)[0])}")

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.take(name)
        if type(value) is not int or not low <= value <= high:  # bool is an int to Python
            raise self.wrong(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value = self.take(name)
        if type(value) not in (int, float) or not low <= value <= high:  # NaN compares false
            raise self.wrong(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def numbers(self, name: str, shape: Sequence[int], low: float, high: float) -> np.ndarray:
        """An array of `shape`, sent flat."""
        value, count = self.take(name), math.prod(shape)
        numeric = isinstance(value, list) and all(type(item) in (int, float) for item in value)
        if not numeric or len(value) != count or not all(low <= item <= high for item in value):
            raise self.wrong(name, f"{count} numbers from {low:g} to {high:g}", value)
        return np.array(value, np.float64).reshape(shape)

    def optional_numbers(self, name: str, shape: Sequence[int], low: float, high: float) -> np.ndarray | None:
        if self._left.get(name, ...) is None:
            return self.take(name)
        return self.numbers(name, shape, low, high)

    def integers(self, name: str, most: int, high: int) -> tuple[int, ...]:
        value = self.items(name, most)
        if not all(type(item) is int and 0 <= item <= high for item in value):
            raise self.wrong(name, f"whole numbers from 0 to {high}", value)
        return tuple(value)

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if type(value) is not bool:
            raise self.wrong(name, "true or false", value)
        return value

    def text(self, name: str, longest: int) -> str:
        value = self.take(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self.wrong(name, f"text of at most {longest} characters", value)
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.take(name)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}", value)
        return value

    def items(self, name: str, most: int) -> list:
        value = self.take(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, f"a list of at most {most}", value)
        return value
