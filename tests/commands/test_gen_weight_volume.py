"""script/gen_weight_volume.py as a user runs it."""

from mmlphuman.body.weight_volume import WeightVolume
from tests.commands.runs import ROOT, call, call_here, one_error_line

COMMAND = "script/gen_weight_volume.py"


def test_makes_measures_and_keeps(tiny_capture, synthetic_body, tmp_path):
    path = tmp_path / "volume.npz"
    command = ("--data_dir", tiny_capture, "--smpl_path", synthetic_body, "--resolution", 16, "--out", path)
    # As published: from within its folder.
    status, said, err = call("gen_weight_volume.py", *command, cwd=ROOT / "script")
    assert status == 0, err
    assert WeightVolume.load(path).grid.shape[0] == 16
    for expected in (
        "making the skinning weight volume",
        "raw weights sum to 1.0",
        "peak memory",
        "2 cm outside",
    ):
        assert expected in said
    before = path.read_bytes()
    assert "making" not in call_here(COMMAND, *command)[1] and path.read_bytes() == before


def test_mistakes_are_one_line(tiny_capture, synthetic_body, tmp_path):
    bad_resolution = ("--data_dir", tiny_capture, "--smpl_path", synthetic_body, "--resolution", 3)
    no_body = ("--data_dir", tiny_capture, "--smpl_path", tmp_path / "absent.npz")
    no_capture = ("--data_dir", tmp_path / "absent", "--smpl_path", synthetic_body)
    for words, expected in ((bad_resolution, "resolution"), (no_body, "absent.npz"), (no_capture, "absent")):
        result = call_here(COMMAND, *words, "--out", tmp_path / "volume.npz")
        one_error_line(result, expected)
        assert result[0] == 1
    assert not (tmp_path / "volume.npz").exists()
