"""scores.csv: what is written is read, and a damaged file is named."""

import pytest

from mmlphuman.measures.held_out_scores import HeldOutScore, read_scores, scores_until, write_scores

SCORES = [HeldOutScore(10, 1.5, 20.25, 18.0), HeldOutScore(20, 3.125, 21.0, None)]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, SCORES)
    assert read_scores(path) == SCORES
    assert scores_until(path, 10) == SCORES[:1] == read_scores(path)
    assert scores_until(tmp_path / "none.csv", 10) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1 must be iteration,training_seconds"),
        ("step,score\n1,2\n", "line 1 must be iteration,training_seconds"),
        ("iteration,training_seconds,psnr,psnr_inside\n10,1,20,\n20,2\n", "line 3: '20,2'"),
        ("iteration,training_seconds,psnr,psnr_inside\n10,soon,20,\n", "line 2: '10,soon,20,'"),
        (
            "iteration,training_seconds,psnr,psnr_inside\n10,1,20,\n10,1,20,\n",
            "line 3: iteration 10 follows 10",
        ),
        (b"\xff\xfe\x00".decode("latin1"), "line 1 must be"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, text, part):
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=part) as error:
        read_scores(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
