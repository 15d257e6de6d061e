"""The wire protocol: messages.py as bytes, and bytes from anywhere checked and read back.

Control messages are JSON objects in text frames of a websocket, `{"type": "hello", ...}`; a Frame is one binary
frame: MAGIC | length of the header (uint32, little endian) | header (JSON) | picture; a LivePose, on a websocket of its
own, is another: POSE_MAGIC | version, number (uint32) | joints, expression, translation (float32), all little endian.
Nothing is ever unpickled.
Every field of every message is checked where it is read: msgspec holds it against the type and bounds in messages.py;
here are sizes, names (no field may be missing or unknown), cameras and rotations. A message that fails raises
ProtocolError with one line that can be shown to its sender.

JSON is read and written by Python's own module: it keeps half characters, which a browser may send, and refuses to
write NaN. Without torch: a viewer's machine has none.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import msgspec
import numpy as np

from mmlphuman.animation.camera_file import CameraView, camera_from_json
from mmlphuman.pose_layout import EXPRESSION_DIM, POSE_DIM
from mmlphuman.streaming import messages
from mmlphuman.streaming.messages import (
    ClientMessage,
    Frame,
    Hello,
    LivePose,
    PathAnswer,
    PathQuestion,
    PhotographRequest,
    PointAnswer,
    PointQuestion,
    PoseAnswer,
    PoseQuestion,
    PoseRequest,
    Problem,
    Refused,
    RenderRequest,
    ServerMessage,
    State,
    Welcome,
)
from mmlphuman.text import one_line

MAGIC = b"MMLF"
HEADER_LENGTH = struct.Struct("<I")
POSE_MAGIC, POSE_VERSION = b"MMLP", 1
POSE_HEADER = struct.Struct("<4sII")  # magic, version, number
POSE_NUMBERS = POSE_DIM + EXPRESSION_DIM + 3
CLIENT_MESSAGES = {
    "hello": Hello,
    "render": RenderRequest,
    "photograph": PhotographRequest,
    "ask_point": PointQuestion,
    "ask_path": PathQuestion,
    "ask_pose": PoseQuestion,
}
SERVER_MESSAGES = {
    "welcome": Welcome,
    "refused": Refused,
    "problem": Problem,
    "state": State,
    "point": PointAnswer,
    "path": PathAnswer,
    "pose": PoseAnswer,
}
NAMES = {kind: name for name, kind in (CLIENT_MESSAGES | SERVER_MESSAGES).items()}
SHOWN = 60  # characters of what was wrong in an error
# A pose's arrays, which are sent flat: shape, largest number.
POSE_ARRAYS = {
    "joints": ((POSE_DIM,), messages.MAX_ANGLE),
    "expression": ((EXPRESSION_DIM,), messages.MAX_EXPRESSION),
    "translation": ((3,), messages.MAX_METRES),
    "rotation": ((3, 3), 1 + messages.ROUNDING),
}
WITH_POSE = RenderRequest, PointQuestion, PoseQuestion, PoseAnswer
CAMERA_LISTS, CAMERA_ENTRIES = ("keys", "views"), "cameras"  # fields of cameras, of CameraEntries
# msgspec's words for what is wrong, and ours.
MISSING = "Object missing required field "
WORDS = {
    "Expected ": "must be ",
    "Invalid enum value ": "must be a word of the protocol, not ",
    "Number out of range": "must be a number in range",
}
Message = TypeVar("Message")


class ProtocolError(ValueError):
    """A message that breaks the protocol; the text is one line that can be shown to its sender."""


# --- writing ---------------------------------------------------------------------------------------------


def encode(message: ClientMessage | ServerMessage) -> str:
    """The text frame of a control message."""
    return json.dumps({"type": NAMES[type(message)], **_plain(message)}, allow_nan=False)


def encode_frame(frame: Frame) -> bytes:
    """The binary frame of a picture."""
    header = {key: value for key, value in vars(frame).items() if key != "picture"}
    text = json.dumps(header, allow_nan=False).encode()
    return b"".join((MAGIC, HEADER_LENGTH.pack(len(text)), text, frame.picture))


def encode_live_pose(pose: LivePose) -> bytes:
    """The binary frame of a pose. ProtocolError for arrays of another size, or numbers that no reader takes."""
    numbers = np.concatenate([np.ravel(part) for part in (pose.joints, pose.expression, pose.translation)])
    data = POSE_HEADER.pack(POSE_MAGIC, POSE_VERSION, pose.number % 2**32) + numbers.astype("<f4").tobytes()
    decode_live_pose(data)
    return data


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples -> what JSON has. A camera's K, which viewers do not ask for, stays here."""
    if is_dataclass(value):
        names = (field.name for field in fields(value) if field.name != "K")
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


