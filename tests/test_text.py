"""Text for the terminal: errors in one line, aligned tables, numbers named as ranges."""

import pytest

from mmlphuman.text import aligned, one_line, range_parts, ranges


def test_an_error_is_one_line_and_never_empty():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(MemoryError()) == "MemoryError"


def test_columns_are_aligned_and_lines_do_not_end_in_blanks():
    rows = [["name", "dB", "note"], ["a", "12.5", ""], ["long one", "7", "yes"]]
    assert aligned(rows, left=(0, 2)) == ["name        dB  note", "a         12.5", "long one     7  yes"]
    assert aligned([row[:2] for row in rows]) == ["name        dB", "a         12.5", "long one     7"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([5], "5"),
        ([2, 0, 1, 8, 10, 11], "0-2, 8, 10-11"),
        ([7, 13], "7, 13"),
        (range(0, 40, 4), "0-36 step 4"),
        ([1, 2, 5, 7, 9], "1-2, 5-9 step 2"),
    ],
)
def test_ranges(numbers, text):
    assert ranges(numbers) == text


def test_without_steps_only_neighbours_are_joined():
    assert range_parts([0, 2, 4, 5, 5], steps=False) == ["0", "2", "4-5"]
