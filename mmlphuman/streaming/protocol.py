"""The wire protocol: messages.py as bytes, and bytes from anywhere checked and read back.

Control messages are JSON objects in text frames of a websocket, `{"type": "hello", ...}`; a Frame is one binary
frame: MAGIC | length of the header (uint32, little endian) | header (JSON) | picture. Nothing is ever unpickled.
Every field of every message is checked where it is read: its presence, type, length and range; unknown fields and
types are refused. A message that fails raises ProtocolError with one line that can be shown to its sender.

Without torch: a viewer's machine has none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mmlphuman.animation.camera_file import CameraView, camera_from_json
from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.streaming import messages
from mmlphuman.streaming.fields import Fields, ProtocolError, parse_object
from mmlphuman.streaming.messages import (
    CameraEntry,
    ClientMessage,
    Frame,
    Hello,
    PoseRequest,
    Problem,
    Refused,
    RenderRequest,
    ServerMessage,
    State,
    Welcome,
)

MAGIC = b"MMLF"
HEADER_LENGTH = struct.Struct("<I")
NAMES = {
    Hello: "hello", RenderRequest: "render",
    Welcome: "welcome", Refused: "refused", Problem: "problem", State: "state",
}  # fmt: skip


# --- writing ---------------------------------------------------------------------------------------------


def encode(message: ClientMessage | ServerMessage) -> str:
    """The text frame of a control message."""
    return json.dumps({"type": NAMES[type(message)], **_plain(message)}, allow_nan=False)


def encode_frame(frame: Frame) -> bytes:
    """The binary frame of a picture."""
    fields = {key: value for key, value in vars(frame).items() if key != "picture"}
    header = json.dumps(fields, allow_nan=False).encode()
    return b"".join((MAGIC, HEADER_LENGTH.pack(len(header)), header, frame.picture))


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples -> what JSON has."""
    if isinstance(value, CameraView):
        return {
            "w2c": value.w2c.ravel().tolist(),
            "fovx": value.fovx,
            "width": value.width,
            "height": value.height,
        }
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


# --- reading ---------------------------------------------------------------------------------------------


def decode_client(text: str) -> ClientMessage:
    """A text frame that a client sent. Raises ProtocolError."""
    return _decode(text, messages.MAX_REQUEST_BYTES, {"hello": _read_hello, "render": _read_render})


def decode_server(text: str) -> ServerMessage:
    """A text frame that a server sent. Raises ProtocolError."""
    readers = {
        "welcome": _read_welcome, "refused": _read_refused, "problem": _read_problem, "state": _read_state,
    }  # fmt: skip
    return _decode(text, messages.MAX_REPLY_BYTES, readers)


def _decode(text: str, limit: int, readers: dict[str, Callable[[Fields], Any]]) -> Any:
    try:
        content = Fields(parse_object(text, limit), "message")
        kind = content.choice("type", tuple(readers))
        content.where = kind
        message = readers[kind](content)
        content.finish()
    except RecursionError as error:  # brackets that the JSON reader just bears, in place of a field
        raise ProtocolError("message: brackets nested too deep") from error
    return message


def decode_frame(data: bytes) -> Frame:
    """A binary frame. Raises ProtocolError."""
    start = len(MAGIC) + HEADER_LENGTH.size
    if len(data) < start or data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("not a picture of this protocol")
    (length,) = HEADER_LENGTH.unpack_from(data, len(MAGIC))
    if length > min(messages.MAX_REQUEST_BYTES, len(data) - start):
        raise ProtocolError("a picture's header is cut off")
    try:
        frame = _read_frame(data[start : start + length], data[start + length :])
    except RecursionError as error:
        raise ProtocolError("frame: brackets nested too deep") from error
    if frame.encoding == "raw" and len(frame.picture) != 3 * frame.width * frame.height:
        raise ProtocolError(
            f"frame: {len(frame.picture)} bytes for {frame.width} x {frame.height} raw pixels"
        )
    return frame


def _read_frame(content: bytes, picture: bytes) -> Frame:
    header = Fields(parse_object(content, messages.MAX_REQUEST_BYTES), "frame")
    frame = Frame(
        id=header.integer("id", 0, messages.MAX_ID),
        width=header.integer("width", 1, messages.MAX_SIDE),
        height=header.integer("height", 1, messages.MAX_SIDE),
        encoding=header.choice("encoding", messages.ENCODINGS),
        picture=picture,
        iteration=header.integer("iteration", 0, messages.MAX_ID),
        gaussians=header.integer("gaussians", 0, messages.MAX_ID),
        distance=header.number("distance", 0, 360),
        render_ms=header.number("render_ms", 0, messages.MAX_MS),
        encode_ms=header.number("encode_ms", 0, messages.MAX_MS),
    )
    header.finish()
    return frame


