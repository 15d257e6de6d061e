"""Pickles are read as data: whatever they hold, nothing of theirs is called."""

from __future__ import annotations

import os
import pickle
import time

import numpy as np
import pytest

from mmlphuman.calibrations.plain_pickle import read_plain_pickle


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class SetsState:
    """An array whose state is set by a pickle."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.zeros(1).__reduce__()[:2] + (self.state,)


def written(tmp_path, value, protocol: int = 4):
    path = tmp_path / "some.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back(tmp_path, protocol):
    value = {
        "K": [np.arange(9.0).reshape(3, 3), np.arange(6, dtype=">f4").reshape(2, 3).T],
        "names": ["a", "Camera (1)"], "number": 1.5, "count": np.float64(2.5), "whole": np.int64(7), "none": None,
        "objects": np.array([{"x": [1, 2]}, "y"], object), "flag": np.array([True, False]),
    }  # fmt: skip
    back = read_plain_pickle(written(tmp_path, value, protocol))
    np.testing.assert_array_equal(back["K"][0], value["K"][0])
    np.testing.assert_array_equal(back["K"][1], value["K"][1])
    assert back["names"] == value["names"] and back["objects"] == [{"x": [1, 2]}, "y"]
    assert (back["number"], back["count"], back["whole"], back["none"]) == (1.5, 2.5, 7, None)
    assert back["flag"].tolist() == [True, False]


def test_a_number(tmp_path):
    assert read_plain_pickle(written(tmp_path, 120 / 65)) == 120 / 65
    assert read_plain_pickle(written(tmp_path, np.float64(120 / 65))) == 120 / 65


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(("function", "arguments"), [
    (os.system, ("touch ran",)), (eval, ("open('ran', 'w')",)), (exec, ("open('ran', 'w')",)), (open, ("ran", "w")),
    (getattr, (os, "system")), (np.load, ("ran",)), (np.fromfile, ("ran",)), (np.savetxt, ("ran", [1])),
    (os.mkdir, ("ran",)),
])  # fmt: skip
def test_no_code_runs(tmp_path, monkeypatch, function, arguments, protocol):
    monkeypatch.chdir(tmp_path)
    value = {"cams": [Calls(function, *arguments)]} if function is not getattr else Calls(getattr, 3, "real")
    with pytest.raises(ValueError, match="which is code; only plain numbers and words are read"):
        read_plain_pickle(written(tmp_path, value, protocol))
    assert [file.name for file in tmp_path.iterdir()] == ["some.pkl"]


@pytest.mark.parametrize("data", [
    b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",  # a path through attributes
    b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x1c_reconstruct.__globals__.get\x93.",
    b"cos\nsystem\n(S'touch ran'\ntR.", b"(S'touch ran'\nios\nsystem\n.", b"\x80\x02cbuiltins\neval\n\x85\x81.",
    b"cmmlphuman.files\natomic_write\n.", b"Psome\n.", b"\x82\x01.", b"", b"\x80\x04", b"not a pickle", b"(lp0\ng0\n0",
])  # fmt: skip
def test_damaged_and_hostile_bytes(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"some.pkl"):
        read_plain_pickle(written(tmp_path, data))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("state", [
    (1, (2**60,), np.dtype("f8"), False, b""), (1, (-1,), np.dtype("f8"), False, b"12345678"), (1, 3, 4, 5, 6),
    "text", None, (),
    (1, (1,), np.dtype("V8"), False, b"12345678"), (1, (1,), np.dtype("M8[s]"), False, b"12345678"),
    (1, (2,), np.dtype("O"), False, [1]), (1, (1,) * 40, np.dtype("f8"), False, b"12345678"),
])  # fmt: skip
def test_arrays_with_absurd_states(tmp_path, state):
    if state is None:
        state = 0
    with pytest.raises(ValueError, match=r"some.pkl: (is a pickle that holds|not readable)"):
        read_plain_pickle(written(tmp_path, SetsState(state)))


def test_lists_in_lists(tmp_path):
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="lists in lists without end"):
        read_plain_pickle(written(tmp_path, endless))
    deep: list = [1.0]
    for _ in range(10):
        deep = [deep] * 1000  # 10^30 numbers, a few kilobytes
    began = time.process_time()
    read_plain_pickle(written(tmp_path, deep))
    assert time.process_time() - began < 1
    with pytest.raises(ValueError, match="a set"):
        read_plain_pickle(written(tmp_path, {1, 2}))
