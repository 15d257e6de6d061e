"""Typed settings of a run: config/default.yaml, one YAML per subject, `key=value` on the command line.

Every key is documented in config/default.yaml; the names are the published ones where a published setting
exists, so that a user's YAML in that form runs unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

NAMED_COLORS = {"white": [1.0, 1.0, 1.0], "black": [0.0, 0.0, 0.0]}
RETIRED = {"gradient_exchange"}  # keys that older versions wrote into model folders


@dataclass
class TestConfig:
    cam_ids: list[int] = field(default_factory=lambda: [1])
    num_frame: int = 500
    begin_ith_frame: int = 0
    frame_interval: int = 1
    image_scaling: float = 1.0


@dataclass
class LrDecay:
    """Factor that each learning rate has fallen to, exponentially, at the end of the run."""

    position: float = 0.01
    scaling: float = 0.1
    rotation: float = 0.1
    opacity: float = 0.1
    color: float = 0.1
    sh1: float = 0.1
    xyz_offset: float = 0.1
    position_basis: float = 0.1
    gsparam_basis: float = 1.0
    sh1_basis: float = 1.0
    encoder: float = 0.1


@dataclass
class Config:
    seed: int = 0
    deterministic: bool = False
    device: str = "auto"
    rasterizer: str = "auto"
    kernels: str = "auto"
    # capture
    background: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    random_background: bool = True
    train_cam_ids: list[int] = field(default_factory=list)
    num_train_frame: int = 2000
    begin_ith_frame: int = 0
    frame_interval: int = 1
    min_pose_change: float = 0.0
    skip_frames: list[Any] = field(default_factory=list)  # [first, last] pairs; `validate` sees to it
    image_scaling: float = 1.0
    data_in_memory: bool = False
    num_workers: int = 8
    views_per_pose: int = 1
    edge_radius: int | None = None
    test: TestConfig = field(default_factory=TestConfig)
    # body
    smpl_pkl_path: str = "smpl_model/smplx/SMPLX_NEUTRAL.npz"
    weight_volume_resolution: int = 128
    # avatar
    init_num_gs: int = 200_000
    num_verts: int = 10_000
    num_features: int = 300
    num_gsparam_bases: int = 15
    num_position_bases: int = 15
    xyz_offset_range: float = 0.008
    pca_components: int = 20
    pca_sigmas: float = 2.0
    # schedule
    iterations: int = 800_000
    poses_per_step: int | None = None
    iteration_dxyz_basis: int = 2_000
    iteration_gsparam_basis: int = 2_000
    iteration_sh_degree: int = 250_000
    iteration_lpips: int = 6_000
    iteration_lpips_random_patch: int = 300_000
    test_iterations: list[int] = field(default_factory=list)
    test_every: int = 10_000
    checkpoint_iterations: list[int] = field(default_factory=list)
    checkpoint_every: int = 10_000
    checkpoints_kept: int = 2
    log_every: int = 10
    viewer_budget: float = 0.03
    divergence_factor: float = 10.0
    divergence_retries: int = 3
    # losses
    lambda_l1: float = 1.0
    lambda_lpips: float = 0.1
    lambda_ssim: float = 0.0
    lambda_dxyz_smooth: float = 0.1
    lambda_scaling: float = 1.0
    scaling_threshold: float = 0.01
    vgg_path: str = "smpl_model/vgg16-397923af.pth"
    # learning rates
    position_lr: float = 1.6e-4
    scaling_lr: float = 5e-4
    rotation_lr: float = 5e-4
    opacity_lr: float = 5e-4
    color_lr: float = 5e-4
    sh1_lr: float = 2.5e-5
    xyz_offset_lr: float = 1e-3
    position_basis_lr: float = 1.6e-5
    gsparam_basis_lr: float = 1e-4
    sh1_basis_lr: float = 2.5e-6
    encoder_lr: float = 5e-4
    encoder_weight_decay: float = 1e-3
    lr_decay: LrDecay = field(default_factory=LrDecay)
    # numerics
    allow_tf32: bool = True
    detect_anomaly: bool = False


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Reads a subject's YAML over the defaults, then `key=value` overrides; validates the result.

    Raises ValueError with one line that names the file and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist; the ones that ship are in config/")
    try:
        user = OmegaConf.load(path)
    except Exception as error:  # any YAML error: OmegaConf passes several parsers' types through
        raise ValueError(f"{path}: not a readable YAML file ({_first_line(error)})") from error
    if not OmegaConf.is_dict(user):
        raise ValueError(f"{path}: expected `key: value` lines")
    for key in RETIRED & set(user):
        del user[key]
    return _merge([(str(path), user), ("command line", _dotlist(overrides or []))])


def change_config(config: Config, overrides: list[str], source: str) -> Config:
    """`key=value` overrides over settings that are there already, such as a trained model's; validated again.

    source: where `config` comes from, for messages.
    """
    return _merge([(source, OmegaConf.structured(config)), ("command line", _dotlist(overrides))])


def config_of_saved(settings: dict[str, Any]) -> Config:
    """The settings that a model was saved with, not validated. TypeError and OmegaConf's for what does not fit."""
    if not isinstance(settings, dict):
        raise TypeError(f"settings are a {type(settings).__name__}, not keys and values")
    kept = {key: value for key, value in settings.items() if key not in RETIRED}
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), kept))


def save_config(config: Config, path: Path) -> None:
    Path(path).write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def _dotlist(overrides: list[str]) -> Any:
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            raise ValueError(f"command line: '{item}' is not understood; settings are given as key=value")
    return OmegaConf.from_dotlist(overrides)


def _merge(layers: list[tuple[str, Any]]) -> Config:
    merged = OmegaConf.structured(Config)
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
            key = getattr(error, "full_key", None) or "?"
            raise ValueError(
                f"{source}: {key}: {_first_line(error)}; config/default.yaml lists every key"
            ) from error
    config = OmegaConf.to_object(merged)
    sources = {key: source for source, layer in layers for key in layer}  # the last one to say it
    validate(config, layers[0][0], sources)
    return config


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
    require(config.rasterizer in ("auto", "torch", "gsplat"), "rasterizer", "auto, torch or gsplat")


def _is_frame_range(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 2
        and all(type(frame) is int for frame in item)
        and 0 <= item[0] <= item[1]
    )
