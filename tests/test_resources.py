"""Memory that runs out: recognised whoever says it, in one line that names what asked for it."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
import zipfile

import cv2
import numpy as np
import pytest
import torch

from mmlphuman import resources
from mmlphuman.command import run_command
from mmlphuman.files import read_npz
from mmlphuman.resources import OutOfMemory, in_threads, is_out_of_memory, memory_for, require_memory

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
    monkeypatch.setattr(resources, "memory_limit", lambda: 2.0**31)
    require_memory(2**31, "this fits")
    with pytest.raises(OutOfMemory, match=r"init_num_gs: lower it \(3.0 GiB are needed, 2.0 exist\)"):
        require_memory(3 * 2**30, "init_num_gs: lower it")


def test_the_limit_is_the_least_of_those_known(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(resources, "CONTAINER_LIMITS", (str(tmp_path / "absent"), str(limit)))
    limit.write_text("max\n")
    assert resources.memory_limit() >= 2**28
    limit.write_text("1048576\n")
    assert resources.memory_limit() == 2**20


@pytest.mark.parametrize("claim", ["unpacked", "in the header"])
def test_an_npz_bomb_is_not_unpacked(tmp_path, monkeypatch, claim):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, poses=np.zeros(2**20, np.float32))
    if claim == "unpacked":
        monkeypatch.setattr(resources, "memory_limit", lambda: 2.0**20)
    else:
        header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},), }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("poses.npy", header + text.encode())
    with pytest.raises(ValueError, match=r"bomb\.npz") as error:
        read_npz(path, ["poses"])
    assert "out of memory: array 'poses'" in str(error.value) and "\n" not in str(error.value)


def test_cores_are_those_of_the_container(monkeypatch, tmp_path):
    quota, period, both = tmp_path / "quota", tmp_path / "period", tmp_path / "cpu.max"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(resources, "CONTAINER_CORES", ((str(both),), (str(quota), str(period))))
    assert resources.available_cores() == 8
    for text, cores in (("max 100000\n", 8), ("250000 100000\n", 3), ("1000 100000", 1), ("nonsense", 8)):
        both.write_text(text)
        assert resources.available_cores() == cores
    quota.write_text("-1\n"), period.write_text("100000\n")
    assert resources.available_cores() == 8
    quota.write_text("200000\n")
    assert resources.available_cores() == 2


def test_too_few_open_files_are_raised_or_told(monkeypatch):
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append(limits))
    for limits, expected in (
        ((64, 4096), [(128, 4096)]),
        ((64, -1), [(128, -1)]),
        ((-1, -1), []),
        ((1024, 4096), []),
    ):
        raised.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=limits: limits)
        resources.require_open_files()
        assert raised == expected
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (16, 16))
    with pytest.raises(ValueError, match="only 16 files may be open .* ulimit -n"):
        resources.require_open_files()


def test_an_error_in_one_thread_ends_the_others_and_is_what_is_told(monkeypatch):
    monkeypatch.setattr(resources, "available_cores", lambda: 3)
    begun, ended = threading.Barrier(3), []

    def work(number, check):
        begun.wait(5)
        if number == 2:
            raise ValueError("of number 2")
        try:
            for _ in range(1000):
                check()
                time.sleep(0.005)
        finally:
            ended.append(number)

    start = time.monotonic()
    with pytest.raises(ValueError, match="of number 2"):
        in_threads(work, 3)
    assert sorted(ended) == [0, 1] and time.monotonic() - start < 2


def test_threads_results_come_in_order():
    assert in_threads(lambda number, check: (check(), number**2)[1], 5) == [0, 1, 4, 9, 16]
