"""Everything that the window shows and the user can set, and the request that follows from it. No window, no network.

Data path: mouse, keys and controls -> ViewerState -> build_request -> RenderRequest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import DEFAULT_FPS, PoseSequence
from mmlphuman.streaming.messages import (
    MAX_SCALE,
    MAX_SIDE,
    MIN_SCALE,
    PoseRequest,
    RenderRequest,
    Welcome,
)
from mmlphuman.streaming.protocol import encode
from viewer.orbit_camera import OrbitCamera

MIN_SIDE = 16  # pixels; a window folded away still asks for something
MOVING_SECONDS = 0.3  # after the last touch the picture is asked for in its full resolution again
MAX_RATE = 30.0  # pictures a second asked for during training, at most


@dataclass
class ViewerState:
    """Numbers are in the units of RenderRequest."""

    # What is served.
    welcome: Welcome | None = None

    # Camera.
    camera: OrbitCamera = field(default_factory=OrbitCamera)
    camera_position: int = 0  # among welcome.cameras: the one jumped to last

    # Pose: `kind` and `hands` as in PoseRequest.
    kind: str = "training"
    frame: int = 0  # position among the training frames
    sequence: PoseSequence | None = None  # of the pose file; its poses are sent as kind "given"
    sequence_frame: int = 0  # position in it
    use_translation: bool = True
    hands: str = "file"
    project: bool = False  # test mode

    # Playing, of training frames or of the pose file.
    playing: bool = False
    speed: float = 1.0

    # Picture.
    show: str = "color"
    light: bool = True  # of the scene, where the avatar has one
    # Neither white nor black, in which clothes would lose their outline.
    background: tuple[float, float, float] = (200 / 255, 204 / 255, 210 / 255)
    gaussian_scale: float = 1.0
    quality: int = 85
    panel: tuple[int, int] = (640, 480)  # width and height of the place for the picture, pixels
    resolution: float = 1.0  # share of the panel's width and height
    # While the view moves or poses play; None: as large as comes quickly, `quick_share` of the side.
    moving_resolution: float | None = None
    quick_share: float = 1.0
    # Lines over the picture.
    grid: bool = True
    axes: bool = False
    cameras: bool = False
    rate: float = 10.0  # pictures a second while training

    # --- what is there -----------------------------------------------------------------------------------

    def frame_count(self) -> int:
        """Frames that the present kind of pose has."""
        if self.kind == "training":
            return len(self.welcome.frames) if self.welcome else 0
        if self.kind == "given":
            return len(self.sequence) if self.sequence else 0
        return 0

    def position(self) -> int:
        """The frame shown, among `frame_count`."""
        return self.sequence_frame if self.kind == "given" else self.frame

    def fps(self) -> float:
        """Frames a second at which the present poses were taken."""
        return self.sequence.playback_fps if self.kind == "given" and self.sequence else DEFAULT_FPS

    def has_light(self) -> bool:
        return self.welcome is not None and self.welcome.light

    # --- changes -----------------------------------------------------------------------------------------

    def take_welcome(self, welcome: Welcome) -> None:
        """Another scene starts with its first camera and frame; the same one, after a pause, stays as it was."""
        known, self.welcome = self.welcome, welcome
        if known is None or _scene(known) != _scene(welcome):
            self.reset_view()
            self.frame = 0
            if self.kind == "training" and not welcome.frames:
                self.kind = "big"
        self.frame = min(self.frame, max(len(welcome.frames) - 1, 0))
        self.camera_position = min(self.camera_position, max(len(welcome.cameras) - 1, 0))

    def reset_view(self) -> None:
        """The capture's first camera, or from the front where there are none."""
        self.camera_position = 0
        if self.welcome is None or not self.welcome.cameras:
            center, up = self._pivot()
            self.camera = OrbitCamera(center=center, up=up)
        else:
            self.take_view(self.welcome.cameras[0].camera)

    def jump_to_camera(self, position: int) -> None:
        """To the capture's camera at this position; beyond the ends it goes round."""
        if self.welcome is not None and self.welcome.cameras:
            self.camera_position = position % len(self.welcome.cameras)
            self.take_view(self.welcome.cameras[self.camera_position].camera)

    def take_view(self, view: CameraView) -> None:
        self.camera = OrbitCamera.from_view(view, *self._pivot())

    def set_position(self, position: int) -> None:
        """Goes to a frame of the present poses; beyond the ends it goes round."""
        count = self.frame_count()
        if count and self.kind == "given":
            self.sequence_frame = position % count
        elif count:
            self.frame = position % count

    def take_sequence(self, sequence: PoseSequence) -> None:
        """Shows a pose file that was read; the frame stays, if it has as many (the same file, read otherwise)."""
        self.sequence, self.kind = sequence, "given"
        self.sequence_frame = min(self.sequence_frame, len(sequence) - 1)

    def _pivot(self) -> tuple[np.ndarray, np.ndarray]:
        if self.welcome is None:
            return OrbitCamera().center, OrbitCamera().up
        return np.array(self.welcome.center), np.array(self.welcome.up)


