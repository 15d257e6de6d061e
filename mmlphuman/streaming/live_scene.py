"""LiveScene: draws what viewers ask for, with a finished avatar or with one in training; Answers: delivers it.

Data path: Job of the server -> RenderRequest -> Pose -> Avatar -> posed Gaussians -> Drawing, part by part -> picture
in the computer's memory -> the server, which encodes and sends it; or another Request -> its answer.

A part takes about PART_SECONDS, whatever the picture: then it is another viewer's turn.
Drawing changes nothing of the avatar and draws no random numbers: a training run goes on as if it had not been.
Shape letters: F training frames, H, W image height and width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmlphuman.animation.camera_file import (
    CameraView,
    camera_from_json,
    camera_list,
    camera_list_of,
    cameras_of_list,
)
from mmlphuman.animation.hands import hand_pose
from mmlphuman.animation.pose_file import UP_ROTATIONS
from mmlphuman.animation.render_sequence import to_cameras
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import Backend
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.model_folder import training_frames
from mmlphuman.pose_layout import BODY_POSE, EXPRESSION_DIM, HANDS_POSE, JAW_POSE, POSE_DIM
from mmlphuman.streaming.handover import Job
from mmlphuman.streaming.messages import (
    MAX_NAME,
    MAX_SIDE,
    Answer,
    CameraEntry,
    PathQuestion,
    PhotographRequest,
    PointAnswer,
    PointQuestion,
    PoseAnswer,
    PoseQuestion,
    PoseRequest,
    RenderRequest,
    Request,
    Welcome,
)
from mmlphuman.streaming.photographs import Photographs
from mmlphuman.streaming.questions import answer_path, floor_height, pixel_view, surface_point, turned
from mmlphuman.streaming.render_modes import PosedView, ShownPicture, show_mode
from mmlphuman.streaming.server import ViewerServer
from mmlphuman.types import Pose, PosedGaussians

if TYPE_CHECKING:
    from mmlphuman.training.loop import Trainer

AXES = "xyz"
MOST_CPU_PIXELS = 2048 * 2048  # a close-up of so many takes seconds of two cores
PART_SECONDS = 0.2  # of drawing, before other viewers have their turn
MIN_PART_PIXELS = 64 * 64  # fewer are not worth a turn
FIRST_LOAD_SECONDS = (
    4e-6  # a guess, rather too long, for one unit of Picture.loads, until there is a measurement
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """A picture and what a Frame tells about it."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, nobody else's
    iteration: int
    gaussians: int
    distance: float  # degrees from the nearest training pose
    render_ms: float  # that went into it, other viewers' turns left out


@dataclass(frozen=True)
class _Posed:
    """The avatar in one pose, at one iteration of its training."""

    key: tuple
    pose: Pose  # on the avatar's device
    gaussians: PosedGaussians
    distance: Tensor  # () degrees


class Pace:
    """How many rows of a picture are drawn in one part, by the time that parts took."""

    def __init__(self, seconds: float = PART_SECONDS):
        self.seconds = seconds
        self._load_seconds = FIRST_LOAD_SECONDS

    def rows(self, loads: Sequence[int], least: int) -> int:
        """How many of these rows, of which each has its load: as many as fit into the time, but `least`, if there are
        so many."""
        allowed, count = self.seconds / self._load_seconds, 0
        for load in loads:
            allowed -= load
            if allowed < 0 and count >= least:
                break
            count += 1
        return count

    def note(self, load: int, seconds: float) -> None:
        """A part of this load took so long. What is slower than thought counts at once; a moment's hiccup passes."""
        latest = seconds / max(load, 1)
        self._load_seconds = max(latest, (self._load_seconds + latest) / 2)


