"""A trained avatar rendered to files: a capture's test frames, scored and shown to a person, or an animation.

Data path: TrainedAvatar + CaptureDataset -> ImagePair (render beside ground truth) -> gt/, render/, mask/, scores.json,
contact_sheet.png; TrainedAvatar + PoseSequence + Shots -> render_sequence -> render/*.png, *.mp4, poses.json with how
far the poses are from training.
Shape letter: F poses.

Several processes share the pictures (shares.py); sheet and videos are then made of the files that they wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mmlphuman.animation.camera_path import Shot
from mmlphuman.animation.pose_bar import add_pose_bar
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.animation.render_sequence import Look, draw, render_sequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import Backend
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.drawing import SheetRow, contact_sheet
from mmlphuman.evaluation.image_folders import read_mask, read_picture
from mmlphuman.evaluation.metrics import FrameScore, ImagePair, score_picture
from mmlphuman.evaluation.score_table import ScoreTable
from mmlphuman.evaluation.shares import Scored, gathered, share_of, shown
from mmlphuman.files import atomic_write
from mmlphuman.measures.comparison import paint
from mmlphuman.measures.lpips import LPIPS
from mmlphuman.picture_files import IMAGE_KINDS, ImageWriter, VideoWriter, image_name, laid_on
from mmlphuman.processes import Ranks
from mmlphuman.types import Sample

SCORES, SHEET, POSES = "scores.json", "contact_sheet.png", "poses.json"
WHITE = (1.0, 1.0, 1.0)
SHEET_CELLS = 8
WORST_FRAMES = 5
MAX_PNG_THREADS = 8  # more wait for the disk


@torch.no_grad()
def render_sample(trained: TrainedAvatar, sample: Sample, look: Look) -> np.ndarray:
    """(H, W, 3) uint8 render of a sample with one view, or (H, W, 4) of a transparent look, on the CPU."""
    return draw(trained, sample.pose, [sample.cameras], look)[0].cpu().numpy()


def rendered_pictures(
    trained: TrainedAvatar,
    dataset: CaptureDataset,
    background: Sequence[float],
    project_pose: bool,
    backend: Backend,
    pairs: Sequence[tuple[int, int]] | None = None,
    cut_out: bool = False,
) -> Iterator[ImagePair]:
    """Every (frame, camera) of `dataset`, rendered; the ground truth on `background` outside its mask.

    background: RGB in [0, 1]; pairs: only these of the dataset's; cut_out: whether ImagePair has it.
    Works on the avatar's device.
    """
    device = trained.device
    color = torch.tensor(background, device=device)
    look = Look(color, backend, project_pose)
    alone = replace(look, transparent=True)
    for frame, camera in dataset.pairs if pairs is None else pairs:
        sample = dataset.sample(frame, (camera,)).to(device)
        truth = paint(sample.images.float() / 255, sample.masks, color)[0]
        yield ImagePair(
            camera=camera,
            frame=frame,
            ground_truth=backend.to_bytes(truth).cpu().numpy(),
            render=render_sample(trained, sample, look),
            mask=sample.masks[0].cpu().numpy(),
            cut_out=render_sample(trained, sample, alone) if cut_out else None,
        )


def render_capture(
    trained: TrainedAvatar,
    dataset: CaptureDataset,
    training_cameras: Sequence[int],
    out_dir: Path,
    *,
    background: list[float],
    backend: Backend,
    project_pose: bool = False,
    transparent: bool = False,
    title: str = "",
    lpips: LPIPS | None = None,
    ranks: Ranks | None = None,
    quiet: bool = False,
) -> ScoreTable | None:
    """Renders and scores every (frame, camera) of `dataset`; writes gt/, render/, mask/, scores.json and
    contact_sheet.png into `out_dir`. Of several ranks each renders its share, and rank 0 alone gets the table.

    transparent: render/ is written as RGBA with straight colour; scores and sheet are those on `background`.
    """
    ranks = ranks or Ranks(trained.device)
    pairs = share_of(dataset.pairs, ranks)
    pictures = rendered_pictures(trained, dataset, background, project_pose, backend, pairs, transparent)
    share = []
    with ImageWriter(out_dir) as writer:
        for picture in shown(pictures, len(pairs), "rendering", ranks, quiet):
            assert picture.mask is not None, "a capture has masks"
            render = picture.render if picture.cut_out is None else picture.cut_out
            kinds = (("gt", picture.ground_truth), ("render", render), ("mask", picture.mask))
            for kind, image in kinds:
                writer.write(_file_name(kind, picture), image)
            share.append(Scored(score_picture(picture, lpips, trained.device)))
    everybodys = gathered(share, ranks)
    if everybodys is None:
        return None
    scores = [scored.score for scored in everybodys]
    table = ScoreTable.of(scores, training_cameras)
    with atomic_write(out_dir / SCORES) as file:
        file.write(json.dumps(table.to_json(), indent=1).encode())
    spread = np.linspace(0, len(scores) - 1, min(SHEET_CELLS, len(scores))).round().astype(int)
    rows = [sheet_row(scores[index], out_dir, background) for index in spread]
    contact_sheet(rows, out_dir / SHEET, title, [table.summary()])
    return table


def files_of_capture(dataset: CaptureDataset) -> list[Path]:
    """All that `render_capture` writes."""
    return [
        Path(SCORES),
        Path(SHEET),
        *(image_name(kind, camera, frame) for kind in IMAGE_KINDS for frame, camera in dataset.pairs),
    ]


def _file_name(kind: str, picture: ImagePair | FrameScore) -> Path:
    assert isinstance(picture.camera, int) and isinstance(picture.frame, int), "a capture numbers both"
    return image_name(kind, picture.camera, picture.frame)


def sheet_row(score: FrameScore, out_dir: Path, background: Sequence[float]) -> SheetRow:
    """Of the files that `render_capture` wrote; background: of what is transparent."""
    truth, render, mask = (out_dir / _file_name(kind, score) for kind in IMAGE_KINDS)
    return SheetRow(score.label(), read_picture(truth), read_picture(render, background), read_mask(mask))


@dataclass(frozen=True)
class PoseDistances:
    """How far each pose of a sequence is from the nearest training pose."""

    source: str  # file of the poses
    frames: np.ndarray  # (F,) numbers in that file
    degrees: np.ndarray  # (F,) PoseSpace.distance

    def text(self) -> str:
        """Smallest, median and largest distance, and the worst frames."""
        worst = np.argsort(-self.degrees, kind="stable")[:WORST_FRAMES]
        lines = [
            "distance of the poses from training (degrees, root mean square over 21 joints):",
            "    min  median     max   worst frames",
            f"{self.degrees.min():7.1f} {np.median(self.degrees):7.1f} {self.degrees.max():7.1f}   "
            + ", ".join(f"{self.frames[index]} ({self.degrees[index]:.1f})" for index in worst),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict:
        return {
            "source": self.source,
            "degrees": {
                "min": float(self.degrees.min()),
                "median": float(np.median(self.degrees)),
                "max": float(self.degrees.max()),
            },
            "poses": [
                {"frame": int(frame), "distance": round(float(degrees), 4)}
                for frame, degrees in zip(self.frames, self.degrees, strict=True)
            ],
        }


@torch.no_grad()
def pose_distances(trained: TrainedAvatar, sequence: PoseSequence) -> PoseDistances:
    bodies = (sequence.pose(index).body.to(trained.device) for index in range(len(sequence.frames)))
    degrees = torch.stack([trained.pose_space.distance(body) for body in bodies])
    return PoseDistances(str(sequence.source), sequence.frames, degrees.cpu().numpy())


def render_animation(
    trained: TrainedAvatar,
    sequence: PoseSequence,
    shots: Sequence[Shot],
    out_dir: Path,
    look: Look,
    *,
    video_fps: float | None = None,
    show_distance: bool = False,
    ranks: Ranks | None = None,
    quiet: bool = False,
) -> PoseDistances:
    """Writes every picture (names: Shot.picture), poses.json and, with video_fps, a video of each shot.

    show_distance: puts the pose bar under the video's pictures. Transparent pictures are laid on white in videos.
    Files of the same names are replaced. The first picture or video that cannot be written stops all (OSError
    naming it); files that are there are whole. Of several ranks each draws its share of the poses; when all are
    written, each makes its share of the videos from the files.
    """
    ranks = ranks or Ranks(trained.device)
    distances = pose_distances(trained, sequence)
    film = Film(video_fps, show_distance, distances, out_dir)
    indices = share_of(range(len(sequence.frames)), ranks)
    threads = min(max((os.cpu_count() or 1) // ranks.world, 2), MAX_PNG_THREADS)
    with ExitStack() as stack:
        pictures = stack.enter_context(ImageWriter(out_dir, threads, max_waiting=2 * threads))
        at_once = film.wanted and ranks.world == 1
        videos = [stack.enter_context(film.video(shot)) for shot in shots] if at_once else []
        frames = render_sequence(trained, sequence, shots, look, indices=indices)
        for frame in shown(frames, len(indices) * len(shots), "rendering", ranks, quiet):
            pictures.write(shots[frame.shot].picture(sequence.frames[frame.index]), frame.image)
            if videos:
                videos[frame.shot].write(film.image(frame.image, frame.index))
    ranks.barrier()
    if film.wanted and not at_once:
        for shot in share_of(shots, ranks):
            film.from_files(shot)
    if ranks.first:
        with atomic_write(out_dir / POSES) as file:
            file.write(json.dumps(distances.to_json(), indent=1).encode())
    return distances


def files_of_animation(sequence: PoseSequence, shots: Sequence[Shot], video: bool) -> list[Path]:
    """All that `render_animation` writes."""
    pictures = [shot.picture(frame) for shot in shots for frame in sequence.frames]
    return [Path(POSES), *pictures, *(Path(shot.video) for shot in shots if video)]


@dataclass(frozen=True)
class Film:
    """How an animation's videos are made of its pictures."""

    fps: float | None  # None: no video is wanted
    show_distance: bool
    distances: PoseDistances
    folder: Path

    @property
    def wanted(self) -> bool:
        return self.fps is not None

    def video(self, shot: Shot) -> VideoWriter:
        assert self.fps is not None, "no video is wanted"
        return VideoWriter(self.folder / shot.video, self.fps)

    def image(self, picture: np.ndarray, index: int) -> np.ndarray:
        """A frame of the video from the picture of the sequence's pose `index`."""
        picture = laid_on(picture, WHITE)
        return add_pose_bar(picture, float(self.distances.degrees[index])) if self.show_distance else picture

    def from_files(self, shot: Shot) -> None:
        """Writes a shot's video from its pictures' files."""
        with self.video(shot) as video:
            for index, frame in enumerate(self.distances.frames):
                video.write(self.image(read_picture(self.folder / shot.picture(frame), WHITE), index))
