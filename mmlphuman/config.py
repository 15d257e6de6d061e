"""Typed settings of a run: config/default.yaml, over it a subject's YAML, over both the command line's `key=value`.

config/default.yaml documents every key and is the only place of the defaults; here stand the types. The names are the
published ones where a published setting exists, so that a user's YAML in that form runs unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

DEFAULTS = Path(__file__).resolve().parent.parent / "config" / "default.yaml"  # of the checkout
NAMED_COLORS = {"white": [1.0, 1.0, 1.0], "black": [0.0, 0.0, 0.0]}
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


def default_config(**settings: Any) -> Config:
    """config/default.yaml with `settings` over it, not validated. OmegaConf's errors for what does not fit."""
    return _typed(OmegaConf.merge(_defaults(), settings))


@functools.cache  # OmegaConf takes over 20 ms for it; what merges into it copies it first
def _defaults() -> DictConfig:
    """Every setting, typed. ValueError where config/default.yaml is missing or has other keys than Config."""
    if not DEFAULTS.is_file():
        raise ValueError(f"{DEFAULTS} is missing; install the package in its checkout: pip install -e .")
    try:
        defaults = OmegaConf.merge(OmegaConf.structured(Config), _read_yaml(DEFAULTS))
    except OmegaConfBaseException as error:
        raise _unfit(DEFAULTS, error) from error
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
    layers = []
    for path in [paths] if isinstance(paths, Path | str) else paths:
        if isinstance(path, tuple):
            layers.append((path[0], OmegaConf.create(path[1])))
            continue
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"config file {path} does not exist; the ones that ship are in config/")
        user = _read_yaml(path)
        for key in RETIRED & set(user):
            del user[key]
        layers.append((str(path), user))
    return _merge([*layers, ("command line", _dotlist(overrides or []))])


def _read_yaml(path: Path) -> DictConfig:
    try:
        user = OmegaConf.load(path)
    except Exception as error:  # any YAML error: OmegaConf passes several parsers' types through
        raise ValueError(f"{path}: not a readable YAML file ({_first_line(error)})") from error
    if not isinstance(user, DictConfig):
        raise ValueError(f"{path}: expected `key: value` lines")
    return user


def change_config(config: Config, overrides: list[str], source: str) -> Config:
    """`key=value` overrides over settings that are there already, such as a trained model's; validated again.

    source: where `config` comes from, for messages.
    """
    return _merge([(source, OmegaConf.structured(config)), ("command line", _dotlist(overrides))])


def config_of_saved(settings: dict[str, Any]) -> Config:
    """The settings that a model was saved with, not validated; what its version did not have yet is the default.

    TypeError and OmegaConf's errors for what does not fit.
    """
    if not isinstance(settings, dict):
        raise TypeError(f"settings are a {type(settings).__name__}, not keys and values")
    kept = {key: value for key, value in settings.items() if key not in RETIRED}
    return default_config(**FORMERLY | kept)


def save_config(config: Config, path: Path) -> None:
    Path(path).write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def _dotlist(overrides: list[str]) -> Any:
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            raise ValueError(f"command line: '{item}' is not understood; settings are given as key=value")
    return OmegaConf.from_dotlist(overrides)


def _merge(layers: list[tuple[str, Any]]) -> Config:
    merged = _defaults()
    for source, layer in layers:
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
            raise _unfit(source, error) from error
    config = _typed(merged)
    sources = {key: source for source, layer in layers for key in layer}  # the last one to say it
    validate(config, layers[0][0], sources)
    return config


def _typed(merged: Any) -> Config:
    """merged: settings over `_defaults`."""
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    return config


