"""What the server that draws and the viewers that look (desktop, browser, tests) say to each other.

Data path: Hello -> Welcome or Refused; then RenderRequest -> Frame, with State and Problem in between. Now and then
PhotographRequest -> Frame, PointQuestion -> PointAnswer, PathQuestion -> PathAnswer, PoseQuestion -> PoseAnswer.

A connection begins with a handshake; a viewer asks for pictures one by one, and the newest request wins, of whatever
kind: who asks for something else than pictures asks for the next picture after the answer. What a field may hold stands
in its type, bounds included; protocol.py checks it. Without torch: a viewer's machine has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import numpy as np
from msgspec import Meta

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.pose_layout import NUM_JOINTS

# Every change of a message is a new one: either side reads exactly the fields that stand here.
PROTOCOL_VERSION = 3
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 23456
HELLO_SECONDS = 5.0  # a connection that has not said hello by then is closed

MAX_REQUEST_BYTES = 16_384  # client to server; a given pose is about 5 kB, with every joint turned 10 kB
MAX_REPLY_BYTES = 64 * 2**20  # server to client; a raw picture of MAX_SIDE is 48 MiB
MAX_SIDE = 4096  # pixels of a picture's width or height
MAX_HISTORY = 1000  # points of the loss curve in one State
MAX_KEYS = 30  # cameras that a path goes through; more would not fit into a request
MAX_PATH = 3600  # pictures of a path: two minutes at 30 a second

MAX_ANGLE = 100.0  # radians; whole turns are allowed, garbage is not
MAX_EXPRESSION = 100.0
MAX_METRES = 1e4
MAX_NAME, MAX_TEXT = 200, 2000  # characters
MAX_ENTRIES = 100_000  # cameras, frames
MAX_ID = 2**53 - 1  # the largest whole number that a browser keeps exactly
MAX_MS = 1e9
MAX_LOSS = 1e30
MIN_SCALE, MAX_SCALE = 0.01, 2.0  # of Gaussians; larger ones would draw for seconds
ROUNDING = 1e-3  # how far a rotation may be from orthonormal

# What fields may hold.
Whole = Annotated[int, Meta(ge=0, le=MAX_ID)]
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Scale = Annotated[float, Meta(ge=MIN_SCALE, le=MAX_SCALE)]
Share = Annotated[float, Meta(ge=0, le=1)]
Metres = Annotated[float, Meta(ge=-MAX_METRES, le=MAX_METRES)]
Direction = Annotated[float, Meta(ge=-1 - ROUNDING, le=1 + ROUNDING)]
Amount = Annotated[float, Meta(ge=0, le=MAX_MS)]  # milliseconds, or steps a second
Loss = Annotated[float, Meta(ge=-MAX_LOSS, le=MAX_LOSS)]
Angle = Annotated[float, Meta(ge=-MAX_ANGLE, le=MAX_ANGLE)]  # radians
Point = tuple[Whole, Loss]  # of the loss curve: iteration, loss
Place = tuple[Metres, Metres, Metres]  # in the world
# Joint of pose_layout; angles about its own x, then y, then z as they stand in the pose before.
Turn = tuple[Annotated[int, Meta(ge=0, lt=NUM_JOINTS)], Angle, Angle, Angle]
# A training frame, the numbers in the message, T-pose, canonical pose.
PoseKind = Literal["training", "given", "t", "big"]
HandPose = Literal["file", "relaxed", "fist"]  # of the pose itself, or one of animation.hands
RenderMode = Literal["color", "depth", "alpha", "normals", "anchors", "distance"]
Encoding = Literal["jpeg", "png", "raw"]  # raw: RGB bytes, row by row
POSES, HANDS = get_args(PoseKind), get_args(HandPose)
RENDER_MODES, ENCODINGS = get_args(RenderMode), get_args(Encoding)


# --- client to server ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """First message of a connection."""

    protocol: Whole = PROTOCOL_VERSION
    token: Name = ""
    client: Name = ""  # for the server's log


@dataclass(frozen=True)
class PoseRequest:
    """Which pose to draw. Arrays are only read for kind "given"."""

    kind: PoseKind = "training"
    frame: Whole = 0  # position among the training frames, for kind "training"
    joints: np.ndarray | None = None  # (165,) axis-angle
    expression: np.ndarray | None = None  # (10,); jaw and expression count where the avatar has learnt them
    translation: np.ndarray | None = None  # (3,) metres
    rotation: np.ndarray | None = None  # (3, 3), applied after everything else
    use_translation: bool = True  # False: as if the translation were zero
    hands: HandPose = "file"
    turns: Annotated[tuple[Turn, ...], Meta(max_length=NUM_JOINTS)] = ()  # after all that


@dataclass(frozen=True)
class RenderRequest:
    """One picture. `id` comes back with its Frame, so that a viewer knows what is still under way."""

    id: Whole
    camera: CameraView
    pose: PoseRequest = field(default_factory=PoseRequest)
    project: bool = False  # test mode: what the MLPs see brought into training's range
    background: tuple[Share, Share, Share] = (1.0, 1.0, 1.0)
    gaussian_scale: Scale = 1.0  # factor on every Gaussian's size
    show: RenderMode = "color"
    light: bool = True  # False: without the scene's light, where there is one
    encoding: Encoding = "jpeg"
    quality: Annotated[int, Meta(ge=1, le=100)] = 85  # of JPEG


@dataclass(frozen=True)
class PhotographRequest:
    """The photograph of a training frame as `camera`, which stands and looks as that camera of the capture does, would
    have taken it: undistorted, and pixel by pixel what a picture of `camera` shows. Answered by a Frame."""

    id: Whole
    camera: CameraView
    camera_id: Whole  # of the capture's, held-out ones too
    frame: Whole  # position among the training frames
    encoding: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Meta(ge=1, le=100)] = 85


@dataclass(frozen=True)
class PointQuestion:
    """Which point of the person is seen at a pixel of the picture that these would give?"""

    id: Whole
    camera: CameraView
    column: Whole  # from the left, below the camera's width
    row: Whole  # from the top, below its height
    pose: PoseRequest = field(default_factory=PoseRequest)
    project: bool = False


@dataclass(frozen=True)
class PathQuestion:
    """Where is the camera in each of `count` pictures on the way through all `keys`, in equal times? The path of
    test.py --camera_path, about Welcome.center."""

    id: Whole
    keys: Annotated[tuple[CameraView, ...], Meta(min_length=1, max_length=MAX_KEYS)]  # of one size
    count: Annotated[int, Meta(ge=1, le=MAX_PATH)]


@dataclass(frozen=True)
class PoseQuestion:
    """What are the numbers of this pose?"""

    id: Whole
    pose: PoseRequest = field(default_factory=PoseRequest)


# --- server to client ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CameraEntry:
    """A camera of the capture."""

    id: Whole
    camera: CameraView
    trained: bool = True  # False: held out, training did not see its pictures


@dataclass(frozen=True)
class Welcome:
    """What is being served."""

    title: Name
    gaussians: Whole
    training: bool  # a run in progress: the avatar changes, State tells how far it is
    cameras: Annotated[tuple[CameraEntry, ...], Meta(max_length=MAX_ENTRIES)] = ()
    # Training frames, numbers as in the capture.
    frames: Annotated[tuple[Whole, ...], Meta(max_length=MAX_ENTRIES)] = ()
    center: Place = (0.0, 0.0, 0.0)  # where the person is, to orbit about
    floor: Metres = 0.0  # where the person stands, along `up`
    up: tuple[Direction, Direction, Direction] = (0.0, 1.0, 0.0)
    light: bool = False  # the avatar has a light of the scene, which a request may leave out
    photographs: bool = False  # there are photographs to ask for
    protocol: Whole = PROTOCOL_VERSION


@dataclass(frozen=True)
class Refused:
    """The connection is closed after this."""

    reason: Text


@dataclass(frozen=True)
class Problem:
    """A request could not be served; the connection stays."""

    message: Text
    id: Whole | None = None  # of the request, if it could be read


@dataclass(frozen=True)
class State:
    """Progress, about once a second while training."""

    iteration: Whole
    iterations: Whole
    steps_per_second: Amount = 0.0
    history: Annotated[tuple[Point, ...], Meta(max_length=MAX_HISTORY)] = ()  # new points of the loss curve
    viewers: Annotated[int, Meta(ge=0, le=MAX_ENTRIES)] = 0


@dataclass(frozen=True)
class Frame:
    """A picture and what is known about it."""

    id: Whole
    width: Side
    height: Side
    encoding: Encoding
    picture: bytes
    iteration: Whole = 0
    gaussians: Whole = 0
    # Degrees from the nearest training pose.
    distance: Annotated[float, Meta(ge=0, le=360)] = 0.0
    render_ms: Amount = 0.0
    encode_ms: Amount = 0.0


@dataclass(frozen=True)
class PointAnswer:
    id: Whole
    point: Place | None  # None: no person there


@dataclass(frozen=True)
class PathAnswer:
    id: Whole
    views: Annotated[tuple[CameraView, ...], Meta(max_length=MAX_PATH)]


@dataclass(frozen=True)
class PoseAnswer:
    id: Whole
    pose: PoseRequest  # of kind "given", which says all


@dataclass(frozen=True)
class LivePose:
    """A pose of a stream, for pages that draw the avatar themselves (streaming/pose_stream.py): 724 bytes. The newest
    counts."""

    number: int  # rises from pose to pose; 32 bits, going round
    joints: np.ndarray  # (165,) float32 axis-angle
    expression: np.ndarray  # (10,) float32
    translation: np.ndarray  # (3,) float32 metres


Request = RenderRequest | PhotographRequest | PointQuestion | PathQuestion | PoseQuestion
Answer = PointAnswer | PathAnswer | PoseAnswer
ClientMessage = Hello | Request
ServerMessage = Welcome | Refused | Problem | State | Answer


# --- the curve that State.history tells piece by piece ---------------------------------------------------


class LossCurve:
    """The course of the loss so far, in few points, for viewers that come later or are slow.

    At most `most` points, evenly spread over the iterations; the first and the newest are always kept.
    """

    def __init__(self, points: Iterable[Point] = (), most: int = MAX_HISTORY):
        self._points: list[Point] = []
        self._most, self._spacing = most, 0.0  # iterations between two points
        self.add(points)

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(self._points)

    def add(self, points: Iterable[Point]) -> None:
        """Newer points. Those without a finite loss are left out: JSON has no NaN."""
        for iteration, loss in points:
            if abs(loss) <= MAX_LOSS:  # NaN compares false
                self._append((int(iteration), float(loss)))
                if len(self._points) > self._most:
                    self._thin()

    def take(self) -> tuple[Point, ...]:
        """The points, which are then gone from here."""
        points, self._points, self._spacing = self.points, [], 0.0
        return points

    def _append(self, point: Point) -> None:
        if len(self._points) > 1 and self._points[-1][0] - self._points[-2][0] < self._spacing:
            self._points[-1] = point  # the newest is kept however near it is, so here it makes room
        else:
            self._points.append(point)

    def _thin(self) -> None:
        """Doubles the spacing at least."""
        points, self._points = self._points, []
        self._spacing = 2 * (points[-1][0] - points[0][0]) / self._most
        for point in points:
            self._append(point)
        # Iterations that do not grow cannot be spread.
        del self._points[: max(0, len(self._points) - self._most)]
