"""Archives from outside: headers that lie, members that are no arrays; one line each, nothing unpacked. Folders that
appear whole."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmlphuman.files import atomic_folder, free_folder, read_npy, read_npz, read_plain_file
from mmlphuman.json_file import numbers, read_json


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
    with pytest.raises(
        ValueError, match=r"^[^\n]*'poses' [^\n]*(cannot be read|does not fit|is no array)[^\n]*$"
    ):
        read_npz(path, ["poses"])
    (tmp_path / "odd.npy").write_bytes(ODD[name])
    with pytest.raises(ValueError, match=r"^.*odd.npy: [^\n]*(not a readable npy|pickled objects)[^\n]*$"):
        read_npy(tmp_path / "odd.npy")


def test_a_member_without_the_suffix_is_no_array(tmp_path):
    path = archive(tmp_path, {"poses": b"bytes"})
    with pytest.raises(ValueError, match="'poses'"):
        read_npz(path, ["poses"])


def test_numbers_nested_however_deep_are_read_or_told():
    deep: object = 1.5
    for _ in range(5000):
        deep = [deep]
    assert numbers("file", {"K": deep}, "K", 1) == 1.5
    assert numbers("file", {"K": [[1, [2]], 3]}, "K", 3).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="file: K must be 9 numbers"):
        numbers("file", {"K": [deep, "a"]}, "K", 9)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "inside" / "final"
    with pytest.raises(RuntimeError), atomic_folder(final) as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert not any((tmp_path / "inside").iterdir())
    final.mkdir()  # an empty one may wait
    with atomic_folder(final) as folder:
        (folder / "whole").touch()
        assert not (final / "whole").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "final", "whole"]


def test_a_new_folder_has_a_place_where_links_lead_and_nothing_lies(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name, target in (
        ("to empty", "empty"),
        ("to nothing", "absent"),
        ("to file", "file"),
        ("to full", "full"),
    ):
        (tmp_path / name).symlink_to(target)
    for name, place in (("to empty", "empty"), ("to nothing", "absent")):
        assert free_folder(tmp_path / name) == tmp_path / place
        with atomic_folder(tmp_path / name) as folder:
            (folder / "whole").touch()
        assert (tmp_path / place / "whole").exists() and (tmp_path / name).is_symlink()
    for name, said in (("file", "is a file"), ("to file", "is a file"), ("to full", "is not empty; choose")):
        with pytest.raises(ValueError, match=f"--out {tmp_path / name} {said}"):
            free_folder(tmp_path / name, "--out")
    monkeypatch.chdir(tmp_path)
    for name in (".", "", tmp_path):
        with pytest.raises(ValueError, match="is the folder that you are in; name a new one"):
            free_folder(name)


@pytest.mark.parametrize("read", [lambda path: read_npz(path, ()), read_npy, read_json, read_plain_file])
def test_what_is_no_plain_file_is_named_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere.npz")
    for name in ("pipe", "zeros", "folder"):
        with pytest.raises(ValueError, match=f"{name}: not a plain file"):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="link: a link that leads nowhere, to elsewhere.npz"):
        read(tmp_path / "link")
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        read(tmp_path / "absent")