def _scene(welcome: Welcome) -> tuple:
    """What tells one scene from another."""
    return (
        welcome.title,
        welcome.center,
        welcome.up,
        tuple(entry.id for entry in welcome.cameras),
        welcome.frames,
    )


# --- requests --------------------------------------------------------------------------------------------


def picture_size(state: ViewerState, moving: bool = False) -> tuple[int, int]:
    """Width and height to ask for, pixels: the panel's shape, within what the protocol allows."""
    width, height = state.panel
    share = state.resolution
    if moving:
        quick = state.quick_share if state.moving_resolution is None else state.moving_resolution
        share = min(share, quick)
    share = min(share, MAX_SIDE / max(width, height, 1))
    return max(round(width * share), MIN_SIDE), max(round(height * share), MIN_SIDE)


def build_pose(state: ViewerState) -> PoseRequest:
    options = {"use_translation": state.use_translation, "hands": state.hands}
    if state.kind == "given" and state.sequence is not None:
        sequence, index = state.sequence, state.sequence_frame
        rotation, translation = sequence.placement(index)
        return PoseRequest(
            kind="given",
            joints=sequence.poses[index],
            expression=sequence.expression(index),
            translation=translation @ rotation,  # x = rotation (skinning(X) + this)
            rotation=rotation,
            **options,
        )
    # Nothing read yet: the pose file shows the T pose, not an error.
    kind = "t" if state.kind == "given" else state.kind
    return PoseRequest(kind=kind, frame=state.frame if kind == "training" else 0, **options)


def build_request(state: ViewerState, request_id: int, moving: bool = False) -> RenderRequest:
    """The picture of what is set. moving: in the resolution for a view that moves."""
    return RenderRequest(
        id=request_id,
        camera=state.camera.view(*picture_size(state, moving)),
        pose=build_pose(state),
        project=state.project,
        background=tuple(min(max(float(part), 0.0), 1.0) for part in state.background),
        gaussian_scale=min(max(state.gaussian_scale, MIN_SCALE), MAX_SCALE),
        show=state.show,
        light=state.light,
        encoding="jpeg",
        quality=min(max(state.quality, 1), 100),
    )


def build_screenshot(state: ViewerState, request_id: int) -> RenderRequest:
    """The same picture in the panel's full size, without loss."""
    return replace(build_request(replace(state, resolution=1.0), request_id), encoding="png")


def same_picture(first: RenderRequest | None, second: RenderRequest) -> bool:
    """Whether two requests ask for the same, their ids left aside."""
    return first is not None and encode(replace(first, id=0)) == encode(replace(second, id=0))


class Requester:
    """When to ask: at once if something was changed; while training also again and again, `rate` times a second."""

    def __init__(self):
        self._next_id = 0
        self._asked: RenderRequest | None = None
        self._asked_at = -np.inf
        self._touched_at = -np.inf

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def forget(self) -> None:
        """A new connection: what was asked of the old one is lost."""
        self._asked = None

    def touch(self, now: float) -> None:
        """The view moves."""
        self._touched_at = now

    def next_request(self, state: ViewerState, now: float, idle: bool) -> RenderRequest | None:
        """The request to send now, or None. idle: all earlier ones were answered."""
        if state.welcome is None:
            return None
        request = build_request(state, 0, moving=state.playing or now - self._touched_at < MOVING_SECONDS)
        pause = 1 / min(max(state.rate, 0.1), MAX_RATE)
        again = state.welcome.training and idle and now - self._asked_at >= pause
        if same_picture(self._asked, request) and not again:
            return None
        self._asked, self._asked_at = request, now
        return replace(request, id=self.new_id())


class Playback:
    """Moves on through the frames in the time that passes, whatever the link: a slow one leaves frames out."""

    def __init__(self):
        self._before: float | None = None
        self._share = 0.0  # of the next frame's time that has passed

    def advance(self, state: ViewerState, now: float) -> None:
        if not state.playing or not state.frame_count():
            self._before, self._share = None, 0.0
            return
        if self._before is not None:
            self._share += (now - self._before) * state.fps() * state.speed
            steps = int(self._share)
            self._share -= steps
            if steps:
                state.set_position(state.position() + steps)
        self._before = now