# --- reading ---------------------------------------------------------------------------------------------


def decode_client(text: str | bytes) -> ClientMessage:
    """A text frame that a client sent. Raises ProtocolError."""
    return _decode(text, messages.MAX_REQUEST_BYTES, CLIENT_MESSAGES)


def decode_server(text: str | bytes) -> ServerMessage:
    """A text frame that a server sent. Raises ProtocolError."""
    return _decode(text, messages.MAX_REPLY_BYTES, SERVER_MESSAGES)


def decode_frame(data: bytes) -> Frame:
    """A binary frame. Raises ProtocolError."""
    start = len(MAGIC) + HEADER_LENGTH.size
    if len(data) < start or data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("not a picture of this protocol")
    (length,) = HEADER_LENGTH.unpack_from(data, len(MAGIC))
    if length > min(messages.MAX_REQUEST_BYTES, len(data) - start):
        raise ProtocolError("a picture's header is cut off")
    header = parse_object(data[start : start + length], messages.MAX_REQUEST_BYTES)
    if "picture" in header:
        raise ProtocolError("frame: unknown field picture")
    frame = read_fields(header | {"picture": data[start + length :]}, Frame, "frame")
    if frame.encoding == "raw" and len(frame.picture) != 3 * frame.width * frame.height:
        raise ProtocolError(
            f"frame: {len(frame.picture)} bytes for {frame.width} x {frame.height} raw pixels"
        )
    return frame


def decode_live_pose(data: bytes) -> LivePose:
    """A binary frame of a stream of poses. Raises ProtocolError."""
    if len(data) < POSE_HEADER.size or data[: len(POSE_MAGIC)] != POSE_MAGIC:
        raise ProtocolError("not a pose of this protocol")
    _, version, number = POSE_HEADER.unpack_from(data)
    if version != POSE_VERSION:
        raise ProtocolError(f"poses of version {version}, this program reads {POSE_VERSION}")
    size = POSE_HEADER.size + 4 * POSE_NUMBERS
    if len(data) != size:
        raise ProtocolError(f"a pose of {len(data)} bytes, {size} are needed")
    numbers = np.frombuffer(data, "<f4", offset=POSE_HEADER.size)
    joints, expression, translation = np.split(numbers, [POSE_DIM, POSE_DIM + EXPRESSION_DIM])
    for name, part in (("joints", joints), ("expression", expression), ("translation", translation)):
        most = POSE_ARRAYS[name][1]
        if not (np.abs(part) <= most).all():  # NaN compares false
            raise ProtocolError(f"pose: {name} must be numbers from -{most:g} to {most:g}")
    return LivePose(number, joints, expression, translation)


