"""A study: which variants are trained on which subjects with which seeds, and what of them is scored.

Data path: study files (YAML, one over the other) and `key=value` -> Study -> a Run for each subject, variant and seed,
with the settings it is trained with and the parts of the capture it is scored on -> script/compare_variants.py.
config/study.yaml documents every key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmlphuman.capture.dataset import select_frames
from mmlphuman.config import Config, dotlist, load_config, read_yaml, unfit
from mmlphuman.evaluation.protocols import Part, training_views

STATIC = "static"  # the variant that others are compared with
CEILING = "ceiling"  # the row of make_demo's pictures of the true body
GIVEN = "none"  # the test mode of poses that the MLPs see as they are
TEST_MODES = ("clamp", "pca", GIVEN)  # what --test does to novel poses, or nothing
DOCUMENTED = "config/study.yaml shows every key"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # they become folders and columns


@dataclass
class PictureSet:
    """Pictures with a name, as the settings' `test` part selects them."""

    cam_ids: list[int]
    num_frame: int
    begin_ith_frame: int = 0
    frame_interval: int = 1


@dataclass
class Subject:
    sets: dict[str, PictureSet]
    data_dir: str | None = None
    smpl_path: str | None = None
    make_demo: str | None = None
    config: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Variant:
    config: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    test_mode: list[str] = field(default_factory=list)
    against: str = STATIC


@dataclass
class Study:
    seeds: list[int] = field(default_factory=lambda: [0])
    subjects: dict[str, Subject] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredPart:
    """A set's pictures, drawn once."""

    set: str
    test_mode: str  # GIVEN for poses that training saw
    part: Part

    @property
    def folder(self) -> str:
        return self.set if self.test_mode == GIVEN else f"{self.set}_{self.test_mode}"


@dataclass(frozen=True)
class Run:
    """One training, and what is scored of it."""

    subject: str
    variant: str
    seed: int
    config: Config
    data_dir: Path
    test_modes: tuple[str, ...]  # of novel poses
    parts: tuple[ScoredPart, ...]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.variant}/seed{self.seed}"

    @property
    def model_dir(self) -> Path:
        return self.folder / "model"


def load_study(paths: Sequence[Path], overrides: Sequence[str] = ()) -> Study:
    """Reads study files, each over the ones before, and `key=value` over all.

    ValueError, one line, naming the field.
    """
    merged: Any = OmegaConf.structured(Study)
    for source, layer in [
        *((str(path), _read(path)) for path in paths),
        ("command line", dotlist(overrides)),
    ]:
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise unfit(source, error, DOCUMENTED) from error
    named = " + ".join(map(str, paths)) or "command line"
    try:
        study = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise unfit(named, error, DOCUMENTED) from error
    assert isinstance(study, Study)
    try:
        _check(study)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from error
    return study


def select(
    study: Study,
    subjects: Sequence[str] | None,
    variants: Sequence[str] | None,
    seeds: Sequence[int] | None,
) -> Study:
    """Only these, in the study's order. None: all. ValueError for a name that the study does not have."""

    def chosen(kind: str, known: dict, names: Sequence[str] | None) -> dict:
        for name in names or ():
            if name not in known:
                raise ValueError(f"--{kind} {name}: the study has {', '.join(known)}")
        return {name: value for name, value in known.items() if names is None or name in names}

    picked = Study(
        list(study.seeds if seeds is None else dict.fromkeys(seeds)),
        chosen("subjects", study.subjects, subjects),
        chosen("variants", study.variants, variants),
    )
    if min(picked.seeds) < 0:
        raise ValueError(f"--seeds {min(picked.seeds)}: must be 0 or more")
    return picked


def capture_of(subject: Subject, name: str, out_dir: Path) -> tuple[Path, Path | None]:
    """(capture, body file) of a subject; the body file is None where the settings name it."""
    if subject.make_demo is None:
        assert subject.data_dir is not None, "_check sees to it"
        return Path(subject.data_dir), None if subject.smpl_path is None else Path(subject.smpl_path)
    data_dir = out_dir / name / "capture" if subject.data_dir is None else Path(subject.data_dir)
    beside = data_dir.parent / "SMPLX_NEUTRAL.npz"
    return data_dir, beside if subject.smpl_path is None else Path(subject.smpl_path)


def runs_of(study: Study, out_dir: Path) -> list[Run]:
    """Every run, seed by seed, so that a whole table is there early. ValueError for settings that do not fit."""
    return [
        make_run(study, subject, variant, seed, out_dir)
        for seed in study.seeds
        for subject in study.subjects
        for variant in study.variants
    ]


