"""Folders for results: an earlier output of the same kind is replaced, everything else stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmlphuman.output_folder import RECORD, begin_output, holds, is_free, require_output

PROGRAM = "test.py --data_dir"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fill(folder: Path, *files: str, program: str = PROGRAM) -> None:
    require_output(folder, program)
    begin_output(folder, program, files)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a picture")


def test_an_earlier_output_goes_and_what_a_person_put_there_stays(tmp_path):
    folder = tmp_path / "deep" / "images"
    fill(folder, "render/a.png", "render/b.png", "gt/a.png", "scores.json")
    (folder / "render" / "mine.png").write_text("kept")
    (folder / "notes.txt").write_text("kept")
    fill(folder, "render/c.png", "scores.json")
    assert names(folder) == ["notes.txt", RECORD, "render/c.png", "render/mine.png", "scores.json"]
    assert not (folder / "gt").exists() and holds(folder) == PROGRAM


def test_what_an_interrupted_output_can_have_left_goes(tmp_path):
    """Begun and killed, at any time: the record stands before the first file and outlives the last."""
    begin_output(tmp_path, PROGRAM, ["a.png", "b.png"])
    (tmp_path / "a.png").write_text("the only one")
    fill(tmp_path, "c.png")
    assert names(tmp_path) == ["c.png", RECORD]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"checkpoints/iteration_00000000/avatar.pt": "", "config.yaml": ""}, "holds a trained model"),
        ({"photo.jpg": ""}, r"holds other files \(photo.jpg\)"),
        ({f"{name}.jpg": "" for name in "abcdef"}, r"other files \(a.jpg, b.jpg, c.jpg, ...\)"),
        ({RECORD: json.dumps({"program": "export.py", "files": ["a.ply"]}), "a.ply": ""}, "an output of export.py"),
        ({RECORD: "{", "a.ply": ""}, r"other files \(.*\)"),
        ({RECORD: "[]"}, r"other files \(.*\)"),
        ({RECORD: json.dumps({"program": [PROGRAM]})}, r"other files \(.*\)"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line_and_untouched(tmp_path, content, what):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for refusing in (require_output, lambda folder, program: begin_output(folder, program, ["a.ply"])):
        with pytest.raises(ValueError, match=f"--out_dir {tmp_path} .*{what}; name a new folder") as error:
            refusing(tmp_path, PROGRAM)
        assert "\n" not in str(error.value)
    assert names(tmp_path) == sorted(content)


def test_a_program_that_goes_on_knows_its_folder_by_its_own_file(tmp_path):
    (tmp_path / "study.yaml").write_text("")
    require_output(tmp_path, "compare_variants.py", mark="study.yaml")
    with pytest.raises(ValueError, match="other files"):
        require_output(tmp_path, "compare_variants.py", mark="another.yaml")


def test_a_stranger_s_record_reaches_nothing_outside_the_folder(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "images"
    for path in (outside, folder, folder / "kept"):
        path.mkdir()
    (outside / "secret").write_text("kept")
    (outside / "linked").write_text("kept")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "linked")
    files = [
        "../outside/secret", str(outside / "secret"), "link/secret", "render/../../outside/secret", "file", "kept", ".",
        "", "a\0b", 3, None, ["x"],
    ]  # fmt: skip
    (folder / RECORD).write_text(json.dumps({"program": PROGRAM, "files": files}))
    begin_output(folder, PROGRAM, ["new.png"])
    assert names(outside) == ["linked", "secret"]
    assert (folder / "kept").is_dir() and (folder / "link").is_symlink()
    assert not (folder / "file").is_symlink(), "a link in the folder is the folder's"
    (folder / RECORD).write_text(json.dumps({"program": PROGRAM, "files": {"a": 1}}))
    begin_output(folder, PROGRAM, [])


def test_free_folders(tmp_path):
    assert is_free(tmp_path) and is_free(tmp_path / "new")
    (tmp_path / "file").write_text("")
    assert not is_free(tmp_path) and not is_free(tmp_path / "file")
    with pytest.raises(ValueError, match="--out .*file cannot be written to"):
        require_output(tmp_path / "file", PROGRAM, "--out")
