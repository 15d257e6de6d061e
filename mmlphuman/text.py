"""Text for the terminal: an error in one line, aligned tables, numbers named as ranges. Imports nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def one_line(message: object) -> str:
    """An error's (or anything's) text without line breaks; an error without a text is called by its type."""
    return " ".join(str(message).split()) or type(message).__name__


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """A line for each row: columns two spaces apart, those numbered in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def ranges(numbers: Iterable[int]) -> str:
    """`0-6, 8, 10-22 step 4`: whole numbers for a person to read, in order, each once. A step needs three numbers."""
    return ", ".join(range_parts(numbers))


def cut_ranges(numbers: Iterable[int], most: int = 8) -> str:
    """The first parts of `ranges`, with ... where there are more."""
    parts = range_parts(numbers)
    return ", ".join(parts[:most] + ["..."] * (len(parts) > most))


def range_parts(numbers: Iterable[int], steps: bool = True) -> list[str]:
    """The parts of `ranges`; steps=False joins only neighbours."""
    ordered = sorted(set(numbers))
    parts, begin = [], 0
    while begin < len(ordered):
        end = begin + 1
        step = ordered[end] - ordered[begin] if steps and end < len(ordered) else 1
        while end < len(ordered) and ordered[end] - ordered[end - 1] == step:
            end += 1
        if step > 1 and end - begin < 3:
            end = begin + 1
        first, last = ordered[begin], ordered[end - 1]
        parts.append(str(first) if first == last else f"{first}-{last}" + f" step {step}" * (step > 1))
        begin = end
    return parts