def _unfit(source: str | Path, error: OmegaConfBaseException) -> ValueError:
    key = getattr(error, "full_key", None) or "?"
    return ValueError(f"{source}: {key}: {_first_line(error)}; config/default.yaml lists every key")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def validate(config: Config, source: str = "config", sources: dict[str, str] | None = None) -> None:
    """Checks ranges; raises ValueError naming the field, its value and what is allowed. sources: of single fields."""

    def require(condition: bool, key: str, allowed: str) -> None:
        if not condition:
            value = config
            for part in key.split("."):
                value = getattr(value, part)
            named = (sources or {}).get(key.split(".")[0], source)
            raise ValueError(f"{named}: {key}: {value} is not allowed; it must be {allowed}")

    for key in (
        "iterations",
        "num_train_frame",
        "frame_interval",
        "views_per_pose",
        "log_every",
        "checkpoint_every",
        "checkpoints_kept",
        "num_gsparam_bases",
        "num_position_bases",
        "pca_components",
        "init_num_gs",
        "num_verts",
        "num_features",
    ):
        require(getattr(config, key) >= 1, key, "at least 1")
    for key in ("begin_ith_frame", "num_workers", "test_every", "divergence_retries"):
        require(getattr(config, key) >= 0, key, "0 or more")
    for key in ("init_num_gs", "num_verts", "num_features"):
        require(getattr(config, key) >= 8, key, "at least 8 (neighbours are interpolated)")
    for key in vars(config):
        if key.endswith("_lr") or key.startswith("lambda_"):
            require(getattr(config, key) >= 0, key, "0 or more")
    for key in vars(config.lr_decay):
        require(0 < getattr(config.lr_decay, key) <= 1, f"lr_decay.{key}", "in (0, 1]")
    require(
        0 < config.viewer_budget <= 1, "viewer_budget", "in (0, 1]; train.py --no_viewer serves no viewer"
    )
    require(
        config.divergence_factor == 0 or config.divergence_factor > 1,
        "divergence_factor",
        "above 1, or 0 for no such guard",
    )
    require(config.min_pose_change >= 0, "min_pose_change", "0 or more")
    require(
        all(_is_frame_range(item) for item in config.skip_frames),
        "skip_frames",
        "a list of [first, last] with 0 <= first <= last, such as [[1400, 1530]]",
    )
    require(0 < config.image_scaling <= 1, "image_scaling", "in (0, 1]")
    require(0 < config.test.image_scaling <= 1, "test.image_scaling", "in (0, 1]")
    require(config.test.num_frame >= 1, "test.num_frame", "at least 1")
    require(config.test.frame_interval >= 1, "test.frame_interval", "at least 1")
    require(config.test.begin_ith_frame >= 0, "test.begin_ith_frame", "0 or more")
    require(config.edge_radius is None or config.edge_radius >= 0, "edge_radius", "0 or more, or null")
    require(8 <= config.weight_volume_resolution <= 512, "weight_volume_resolution", "in 8..512")
    require(
        len(config.background) == 3 and all(0 <= c <= 1 for c in config.background),
        "background",
        "white, black or three numbers in [0, 1]",
    )
    require(
        config.poses_per_step is None or config.poses_per_step >= 1, "poses_per_step", "at least 1, or null"
    )
    require(config.kernels in ("auto", "plain"), "kernels", "auto or plain")
    require(config.skinning_weights in ("exact", "volume"), "skinning_weights", "exact or volume")
    require(config.pose_inputs in ("local", "body"), "pose_inputs", "local or body")
    require(config.light in ("place", "normal", "none"), "light", "place, normal or none")
    require(config.novel_poses in ("clamp", "pca"), "novel_poses", "clamp or pca")
    require(
        bool(config.hidden_widths) and all(1 <= width <= 4096 for width in config.hidden_widths),
        "hidden_widths",
        "a list of at least one number from 1 to 4096",
    )
    require(config.rasterizer in ("auto", "torch", "gsplat"), "rasterizer", "auto, torch or gsplat")


def _is_frame_range(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(type(frame) is int for frame in item)
        and 0 <= item[0] <= item[1]
    )