def parse_object(text: str | bytes, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. NaN and infinity, which JSON does not have, are refused."""
    if len(text) > limit:
        raise ProtocolError(f"message of {len(text)} bytes, at most {limit} are read")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, brackets without end
        raise ProtocolError(f"not a JSON message ({_short(error)})") from error
    if not isinstance(content, dict):
        raise ProtocolError(f"a message is a JSON object, not {_short(content)}")
    return content


def read_fields(content: dict[str, Any], kind: type[Message], where: str) -> Message:
    """The dataclass `kind` out of an untrusted object that has its fields, all of them and no others.

    where: begins every error. Raises ProtocolError that names the field.
    """
    try:
        message = msgspec.convert(content, kind, dec_hook=_read_array)
    except msgspec.ValidationError as error:
        raise _explain(error, where) from error
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{where}: half a character where a name belongs") from error
    _check_names(content, message, where)
    return message


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _explain(error: msgspec.ValidationError, where: str) -> ProtocolError:
    """msgspec's "Expected `int` <= 9 - at `$.pose.frame`" as "pose.frame must be int <= 9"."""
    what, _, path = str(error).replace("`", "").partition(" - at $")
    field, bracket, place = path.removeprefix(".").partition("[")
    if what.startswith(MISSING):
        what = f"{what.removeprefix(MISSING)} is missing"
    for theirs, ours in WORDS.items():
        if what.startswith(theirs):
            what = ours + what.removeprefix(theirs)
    at = f"at {bracket}{place}" if place else ""
    return ProtocolError(one_line(f"{where}: {field} {_short(what)} {at}"))


def _check_names(content: dict[str, Any], message: Any, where: str) -> None:
    """msgspec gives a dataclass its defaults for what is missing and passes over what it does not know."""
    names = [field.name for field in fields(message)]
    for name in names:
        if name not in content:
            raise ProtocolError(f"{where}: {name} is missing")
    for name in content:
        if name not in names:
            raise ProtocolError(f"{where}: unknown field {_short(name)}")
    if isinstance(message, WITH_POSE):
        _check_names(content["pose"], message.pose, f"{where}: pose")
    if isinstance(message, Welcome):
        for entry, read in zip(content[CAMERA_ENTRIES], message.cameras, strict=True):
            _check_names(entry, read, f"{where}: {CAMERA_ENTRIES}")


def _decode(text: str | bytes, limit: int, kinds: dict[str, type]) -> Any:
    try:
        content = parse_object(text, limit)
        name = content.pop("type", None)
        if not isinstance(name, str) or name not in kinds:
            raise ProtocolError(f"message: type must be one of {', '.join(kinds)}, got {_short(name)}")
        _read_cameras(content, name)
        message = read_fields(content, kinds[name], name)
    except RecursionError as error:  # brackets that the JSON reader just bears, in place of a field
        raise ProtocolError("message: brackets nested too deep") from error
    if isinstance(message, PointQuestion):
        for field, end in (("column", message.camera.width), ("row", message.camera.height)):
            if getattr(message, field) >= end:
                raise ProtocolError(f"{name}: {field} must be below the picture's {end}")
    if isinstance(message, WITH_POSE):
        return replace(message, pose=_check_pose(message.pose, f"{name}: pose"))
    return message


def _read_cameras(content: dict[str, Any], where: str) -> None:
    """Puts a CameraView in the place of every camera of a message."""
    for name in CAMERA_LISTS:
        if isinstance(views := content.get(name), list):
            content[name] = [
                _read_camera(view, f"{where}: {name}") if isinstance(view, dict) else view for view in views
            ]
    entries = content.get(CAMERA_ENTRIES)
    for holder in (content, *(entries if isinstance(entries, list) else ())):
        if isinstance(holder, dict) and isinstance(holder.get("camera"), dict):
            holder["camera"] = _read_camera(holder["camera"], f"{where}: camera")


def _read_camera(content: dict[str, Any], where: str) -> CameraView:
    """As camera files are read."""
    try:
        camera = camera_from_json(content, where)
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    if max(camera.width, camera.height) > messages.MAX_SIDE:
        raise ProtocolError(
            f"{where}: {camera.width} x {camera.height} pixels, at most {messages.MAX_SIDE} a side"
        )
    return camera


def _read_array(kind: type, value: Any) -> np.ndarray:
    """For msgspec, which does not know arrays: any number of numbers."""
    try:
        return np.array(msgspec.convert(value, list[float]))
    except msgspec.ValidationError:
        raise ValueError("must be numbers") from None


def _check_pose(pose: PoseRequest, where: str) -> PoseRequest:
    """The same with its arrays in shape. Raises ProtocolError for a wrong size or number, and for no rotation."""
    arrays = {}
    for name, (shape, most) in POSE_ARRAYS.items():
        flat = getattr(pose, name)
        if flat is None:
            if pose.kind == "given":
                raise ProtocolError(f"{where}: kind given needs joints, expression, translation and rotation")
            continue
        if flat.size != math.prod(shape) or not (np.abs(flat) <= most).all():  # NaN compares false
            raise ProtocolError(
                f"{where}: {name} must be {math.prod(shape)} numbers from -{most:g} to {most:g}"
            )
        arrays[name] = flat.reshape(shape)
    rotation = arrays.get("rotation")
    if rotation is not None and (
        not np.allclose(rotation @ rotation.T, np.eye(3), atol=messages.ROUNDING)
        or np.linalg.det(rotation) < 0  # a mirror
    ):
        raise ProtocolError(f"{where}: rotation is not a rotation matrix")
    return replace(pose, **arrays)
