"""Which pictures of a capture are scored, and how new they are to a model: the published protocols, or a config's.

Data path: name or Config -> Protocol -> CaptureDataset of each part -> scores.

A picture is a novel view if training did not use its camera, a novel pose if training did not use its frame. Poses
that are novel are brought into training's range before the MLPs see them (--test): clamped to it, or projected into
the space of the training poses as in the paper, whichever the model's settings say (novel_poses).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mmlphuman.capture.dataset import CaptureDataset, select_frames
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams
from mmlphuman.config import Config
from mmlphuman.text import ranges

WHITE = (1.0, 1.0, 1.0)
NOVEL_POSES, NOVEL_VIEWS, TEST_VIEWS = "novel poses", "novel views", "test views"


@dataclass(frozen=True)
class Part:
    """Every one of the frames in every one of the cameras."""

    name: str
    cameras: tuple[int, ...]
    frames: Sequence[int]
    project_pose: bool


@dataclass(frozen=True)
class TrainingViews:
    """Every one of the frames in every one of the cameras went into training."""

    cameras: frozenset[int]
    frames: frozenset[int]


@dataclass(frozen=True)
class Protocol:
    name: str
    source: str  # what is published of it, what is our reading
    parts: tuple[Part, ...]
    # What a model must have been trained on for its scores to be compared.
    training: TrainingViews | None = None
    image_scaling: float = 1.0
    background: Sequence[float] = field(default=WHITE)

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "source": self.source,
            "image_scaling": self.image_scaling,
            "background": list(self.background),
            "parts": [
                {
                    "name": part.name,
                    "cameras": list(part.cameras),
                    "frames": ranges(part.frames),
                    "poses_projected": part.project_pose,
                }
                for part in self.parts
            ],
        }


def subject00() -> Protocol:
    """THuman4.0 subject00. Published: training on every camera but 7, frames 0-1999; novel poses scored on frames
    2000-2499 in camera 18, a training camera; with --test, background white, full size."""
    return Protocol(
        name="subject00",
        source="published: cameras, frames and --test",
        parts=(Part(NOVEL_POSES, (18,), range(2000, 2500), project_pose=True),),
        training=TrainingViews(frozenset(range(24)) - {7}, frozenset(range(2000))),
    )


def zzr() -> Protocol:
    """AvatarReX avatarrex_zzr. Published: training on cameras 0-6, 8-12, 14, 15, frames 0-1999; cameras 7 and 13
    held out. Our reading: the held-out cameras are scored on all training frames (the capture has hardly any
    others), so their poses are left as they are."""
    return Protocol(
        name="zzr",
        source="published: cameras and training frames; our reading: scored on all the training frames",
        parts=(Part(NOVEL_VIEWS, (7, 13), range(2000), project_pose=False),),
        training=TrainingViews(frozenset(range(16)) - {7, 13}, frozenset(range(2000))),
    )


PROTOCOLS = {"subject00": subject00, "zzr": zzr}


def named_protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(
            f"--protocol {name} is not known; there are {', '.join(PROTOCOLS)}, and for any capture --config FILE"
        )
    return PROTOCOLS[name]()


def config_protocol(config: Config, name: str, training: TrainingViews) -> Protocol:
    """The `test` part of a config. Frames that training saw make one part, the others, novel poses, another with
    --test. On white, whatever the config's background."""
    test = config.test
    frames = select_frames(test.begin_ith_frame, test.num_frame, test.frame_interval)
    seen = [frame for frame in frames if frame in training.frames]
    novel = [frame for frame in frames if frame not in training.frames]
    cameras = tuple(test.cam_ids)
    views = NOVEL_VIEWS if training.cameras.isdisjoint(cameras) else TEST_VIEWS
    parts = [Part(views, cameras, seen, project_pose=False)] if seen else []
    parts += [Part(NOVEL_POSES, cameras, novel, project_pose=True)] if novel else []
    return Protocol(name, "the config's test part", tuple(parts), image_scaling=test.image_scaling)


def training_views(config: Config, cameras_of_capture: int) -> TrainingViews:
    """What a model was trained on, from the settings recorded in it. Frames skipped because they repeat a pose count
    as trained on."""
    cut = [range(first, last + 1) for first, last in config.skip_frames]
    frames = select_frames(config.begin_ith_frame, config.num_train_frame, config.frame_interval)
    return TrainingViews(
        frozenset(config.train_cam_ids or range(cameras_of_capture)),
        frozenset(frame for frame in frames if not any(frame in skipped for skipped in cut)),
    )


def part_dataset(part: Part, protocol: Protocol, layout: CaptureLayout, poses: SmplParams) -> CaptureDataset:
    """Raises ValueError where the capture does not have the cameras or frames."""
    try:
        return CaptureDataset(
            layout, poses, part.frames, part.cameras, protocol.image_scaling, edge_radius=0, in_memory=False
        )
    except ValueError as error:
        raise ValueError(f"{protocol.name}, {part.name}: {error}") from error


def novelty_notes(part: Part, pairs: Iterable[tuple[int, int]], training: TrainingViews) -> list[str]:
    """What has to be said beside a part's scores about what training saw.

    pairs: the scored (frame, camera). A line that begins with WARNING: scores that show less than their name says.
    """
    pairs = list(pairs)
    seen = {(True, True): [], (True, False): [], (False, True): []}  # (camera, frame) trained on -> pairs
    for frame, camera in pairs:
        kind = camera in training.cameras, frame in training.frames
        if any(kind):
            seen[kind].append((frame, camera))
    cameras = {kind: ranges({camera for _, camera in found}) for kind, found in seen.items()}
    frames = {kind: ranges({frame for frame, _ in found}) for kind, found in seen.items()}
    notes = []
    if seen[True, True]:
        notes.append(
            f"WARNING: {part.name}: {len(seen[True, True])} of {len(pairs)} images were trained on (camera "
            f"{cameras[True, True]}, frame {frames[True, True]}): neither novel views nor novel poses"
        )
    if seen[True, False]:
        mark = "WARNING: " if part.name == NOVEL_VIEWS else ""
        notes.append(
            f"{mark}{part.name}: training used camera {cameras[True, False]}: novel poses, not novel views"
        )
    if seen[False, True] and part.name != NOVEL_VIEWS:
        mark = "WARNING: " if part.name == NOVEL_POSES else ""
        notes.append(
            f"{mark}{part.name}: training used frame {frames[False, True]}: novel views, not novel poses"
        )
    return notes


def training_note(protocol: Protocol, training: TrainingViews) -> str | None:
    """What to say if a model was not trained as the protocol asks."""
    if protocol.training is None or protocol.training == training:
        return None
    asked = protocol.training
    return (
        f"WARNING: {protocol.name} trains on cameras {ranges(asked.cameras)}, frames {ranges(asked.frames)}, this "
        f"model on cameras {ranges(training.cameras)}, frames {ranges(training.frames)}: not comparable with others' "
        "scores"
    )
