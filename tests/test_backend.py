"""Who is chosen for what; and nobody but the choice itself knows of the GPU's room."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch

import mmlphuman
from mmlphuman.backend import PYTORCH, choose_backend

PACKAGE = Path(mmlphuman.__file__).parent


def imported(path: Path) -> set[str]:
    """All modules that the file names in any import, those within functions as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_triton_and_the_gpu_room_are_imported_by_one_door():
    files = [*PACKAGE.parent.glob("*.py"), *(PACKAGE.parent / "script").glob("*.py"), *PACKAGE.rglob("*.py")]
    assert len(files) > 100
    doors = set()
    for path in files:
        if (PACKAGE / "gpu") in path.parents:
            continue
        names = imported(path)
        assert not any(within(name, "triton") for name in names), path
        if any(within(name, "mmlphuman.gpu") for name in names):
            doors.add(path)
    assert doors == {PACKAGE / "backend.py"}


def test_backends_are_chosen_by_device_or_by_name():
    assert choose_backend("auto", "auto", "cpu").rasterizer == "torch"
    assert choose_backend("auto", "auto", "cuda").rasterizer == "gsplat"
    assert choose_backend("torch", "auto", "cuda").rasterizer == "torch"
    with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
        choose_backend("gsplat", "auto", "cpu")
    with pytest.raises(ValueError, match="none of auto"):
        choose_backend("opengl", "auto", "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("rasterizer", ["auto", "torch"])
def test_plain_is_really_plain(device, rasterizer, caplog):
    backend = choose_backend(rasterizer, "plain", device)
    assert type(backend) is type(PYTORCH) and not backend.kernels and not caplog.records
    avatar = torch.nn.Identity()
    assert backend.training_avatar(avatar) is avatar and backend.perceptual_loss(avatar) is avatar
    assert backend.pair_finder() is None and backend.stepper(avatar) is None
    assert backend.frame_poser(avatar, None, None) is None and backend.frame_drawer() is None


def test_a_gpu_without_triton_is_plain_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backend = choose_backend("auto", "auto", "cuda")
    assert type(backend) is type(PYTORCH) and backend.rasterizer == "gsplat"
    assert "Triton is not installed" in caplog.text


def test_gpu_backend_answers_the_same_questions():
    """Where Triton is installed; nothing is run."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton")
    backend = choose_backend("auto", "auto", "cuda")
    assert isinstance(backend, type(PYTORCH)) and backend.kernels and backend.rasterizer == "gsplat"
    own = {name for name in vars(type(backend)) if not name.startswith("_")}
    assert own == {name for name in vars(type(PYTORCH)) if not name.startswith("_")}
