"""What all commands share, started as strangers start them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmlphuman import command
from mmlphuman.command import run_command

CODE = """
import os, sys
from mmlphuman.command import run_command

def main():
    with open(sys.argv[1], "wb") as file:
        assert file.fileno() > 2
    print("said", os.fsdecode(b"caf\\xe9"))
    print("complained", file=sys.stderr)
    raise ValueError("wrong")

run_command(main)
"""


def test_without_stderr_and_with_names_that_are_no_text_a_command_works(tmp_path):
    target = tmp_path / "file"
    line = f'"{sys.executable}" -c "$0" "{target}" 2>&-'
    run = subprocess.run(["sh", "-c", line, CODE], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    assert run.returncode == 1 and target.read_bytes() == b""
    assert run.stdout == b"said caf\\udce9\n"


@pytest.mark.parametrize("write_through", [False, True])
def test_a_command_that_nobody_listens_to_any_more_goes_on(monkeypatch, write_through):
    """Such as `| head`, and with PYTHONUNBUFFERED: what it says goes nowhere."""
    reading, writing = os.pipe()
    buffer = io.FileIO(writing, "w") if write_through else io.BufferedWriter(io.FileIO(writing, "w"))
    stream = io.TextIOWrapper(buffer, write_through=write_through)
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)
    command.open_streams()
    assert sys.stdout is not stream
    print("heard", os.fsdecode(b"caf\xe9"), flush=True)
    assert os.read(reading, 100) == b"heard caf\\udce9\n"
    os.close(reading)
    for _ in range(3):
        print("unheard " * 10_000, flush=True)


def test_what_has_taken_a_streams_place_stays_there(monkeypatch, tmp_path):
    """Its file would be closed with it, and its number be another file's."""
    monkeypatch.setattr(sys, "stderr", (tmp_path / "log").open("w", buffering=1))
    taken = sys.stderr
    command.open_streams()
    assert sys.stderr is taken


def test_what_cannot_be_written_for_another_reason_is_still_an_error():
    with Path("/dev/full").open("w") as full, pytest.raises(OSError, match="No space left"):
        print("x", file=command._listened(full), flush=True)


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:x", "gpu", "xpu"])
def test_devices_that_nothing_was_tried_on_are_refused(name):
    with pytest.raises(ValueError, match=f"device: '{name}' is no device that is used here; use auto"):
        command.choose_device(name)


def test_python_without_texts_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(command.sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(SystemExit):
        run_command(lambda: pytest.fail("started"))
    assert re.fullmatch("error: PYTHONOPTIMIZE=2 .* unset it\n", capsys.readouterr().err)


@pytest.mark.parametrize("script", ["viewer/net_viewer.py", "script/run_demo.py"])
def test_commands_of_their_own_kind_say_so_too(script):
    run = subprocess.run([sys.executable, "-B", "-OO", script, "--help"], capture_output=True, text=True)
    assert run.returncode == 1
    assert re.fullmatch("error: PYTHONOPTIMIZE=2 .* unset it\n", run.stderr)


def test_train_without_a_word_says_what_it_needs():
    run = subprocess.run([sys.executable, "-B", "train.py"], capture_output=True, text=True)
    assert run.returncode == 2 and "--out_dir" in run.stderr.splitlines()[-1]


def test_commands_decide_how_threads_wait_before_torch_is_loaded():
    """OMP_WAIT_POLICY is read when PyTorch's OpenMP is loaded; the package sets it."""
    commands = [*Path().glob("*.py"), *Path("script").glob("*.py")]
    with_torch = [path for path in commands if re.search("^import torch$", path.read_text(), re.MULTILINE)]
    assert {"train.py", "test.py"} <= {path.name for path in with_torch}
    for path in with_torch:
        text = path.read_text()
        assert 0 < text.find("\nimport mmlphuman") < text.find("\nimport torch"), path


# These take defaults or choices from modules that need torch.
WORDS_AFTER_TORCH = {"benchmark.py", "gen_template.py", "make_demo.py", "plot_runs.py"}
WITHOUT_TORCH = """
import contextlib, io, runpy, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise AssertionError("torch was loaded")
sys.meta_path.insert(0, NoTorch())
for script in sys.argv[1:]:
    for word in ("--help", "--nonsense"):
        sys.argv = [script, word]
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            try:
                runpy.run_path(script, run_name="__main__")
                status = None
            except SystemExit as end:
                status = end.code
        assert status == (0 if word == "--help" else 2), (script, word, status, complained.getvalue())
        assert "usage" in said.getvalue() + complained.getvalue(), (script, word)
"""


def test_help_and_wrong_words_do_not_wait_for_torch():
    root = Path(__file__).parent.parent
    commands = [
        str(path.relative_to(root))
        for path in [*root.glob("*.py"), *(root / "script").glob("*.py")]
        if path.name not in WORDS_AFTER_TORCH
    ]
    assert {"train.py", "test.py", "visualize.py", "script/eval.py", "script/export.py"} <= set(commands)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *commands], cwd=root, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
