"""Three faults of many: `python -m tests.chaos` for a hundred of all kinds."""

from tests.chaos.campaign import Campaign, write_config
from tests.chaos.lives import Place
from tests.commands.runs import call_fork

ITERATIONS = 120  # long enough for three faults, short enough to be done in seconds


def test_a_run_survives_kills_and_a_damaged_checkpoint(synthetic_body, tiny_capture, tmp_path):
    config = write_config(tmp_path / "tiny.yaml", synthetic_body, ITERATIONS, poses=1)
    place = Place(config, tiny_capture, tmp_path, tmp_path / "log.txt")
    words = (
        "--config",
        config,
        "--data_dir",
        tiny_capture,
        "--out_dir",
        tmp_path / "undisturbed",
        "--no_viewer",
    )
    status, _, err = call_fork("train.py", *words)
    assert status == 0, err
    campaign = Campaign(place, tmp_path / "undisturbed", seed=0)
    campaign.suffer(
        [
            "SIGKILL while a checkpoint is written",
            "Ctrl-C while a checkpoint is written",
            "one bit of a checkpoint file flipped",
        ]
    )
    assert [row.status for row in campaign.rows] == [-9, 75, None]
    assert campaign.runs == 1, "the run came to its end, equal to the undisturbed one"
