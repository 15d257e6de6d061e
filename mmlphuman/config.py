"""Typed settings of a run: config/default.yaml, over it a subject's YAML, over both the command line's `key=value`.

config/default.yaml documents every key and is the only place of the defaults; here stand the types. The names are the
published ones where a published setting exists, so that a user's YAML in that form runs unchanged.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

DEFAULTS = Path(__file__).resolve().parent.parent / "config" / "default.yaml"  # of the checkout
NAMED_COLORS = {"white": [1.0, 1.0, 1.0], "black": [0.0, 0.0, 0.0]}
# Looked for here, beside the settings that name them, and in the checkout.
FILES = {"smpl_pkl_path", "vgg_path"}
LISTS = "lists are written in brackets and without blanks, or in quotes: train_cam_ids=[0,2]"
RETIRED = {"gradient_exchange"}  # keys that older versions wrote into model folders
# What versions did that did not have these keys yet: the published method.
FORMERLY = {
    "skinning_weights": "volume",
    "pose_inputs": "body",
    "face": False,
    "hidden_widths": [512, 256, 256, 256],
    "light": "none",
    "novel_poses": "pca",
}


@dataclass
class TestConfig:
    cam_ids: list[int]
    num_frame: int
    begin_ith_frame: int
    frame_interval: int
    image_scaling: float


@dataclass
class LrDecay:
    """Factor that each learning rate has fallen to, exponentially, at the end of the run."""

    position: float
    scaling: float
    rotation: float
    opacity: float
    color: float
    sh1: float
    xyz_offset: float
    position_basis: float
    gsparam_basis: float
    sh1_basis: float
    light: float
    encoder: float
    pose: float
    camera_color: float


@dataclass
class Config:
    seed: int
    deterministic: bool
    device: str
    rasterizer: str
    kernels: str
    # capture
    background: list[float]
    random_background: bool
    train_cam_ids: list[int]
    num_train_frame: int
    begin_ith_frame: int
    frame_interval: int
    min_pose_change: float
    skip_frames: list[Any]  # [first, last] pairs; `validate` sees to it
    image_scaling: float
    data_in_memory: bool
    num_workers: int
    views_per_pose: int
    edge_radius: int | None
    test: TestConfig
    # body
    smpl_pkl_path: str
    skinning_weights: str
    weight_volume_resolution: int
    # avatar
    init_num_gs: int
    num_verts: int
    num_features: int
    num_gsparam_bases: int
    num_position_bases: int
    xyz_offset_range: float
    pose_inputs: str
    face: bool
    hidden_widths: list[int]
    light: str
    novel_poses: str
    pca_components: int
    pca_sigmas: float
    # schedule
    iterations: int
    poses_per_step: int | None
    iteration_dxyz_basis: int
    iteration_gsparam_basis: int
    iteration_sh_degree: int
    iteration_lpips: int
    iteration_lpips_random_patch: int
    test_iterations: list[int]
    test_every: int
    checkpoint_iterations: list[int]
    checkpoint_every: int
    checkpoints_kept: int
    resumable_at_end: bool
    log_every: int
    viewer_budget: float
    divergence_factor: float
    divergence_retries: int
    # refinement of the capture
    refine_poses: bool
    refine_camera_colors: bool
    # losses
    lambda_l1: float
    lambda_lpips: float
    lambda_ssim: float
    lambda_dxyz_smooth: float
    lambda_scaling: float
    scaling_threshold: float
    lambda_pose_smooth: float
    lambda_pose_small: float
    vgg_path: str
    # learning rates
    position_lr: float
    scaling_lr: float
    rotation_lr: float
    opacity_lr: float
    color_lr: float
    sh1_lr: float
    xyz_offset_lr: float
    position_basis_lr: float
    gsparam_basis_lr: float
    sh1_basis_lr: float
    light_lr: float
    pose_lr: float
    camera_color_lr: float
    encoder_lr: float
    encoder_weight_decay: float
    lr_decay: LrDecay
    # numerics
    allow_tf32: bool
    detect_anomaly: bool


@dataclass(frozen=True)
class Range:
    """Of a finite number, or of every number of a list; the ends belong to it, except `low` where `above` says so."""

    low: float
    high: float = math.inf
    above: bool = False
    note: str = ""  # after the range, in messages

    def holds(self, value: float) -> bool:
        return (
            math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)
        )

    def __str__(self) -> str:
        if self.high == math.inf:
            text = f"above {self.low}" if self.above else f"at least {self.low}" if self.low else "0 or more"
        else:
            text = f"in ({self.low}, {self.high}]" if self.above else f"from {self.low} to {self.high}"
        return text + self.note


SHARE = Range(0, 1, above=True)
ANY_SIZE, COUNT = Range(0), Range(1)
FRAME, FRAMES = Range(0, 99_999_999), Range(1, 10_000_000)  # files have 8 digits for a frame's number
ITERATION = Range(0, 99_000_000)  # and checkpoints' folders for an iteration's
POINTS = Range(8, 100_000_000, note=" (neighbours are interpolated)")

# Every number of the settings, by its key. Upper ends are where a slip of the keyboard begins, not what is wise.
RANGES = {
    "seed": Range(0, 2**32 - 1),
    "background": Range(0, 1),
    "train_cam_ids": Range(0, 999_999),
    "num_train_frame": FRAMES,
    "begin_ith_frame": FRAME,
    "frame_interval": FRAMES,
    "min_pose_change": Range(0, 7),
    "image_scaling": SHARE,
    "num_workers": Range(0, 10_000),
    "views_per_pose": Range(1, 10_000),
    "edge_radius": Range(0, 64, note=", or null"),
    "test.cam_ids": Range(0, 999_999),
    "test.num_frame": FRAMES,
    "test.begin_ith_frame": FRAME,
    "test.frame_interval": FRAMES,
    "test.image_scaling": SHARE,
    "weight_volume_resolution": Range(8, 512),
    "init_num_gs": POINTS,
    "num_verts": POINTS,
    "num_features": Range(8, 1_000_000, note=POINTS.note),
    "num_gsparam_bases": Range(1, 10_000),
    "num_position_bases": Range(1, 10_000),
    "xyz_offset_range": Range(0, 1, note=" metres"),
    "hidden_widths": Range(1, 4096),
    "pca_components": Range(1, 63),
    "pca_sigmas": Range(0, above=True),
    "iterations": Range(1, ITERATION.high),
    "poses_per_step": Range(1, 100_000, note=", or null"),
    "iteration_dxyz_basis": ANY_SIZE,
    "iteration_gsparam_basis": ANY_SIZE,
    "iteration_sh_degree": ANY_SIZE,
    "iteration_lpips": ANY_SIZE,
    "iteration_lpips_random_patch": ANY_SIZE,
    "test_iterations": ANY_SIZE,
    "test_every": ANY_SIZE,
    "checkpoint_iterations": ANY_SIZE,
    "checkpoint_every": COUNT,
    "checkpoints_kept": COUNT,
    "log_every": Range(1, 1_000_000),
    "viewer_budget": Range(0, 1, above=True, note="; train.py --no_viewer serves no viewer"),
    "divergence_factor": ANY_SIZE,  # and see `validate`,
    "divergence_retries": ANY_SIZE,
    "scaling_threshold": ANY_SIZE,
    "encoder_weight_decay": ANY_SIZE,
    **dict.fromkeys(
        (
            field.name
            for field in fields(Config)
            if field.name.endswith("_lr") or field.name.startswith("lambda_")
        ),
        ANY_SIZE,
    ),
    **dict.fromkeys((f"lr_decay.{field.name}" for field in fields(LrDecay)), SHARE),
}


def default_config(**settings: Any) -> Config:
    """config/default.yaml with `settings` over it, not validated. OmegaConf's errors for what does not fit."""
    _refuse_references("settings", settings)
    return _typed(OmegaConf.merge(_defaults(), settings))