@dataclass
class Drawing:
    """A picture in the making, from top to bottom."""

    shown: ShownPicture
    backend: Backend
    pace: Pace
    iteration: int
    gaussians: int
    distance: Tensor  # () degrees
    seconds: float  # that it took so far
    strips: list[np.ndarray] = field(default_factory=list)  # (H, W, 3) uint8
    row: int = 0  # of shown.picture, the next to draw

    @torch.no_grad()
    def advance(self) -> Drawn | None:
        """Draws the next part; None: there are more."""
        began = time.perf_counter()
        picture, top = self.shown.picture, self.row
        least = -(-MIN_PART_PIXELS // (picture.width * picture.row_height))
        self.row += self.pace.rows(picture.loads[top:], least)
        self.strips.append(_to_host(self.backend.to_bytes(self.shown.draw(top, self.row))))
        took = time.perf_counter() - began
        self.pace.note(sum(picture.loads[top : self.row]), took)
        self.seconds += took
        if self.row < len(picture.loads):
            return None
        image = self.strips[0] if len(self.strips) == 1 else np.concatenate(self.strips)
        return Drawn(image, self.iteration, self.gaussians, float(self.distance), 1000 * self.seconds)


class LiveScene:
    def __init__(
        self,
        trained: TrainedAvatar,
        backend: Backend,
        poses: np.ndarray,  # (F, 165) of the training frames
        translations: np.ndarray,  # (F, 3) metres
        frames: Collection[int],  # (F,) their numbers in the capture
        cameras: Mapping[int, CameraView],  # the capture's, by id
        title: str,
        expressions: np.ndarray | None = None,  # (F, 10) of the training frames; None: no frame has any
        held_out: Collection[int] = (),  # ids of the cameras that training does not see
        # Of a run that refines poses: position of a training frame -> its joints (165,) and translation (3,) of now.
        refined: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None,
        photographs: Photographs | None = None,
    ):
        self.trained = trained  # a run in progress puts the avatar of now here before each picture
        self.backend, self.title = backend, title
        self.poses, self.translations = np.asarray(poses), np.asarray(translations)
        none = np.zeros((len(self.poses), EXPRESSION_DIM))
        self.expressions = none if expressions is None else np.asarray(expressions)
        self.frames, self.cameras = tuple(int(frame) for frame in frames), dict(cameras)
        self.held_out, self.refined = frozenset(held_out), refined
        root = trained.avatar.joints[0].cpu().numpy()
        # Mean of the posed root joint, which turns about itself.
        self.center = root + self.translations.mean(0)
        self.photographs = photographs
        self.up = world_up(self.cameras.values())
        self.floor = floor_height(trained.avatar, self.poses, self.translations, self.up)
        self.rest_rotation = _standing(self.up)
        self.rest_translation = self.center - self.rest_rotation @ root
        # The last pose drawn, the one thing that is kept from picture to picture: while only the camera (or the
        # way to show it) changes, the avatar is not posed again.
        self.posed: _Posed | None = None
        self.pace = Pace()

    def welcome(self, training: bool) -> Welcome:
        def held_out_last(id: int) -> tuple[bool, int]:  # a viewer begins with the first
            return id in self.held_out, id

        return Welcome(
            title=self.title,
            gaussians=len(self.trained.avatar.xyz),
            training=training,
            cameras=tuple(
                CameraEntry(id, _sendable(self.cameras[id]), trained=id not in self.held_out)
                for id in sorted(self.cameras, key=held_out_last)
            ),
            frames=self.frames,
            center=tuple(self.center.tolist()),
            floor=self.floor,
            up=tuple(self.up.tolist()),
            photographs=self.photographs is not None,
            light=self.trained.avatar.light is not None,
        )

    def serve(self, request: Request) -> Drawn | Answer:
        """What is asked for, whole. ValueError, one line, if it cannot be."""
        if isinstance(request, RenderRequest):
            return self.draw(request)
        if isinstance(request, PhotographRequest):
            return self._photograph(request)
        if isinstance(request, PointQuestion):
            return self._point(request)
        if isinstance(request, PathQuestion):
            return answer_path(request, self.center)
        return self._numbers(request)

    def draw(self, request: RenderRequest) -> Drawn:
        """The whole picture at once. ValueError: see `begin`."""
        drawing = self.begin(request)
        while (drawn := drawing.advance()) is None:
            pass
        return drawn

    @torch.no_grad()
    def begin(self, request: RenderRequest) -> Drawing:
        """ValueError, one line, for a training frame that does not exist, and for a picture too large for a CPU."""
        began = time.perf_counter()
        device, camera = self.trained.device, request.camera
        if device.type == "cpu" and camera.width * camera.height > MOST_CPU_PIXELS:
            raise ValueError(
                f"{camera.width} x {camera.height} pixels are too many to be drawn live without a GPU; "
                f"{MOST_CPU_PIXELS:,} are possible"
            )
        posed = self._pose_avatar(self.pose(request.pose), request.project)
        gaussians = posed.gaussians if request.light else posed.gaussians.without_light()
        if request.gaussian_scale != 1:
            gaussians = replace(gaussians, covariances=gaussians.covariances * request.gaussian_scale**2)
        return Drawing(
            shown=show_mode(request.show, self._view(posed, gaussians, camera, request.background)),
            backend=self.backend,
            pace=self.pace,
            iteration=self.trained.iteration,
            gaussians=len(gaussians),
            distance=posed.distance,
            seconds=time.perf_counter() - began,
        )

    def _view(
        self,
        posed: _Posed,
        gaussians: PosedGaussians,
        camera: CameraView,
        background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> PosedView:
        device = self.trained.device
        return PosedView(
            trained=self.trained,
            pose=posed.pose,
            gaussians=gaussians,
            cameras=to_cameras(camera, device),
            background=torch.tensor(background, dtype=torch.float32, device=device),
            backend=self.backend,
        )

    def _photograph(self, request: PhotographRequest) -> Drawn:
        began = time.perf_counter()
        if self.photographs is None:
            raise ValueError("there are no photographs here; visualize.py shows them with --data_dir CAPTURE")
        self._check_frame(request.frame)
        image = self.photographs.read(request.camera_id, self.frames[request.frame], request.camera)
        milliseconds = 1000 * (time.perf_counter() - began)
        return Drawn(image, self.trained.iteration, len(self.trained.avatar.xyz), 0.0, milliseconds)

    @torch.no_grad()
    def _point(self, question: PointQuestion) -> PointAnswer:
        posed = self._pose_avatar(self.pose(question.pose), question.project)
        camera = pixel_view(question.camera, question.column, question.row)
        point = surface_point(self._view(posed, posed.gaussians, camera))
        return PointAnswer(question.id, None if point is None else tuple(point.tolist()))

    def _numbers(self, question: PoseQuestion) -> PoseAnswer:
        pose = self.pose(question.pose)
        joints, expression, rotation, translation = (
            tensor.double().numpy()
            for tensor in (pose.joints, pose.expression, pose.rotation, pose.translation)
        )
        given = PoseRequest(
            kind="given",
            joints=joints,
            expression=expression,
            translation=rotation.T @ translation,
            rotation=rotation,
        )
        return PoseAnswer(question.id, given)

    def pose(self, request: PoseRequest) -> Pose:
        """The pose that is meant, on the CPU.

        T-pose and canonical pose stand upright where the training poses are in the mean, so that a camera that
        looks at the person finds them. ValueError for a training frame that does not exist.
        """
        rotation, expression = np.eye(3), np.zeros(EXPRESSION_DIM)
        if request.kind == "training":
            joints, translation, expression = self._training_frame(request.frame)
        elif request.kind == "given":
            joints, rotation = request.joints, request.rotation
            assert rotation is not None and request.translation is not None  # see PoseRequest
            translation = rotation @ request.translation
            if self.trained.config.face and request.expression is not None:
                expression = request.expression
        else:
            joints = canonical_pose().numpy() if request.kind == "big" else np.zeros(POSE_DIM)
            rotation, translation = self.rest_rotation, self.rest_translation
        joints = np.array(joints, np.float32)
        if request.hands != "file":
            joints[HANDS_POSE] = hand_pose(request.hands)
        if request.turns:
            joints = turned(joints, request.turns)
        if not self.trained.config.face:
            joints[JAW_POSE] = 0
        if not request.use_translation:
            translation = np.zeros(3)
        return Pose(
            joints=torch.from_numpy(joints),
            translation=torch.from_numpy(np.array(translation, np.float32)),
            rotation=torch.from_numpy(np.array(rotation, np.float32)),
            expression=torch.from_numpy(np.array(expression, np.float32)),
        )

    def _training_frame(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints, translation, expression."""
        self._check_frame(position)
        pose = self.poses[position], self.translations[position]
        joints, translation = pose if self.refined is None else self.refined(position)
        return joints, translation, self.expressions[position]

    def _check_frame(self, position: int) -> None:
        if not 0 <= position < len(self.poses):
            raise ValueError(
                f"frame: position {position} does not exist; there are {len(self.poses)} training frames, "
                f"0 to {len(self.poses) - 1}"
            )

    def _pose_avatar(self, pose: Pose, project: bool) -> _Posed:
        numbers = (pose.joints, pose.translation, pose.rotation, pose.expression)
        key = (*(tensor.numpy().tobytes() for tensor in numbers), project, self.trained.iteration)
        if self.posed is None or self.posed.key != key:
            self.posed = None  # its memory serves the new one
            gaussians = self.trained.pose(pose, project)
            pose = pose.to(self.trained.device, non_blocking=True)
            self.posed = _Posed(key, pose, gaussians, self.trained.pose_space.distance(pose.body))
        return self.posed


class Answers:
    """What becomes of a request: a picture, an answer, or a Problem for who asked. The program goes on either way."""

    def __init__(self, server: ViewerServer, scene: LiveScene):
        self.server, self.scene = server, scene
        self._logged: set[type] = set()

    def answer(self, job: Job) -> None:
        """Draws a part; delivers the picture, or puts the job back. Nothing but KeyboardInterrupt and its like comes
        out of here."""
        try:
            drawn = self._advance(job)
        except ValueError as error:  # what was asked for cannot be: one line for who asked
            self.server.problem(job, str(error))
        except Exception as error:  # a fault of ours, or no memory left for so large a picture
            self.log_once(error)
            self.server.problem(
                job, f"the picture could not be drawn: {type(error).__name__}; the program's log says more"
            )
        else:
            if drawn is None:
                self.server.put_back(job)
            elif isinstance(drawn, Drawn):
                facts = drawn.iteration, drawn.gaussians, drawn.distance, drawn.render_ms
                self.server.deliver(job, drawn.image, *facts)
            else:
                self.server.reply(job, drawn)

    def _advance(self, job: Job) -> Drawn | Answer | None:
        """An answer, or a picture's next part; None: there are more."""
        if not isinstance(job.request, RenderRequest):
            return self.scene.serve(job.request)
        if job.drawing is None:
            job.drawing = self.scene.begin(job.request)
        drawn = job.drawing.advance()
        if drawn is not None:
            job.drawing = None  # its memory is needed for the next
        return drawn

    def log_once(self, error: Exception) -> None:
        """The first of every kind of exception, with where it came from."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.warning("live viewer: %s; the run goes on", error, exc_info=error)


# --- scenes of what there is -------------------------------------------------------------------------------


def scene_of_model(
    path: Path, trained: TrainedAvatar, backend: Backend, photographs: Photographs | None = None
) -> LiveScene:
    """A finished avatar that `load_model(path)` gave. Where nothing tells training's frames (a bare checkpoint, a
    compact file of former versions) the body poses of the pose space, at the origin, stand for them, and cameras, which
    would not look there, are left out, and photographs with them. Raises ValueError for damaged files, and for
    photographs of another capture."""
    frames = training_frames(path, trained.config)
    if frames is None:
        poses = trained.pose_space.training_poses.cpu().numpy().copy()
        poses[:, : BODY_POSE.start] = 0
        joints, expressions = poses[:, :POSE_DIM], poses[:, POSE_DIM:]
        still = np.zeros((len(poses), 3))
        return LiveScene(trained, backend, joints, still, range(len(poses)), {}, title_of(path), expressions)
    content = camera_list_of(path)
    cameras, seen = (
        {} if content is None else cameras_of_list(content, str(path), trained_only)
        for trained_only in (False, True)
    )
    if photographs is not None:
        photographs.check_cameras(cameras)
    return LiveScene(
        trained,
        backend,
        frames.poses,
        frames.translations,
        frames.frames,
        cameras,
        title_of(path),
        frames.expressions,
        held_out=cameras.keys() - seen.keys(),
        photographs=photographs,
    )


def scene_of_run(trainer: Trainer, title: str) -> LiveScene:
    """A run in progress: the trainer's own avatar and the capture that it holds."""
    dataset = trainer.scene.training
    frames, entries = dataset.seen_frames, camera_list(dataset)
    return LiveScene(
        trainer.trained().to(trainer.device),  # its pose space, which training itself does not need there
        trainer.backend,
        dataset.poses.poses[frames],
        dataset.poses.translations[frames],
        frames,
        {entry["id"]: camera_from_json(entry, f"camera {entry['id']}") for entry in entries},
        title,
        dataset.poses.expressions_of(frames),
        held_out=[entry["id"] for entry in entries if not entry["trained"]],
        refined=trainer.refinement.poses.of_now if trainer.refinement.poses is not None else None,
        photographs=Photographs(dataset.layout),
    )


def title_of(path: Path) -> str:
    """The end of a model's path, for people."""
    return "/".join(path.resolve().parts[-2:])[-MAX_NAME:]


# --- details -----------------------------------------------------------------------------------------------


def world_up(cameras: Collection[CameraView]) -> np.ndarray:
    """(3,) the world's axis, with its sign, that the cameras' upper edges point to in the mean; +y without any."""
    mean = -np.sum([view.w2c[1, :3] for view in cameras], axis=0) if cameras else np.array([0.0, 1.0, 0.0])
    up = np.zeros(3)
    axis = np.abs(mean).argmax()
    up[axis] = 1.0 if mean[axis] >= 0 else -1.0
    return up


def _standing(up: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation that stands a body, whose own head is at +y, up in the world."""
    axis = np.abs(up).argmax()
    name = AXES[axis] if up[axis] > 0 else f"-{AXES[axis]}"
    return np.array(UP_ROTATIONS[name], float).T


def _sendable(view: CameraView) -> CameraView:
    """The same view as a picture that the protocol lets a viewer ask for."""
    shrink = min(1.0, MAX_SIDE / max(view.width, view.height))
    return CameraView(
        view.w2c, view.fovx, max(int(view.width * shrink), 1), max(int(view.height * shrink), 1)
    )


def _to_host(image: Tensor) -> np.ndarray:
    """One copy; from a GPU to pinned memory, which is the fastest."""
    if image.device.type != "cuda":
        return image.numpy()
    host = torch.empty(image.shape, dtype=image.dtype, pin_memory=True)
    host.copy_(image, non_blocking=True)
    torch.cuda.current_stream(image.device).synchronize()
    return host.numpy()
