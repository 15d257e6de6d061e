"""Checks a capture from its files to the body in its masks, and goes on after every fault.

Data path: capture folder, body file -> findings, measures, cells of the contact sheet. Only reads.

Stages: calibration, poses, body file, listing of the folders, sampled pictures, fit. A stage that fails is an error
row, and those that need it are left out, saying so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mmlphuman.body.smplx_model import Body, load_body, other_body
from mmlphuman.capture.formats import open_capture, what_of_videos
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.files import read_npz
from mmlphuman.pose_layout import LEFT_HAND_POSE, POSE_DIM, RIGHT_HAND_POSE
from mmlphuman.preparation.camera_diagnosis import Reading, diagnose
from mmlphuman.preparation.file_checks import (
    Sampled,
    camera_name,
    check_files,
    check_pictures,
    check_twin_cameras,
    frames_on_disk,
    survey_files,
)
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding
from mmlphuman.preparation.fit_checks import check_fit, suspicious_cameras
from mmlphuman.preparation.fit_measure import SurfacePoints, load_reduced_mask, measure_fit, spread_points
from mmlphuman.preparation.light_checks import check_light, load_photograph
from mmlphuman.preparation.misalignment import check_scale, check_shift, describe_late, late_cameras
from mmlphuman.preparation.pose_checks import check_face, check_poses, joint_steps
from mmlphuman.text import one_line

DIAGNOSED = 8  # suspicious cameras that are looked into, and pictures of each
DIAGNOSED_FRAMES = 3
LIT_FRAMES = 8  # whose light is compared
ALIGNED, ALIGNED_CAMERAS = 8, 3  # frames, and cameras of each, that are asked about what all cameras share


@dataclass(frozen=True)
class CaptureCheck:
    """All that was found; what a contact sheet needs is there as far as it could be read."""

    findings: list[Finding]
    samples: list[Sampled]
    layout: CaptureLayout | None
    params: SmplParams | None
    body: Body | None

    def measures(self) -> dict:
        """For the report: every sampled picture's numbers."""
        return {"fits": [asdict(sample.fit) for sample in self.samples if sample.fit]}


class _Stages:
    """Collects findings; a stage's expected exceptions become an error row and None."""

    def __init__(self):
        self.findings: list[Finding] = []

    def run(self, check: str, stage: Callable):
        try:
            return stage()
        except (ValueError, OSError) as error:
            self.findings.append(Finding(check, ERROR, one_line(error)))
            return None

    def skip(self, check: str, reason: str) -> None:
        self.findings.append(Finding(check, WARNING, f"not checked: {reason}"))