@functools.cache  # OmegaConf takes over 20 ms for it; what merges into it copies it first
def _defaults() -> DictConfig:
    """Every setting, typed. ValueError where config/default.yaml is missing or has other keys than Config."""
    if not DEFAULTS.is_file():
        raise ValueError(f"{DEFAULTS} is missing; install the package in its checkout: pip install -e .")
    try:
        defaults = OmegaConf.merge(OmegaConf.structured(Config), read_yaml(DEFAULTS))
    except OmegaConfBaseException as error:
        raise unfit(DEFAULTS, error) from error
    assert isinstance(defaults, DictConfig), "as its first part"
    if missing := OmegaConf.missing_keys(defaults):
        raise ValueError(f"{DEFAULTS}: {', '.join(sorted(missing))}: no default is given")
    return defaults


def load_config(
    paths: Path | Sequence[Path | tuple[str, dict[str, Any]]], overrides: list[str] | None = None
) -> Config:
    """Reads a subject's YAML (or several, one over the other) over the defaults, then `key=value` overrides; validates
    the result. Settings that are no file's stand as (where they are from, keys and values) in its place.

    Raises ValueError with one line that names the file and the field.
    """
    return _merge([*_layers(paths), ("command line", dotlist(overrides or []))])


def _layers(paths: Path | Sequence[Path | tuple[str, dict[str, Any]]]) -> list[tuple[str, Any]]:
    """(where from, keys and values) of each."""
    layers = []
    for path in [paths] if isinstance(paths, Path | str) else paths:
        if isinstance(path, tuple):
            layers.append((path[0], OmegaConf.create(path[1])))
            continue
        path = Path(path)
        if not path.is_file():
            what = "is no file but a folder, pipe or device" if path.exists() else "does not exist"
            raise ValueError(f"config file {path} {what}; the ones that ship are in config/")
        user = read_yaml(path)
        for key in RETIRED & set(user):
            del user[key]
        for key in FILES & set(user):
            user[key] = _found(user[key], path.parent)
        layers.append((str(path), user))
    return layers


