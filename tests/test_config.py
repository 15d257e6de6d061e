"""Settings: defaults documented, published form accepted, mistakes named."""

import functools
import math
import re
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmlphuman import config
from mmlphuman.config import (
    change_config,
    config_of_saved,
    default_config,
    differences,
    dotlist,
    load_config,
    save_config,
    saved_config,
)

PUBLISHED_KEYS = """
seed background random_background train_cam_ids num_train_frame begin_ith_frame frame_interval
image_scaling data_in_memory iterations test_iterations checkpoint_iterations position_lr opacity_lr scaling_lr
rotation_lr color_lr xyz_offset_lr encoder_lr iteration_sh_degree lambda_lpips iteration_lpips
iteration_lpips_random_patch lambda_scaling scaling_threshold lambda_dxyz_smooth init_num_gs num_verts num_features
iteration_dxyz_basis iteration_gsparam_basis smpl_pkl_path detect_anomaly
"""


PUBLISHED_METHOD = {
    "skinning_weights": "volume",
    "pose_inputs": "body",
    "hidden_widths": [512, 256, 256, 256],
    "light": "none",
    "novel_poses": "pca",
}


def test_the_published_method_goes_over_a_subject_s_settings():
    subject = Path("config/avrex_zzr.yaml")
    plain, published = load_config(subject), load_config([subject, Path("config/published.yaml")])
    assert published == replace(plain, **PUBLISHED_METHOD)
    assert (plain.pose_inputs, plain.hidden_widths, plain.light) == ("local", [64, 64], "place")
    assert (plain.novel_poses, plain.skinning_weights) == ("clamp", "exact")
    over = load_config([subject, Path("config/published.yaml")], ["light=normal"])
    assert over == replace(published, light="normal")
    assert config_of_saved({}) == default_config(**PUBLISHED_METHOD)


def test_settings_saved_now_come_back_as_they_are():
    saved = default_config(hidden_widths=[7], light="normal")
    assert config_of_saved(asdict(saved)) == saved


def test_default_yaml_documents_every_key_with_its_default():
    documented = OmegaConf.to_container(OmegaConf.load("config/default.yaml"))
    assert documented == asdict(default_config())
    for part in (config.Config, config.TestConfig, config.LrDecay):  # nowhere else
        assert all(field.default is MISSING and field.default_factory is MISSING for field in fields(part))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "is missing; install the package in its checkout: pip install -e ."),
        (("seed: 0 ", "sead: 0 "), "sead"),
        (("seed: 0 ", "# "), "seed: no default is given"),
        (("  cam_ids: [1]\n", ""), "test.cam_ids: no default is given"),
    ],
)
def test_defaults_that_are_missing_or_unknown_are_named(tmp_path, monkeypatch, damage, message):
    broken, user = tmp_path / "default.yaml", tmp_path / "user.yaml"
    user.write_text("iterations: 7\n")
    if damage is not None:
        broken.write_text(config.DEFAULTS.read_text().replace(*damage))
    monkeypatch.setattr(config, "DEFAULTS", broken)
    config._defaults.cache_clear()
    try:
        with pytest.raises(ValueError) as error:
            load_config(user)
    finally:
        config._defaults.cache_clear()
    assert message in str(error.value) and str(broken) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_shipped_config_loads():
    names = [path for path in Path("config").glob("*.yaml") if not path.stem.startswith("study")]
    assert len(names) >= 3 + 13
    for path in names:
        load_config(path)


def test_published_keys_are_accepted(tmp_path):
    defaults = asdict(default_config())
    assert set(PUBLISHED_KEYS.split()) <= set(defaults)
    path = tmp_path / "user.yaml"
    settings = {key: defaults[key] for key in PUBLISHED_KEYS.split()} | {
        "background": "white",
        "test": defaults["test"],
    }
    path.write_text(OmegaConf.to_yaml(settings))
    assert load_config(path) == default_config()


