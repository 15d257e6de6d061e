"""What the server that draws and the viewers that look (desktop, browser, tests) say to each other.

Data path: Hello -> Welcome or Refused; then RenderRequest -> Frame, with State and Problem in between.

A connection begins with a handshake; a viewer asks for pictures one by one, and the newest request wins. How
messages are written and checked: protocol.py. Numpy only: a viewer's machine has no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.hands import HAND_POSES

PROTOCOL_VERSION = 1
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 23456
HELLO_SECONDS = 5.0  # a connection that has not said hello by then is closed

MAX_REQUEST_BYTES = 16_384  # client to server; a given pose is about 5 kB
MAX_REPLY_BYTES = 64 * 2**20  # server to client; a raw picture of MAX_SIDE is 48 MiB
MAX_SIDE = 4096  # pixels of a picture's width or height
MAX_HISTORY = 1000  # points of the loss curve in one State

# A training frame, the numbers in the message, T-pose, canonical pose.
POSES = ("training", "given", "t", "big")
SHOW = ("color", "depth", "alpha", "normals", "anchors", "distance")
ENCODINGS = ("jpeg", "png", "raw")  # raw: RGB bytes, row by row
HANDS = ("file", *HAND_POSES)

MAX_ANGLE = 100.0  # radians; whole turns are allowed, garbage is not
MAX_METRES = 1e4
MAX_NAME, MAX_TEXT = 200, 2000  # characters
MAX_ENTRIES = 100_000  # cameras, frames
MAX_ID = 2**53 - 1  # the largest whole number that a browser keeps exactly
MAX_MS = 1e9
MAX_LOSS = 1e30
MIN_SCALE, MAX_SCALE = 0.01, 2.0  # of Gaussians; larger ones would draw for seconds
ROUNDING = 1e-3  # how far a rotation may be from orthonormal


# --- client to server ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """First message of a connection."""

    protocol: int = PROTOCOL_VERSION
    token: str = ""
    client: str = ""  # for the server's log


@dataclass(frozen=True)
class PoseRequest:
    """Which pose to draw. Arrays are only read for kind "given"."""

    kind: str = "training"
    frame: int = 0  # position among the training frames, for kind "training"
    joints: np.ndarray | None = None  # (165,) axis-angle
    translation: np.ndarray | None = None  # (3,) metres
    rotation: np.ndarray | None = None  # (3, 3), applied after everything else
    use_translation: bool = True  # False: as if the translation were zero
    hands: str = "file"


@dataclass(frozen=True)
class RenderRequest:
    """One picture. `id` comes back with its Frame, so that a viewer knows what is still under way."""

    id: int
    camera: CameraView
    pose: PoseRequest = field(default_factory=PoseRequest)
    project: bool = False  # test mode: pose features projected into the space of training poses
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gaussian_scale: float = 1.0  # factor on every Gaussian's size
    show: str = "color"
    encoding: str = "jpeg"
    quality: int = 85  # of JPEG, 1 to 100


# --- server to client ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CameraEntry:
    """A training camera."""

    id: int
    camera: CameraView


@dataclass(frozen=True)
class Welcome:
    """What is being served."""

    title: str
    gaussians: int
    training: bool  # a run in progress: the avatar changes, State tells how far it is
    cameras: tuple[CameraEntry, ...] = ()
    frames: tuple[int, ...] = ()  # training frames, numbers as in the capture
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)  # where the person is, to orbit about
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Refused:
    """The connection is closed after this."""

    reason: str


@dataclass(frozen=True)
class Problem:
    """A request could not be served; the connection stays."""

    message: str
    id: int | None = None  # of the request, if it could be read


@dataclass(frozen=True)
class State:
    """Progress, about once a second while training."""

    iteration: int
    iterations: int
    steps_per_second: float = 0.0
    history: tuple[tuple[int, float], ...] = ()  # new points of the loss curve: (iteration, loss)
    viewers: int = 0


@dataclass(frozen=True)
class Frame:
    """A picture and what is known about it."""

    id: int
    width: int
    height: int
    encoding: str
    picture: bytes
    iteration: int = 0
    gaussians: int = 0
    distance: float = 0.0  # degrees from the nearest training pose
    render_ms: float = 0.0
    encode_ms: float = 0.0


ClientMessage = Hello | RenderRequest
ServerMessage = Welcome | Refused | Problem | State