def read_yaml(path: Path) -> DictConfig:
    """Keys and values of a file, all of them written out in it. ValueError, one line."""
    try:
        user = OmegaConf.load(path)
    except Exception as error:  # any YAML error: OmegaConf passes several parsers' types through
        raise ValueError(f"{path}: not a readable YAML file ({_yaml_fault(error)})") from error
    if not isinstance(user, DictConfig):
        raise ValueError(f"{path}: expected `key: value` lines")
    _refuse_references(str(path), user)
    return user


def change_config(
    config: Config, overrides: list[str], source: str, paths: Path | Sequence[Path] = ()
) -> Config:
    """YAML files and, over them, `key=value` overrides over settings that are there already, such as a trained
    model's; validated again.

    source: where `config` comes from, for messages.
    """
    changes = [*_layers(paths), ("command line", dotlist(overrides))]
    return _merge([(source, OmegaConf.structured(config)), *changes])


def differences(before: Config, now: Config, keys: Iterable[str] | None = None) -> list[str]:
    """`test.cam_ids: [0] instead of [3, 1]` for each setting that differs. keys: of Config's fields, default all."""
    found = []

    def compare(key: str, was: Any, value: Any) -> None:
        if isinstance(was, dict):
            for part in was:
                compare(f"{key}.{part}", was[part], value[part])
        elif was != value:
            found.append(f"{key}: {value} instead of {was}")

    settings_before, settings_now = asdict(before), asdict(now)
    for key in settings_before if keys is None else keys:
        compare(key, settings_before[key], settings_now[key])
    return found


def saved_config(path: Path) -> Config:
    """The config.yaml of a model folder; what its version did not have yet is what it did.

    A file that lies elsewhere on this machine is the default's, where that is there.
    """
    config = load_config([("former versions", FORMERLY), path])
    for key in FILES:
        usual = _found(getattr(default_config(), key), DEFAULTS.parent.parent)
        if not Path(getattr(config, key)).exists() and Path(usual).exists():
            setattr(config, key, usual)
    return config


def config_of_saved(settings: dict[str, Any]) -> Config:
    """The settings that a model was saved with; what its version did not have yet is the default.

    TypeError, ValueError and OmegaConf's errors for what does not fit.
    """
    if not isinstance(settings, dict):
        raise TypeError(f"settings are a {type(settings).__name__}, not keys and values")
    kept = {key: value for key, value in settings.items() if key not in RETIRED}
    config = default_config(**FORMERLY | kept)
    validate(config, "its settings")
    return config


def save_config(config: Config, path: Path) -> None:
    Path(path).write_text(settings_text(config))


def settings_text(config: Config) -> str:
    """As YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def dotlist(overrides: Sequence[str]) -> DictConfig:
    """`key=value` words of the command line, all of them written out there. ValueError, one line."""
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            hint = LISTS if item.endswith("]") else "settings are given as key=value"
            raise ValueError(f"command line: '{item}' is not understood; {hint}")
        try:
            OmegaConf.from_dotlist([item])
        except Exception as error:  # OmegaConf passes several parsers' types through
            raise ValueError(f"command line: '{item}' is not understood; {LISTS}") from error
    settings = OmegaConf.from_dotlist(list(overrides))
    _refuse_references("command line", settings)
    return settings


def _refuse_references(source: str, settings: DictConfig | dict[str, Any]) -> None:
    """OmegaConf would put the content of other settings, or of environment variables, in the place of ${...}.

    Settings come from strangers and are saved into files that are published.
    """
    plain = OmegaConf.to_container(settings, resolve=False) if isinstance(settings, DictConfig) else settings
    for key, value in _leaves(plain):
        if isinstance(value, str) and ("${" in value or value == "???"):
            raise ValueError(
                f"{source}: {key}: '{value}' stands for a value elsewhere; write the value itself"
            )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything inside that holds nothing itself."""
    if isinstance(node, list | tuple):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        yield key, node
        return
    for name, child in node.items():
        yield from _leaves(child, f"{key}.{name}" if key else str(name))


