"""The list of faults fits the tree. `python -m tests.faults` plants them."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.planted import FAULTS, TESTS

ROOT = Path(__file__).resolve().parent.parent.parent
PLAIN = ("avatar", "render")  # packages whose plain files all have faults
WITHOUT_NUMBERS = {"__init__.py"}


@pytest.mark.parametrize("file", TESTS)
def test_every_text_stands_once_in_its_file_and_its_tests_are_there(file):
    text = (ROOT / file).read_text()
    faults = [fault for fault in FAULTS if fault.file == file]
    assert faults, f"no fault for {file}"
    for fault in faults:
        assert text.count(fault.text) == 1, f"{fault.name}: '{fault.text}' does not stand once in {file}"
        assert fault.planted != fault.text and "\n" not in fault.text
    for test in TESTS[file]:
        assert (ROOT / test).exists(), test


def test_there_are_many_and_no_two_alike():
    assert len(FAULTS) >= 40
    assert max(Counter((fault.file, fault.name) for fault in FAULTS).values()) == 1
    assert max(Counter((fault.file, fault.text, fault.planted) for fault in FAULTS).values()) == 1


def needs_a_gpu(path: Path) -> bool:
    """By the words in it; such files are compared with their plain twins on a GPU."""
    text = path.read_text()
    return any(word in text for word in ("triton", "Triton", "gsplat", "fused_", "torch.cuda"))


@pytest.mark.parametrize("package", PLAIN)
def test_every_plain_file_has_faults(package):
    files = (ROOT / "mmlphuman" / package).glob("*.py")
    plain = {path.name for path in files if path.name not in WITHOUT_NUMBERS and not needs_a_gpu(path)}
    covered = {Path(file).name for file in TESTS if file.startswith(f"mmlphuman/{package}/")}
    assert len(covered) >= 4
    assert plain <= covered, f"without a fault: {sorted(plain - covered)}"
