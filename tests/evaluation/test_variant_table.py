"""Tables of a study against numbers worked out by hand, and the file that they are made of."""

import math

import pytest

from mmlphuman.evaluation.metrics import FrameScore
from mmlphuman.evaluation.study import PictureSet, Study, Subject, Variant
from mmlphuman.evaluation.variant_table import (
    HEADER,
    Cell,
    Difference,
    ScoredPicture,
    StudyScores,
    as_markdown,
    as_text,
    read_scores,
    write_scores,
)


def picture(variant="default", inside=20.0, seed=0, frame=5, camera=1, set="near", mode="clamp", **more):
    score = FrameScore(camera, frame, (64, 48), 30.0, 0.9, inside, 15.0, 0.5, 21.0, 0.8, **more)
    return ScoredPicture("man", variant, seed, set, mode, score)


def study(**variants):
    sets = {"views": PictureSet([1], 2), "near": PictureSet([1], 2, 5)}
    return Study([0], {"man": Subject(sets, data_dir="x")}, variants)


def scores_of(pictures, rows=(("default", "clamp"), ("static", "clamp")), **variants):
    variants = variants or {"default": Variant(), "static": Variant()}
    return StudyScores(study(**variants), rows, pictures)


def difference(pictures) -> Difference | None:
    return scores_of(pictures).difference("man", "near", "default", "clamp")


def test_mean_over_pictures_then_over_seeds_with_their_spread():
    # Seed 0 has three pictures, seed 1 one: every seed counts the same. Means 22 and 25, deviation 3 / sqrt(2).
    pictures = [picture(inside=value, frame=frame) for frame, value in enumerate((20.0, 22.0, 24.0))]
    cell = scores_of([*pictures, picture(inside=25.0, seed=1)]).cell("man", "near", "default", "clamp")
    assert cell.mean("psnr_inside") == (pytest.approx(23.5), pytest.approx(3 / math.sqrt(2)))
    assert cell.mean("lpips") is None
    assert Cell({0: cell.by_seed[0]}).mean("psnr_inside") == (pytest.approx(22), None)


def test_worst_frame_is_the_mean_over_its_cameras():
    pictures = [
        *(picture(inside=20.0, frame=5, camera=1), picture(inside=24.0, frame=5, camera=2)),  # mean 22
        *(picture("static", 21.0, frame=5, camera=1), picture("static", 22.5, frame=5, camera=2)),  # 21.75
        *(picture(inside=30.0, frame=6, camera=1), picture("static", 30.05, frame=6, camera=1)),  # -0.05
        *(picture(inside=30.0, frame=7, camera=1), picture("static", 30.2, frame=7, camera=1)),  # -0.2
    ]
    found = difference(pictures)
    assert (found.frame, found.seed, found.frames, found.below) == (7, 0, 3, 1)
    assert found.worst == pytest.approx(-0.2) and found.worst_picture == pytest.approx(-1.0)


def test_only_the_same_frame_camera_and_seed_are_compared():
    pictures = [
        *(picture(inside=20.0, seed=0), picture("static", 19.0, seed=0)),
        *(picture(inside=20.0, seed=1), picture("static", 20.5, seed=1)),
        picture(inside=1.0, seed=2),  # no static avatar of this seed,
        picture(inside=1.0, frame=6),  # of this frame
        picture(inside=1.0, camera=2),  # or of this camera
    ]
    found = difference(pictures)
    assert (found.seed, found.frames, found.below) == (1, 2, 1) and found.worst == pytest.approx(-0.5)
    assert difference([picture(), picture("static", seed=1)]) is None
    assert difference([picture()]) is None


def test_equal_pictures_are_no_worse():
    assert difference([picture(inside=math.inf), picture("static", math.inf)]).worst == 0