def _read_hello(content: Fields) -> Hello:
    return Hello(
        protocol=content.integer("protocol", 0, messages.MAX_ID),
        token=content.text("token", messages.MAX_NAME),
        client=content.text("client", messages.MAX_NAME),
    )


def _read_render(content: Fields) -> RenderRequest:
    return RenderRequest(
        id=content.integer("id", 0, messages.MAX_ID),
        camera=_read_camera(content.take("camera"), "render: camera"),
        pose=_read_pose(Fields(content.take("pose"), "render: pose")),
        project=content.boolean("project"),
        background=tuple(content.numbers("background", (3,), 0, 1).tolist()),
        gaussian_scale=content.number("gaussian_scale", messages.MIN_SCALE, messages.MAX_SCALE),
        show=content.choice("show", messages.SHOW),
        encoding=content.choice("encoding", messages.ENCODINGS),
        quality=content.integer("quality", 1, 100),
    )


def _read_camera(content: Any, where: str) -> CameraView:
    try:
        camera = camera_from_json(content, where)
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    if max(camera.width, camera.height) > messages.MAX_SIDE:
        raise ProtocolError(
            f"{where}: {camera.width} x {camera.height} pixels, at most {messages.MAX_SIDE} a side"
        )
    return camera


def _read_pose(content: Fields) -> PoseRequest:
    pose = PoseRequest(
        kind=content.choice("kind", messages.POSES),
        frame=content.integer("frame", 0, messages.MAX_ID),
        joints=content.optional_numbers("joints", (POSE_DIM,), -messages.MAX_ANGLE, messages.MAX_ANGLE),
        translation=content.optional_numbers("translation", (3,), -messages.MAX_METRES, messages.MAX_METRES),
        rotation=content.optional_numbers("rotation", (3, 3), -1 - messages.ROUNDING, 1 + messages.ROUNDING),
        use_translation=content.boolean("use_translation"),
        hands=content.choice("hands", messages.HANDS),
    )
    content.finish()
    if pose.kind == "given" and (pose.joints is None or pose.translation is None or pose.rotation is None):
        raise ProtocolError("render: pose: kind given needs joints, translation and rotation")
    if pose.rotation is not None and (
        not np.allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=messages.ROUNDING)
        or np.linalg.det(pose.rotation) < 0  # a mirror
    ):
        raise ProtocolError("render: pose: rotation is not a rotation matrix")
    return pose


def _read_welcome(content: Fields) -> Welcome:
    return Welcome(
        title=content.text("title", messages.MAX_NAME),
        gaussians=content.integer("gaussians", 0, messages.MAX_ID),
        training=content.boolean("training"),
        cameras=tuple(_read_camera_entry(item) for item in content.items("cameras", messages.MAX_ENTRIES)),
        frames=content.integers("frames", messages.MAX_ENTRIES, messages.MAX_ID),
        center=tuple(content.numbers("center", (3,), -messages.MAX_METRES, messages.MAX_METRES).tolist()),
        up=tuple(content.numbers("up", (3,), -1 - messages.ROUNDING, 1 + messages.ROUNDING).tolist()),
        protocol=content.integer("protocol", 0, messages.MAX_ID),
    )


def _read_camera_entry(content: Any) -> CameraEntry:
    entry = Fields(content, "welcome: cameras")
    camera = CameraEntry(
        id=entry.integer("id", 0, messages.MAX_ID),
        camera=_read_camera(entry.take("camera"), "welcome: camera"),
    )
    entry.finish()
    return camera


def _read_refused(content: Fields) -> Refused:
    return Refused(content.text("reason", messages.MAX_TEXT))


def _read_problem(content: Fields) -> Problem:
    identity = content.take("id")
    if identity is not None and (type(identity) is not int or not 0 <= identity <= messages.MAX_ID):
        raise content.wrong("id", f"null or a whole number from 0 to {messages.MAX_ID}", identity)
    return Problem(message=content.text("message", messages.MAX_TEXT), id=identity)


def _read_state(content: Fields) -> State:
    return State(
        iteration=content.integer("iteration", 0, messages.MAX_ID),
        iterations=content.integer("iterations", 0, messages.MAX_ID),
        steps_per_second=content.number("steps_per_second", 0, messages.MAX_MS),
        history=tuple(_read_point(point) for point in content.items("history", messages.MAX_HISTORY)),
        viewers=content.integer("viewers", 0, messages.MAX_ENTRIES),
    )


def _read_point(content: Any) -> tuple[int, float]:
    if not isinstance(content, list) or len(content) != 2:
        raise ProtocolError("state: history must hold pairs of iteration and loss")
    pair = Fields(dict(zip(("iteration", "loss"), content, strict=True)), "state: history")
    return pair.integer("iteration", 0, messages.MAX_ID), pair.number(
        "loss", -messages.MAX_LOSS, messages.MAX_LOSS
    )
