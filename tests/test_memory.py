"""Memory that runs out: recognised whoever says it, in one line that names what asked for it."""

from __future__ import annotations

import errno
import os
import zipfile

import cv2
import numpy as np
import pytest
import torch

from mmlphuman import memory
from mmlphuman.command import run_command
from mmlphuman.files import read_npz
from mmlphuman.memory import OutOfMemory, is_out_of_memory, memory_for, require_memory

HUGE = 10**15


def of_the_system():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")


def of_python():
    raise MemoryError


def of_opencv():
    cv2.resize(np.zeros((2, 2), np.uint8), (2**31 - 1, 2**23))


ASKING = {
    "numpy": lambda: np.zeros(HUGE),
    "torch": lambda: torch.zeros(HUGE),
    "opencv": of_opencv,
    "python": of_python,
    "system": of_the_system,
    "gpu": of_a_gpu,
}


@pytest.mark.parametrize("who", ASKING)
def test_whoever_runs_out_of_memory_is_recognised_and_named_in_one_line(who, capsys):
    message = "camera.json: lower width and height"
    with pytest.raises(OutOfMemory, match=f"^out of memory: {message}") as error, memory_for(message):
        ASKING[who]()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    with pytest.raises(SystemExit) as status:
        run_command(ASKING[who])
    said = capsys.readouterr().err
    assert status.value.code == 1 and said.startswith("error: out of memory") and said.count("\n") == 1


def test_other_errors_pass_unchanged():
    for error in (
        RuntimeError("shapes differ"),
        ValueError("memory of an elephant"),
        KeyError("out of memory"),
    ):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)) as caught, memory_for("anything"):
            raise error
        assert caught.value is error


def test_what_can_never_be_had_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 2.0**31)
    require_memory(2**31, "this fits")
    with pytest.raises(OutOfMemory, match=r"init_num_gs: lower it \(3.0 GiB are needed, 2.0 exist\)"):
        require_memory(3 * 2**30, "init_num_gs: lower it")


def test_the_limit_is_the_least_of_those_known(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (str(tmp_path / "absent"), str(limit)))
    limit.write_text("max\n")
    assert memory.memory_limit() >= 2**28
    limit.write_text("1048576\n")
    assert memory.memory_limit() == 2**20


@pytest.mark.parametrize("claim", ["unpacked", "in the header"])
def test_an_npz_bomb_is_not_unpacked(tmp_path, monkeypatch, claim):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, poses=np.zeros(2**20, np.float32))
    if claim == "unpacked":
        monkeypatch.setattr(memory, "memory_limit", lambda: 2.0**20)
    else:
        header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},), }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("poses.npy", header + text.encode())
    with pytest.raises(ValueError, match=r"bomb\.npz") as error:
        read_npz(path, ["poses"])
    assert "out of memory: array 'poses'" in str(error.value) and "\n" not in str(error.value)