def test_each_variant_has_its_own_static():
    variants = {
        "default": Variant(),
        "dark": Variant(against="static_dark"),
        "static": Variant(),
        "static_dark": Variant(),
    }
    values = {"default": 25.0, "dark": 20.0, "static": 24.0, "static_dark": 21.0}
    rows = [(name, "clamp") for name in variants]
    scores = scores_of([picture(name, value) for name, value in values.items()], rows, **variants)
    worst = {name: scores.difference("man", "near", name, "clamp") for name in variants}
    assert worst["default"].worst == 1 and worst["dark"].worst == -1
    assert worst["static"] is None  # itself
    assert worst["static_dark"].worst == -3


def test_seen_poses_stand_in_every_test_modes_row():
    rows = [("default", "pca"), ("default", "none"), ("static", "clamp")]
    pictures = [
        picture(inside=31.0, set="views", mode="none", frame=0),
        *(picture(inside=18.0, mode="pca"), picture(inside=16.0, mode="none")),
        *(picture("static", 30.0, set="views", mode="none", frame=0), picture("static", 17.5, mode="clamp")),
        picture("ceiling", 33.0, seed=None, mode="none"),
    ]
    overview, views, near = scores_of(pictures, rows).tables()
    assert overview == [
        ["inside, dB [worst frame - static]", "man views", "man near"],
        ["default, pca", "31.00 [+1.00]", "18.00 [+0.50]"],
        ["default, as they are", "31.00 [+1.00]", "16.00 [-1.50]"],
        ["static", "30.00", "17.50"],
        ["ceiling", "-", "33.00"],
    ]
    assert [row[0] for row in views] == ["man views", "default, pca", "default, as they are", "static"]
    assert near[0] == [
        "man near",
        "seeds",
        "inside",
        "edge",
        "whole",
        "worst frame",
        "below",
        "worst picture",
    ]
    assert near[2][1:] == ["1", "16.00", "15.00", "30.00", "-1.50 (frame 5, seed 0)", "1 of 1", "-1.50"]
    assert near[4] == ["ceiling", "-", "33.00", "15.00", "30.00", "-", "-", "-"]


def test_columns_without_any_value_are_left_out():
    rows = scores_of([picture(lpips=0.25, sharpness=0.8)]).details("man", "near")
    assert rows[0][2:7] == ["inside", "edge", "whole", "sharpness", "LPIPS"]
    assert rows[1][2:7] == ["20.00", "15.00", "30.00", "0.800", "0.2500"]


def test_text_and_markdown_say_the_same():
    tables = scores_of([picture(), picture(seed=1, inside=21.0), picture("static", 19.0)]).tables()
    text, markdown = as_text(tables), as_markdown(tables)
    for cell in ("20.50 ± 0.71 [+1.00]", "default", "0 of 1"):
        assert cell in text and cell in markdown
    lines = markdown.splitlines()
    assert lines[1] == "| --- | ---: | ---: |" and lines[2] == "| default | - | 20.50 ± 0.71 [+1.00] |"
    assert scores_of([]).tables()[0][0] == ["inside, dB [worst frame - static]"]


def test_every_picture_has_a_line_that_comes_back(tmp_path):
    pictures = [picture(sharpness=0.75), picture("ceiling", math.inf, seed=None, mode="none", frame=6)]
    write_scores(tmp_path / "scores.csv", pictures)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == ",".join(HEADER) and lines[1].startswith(
        "man,default,0,near,clamp,1,5,64,48,30.000000,"
    )
    assert read_scores(tmp_path / "scores.csv") == pictures


@pytest.mark.parametrize("change", [("1,5,64", "1,five,64"), ("64,48", "64"), ("30.000000", "")])
def test_a_broken_line_is_named(tmp_path, change):
    path = tmp_path / "scores.csv"
    write_scores(path, [picture()])
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=r"scores\.csv: line 2"):
        read_scores(path)
    path.write_text("variant\n")
    with pytest.raises(ValueError, match="line 1 must be subject,variant"):
        read_scores(path)
