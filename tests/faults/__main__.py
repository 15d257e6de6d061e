"""Plants wrong signs, constants, factors and exponents, and looks whether the tests notice: a developer's tool.

python -m tests.faults [--only WORD] [--tests PATH ...] [--jobs 2] [--json FILE]      some ten minutes on two cores

Every fault gets a copy of the tree and the tests that `planted.TESTS` names for its file. Exit status 1 if a fault is
missed, or breaks the program before any test can judge its numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.planted import FAULTS, Fault

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_COPIED = (".*", "__pycache__", "output", "assets", "*.egg-info")
TIMEOUT = 600  # seconds for a fault's tests
CAUGHT, MISSED, BROKEN = "caught", "missed", "BROKEN"
NO_JUDGEMENT = ("ImportError", "ModuleNotFoundError", "SyntaxError", "NameError", "AttributeError")
# Other packages take seconds to import; the runs of all faults are forks of a process that has done so.
IMPORTED_ONCE = ("torch", "scipy.spatial", "scipy.sparse.linalg", "trimesh", "cv2", "smplx",
                 "torchmetrics.functional.image", "omegaconf")  # fmt: skip


@dataclass(frozen=True)
class Result:
    fault: Fault
    outcome: str
    test: str  # the first that failed, or what happened instead
    seconds: float


class FirstFailure:
    """A pytest plugin: which test failed, and of what kind of exception."""

    test, error = "", ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid.removeprefix("tests/")
            crash = getattr(report.longrepr, "reprcrash", None)
            self.error = "" if report.when == "setup" or crash is None else crash.message.splitlines()[0]


def plant(fault: Fault, tree: Path) -> None:
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.text) != 1:
        raise ValueError(
            f"tests/faults/planted.py is out of date: {fault.file} has {text.count(fault.text)} times '{fault.text}'"
        )
    path.write_text(text.replace(fault.text, fault.planted))


def run_tests(tree: Path, tests: Sequence[str]) -> None:
    """In a process of its own: the tests in this tree until one fails; `outcome.json` beside the tree says which."""
    signal.alarm(TIMEOUT)
    with (tree.parent / "output.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "mmlphuman")]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    os.chdir(tree)
    first = FirstFailure()
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=0",
        f"--basetemp={tree.parent}/pytest",
    ]
    status = pytest.main([*options, *tests], plugins=[first])
    package = sys.modules.get("mmlphuman")
    assert package is None or Path(package.__file__).is_relative_to(tree), "the tests saw another tree"
    if status == pytest.ExitCode.OK:
        outcome, test = MISSED, ""
    elif not first.error or first.error.split(":")[0] in NO_JUDGEMENT:
        outcome, test = BROKEN, f"{first.test} {first.error or f'pytest status {status}'}"
    else:
        outcome, test = CAUGHT, first.test
    (tree.parent / "outcome.json").write_text(json.dumps([outcome, test]))


def judge_all(faults: Sequence[Fault], tests: Sequence[str], jobs: int) -> Iterator[Result]:
    """Plants each fault in a copy of its own and runs the tests there; results as they come."""
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    waiting, running = list(faults), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            fault, folder = waiting.pop(0), tempfile.TemporaryDirectory(prefix="fault_")
            tree = Path(folder.name) / "tree"
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
            plant(fault, tree)
            process = os.fork()
            if process == 0:
                try:
                    run_tests(tree, tests or fault.tests)
                finally:
                    os._exit(0)
            running[process] = fault, folder, time.monotonic()
        process, _ = os.wait()
        fault, folder, begin = running.pop(process)
        outcome = Path(folder.name) / "outcome.json"
        said = json.loads(outcome.read_text()) if outcome.exists() else (BROKEN, "the tests' process died")
        folder.cleanup()
        yield Result(fault, *said, time.monotonic() - begin)


def row(result: Result) -> str:
    place = result.fault.file.removeprefix("mmlphuman/")
    return f"{place:28s} {result.fault.name:44s} {result.outcome:6s} {result.seconds:4.0f} s  {result.test}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose file or name has this word in it")
    parser.add_argument("--tests", nargs="*", default=[], help="instead of those that planted.TESTS names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="every fault and what came of it, as a file")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if args.only in f"{fault.file} {fault.name}"]
    begin, results = time.monotonic(), []
    for result in judge_all(chosen, args.tests, args.jobs):
        results.append(result)
        print(row(result), flush=True)
    counts = Counter(result.outcome for result in results)
    print(
        f"{len(results)} faults: {counts[CAUGHT]} caught, {counts[MISSED]} missed, {counts[BROKEN]} broken; "
        f"{(time.monotonic() - begin) / 60:.1f} minutes"
    )
    if args.json:
        rows = [
            {
                "file": result.fault.file,
                "fault": result.fault.name,
                "outcome": result.outcome,
                "test": result.test,
            }
            for result in results
        ]
        args.json.write_text(json.dumps(rows, indent=1))
    return 0 if counts[CAUGHT] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