def check_capture(data_dir: Path, smpl_path: Path, frames: int, progress: bool = False) -> CaptureCheck:
    """frames: how many are sampled, evenly; 0 takes all. FileNotFoundError if there is no such folder, ValueError for
    one of videos."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"capture folder {data_dir} does not exist; give the right --data_dir")
    if videos := what_of_videos(data_dir):
        raise ValueError(videos)
    stages = _Stages()
    layout = stages.run("calibration", lambda: open_capture(data_dir))
    pose_path = layout.pose_path if layout else data_dir / "smpl_params.npz"
    params = stages.run("pose file", lambda: read_smpl_params(pose_path, model_file=smpl_path))
    betas = params.betas if params else np.zeros(10, np.float32)
    body = stages.run("body file", lambda: load_body(smpl_path, betas))
    if another := other_body(data_dir, smpl_path):
        stages.findings.append(Finding("body file", WARNING, another))
    if layout:
        stages.findings.append(check_twin_cameras(layout))
    if params:
        stages.findings.append(Finding("pose file", OK, params.told.removeprefix(f"poses of {pose_path}: ")))
        stages.findings += [*check_poses(params), check_face(pose_path)]
    if layout is None:
        stages.skip("pictures and fit", "they need the calibration")
        return CaptureCheck(stages.findings, [], None, params, body)

    frame_count = stages.run("folders", lambda: len(params) if params else frames_on_disk(layout))
    survey = stages.run("folders", lambda: survey_files(layout, frame_count)) if frame_count else None
    if survey is None:
        stages.skip("pictures and fit", "no frame was found")
        return CaptureCheck(stages.findings, [], layout, params, body)
    stages.findings += check_files(layout, survey)
    pairs = _sample_pairs(survey.pairs, frames)
    poser = None
    if params and body:
        poser = stages.run("body file", lambda: _Poser(params, body, read_mean_hands(smpl_path)))
    samples = _look_at(layout, pairs, poser, progress)
    stages.findings += check_pictures(layout, samples)
    fits = [sample.fit for sample in samples if sample.fit and not (sample.is_empty or sample.is_full)]
    if fits and poser and params:
        suspicious = suspicious_cameras(fits)
        diagnoses = _diagnose(layout, samples, suspicious, poser)
        shared, late = _check_alignment(layout, params, samples, suspicious, diagnoses, poser)
        stages.findings += check_fit(layout, fits, diagnoses, late)
        stages.findings += shared or [describe_late(layout, late)]
        stages.findings += stages.run("light", lambda: _check_light(layout, samples, poser)) or []
    else:
        stages.skip("body inside masks", "it needs poses, body file and pictures with masks")
    return CaptureCheck(stages.findings, samples, layout, params, body)


def read_mean_hands(smpl_path: Path) -> np.ndarray | None:
    """(165,) what flat_hand_mean=False would add to a pose; None if the file does not have it."""
    parts = {"hands_meanl": LEFT_HAND_POSE, "hands_meanr": RIGHT_HAND_POSE}
    arrays = read_npz(smpl_path, (), optional=tuple(parts))
    if any(key not in arrays or arrays[key].shape != (45,) for key in parts):
        return None
    mean = np.zeros(POSE_DIM, np.float32)
    for key, where in parts.items():
        mean[where] = arrays[key]
    return mean


class _Poser:
    """Posed surface points of a frame, with the hands as given and with the mean hand added."""

    def __init__(self, params: SmplParams, body: Body, mean_hands: np.ndarray | None):
        self._params = params
        self._mean_hands = None if mean_hands is None else torch.from_numpy(mean_hands)
        self.surface: SurfacePoints = spread_points(body)

    def points(self, frame: int) -> np.ndarray:
        pose = self._params.pose(frame)
        return self.surface.posed(pose.joints, pose.translation.numpy())

    def mean_hand_points(self, frame: int) -> np.ndarray | None:
        if self._mean_hands is None:
            return None
        pose = self._params.pose(frame)
        return self.surface.posed(pose.joints + self._mean_hands, pose.translation.numpy())


def _sample_pairs(present: np.ndarray, count: int) -> list[tuple[int, int]]:
    """(frame, camera) of evenly spread frames, all their cameras. present: (C, F) bool."""
    frames = np.flatnonzero(present.any(0))
    if 0 < count < len(frames):
        frames = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return [(int(frame), int(camera)) for frame in frames for camera in np.flatnonzero(present[:, frame])]


def _look_at(
    layout: CaptureLayout, pairs: Sequence[tuple[int, int]], poser: _Poser | None, progress: bool
) -> list[Sampled]:
    """Read and measure every pair; a frame is posed once."""
    cameras_of: dict[int, list[int]] = {}
    for frame, camera in pairs:
        cameras_of.setdefault(frame, []).append(camera)
    samples = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(pairs), desc="looking at pictures", disable=None if progress else True) as bar,
    ):
        for frame, cameras in cameras_of.items():
            points = poser and (poser.points(frame), poser.mean_hand_points(frame), poser.surface.hands)

            def look(camera: int, frame: int = frame, points=points) -> Sampled:
                try:
                    view = load_reduced_mask(layout, frame, camera)
                except (ValueError, OSError) as error:
                    return Sampled(frame, camera, error)
                return Sampled.of(view, measure_fit(view, *points) if points else None)

            samples += pool.map(look, cameras)
            bar.update(len(cameras))
    return samples


def _check_alignment(
    layout: CaptureLayout,
    params: SmplParams,
    samples: Sequence[Sampled],
    suspicious: Sequence[int],
    diagnoses: Mapping[int, str],
    poser: _Poser,
) -> tuple[list[Finding], dict[int, tuple[float, float, float]]]:
    """What all cameras may have in common: another unit, or pictures and poses that are numbered differently; and if it
    is neither, the cameras that alone are late."""
    usable = [s for s in samples if s.fit and not (s.is_empty or s.is_full)]
    if {s.camera for s in usable} <= set(suspicious):
        chosen = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, ALIGNED).round().astype(int))]
        views = [load_reduced_mask(layout, sample.frame, sample.camera) for sample in chosen]
        found = check_scale(views, [poser.points(view.frame) for view in views])
        if found is not None:
            return [found], {}
        suspicious = ()  # all cameras see poses of other frames, maybe
    # The frames with most movement tell most.
    motion = np.r_[joint_steps(params.poses).sum(1), 0] if len(params) > 1 else np.zeros(1)
    moving = sorted({s.frame for s in usable}, key=lambda frame: -motion[frame])[:ALIGNED]
    views = {
        (s.frame, s.camera): load_reduced_mask(layout, s.frame, s.camera)
        for s in usable
        if s.frame in moving and s.camera not in diagnoses
    }
    few = []
    for frame in moving:
        of_frame = [s for s in usable if s.frame == frame and s.camera not in suspicious]
        of_frame.sort(key=lambda sample: -sample.fit.in_view if sample.fit else 0.0)
        few += [views[frame, s.camera] for s in of_frame[:ALIGNED_CAMERAS] if (frame, s.camera) in views]
    posed: dict[int, np.ndarray] = {}

    def points_of(frame: int) -> np.ndarray:
        if frame not in posed:
            posed[frame] = poser.points(frame)
        return posed[frame]

    found = check_shift(few, points_of, len(params))
    if found is not None:
        return [found], {}
    return [], late_cameras(list(views.values()), points_of, len(params))


def _check_light(layout: CaptureLayout, samples: Sequence[Sampled], poser: _Poser) -> list[Finding]:
    """Of a few frames, all their cameras."""
    usable = [s for s in samples if s.fit and not (s.is_empty or s.is_full)]
    frames = sorted({s.frame for s in usable})
    frames = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, LIT_FRAMES).round().astype(int))]
    photographs = [load_photograph(layout, s.frame, s.camera) for s in usable if s.frame in frames]
    return check_light(layout, photographs, {frame: poser.points(frame) for frame in frames})


def _diagnose(
    layout: CaptureLayout, samples: Sequence[Sampled], suspicious: Sequence[int], poser: _Poser
) -> dict[int, str]:
    """What may be wrong with the worst of the suspicious cameras."""
    texts = {}
    for camera in suspicious[:DIAGNOSED]:
        usable = [s.frame for s in samples if s.camera == camera and s.fit and not (s.is_empty or s.is_full)]
        chosen = [usable[i] for i in np.linspace(0, len(usable) - 1, DIAGNOSED_FRAMES).round().astype(int)]
        views = [load_reduced_mask(layout, frame, camera) for frame in dict.fromkeys(chosen)]
        points = [poser.points(view.frame) for view in views]
        scale = np.diag([*(np.array(views[0].size) / _full_size(layout, camera, views[0])), 1.0])
        others = [
            (camera_name(layout, other), Reading(entry.w2c, scale @ entry.K, views[0].size))
            for other, entry in enumerate(layout.cameras)
            if other != camera
        ]
        text = diagnose(views, points, others)
        if text:
            texts[camera] = text
    return texts


def _full_size(layout: CaptureLayout, camera: int, view) -> np.ndarray:
    """(width, height) of the files, from how much the view's K was scaled."""
    K = layout.cameras[camera].K
    return np.array(view.size) * [K[0, 0] / view.K[0, 0], K[1, 1] / view.K[1, 1]]
