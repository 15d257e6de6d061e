"""Archives from outside: bombs, headers that lie, members that are no arrays; one line each, nothing unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmlphuman import files
from mmlphuman.files import read_npy, read_npz
from mmlphuman.json_file import numbers


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + data


def member(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(folder: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "odd.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


WHOLE = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
ODD = {
    "header without end": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3\n"),
    "string without end": npy("{'descr': '<f4, 'fortran_order': False, 'shape': (2, 3), }\n"),
    "no header": npy("\n"),
    "no dictionary": npy("[1, 2]\n"),
    "code": npy("__import__('os')\n"),
    "nested": npy("(" * 5000 + ")" * 5000 + "\n"),
    "no such type": npy(WHOLE.replace("<f4", "<q99")),
    "negative": npy(WHOLE.replace("(2, 3)", "(-2, 3)")),
    "shape of text": npy(WHOLE.replace("(2, 3)", "('a',)")),
    "too short": npy(WHOLE, bytes(20)),
    "more than there is": npy(WHOLE.replace("(2, 3)", "(2000000000, 3)"), bytes(24)),
    "future version": npy(WHOLE, bytes(24), b"\x09\x00"),
    "empty": b"",
    "text": b"no array",
    "pickled": member(np.array([{}], object)),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", ODD)
def test_odd_members_are_told_in_a_line(tmp_path, name, compression):
    path = archive(tmp_path, {"poses.npy": ODD[name], "trans.npy": member(np.zeros((2, 3)))}, compression)
    assert read_npz(path, ["trans"])["trans"].shape == (2, 3), "the others are still read"
    with pytest.raises(ValueError, match=r"^.*odd.npz: array 'poses' cannot be read[^\n]*$"):
        read_npz(path, ["poses"])
    (tmp_path / "odd.npy").write_bytes(ODD[name])
    with pytest.raises(ValueError, match=r"^.*odd.npy: [^\n]*(not a readable npy|pickled objects)[^\n]*$"):
        read_npy(tmp_path / "odd.npy")


def test_a_member_without_the_suffix_is_no_array(tmp_path):
    path = archive(tmp_path, {"poses": b"bytes"})
    with pytest.raises(ValueError, match="'poses'"):
        read_npz(path, ["poses"])


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """Its member is a thousandth of what it claims; the same array unpacked in the file is honest."""
    monkeypatch.setattr(files, "LARGE", 2**20)
    zeros = np.zeros(2**19)  # 4 MiB
    np.savez_compressed(tmp_path / "bomb.npz", poses=zeros)
    np.savez(tmp_path / "honest.npz", poses=zeros)
    np.savez_compressed(tmp_path / "noise.npz", poses=np.random.default_rng(0).normal(size=2**18))
    np.savez_compressed(tmp_path / "small.npz", poses=zeros[: 2**16])
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(
        ValueError, match=r"bomb.npz: array 'poses' is not read: [\d,]+ bytes unpack to 4,194,"
    ):
        read_npz(tmp_path / "bomb.npz", ["poses"])
    monkeypatch.undo()
    monkeypatch.setattr(files, "LARGE", 2**20)
    for name in ("honest", "noise", "small"):
        assert read_npz(tmp_path / f"{name}.npz", ["poses"])["poses"].size


def test_memory_that_does_not_hold_an_array_is_told(tmp_path, monkeypatch):
    np.savez(tmp_path / "large.npz", poses=np.zeros(3))

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", no_memory)
    with pytest.raises(ValueError, match="'poses' cannot be read: memory does not hold it"):
        read_npz(tmp_path / "large.npz", ["poses"])


def test_numbers_nested_however_deep_are_read_or_told():
    deep: object = 1.5
    for _ in range(5000):
        deep = [deep]
    assert numbers("file", {"K": deep}, "K", 1) == 1.5
    assert numbers("file", {"K": [[1, [2]], 3]}, "K", 3).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="file: K must be 9 numbers"):
        numbers("file", {"K": [deep, "a"]}, "K", 9)
