"""The 13 published subjects: what their files select, and that the files hold nothing that is the default."""

from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmlphuman.capture.dataset import select_frames
from mmlphuman.config import default_config, load_config

A = [
    *(
        6,
        7,
        20,
        21,
        22,
        23,
        36,
        37,
        38,
        39,
        54,
        55,
        78,
        79,
        92,
        93,
        94,
        95,
        110,
        111,
        125,
        126,
        127,
        130,
        131,
    ),
    *(134, 135, 138, 139, 142, 143, 146, 147, 150, 151, 154, 155, 158, 159),
]
THUMAN4 = [*range(0, 7), *range(8, 24)]
LBN = [*range(0, 8), *range(9, 13), 14, 15]
# Method, section 9: training cameras; first frame and count; test camera; its first frame and count.
TABLE = {
    "subject00": (THUMAN4, (0, 2000), 18, (2000, 500)),
    "subject01": (THUMAN4, (0, 2500), 18, (2000, 500)),
    "subject02": (range(24), (385, 2115), 18, (0, 500)),
    "avrex_zzr": ([*range(0, 7), *range(8, 13), 14, 15], (0, 2000), 1, (0, 500)),
    "avrex_lbn1": (LBN, (0, 1901), 1, (0, 500)),
    "avrex_lbn2": (LBN, (0, 1871), 1, (0, 500)),
    "actor01": (A, (48, 2129), 6, (0, 500)),
    "actor02": (A, (237, 1920), 6, (0, 500)),
    "actor04": (A, (77, 2113), 6, (0, 500)),
    "actor05": (set(A) - {38, 39}, (100, 2225), 6, (0, 500)),
    "actor06": (A, (0, 2000), 6, (0, 500)),
    "actor07": (A, (205, 1934), 6, (0, 500)),
    "actor08": ({*A, 109}, (63, 2311), 6, (0, 500)),
}
CUTS = {"actor06": [[1400, 1530]], "actor04": [[1380, 1590]]}
PUBLISHED_COMMON = {
    "background": "white",
    "random_background": True,
    "image_scaling": 1.0,
    "init_num_gs": 200_000,
    "num_verts": 10_000,
    "num_features": 300,
    "iterations": 800_000,
}


def path_of(name: str) -> Path:
    return Path("config") / f"{name}.yaml"


@pytest.mark.parametrize("name", TABLE)
def test_selects_what_the_table_says(name):
    cameras, (first, count), test_camera, (test_first, test_count) = TABLE[name]
    config = load_config(path_of(name))
    assert config.train_cam_ids == sorted(cameras)
    frames = select_frames(config.begin_ith_frame, config.num_train_frame, config.frame_interval)
    assert frames == range(first, first + count)
    assert config.test.cam_ids == [test_camera]
    assert (config.test.begin_ith_frame, config.test.num_frame) == (test_first, test_count)
    assert (config.test.frame_interval, config.test.image_scaling) == (1, 1.0)
    assert config.min_pose_change == (0.015 if name.startswith("actor") else 0)
    assert config.skip_frames == CUTS.get(name, [])


@pytest.mark.parametrize("name", TABLE)
def test_everything_else_is_the_default(name):
    selection = {
        "train_cam_ids",
        "begin_ith_frame",
        "num_train_frame",
        "min_pose_change",
        "skip_frames",
        "test",
    }
    config, default = asdict(load_config(path_of(name))), asdict(default_config())
    assert {key for key in config if config[key] != default[key]} <= selection
    written = OmegaConf.to_container(OmegaConf.load(path_of(name)))
    for key, value in written.items():
        assert value != default[key], f"{key} is the default"
    for key, value in written.get("test", {}).items():
        assert value != default["test"][key], f"test.{key} is the default"


@pytest.mark.parametrize("name", TABLE)
def test_comment_says_capture_template_and_what_is_held_out(name):
    lines = path_of(name).read_text().splitlines()
    capture = {"subj": "THuman4.0", "avre": "AvatarReX", "acto": "ActorsHQ"}[name[:4]]
    own = name in ("subject02", "avrex_zzr", "avrex_lbn1", "actor01", "actor04")
    assert lines[0].startswith(f"# {capture}")
    assert ("Published with an own template" if own else "No own template") in lines[0]
    assert lines[1].startswith("# ") and any(said in lines[1] for said in ("training camera", "trained on"))
    if name == "avrex_zzr":
        assert load_config(path_of(name), ["test.cam_ids=[7,13]"]).test.cam_ids == [7, 13]
        assert "held out are 7 and 13" in lines[1]


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("actor")])
def test_published_form_gives_the_same_settings(tmp_path, name):
    """A user's file spells everything out; ActorsHQ's filter was not in it."""
    cameras, (first, count), test_camera, (test_first, test_count) = TABLE[name]
    test = {"cam_ids": [test_camera], "num_frame": test_count, "begin_ith_frame": test_first}
    settings = PUBLISHED_COMMON | {
        "train_cam_ids": sorted(cameras),
        "num_train_frame": count,
        "begin_ith_frame": first,
        "frame_interval": 1,
        "test": test | {"frame_interval": 1, "image_scaling": 1.0},
    }
    OmegaConf.save(OmegaConf.create(settings), tmp_path / "user.yaml")
    assert load_config(tmp_path / "user.yaml") == load_config(path_of(name))
