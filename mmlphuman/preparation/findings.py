"""Findings of a check of a capture: one row per check, how they are printed, stored and turned into a status.

Data path: survey, pose_checks, fit_checks -> Finding -> table, report.json, exit status.
"""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmlphuman.files import atomic_write
from mmlphuman.json_file import read_json
from mmlphuman.text import range_parts

OK, WARNING, ERROR = "ok", "warning", "error"
EXIT_STATUS = {OK: 0, ERROR: 1, WARNING: 2}
REPORT_NAME = "report.json"
LISTED = 8  # items that a row names before it only counts
TABLE_WIDTH, CHECK_WIDTH, RESULT_WIDTH = 118, 22, 9


@dataclass(frozen=True)
class Finding:
    """One row: what was checked, how it came out, what is wrong and where."""

    check: str
    result: str  # OK, WARNING or ERROR
    what: str
    where: str = ""


def overall(findings: Iterable[Finding]) -> str:
    """The worst result among the findings."""
    results = {finding.result for finding in findings}
    return next((result for result in (ERROR, WARNING) if result in results), OK)


def format_table(findings: Sequence[Finding]) -> str:
    """Rows of check, result and "what: where", wrapped."""
    indent = " " * (CHECK_WIDTH + RESULT_WIDTH)
    rows = [f"{'check':{CHECK_WIDTH}}{'result':{RESULT_WIDTH}}what and where", "-" * TABLE_WIDTH]
    for finding in findings:
        text = f"{finding.what}: {finding.where}" if finding.where else finding.what
        lines = textwrap.wrap(text, TABLE_WIDTH - len(indent), break_on_hyphens=False) or [""]
        rows.append(f"{finding.check:{CHECK_WIDTH}}{finding.result:{RESULT_WIDTH}}{lines[0]}")
        rows += [indent + line for line in lines[1:]]
    return "\n".join(rows)


def closing_line(findings: Sequence[Finding]) -> str:
    """One sentence for the end of the output."""
    errors = sum(finding.result == ERROR for finding in findings)
    warnings = sum(finding.result == WARNING for finding in findings)
    if errors:
        return f"not ready to train: {errors} error(s), {warnings} warning(s)"
    if warnings:
        return f"can be trained, look at {warnings} warning(s) first"
    return "sound: no error, no warning"


def report_folder(parent: Path, capture: Path) -> Path:
    """Where a capture's report goes: check_NAME, or check_NAME_2 and so on where another's of that name lies."""
    for number in itertools.count(1):
        folder = parent / (f"check_{capture.name}" + f"_{number}" * (number > 1))
        try:
            owner = read_json(folder / REPORT_NAME)["capture"]
        except (ValueError, OSError, LookupError, TypeError):  # none, or damaged
            return folder
        if owner == str(capture):
            return folder
    raise AssertionError("itertools.count does not end")


def write_report(path: Path, capture: Path, findings: Sequence[Finding], measures: dict) -> None:
    """The same as JSON: capture, overall result, findings, measures per camera and frame."""
    report = {
        "capture": str(capture),
        "result": overall(findings),
        "findings": [asdict(finding) for finding in findings],
        **measures,
    }
    with atomic_write(path) as file:
        file.write((json.dumps(report, indent=1) + "\n").encode())


def name_numbers(numbers: Iterable[int]) -> str:
    """Sorted numbers as ranges: '0-3, 7, 9-12', cut after a few."""
    return cut_list(range_parts(numbers, steps=False))


def cut_list(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items, and how many more there are."""
    shown = separator.join(items[:LISTED])
    return shown + (f"{separator}and {len(items) - LISTED} more" if len(items) > LISTED else "")
