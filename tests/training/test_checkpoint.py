"""Checkpoints appear whole; a run goes on from the newest one that is, whatever happened to newer ones."""

import zipfile

import pytest
import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.model_folder import DamagedCheckpoint, list_checkpoints, newest_checkpoint
from mmlphuman.processes import Ranks
from mmlphuman.training.checkpoint import agreed_whole, check_whole, newest_whole
from tests.builders import save_checkpoint, small_trained

FILES = ("avatar.pt", "training.pt")


@pytest.fixture(scope="module")
def trained(synthetic_body):
    return small_trained(synthetic_body)


@pytest.fixture
def saved(trained, tmp_path):
    return save_checkpoint(tmp_path, trained, {"any": torch.ones(2)}, keep=2)


def test_unfinished_checkpoints_do_not_count_and_are_cleared(trained, saved, tmp_path):
    leftover = tmp_path / "checkpoints" / ".unfinished-00000080"
    leftover.mkdir()
    (leftover / "avatar.pt").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) == saved
    later = TrainedAvatar(trained.avatar, trained.pose_space, trained.config, 80)
    save_checkpoint(tmp_path, later, {}, keep=2)
    assert not leftover.exists() and len(list_checkpoints(tmp_path)) == 2


@pytest.fixture
def model(tmp_path):
    """Three checkpoints."""
    for iteration in (20, 40, 60):
        folder = tmp_path / "checkpoints" / f"iteration_{iteration:08d}"
        folder.mkdir(parents=True)
        for name in FILES:
            torch.save({"iteration": iteration, "numbers": torch.arange(5000.0)}, folder / name)
    return tmp_path


def in_sight(model) -> list[int]:
    return [int(path.name[-2:]) for path in list_checkpoints(model)]


def flip(path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def of_numbers(path) -> int:
    """Where in the file its tensor lies."""
    with zipfile.ZipFile(path) as archive:
        return max(archive.infolist(), key=lambda member: member.file_size).header_offset + 10_000


DAMAGE = {
    "is missing": lambda path: path.unlink(),
    "is damaged": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "is damaged (": lambda path: path.write_bytes(b""),
    "the checksum of": lambda path: flip(path, of_numbers(path)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_it_taken(model, name, part):
    said = []
    newest = model / "checkpoints" / "iteration_00000060"
    DAMAGE[part](newest / name)
    assert newest_whole(model, said.append).name == "iteration_00000040"
    assert len(said) == 1 and "\n" not in said[0]
    assert all(words in said[0] for words in (str(newest / name), part, "going on from iteration_00000040"))
    assert in_sight(model) == [20, 40], "what the run makes again is out of its way"


def test_whole_ones_stay_and_nothing_is_said(model):
    said = []
    assert newest_whole(model, said.append).name == "iteration_00000060"
    assert agreed_whole(model, Ranks(torch.device("cpu"))) == model / "checkpoints" / "iteration_00000060"
    assert not said and in_sight(model) == [20, 40, 60]


def test_further_back_on_request_but_not_beyond_the_oldest(model):
    said = []
    assert newest_whole(model, said.append, skip=1).name == "iteration_00000040"
    assert in_sight(model) == [20, 40]
    assert newest_whole(model, said.append, skip=5).name == "iteration_00000020"
    assert not said


def test_where_none_is_whole_nothing_is_touched(model):
    for checkpoint in list_checkpoints(model):
        (checkpoint / "training.pt").write_bytes(b"PK")
    with pytest.raises(
        DamagedCheckpoint, match="iteration_00000060.*and no older checkpoint is whole"
    ) as error:
        newest_whole(model)
    assert "\n" not in str(error.value) and in_sight(model) == [20, 40, 60]


def test_every_altered_bit_of_a_tensor_is_noticed(model):
    path = list_checkpoints(model)[0] / "avatar.pt"
    start, whole = of_numbers(path) - 9000, path.read_bytes()
    for where in range(start, start + 16_000, 1999):
        flip(path, where)
        with pytest.raises(DamagedCheckpoint):
            check_whole(path.parent)
        path.write_bytes(whole)
    check_whole(path.parent)


def test_strangers_files_among_checkpoints_are_in_nobodys_way(trained, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("iteration_00000040", "iteration_00000001", ".unfinished-file"):
        (folder / name).write_text("a note")
    saved = save_checkpoint(tmp_path, trained, {"any": torch.ones(1)}, keep=1)
    assert saved.name == "iteration_00000040" and list_checkpoints(tmp_path) == [saved]
    assert (folder / "iteration_00000040.stray").read_text() == "a note"
    assert (folder / "iteration_00000001").read_text() == "a note"
