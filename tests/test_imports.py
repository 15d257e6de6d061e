"""Imports point one way: no module comes back to itself, and what several packages share does not lie in training/.
What runs in the networks' environment imports what is there.

Imports inside functions count; those for type checking alone do not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "mmlphuman"
MAY_IMPORT_TRAINING = {"training", "benchmark"}  # the latter measures training steps
DETECTOR = "mmlphuman/fitting/detector"
IN_NETWORKS_ENVIRONMENT = {"numpy", "cv2", "mediapipe", "google"}  # the last one is protobuf's


def imports_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of all import statements below; the name is "" where a module is imported as a whole."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "an import relative to its module"
        yield from ((node.module, alias.name) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module -> the package's modules that it imports."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / PACKAGE).rglob("*.py")
    }
    found = {}
    for module, path in paths.items():
        pairs = imports_of(ast.parse(path.read_text()))
        candidates = {f"{source}.{name}" if f"{source}.{name}" in paths else source for source, name in pairs}
        found[module] = (candidates & set(paths)) - {PACKAGE}
    return found


def package_of(module: str) -> str:
    """What of mmlphuman it belongs to: a package, or a file at the top."""
    return [*module.split("."), ""][1]


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """A cycle's modules, the first again at the end; empty if there is none. Depth first."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for other in sorted(graph[module]):
                if cycle := visit(other, [*way, module]):
                    return cycle
            done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_no_module_comes_back_to_itself(graph):
    cycle = find_cycle(graph)
    assert not cycle, " -> ".join(cycle)


def test_a_cycle_is_found_and_shown():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_commands_and_the_benchmark_import_training(graph):
    wrong = {
        (module, other)
        for module, others in graph.items()
        for other in others
        if package_of(other) == "training" and package_of(module) not in MAY_IMPORT_TRAINING
    }
    assert not wrong, sorted(wrong)


def test_types_stand_at_the_bottom_and_nobody_imports_synthetic(graph):
    assert graph["mmlphuman.types"] <= {"mmlphuman.pose_layout"}
    of_synthetic = {
        module for module, others in graph.items() if "synthetic" in {package_of(other) for other in others}
    }
    assert {package_of(module) for module in of_synthetic} <= {"synthetic"}, of_synthetic


def test_what_runs_in_the_networks_environment_imports_what_is_there():
    """The command and its package; of the packages around it Python runs the __init__.py."""
    folder = ROOT / DETECTOR
    around = [parent / "__init__.py" for parent in folder.parents if parent.is_relative_to(ROOT / PACKAGE)]
    paths = [ROOT / "script" / "detect_people.py", *around, *folder.glob("*.py")]
    assert len(around) == 2 and len(paths) > 8
    own = DETECTOR.replace("/", ".") + "."
    for path in paths:
        for module, _ in imports_of(ast.parse(path.read_text())):
            there = sys.stdlib_module_names | IN_NETWORKS_ENVIRONMENT
            assert module.startswith(own) or module.partition(".")[0] in there, f"{path}: {module}"