def make_run(study: Study, subject_name: str, variant_name: str, seed: int, out_dir: Path) -> Run:
    """The settings, later ones over earlier: the subject's files and settings, the variant's files and settings."""
    subject, variant = study.subjects[subject_name], study.variants[variant_name]
    data_dir, smpl_path = capture_of(subject, subject_name, out_dir)
    first = asdict(next(iter(subject.sets.values())))
    own: dict[str, Any] = {"seed": seed, "test": first}  # what training shows meanwhile
    if smpl_path is not None:
        own["smpl_pkl_path"] = str(smpl_path)
    config = load_config(
        [
            *map(Path, subject.config),
            (f"subjects.{subject_name}.settings", subject.settings),
            *map(Path, variant.config),
            (f"variants.{variant_name}.settings", variant.settings),
            ("study", own),
        ]
    )
    folder = out_dir / subject_name / variant_name / f"seed{seed}"
    modes = tuple(variant.test_mode or [config.novel_poses])
    parts = scored_parts(subject, subject_name, config, modes)
    return Run(subject_name, variant_name, seed, config, data_dir, modes, tuple(parts), folder)


def scored_parts(subject: Subject, name: str, config: Config, test_modes: Sequence[str]) -> list[ScoredPart]:
    """Sets of poses that training saw are drawn as they are, sets of novel ones in every test mode.

    ValueError for a set that mixes both.
    """
    trained = training_views(config, 0).frames
    parts = []
    for set_name, pictures in subject.sets.items():
        frames = select_frames(pictures.begin_ith_frame, pictures.num_frame, pictures.frame_interval)
        seen = sum(frame in trained for frame in frames)
        if 0 < seen < len(frames):
            raise ValueError(
                f"subjects.{name}.sets.{set_name}: {seen} of its {len(frames)} frames are training frames, the "
                "others are novel poses; make two sets of them"
            )
        for mode in [GIVEN] if seen else test_modes:
            part = Part(set_name, tuple(pictures.cam_ids), frames, project_pose=mode != GIVEN)
            parts.append(ScoredPart(set_name, mode, part))
    return parts


def _check(study: Study) -> None:
    for kind in ("seeds", "subjects", "variants"):
        if not getattr(study, kind):
            raise ValueError(f"{kind}: none is given; config/study.yaml shows how")
    if min(study.seeds) < 0 or len(set(study.seeds)) < len(study.seeds):
        raise ValueError(f"seeds: {study.seeds} is not allowed; they must be 0 or more, each once")
    for name in (*study.subjects, *study.variants, *(s for x in study.subjects.values() for s in x.sets)):
        if not NAME.fullmatch(name):
            raise ValueError(f"name {name!r}: only letters, digits, '_', '-' and '.' make a folder's name")
    for name, subject in study.subjects.items():
        _check_subject(f"subjects.{name}", subject)
    for name, variant in study.variants.items():
        _check_variant(study, name, variant)


def _check_subject(where: str, subject: Subject) -> None:
    if subject.data_dir is None and subject.make_demo is None:
        raise ValueError(
            f"{where}: give data_dir, a capture's folder, or make_demo, the options that make one"
        )
    for flag in ("--out_dir", "--smplx_path"):
        if flag in (subject.make_demo or ""):
            raise ValueError(f"{where}.make_demo: {flag} is not for it; set data_dir and smpl_path instead")
    if not subject.sets:
        raise ValueError(f"{where}.sets: none is given")
    for name, pictures in subject.sets.items():
        begin, count, interval = pictures.begin_ith_frame, pictures.num_frame, pictures.frame_interval
        if not pictures.cam_ids or begin < 0 or count < 1 or interval < 1:
            raise ValueError(
                f"{where}.sets.{name}: needs at least one of cam_ids, begin_ith_frame 0 or more, num_frame and "
                f"frame_interval at least 1; it has {asdict(pictures)}"
            )


def _check_variant(study: Study, name: str, variant: Variant) -> None:
    if name == CEILING:
        raise ValueError(f"variants.{name}: this is the name of the row of make_demo's --ceiling pictures")
    for mode in variant.test_mode:
        if mode not in TEST_MODES or variant.test_mode.count(mode) > 1:
            raise ValueError(
                f"variants.{name}.test_mode: {variant.test_mode} is not allowed; it must be a list of "
                f"{', '.join(TEST_MODES)}, each at most once"
            )
    if variant.against not in study.variants and variant.against != STATIC:
        raise ValueError(
            f"variants.{name}.against: {variant.against} is no variant; there are {', '.join(study.variants)}"
        )


def _read(path: Path) -> DictConfig:
    if not Path(path).is_file():
        raise ValueError(f"study file {path} does not exist; config/study.yaml is one")
    return read_yaml(path)