def test_command_line_goes_over_the_file(tmp_path):
    path = tmp_path / "user.yaml"
    path.write_text("iterations: 5\ntest:\n  cam_ids: [3]\n")
    merged = load_config(path, ["iterations=7", "test.num_frame=2"])
    assert (merged.iterations, merged.test.cam_ids, merged.test.num_frame) == (7, [3], 2)


def test_saved_settings_come_back(tmp_path):
    saved = default_config(iterations=3, background=[0.0, 0.5, 1.0], skip_frames=[[3, 4]])
    save_config(saved, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == saved


def test_settings_of_older_versions_are_read(tmp_path):
    """Of a model folder: its file, and what a checkpoint or a compact file holds."""
    old = tmp_path / "config.yaml"
    old.write_text("gradient_exchange: bfloat16\niterations: 7\n")
    assert load_config(old).iterations == 7
    saved = {"gradient_exchange": "bfloat16", "iterations": 7}
    assert config_of_saved(saved) == default_config(**PUBLISHED_METHOD, iterations=7)
    assert config_of_saved({"test": {"num_frame": 3}}) == default_config(
        **PUBLISHED_METHOD, test={"num_frame": 3}
    )
    for unfit, error in (({"iteration": 5}, OmegaConfBaseException), ([], TypeError)):
        with pytest.raises(error):
            config_of_saved(unfit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iteration: 5", "iteration"),
        ("test:\n  cams: [1]", "test.cams"),
        ("iterations: a lot", "iterations"),
        ("iterations: -1", "iterations: -1 is not allowed; it must be from 1 to 99000000"),
        ("poses_per_step: 0", "poses_per_step: 0 is not allowed; it must be from 1 to 100000, or null"),
        ("image_scaling: 0", "image_scaling"),
        ("background: [1, 2, 3]", "background"),
        ("background: mauve", "mauve"),
        ("pose_inputs: all", "pose_inputs: all is not allowed; it must be local or body"),
        ("light: lamp", "light: lamp is not allowed; it must be place, normal or none"),
        ("novel_poses: none", "novel_poses: none is not allowed; it must be clamp or pca"),
        ("hidden_widths: []", "hidden_widths: [] is not allowed; it must be a list of at least one number"),
        ("hidden_widths: [64, 0]", "hidden_widths: [64, 0] is not allowed"),
        ("hidden_widths: 64", "hidden_widths"),
        ("light_lr: -1", "light_lr: -1.0 is not allowed; it must be 0 or more"),
        ("lr_decay:\n  light: 0", "lr_decay.light"),
        ("lr_decay:\n  color: 0", "lr_decay.color"),
        ("min_pose_change: -0.1", "min_pose_change: -0.1 is not allowed"),
        (
            "skip_frames: [1400, 1530]",
            "skip_frames: [1400, 1530] is not allowed; it must be a list of [first, last]",
        ),
        ("skip_frames: [[5, 4]]", "skip_frames"),
        ("skip_frames: [[1, 2, 3]]", "skip_frames"),
        ("skip_frames: [[-1, 2]]", "skip_frames"),
        ("skip_frames: [[1, two]]", "skip_frames"),
        ("skip_frames: 7", "skip_frames"),
        ("seed: -1", "seed: -1 is not allowed; it must be from 0 to"),
        ("pca_sigmas: .nan", "pca_sigmas: nan is not allowed; it must be above 0"),
        ("train_cam_ids: [0, -1]", "train_cam_ids: [0, -1] is not allowed; it must be numbers from 0 to"),
        ("test: {cam_ids: []}", "test.cam_ids: [] is not allowed"),
        ("edge_radius: 10000", "edge_radius: 10000 is not allowed; it must be from 0 to 64, or null"),
        ("vgg_path: ???", "vgg_path: '???' stands for a value elsewhere"),
        ("- a list", "key: value"),
        ("a: [unclosed", "not a readable YAML file (line "),
        ("seed: 1\n\tseed: 2", "not a readable YAML file (line 2: "),
        ("seed: 1\nseed: 2", "not a readable YAML file (line 2: found duplicate key"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path, text, message):
    path = tmp_path / "user.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert message in str(error.value) and "user.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "word", ["iterations=[", "iterations={", "skip_frames=[[1, 2]", "seed=!!python/name:os.system"]
)
def test_words_that_are_no_yaml_are_one_line(word):
    with pytest.raises(ValueError) as error:
        dotlist(["seed=1", word])
    assert str(error.value).startswith(f"command line: '{word}' is not understood; ")
    assert "\n" not in str(error.value)


def test_settings_of_no_file_lie_between_files(tmp_path):
    (tmp_path / "a.yaml").write_text("num_features: 10\nnum_verts: 20\nlight: none\n")
    (tmp_path / "b.yaml").write_text("num_verts: 40\n")
    layers = [tmp_path / "a.yaml", ("study", {"num_verts": 30, "num_features": 12}), tmp_path / "b.yaml"]
    read = load_config(layers, ["seed=5"])
    assert (read.num_features, read.num_verts, read.light, read.seed) == (12, 40, "none", 5)
    with pytest.raises(ValueError, match="^study: num_feature: .*"):
        load_config([tmp_path / "a.yaml", ("study", {"num_feature": 12})])


def test_a_list_is_written_without_blanks_and_what_is_not_says_so():
    subject = Path("config/demo.yaml")
    for words in (["train_cam_ids=0,2"], ["train_cam_ids=[0,", "2]"], ["train_cam_ids=[0,"], ["2]"]):
        with pytest.raises(ValueError, match=r"^command line: .*train_cam_ids=\[0,2\]$") as error:
            load_config(subject, words)
        assert "\n" not in str(error.value)
    for word in ("train_cam_ids=[0,2]", "train_cam_ids=[0, 2]"):  # the latter in the shell's quotes
        assert load_config(subject, [word]).train_cam_ids == [0, 2]
    with pytest.raises(ValueError, match="settings are given as key=value$"):
        load_config(subject, ["seed"])


def test_differences_are_named_with_both_values_as_deep_as_they_lie():
    before = default_config()
    now = replace(before, seed=3, test=replace(before.test, cam_ids=[2]), background=[0.0, 0.0, 0.0])
    named = ["seed: 3 instead of 0", "test.cam_ids: [2] instead of [1]"]
    assert differences(before, now, ["seed", "test", "light"]) == named
    assert len(differences(before, now)) == 3 and differences(now, now) == []


def test_a_model_folder_s_settings_are_read_as_its_version_meant_them(tmp_path, monkeypatch):
    """Keys that the version did not have mean what it did; weights that lie elsewhere on this machine are found."""
    (tmp_path / "config.yaml").write_text("seed: 4\nvgg_path: /nowhere/vgg.pth\n")
    read = saved_config(tmp_path / "config.yaml")
    assert (read.seed, read.novel_poses, read.light) == (4, "pca", "none")
    assert read.vgg_path == "/nowhere/vgg.pth", "there is none here either: what was asked for is named"
    weights = tmp_path / "default.pth"
    weights.write_text("")
    monkeypatch.setattr(config, "default_config", lambda: replace(default_config(), vgg_path=str(weights)))
    assert saved_config(tmp_path / "config.yaml").vgg_path == str(weights)
    save_config(default_config(), tmp_path / "config.yaml")
    assert saved_config(tmp_path / "config.yaml").novel_poses == "clamp"


def test_files_go_over_settings_that_are_there_and_the_command_line_over_both(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 7\nnum_verts: 90\n")
    own = default_config(light="normal", num_verts=30)
    changed = change_config(own, ["seed=8"], "the model", [tmp_path / "a.yaml"])
    assert (changed.light, changed.num_verts, changed.seed) == ("normal", 90, 8)
    with pytest.raises(ValueError, match="a.yaml: num_verts: 1 is not allowed"):
        (tmp_path / "a.yaml").write_text("num_verts: 1\n")
        change_config(own, [], "the model", [tmp_path / "a.yaml"])


def number_settings() -> dict[str, type]:
    """Dotted key of every setting that holds numbers -> int or float, from the types of the dataclasses."""
    found = {}
    for prefix, part in (("", config.Config), ("test.", config.TestConfig), ("lr_decay.", config.LrDecay)):
        for field in fields(part):
            kind = str(field.type).removeprefix("list[").removesuffix("]").removesuffix(" | None")
            if kind in ("int", "float"):
                found[prefix + field.name] = {"int": int, "float": float}[kind]
    return found


def test_every_number_has_a_range_and_what_is_outside_is_refused_from_every_source(tmp_path):
    numbers = number_settings()
    assert len(numbers) > 60 and set(numbers) == set(config.RANGES)
    for key, kind in numbers.items():
        is_list = isinstance(functools.reduce(getattr, key.split("."), default_config()), list)
        wrong = [-(10**20), *([] if kind is int else [math.nan, math.inf])]
        wrong += [10**20] if config.RANGES[key].high < math.inf else []
        for value in wrong:
            setting = [value] * (3 if key == "background" else 1) if is_list else value
            for part in reversed(key.split(".")):
                setting = {part: setting}
            path = tmp_path / "user.yaml"
            path.write_text(OmegaConf.to_yaml(setting))
            with pytest.raises(
                ValueError, match=rf"user\.yaml: {re.escape(key)}: .* not allowed; it must be"
            ):
                load_config(path)
            with pytest.raises(ValueError, match=rf"{re.escape(key)}: .* not allowed; it must be"):
                config_of_saved(setting)


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", "a ${oc.env:SECRET,none} b", "${seed}", "???"])
@pytest.mark.parametrize("key", ["vgg_path", "background", "test.cam_ids", "seed"])
def test_nothing_is_interpolated_into_settings_from_any_source(tmp_path, monkeypatch, key, value):
    monkeypatch.setenv("SECRET", "hidden words")
    setting = [value] if key == "test.cam_ids" else value
    for part in reversed(key.split(".")):
        setting = {part: setting}
    path, plain = tmp_path / "user.yaml", tmp_path / "plain.yaml"
    path.write_text(OmegaConf.to_yaml(setting))
    plain.write_text("seed: 1\n")
    sources = {
        "user.yaml": lambda: load_config(path),
        "command line": lambda: load_config(plain, [f"{key}={[value] if key == 'test.cam_ids' else value}"]),
        "the model": lambda: change_config(default_config(), [f"{key}={value}"], "the model"),
        "checkpoint": lambda: config_of_saved(setting),
    }
    for read in sources.values():
        with pytest.raises(ValueError, match=f"{key}.*: .*stands for a value elsewhere") as error:
            read()
        assert "hidden" not in str(error.value) and "\n" not in str(error.value)


def test_a_relative_file_is_found_here_or_beside_the_settings_or_in_the_checkout(tmp_path, monkeypatch):
    beside, here = tmp_path / "settings", tmp_path / "here"
    beside.mkdir(), here.mkdir()
    monkeypatch.chdir(here)
    path = beside / "user.yaml"
    path.write_text("smpl_pkl_path: body.npz\nvgg_path: config/demo.yaml\n")
    assert load_config(path).smpl_pkl_path == "body.npz"  # nowhere: what was said
    (beside / "body.npz").touch()
    assert Path(load_config(path).smpl_pkl_path) == beside / "body.npz"
    assert Path(load_config(path).vgg_path) == config.DEFAULTS.parent / "demo.yaml"
    (here / "body.npz").touch()
    assert load_config(path).smpl_pkl_path == "body.npz"