def _merge(layers: list[tuple[str, Any]]) -> Config:
    merged = _defaults()
    for source, layer in layers:
        _refuse_references(source, layer)
        background = layer.get("background")
        if isinstance(background, str):
            if background not in NAMED_COLORS:
                raise ValueError(
                    f"{source}: background: '{background}' is none of {', '.join(NAMED_COLORS)} "
                    "or three numbers in [0, 1]"
                )
            layer.background = NAMED_COLORS[background]
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise unfit(source, error) from error
    config = _typed(merged)
    for key in FILES:
        setattr(config, key, _found(getattr(config, key), DEFAULTS.parent.parent))
    sources = {key: source for source, layer in layers for key in layer}  # the last one to say it
    validate(config, layers[0][0], sources)
    return config


def _found(file: Any, folder: Path) -> Any:
    """A relative path that leads nowhere from here, but does from `folder` (a settings' file, the checkout)."""
    if isinstance(file, str) and not Path(file).exists() and (folder / file).exists():
        return str(folder / file)
    return file


def _typed(merged: Any) -> Config:
    """merged: settings over `_defaults`."""
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    return config


def unfit(
    source: str | Path, error: OmegaConfBaseException, documented: str = "config/default.yaml lists every key"
) -> ValueError:
    """What OmegaConf said of a key, in one line."""
    key = getattr(error, "full_key", None) or "?"
    if source == "command line" and "ListConfig" in str(error):
        return ValueError(f"{source}: {key}: a list is needed; {LISTS}")
    return ValueError(f"{source}: {key}: {_first_line(error)}; {documented}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _yaml_fault(error: BaseException) -> str:
    """What a YAML parser complains of, and the line; it says first what it was about to read."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark is not None and problem else _first_line(error)


def validate(config: Config, source: str = "config", sources: dict[str, str] | None = None) -> None:
    """Checks ranges; raises ValueError naming the field, its value and what is allowed. sources: of single fields."""

    def require(condition: bool, key: str, allowed: str) -> None:
        if not condition:
            value = _value_at(config, key)
            named = (sources or {}).get(key.split(".")[0], source)
            raise ValueError(f"{named}: {key}: {value} is not allowed; it must be {allowed}")

    for key, allowed in RANGES.items():
        value: Any = _value_at(config, key)
        numbers: list[float] = value if isinstance(value, list) else [] if value is None else [value]
        require(all(map(allowed.holds, numbers)), key, "numbers " * isinstance(value, list) + str(allowed))
    require(
        config.divergence_factor == 0 or config.divergence_factor > 1,
        "divergence_factor",
        "above 1, or 0 for no such guard",
    )
    require(
        all(_is_frame_range(item) for item in config.skip_frames),
        "skip_frames",
        "a list of [first, last] with 0 <= first <= last, such as [[1400, 1530]]",
    )
    require(len(config.background) == 3, "background", "white, black or three numbers in [0, 1]")
    require(bool(config.test.cam_ids), "test.cam_ids", "a list of at least one camera")
    require(config.kernels in ("auto", "plain"), "kernels", "auto or plain")
    require(config.skinning_weights in ("exact", "volume"), "skinning_weights", "exact or volume")
    require(config.pose_inputs in ("local", "body"), "pose_inputs", "local or body")
    require(config.light in ("place", "normal", "none"), "light", "place, normal or none")
    require(config.novel_poses in ("clamp", "pca"), "novel_poses", "clamp or pca")
    require(
        bool(config.hidden_widths),
        "hidden_widths",
        f"a list of at least one number {RANGES['hidden_widths']}",
    )
    require(config.rasterizer in ("auto", "torch", "gsplat"), "rasterizer", "auto, torch or gsplat")


def _value_at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _is_frame_range(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(type(frame) is int for frame in item)
        and 0 <= item[0] <= item[1]
    )
