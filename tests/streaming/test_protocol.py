"""Messages as bytes and back, and that bytes from anywhere give a message or a ProtocolError that names the field."""

import json
import random
from dataclasses import make_dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pytest
from msgspec import Meta

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.hands import HAND_POSES
from mmlphuman.streaming import messages, protocol
from mmlphuman.streaming.messages import (
    CameraEntry,
    Frame,
    Hello,
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
    State,
    Welcome,
)
from mmlphuman.streaming.protocol import (
    CLIENT_MESSAGES,
    ProtocolError,
    decode_client,
    decode_frame,
    decode_server,
    encode,
    encode_frame,
    parse_object,
    read_fields,
)

NOTHING = object()  # the field is left out


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return rotation * np.linalg.det(rotation)


def random_camera(rng: np.random.Generator) -> CameraView:
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = random_rotation(rng), rng.uniform(-100, 100, 3)
    width, height = (int(side) for side in rng.integers(1, messages.MAX_SIDE + 1, 2))
    return CameraView(w2c, float(rng.uniform(1, 170)), width, height)


def random_text(rng: np.random.Generator, longest: int) -> str:
    letters = 'aä"\\\n{}[]\u2028\ud83d\x00é😀'  # half a character among them, which JSON can carry
    return "".join(letters[i] for i in rng.integers(0, len(letters), rng.integers(0, longest)))


def random_pose_request(rng: np.random.Generator) -> PoseRequest:
    given = PoseRequest(
        "given",
        0,
        rng.uniform(-4, 4, 165),
        rng.uniform(-5, 5, 10),
        rng.uniform(-9, 9, 3),
        random_rotation(rng),
        bool(rng.integers(2)),
    )
    plain = PoseRequest(rng.choice(["training", "t", "big"]).item(), frame=int(rng.integers(10**6)))
    turns = tuple((int(rng.integers(55)), *rng.uniform(-3, 3, 3).tolist()) for _ in range(rng.integers(4)))
    return replace(rng.choice([given, plain]), hands=rng.choice(messages.HANDS).item(), turns=turns)


def random_request(rng: np.random.Generator) -> RenderRequest:
    return RenderRequest(
        id=int(rng.integers(0, messages.MAX_ID, endpoint=True)),
        camera=random_camera(rng),
        pose=random_pose_request(rng),
        project=bool(rng.integers(2)),
        background=tuple(rng.uniform(0, 1, 3).tolist()),
        gaussian_scale=float(rng.uniform(messages.MIN_SCALE, messages.MAX_SCALE)),
        show=rng.choice(messages.RENDER_MODES).item(),
        light=bool(rng.integers(2)),
        encoding=rng.choice(messages.ENCODINGS).item(),
        quality=int(rng.integers(1, 101)),
    )


def random_welcome(rng: np.random.Generator) -> Welcome:
    return Welcome(
        title=random_text(rng, messages.MAX_NAME),
        gaussians=int(rng.integers(10**9)),
        training=bool(rng.integers(2)),
        cameras=tuple(
            CameraEntry(i, random_camera(rng), bool(rng.integers(2))) for i in range(rng.integers(4))
        ),
        frames=tuple(rng.integers(0, 10**6, rng.integers(9)).tolist()),
        center=tuple(rng.uniform(-9, 9, 3).tolist()),
        floor=float(rng.uniform(-9, 9)),
        up=tuple(random_rotation(rng)[0].tolist()),
        light=bool(rng.integers(2)),
        photographs=bool(rng.integers(2)),
    )


def random_messages(rng: np.random.Generator) -> list:
    text = random_text(rng, messages.MAX_TEXT)
    history = tuple((i, float(loss)) for i, loss in enumerate(rng.normal(size=rng.integers(9))))
    camera = random_camera(rng)
    column, row = (int(rng.integers(side)) for side in (camera.width, camera.height))
    views = tuple(random_camera(rng) for _ in range(rng.integers(1, 5)))
    return [
        Hello(1, random_text(rng, messages.MAX_NAME), random_text(rng, messages.MAX_NAME)),
        random_request(rng),
        PhotographRequest(
            1, camera, int(rng.integers(99)), int(rng.integers(99)), quality=int(rng.integers(1, 101))
        ),
        PointQuestion(2, camera, column, row, random_pose_request(rng), bool(rng.integers(2))),
        PathQuestion(3, views, int(rng.integers(1, messages.MAX_PATH + 1))),
        PoseQuestion(4, random_pose_request(rng)),
        PointAnswer(2, tuple(rng.uniform(-9, 9, 3).tolist()) if rng.integers(2) else None),
        PathAnswer(3, views),
        PoseAnswer(4, random_pose_request(rng)),
        random_welcome(rng),
        Refused(text),
        Problem(text, None if rng.integers(2) else int(rng.integers(10**9))),
        State(int(rng.integers(10**6)), 10**6, float(rng.uniform(0, 99)), history, int(rng.integers(9))),
    ]


def same(one, other) -> bool:
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(same(vars(one)[key], vars(other)[key]) for key in vars(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=1e-12)
    return one == other


@pytest.mark.parametrize("seed", range(40))
def test_every_message_comes_back(seed):
    for message in random_messages(np.random.default_rng(seed)):
        decode = decode_client if isinstance(message, messages.ClientMessage) else decode_server
        assert same(message, decode(encode(message))), message


@pytest.mark.parametrize("seed", range(20))
def test_pictures_come_back(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 40, 2))
    encoding = messages.ENCODINGS[seed % 3]
    size = 3 * width * height if encoding == "raw" else int(rng.integers(0, 2000))
    frame = Frame(seed, width, height, encoding, rng.bytes(size), 3, 4, 5.5, 6.5, 7.5)
    assert decode_frame(encode_frame(frame)) == frame


def test_largest_request_and_largest_picture_fit():
    turn = (54, -99.123456789012345, -99.123456789012345, -99.123456789012345)
    pose = PoseRequest(
        "given", 2**40, np.full(165, -99.123456789012345), np.full(10, -1 / 3), np.full(3, 1 / 3), np.eye(3),
        turns=(turn,) * 55,
    )  # fmt: skip
    camera = CameraView(
        random_camera(np.random.default_rng(0)).w2c, 100 / 3, messages.MAX_SIDE, messages.MAX_SIDE
    )
    for request in (
        replace(random_request(np.random.default_rng(0)), pose=pose),
        PathQuestion(messages.MAX_ID, (camera,) * messages.MAX_KEYS, messages.MAX_PATH),
    ):
        decode_client(text := encode(request))
        assert len(text) < messages.MAX_REQUEST_BYTES
    assert len(encode(PathAnswer(1, (camera,) * messages.MAX_PATH))) < messages.MAX_REPLY_BYTES
    side = messages.MAX_SIDE
    assert len(encode_frame(Frame(1, side, side, "raw", bytes(3 * side * side)))) < messages.MAX_REPLY_BYTES


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant|NaN"):
        encode(State(1, 2, steps_per_second=float("nan")))


# --- faults ----------------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
GIVEN = PoseRequest("given", 0, np.zeros(165), np.zeros(10), np.zeros(3), np.eye(3))
REQUEST = replace(random_request(RNG), pose=GIVEN)
CAMERA = random_camera(RNG)
EXAMPLES = {
    "hello": Hello(),
    "render": REQUEST,
    "photograph": PhotographRequest(1, CAMERA, 2, 3),
    "ask_point": PointQuestion(1, replace(CAMERA, width=10, height=5), 9, 4, GIVEN),
    "ask_path": PathQuestion(1, (CAMERA,), 5),
    "ask_pose": PoseQuestion(1, GIVEN),
    "welcome": replace(random_welcome(RNG), cameras=(CameraEntry(0, CAMERA),), frames=(1,)),
    "point": PointAnswer(1, (1.0, 2.0, 3.0)),
    "path": PathAnswer(1, (CAMERA,)),
    "pose": PoseAnswer(1, GIVEN),
    "refused": Refused("no"),
    "problem": Problem("no", 1),
    "state": State(1, 2, 3.0, ((1, 0.5),), 1),
}
# Valid for the field of that name, and nothing else that JSON has.
OPTIONAL = {"id": (None,), "joints": (None,), "translation": (None,), "rotation": (None,)}
WRONG = (
    NOTHING,
    None,
    True,
    -1,
    1.5,
    10**400,
    "",
    "x" * 3000,
    [],
    ["x"],
    [[[]]],
    {},
    [0] * 165 + [True],
    1e300,
)
LENIENT = {"token", "client", "title", "reason", "message"}  # texts: "" is one
ANGLES = {"steps_per_second", "fovx", "gaussian_scale", "floor"}  # 1.5 is one
BOOLS = {"project", "use_translation", "training", "trained", "light", "photographs"}


def places(content, path=()):
    """Every field of a message as a path of keys."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(content, dict):
            yield (*path, key)
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield from places(value, (*path, key))


def spoiled(content: dict, path: tuple, value):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is NOTHING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def valid(kind: str, name: str, value) -> bool:
    """Values of WRONG that are right in that place after all."""
    if value is NOTHING:
        return kind == "welcome" and name == "K"
    if kind == "problem" and name == "id":
        return value is None
    if isinstance(value, str):
        return name in LENIENT and value == ""
    if isinstance(value, bool):
        return name in BOOLS
    if isinstance(value, list) and not value:
        return name in ("history", "cameras", "frames", "turns", "views")
    if name == "protocol" or value is None:
        return name == "point" and value is None
    if name == "floor" and value == -1:
        return True
    return value == 1.5 and name in ANGLES


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_fault_of_every_field_is_told_by_name(kind):
    decode = decode_client if kind in CLIENT_MESSAGES else decode_server
    content = json.loads(encode(EXAMPLES[kind]))
    decode(json.dumps(content))
    tried = 0
    for path in places(content):
        name = path[-1]
        for value in WRONG:
            text = json.dumps(spoiled(content, path, value))
            if valid(kind, name, value):
                decode(text)
                continue
            with pytest.raises(ProtocolError) as refusal:
                decode(text)
            line = str(refusal.value)
            assert "\n" not in line and len(line) < 400
            assert str(name) in line or "kind given needs" in line, (path, value, line)
            tried += 1
    assert tried >= 10 * len(list(places(content))) - 10


@pytest.mark.parametrize("kind", EXAMPLES)
def test_unknown_fields_are_refused(kind):
    decode = decode_client if kind in CLIENT_MESSAGES else decode_server
    content = json.loads(encode(EXAMPLES[kind])) | {"surplus": 1}
    with pytest.raises(ProtocolError, match="surplus"):
        decode(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("camera", "w2c"), [float("nan")] * 16, "NaN"),
        (("camera", "w2c"), [float("inf")] * 16, "w2c"),
        (("camera", "w2c"), [0] * 16, "w2c"),
        (("camera", "width"), messages.MAX_SIDE + 1, "camera"),
        (("camera", "width"), 0, "width"),
        (("camera", "fovx"), 180, "fovx"),
        (("pose", "rotation"), [1, 0, 0, 0, 1, 0, 0, 0, -1], "rotation"),
        (("pose", "rotation"), [1, 0, 0, 0, 1, 0, 0, 0.5, 1], "rotation"),
        (("pose", "joints"), [0] * 164 + [1e9], "joints"),
        (("pose", "expression"), [0] * 9 + [1e9], "expression"),
        (("pose", "kind"), "__class__", "kind"),
        (("background",), [0, 0, 1.01], "background"),
        (("gaussian_scale",), 1e-9, "gaussian_scale"),
        (("quality",), 101, "quality"),
        (("id",), messages.MAX_ID + 1, "id"),
    ],
)
def test_values_out_of_range_are_named(path, value, named):
    text = json.dumps(spoiled(json.loads(encode(REQUEST)), path, value))
    with pytest.raises(ProtocolError, match=named):
        decode_client(text.replace("Infinity", "1e999"))  # which JSON allows


@pytest.mark.parametrize(
    ("kind", "path", "value", "named"),
    [
        ("render", ("pose", "turns"), [[55, 0, 0, 0]], "turns"),
        ("render", ("pose", "turns"), [[-1, 0, 0, 0]], "turns"),
        ("render", ("pose", "turns"), [[1, 0, 0]], "turns"),
        ("render", ("pose", "turns"), [[1, 0, 0, 1e9]], "turns"),
        ("render", ("pose", "turns"), [[1, 0, 0, 0]] * 56, "turns"),
        ("ask_point", ("column",), 10, "column"),
        ("ask_point", ("row",), 5, "row"),
        ("ask_point", ("row",), -1, "row"),
        ("ask_path", ("count",), 0, "count"),
        ("ask_path", ("count",), messages.MAX_PATH + 1, "count"),
        ("ask_path", ("keys",), [], "keys"),
        ("ask_path", ("keys",), [{}] * 1000, "keys"),
        ("ask_path", ("keys",), [7], "keys"),
        ("photograph", ("encoding",), "raw", "encoding"),
        ("photograph", ("camera_id",), -1, "camera_id"),
        ("photograph", ("frame",), 1e20, "frame"),
        ("photograph", ("camera", "height"), messages.MAX_SIDE + 1, "camera"),
    ],
)
def test_questions_out_of_range_are_named(kind, path, value, named):
    with pytest.raises(ProtocolError, match=f"^{kind}: .*{named}"):
        decode_client(json.dumps(spoiled(json.loads(encode(EXAMPLES[kind])), path, value)))


def test_more_keys_than_a_path_has_are_refused():
    content = json.loads(encode(EXAMPLES["ask_path"]))
    content["keys"] = [dict(content["keys"][0], w2c=np.eye(4).ravel().tolist(), fovx=40)] * (
        messages.MAX_KEYS + 1
    )
    with pytest.raises(ProtocolError, match="keys"):
        decode_client(json.dumps(content))


@pytest.mark.parametrize("depth", [100, 300, 490, 600, 900, 3000])
@pytest.mark.parametrize(
    "name", ["camera", "id", "background", "show", "surplus", ("camera", "w2c"), ("pose", "hands")]
)
def test_deep_brackets_anywhere_are_refused(name, depth):
    """Also those that the JSON reader bears and a recursive reader of the field does not."""
    path = name if isinstance(name, tuple) else (name,)
    text = json.dumps(spoiled(json.loads(encode(REQUEST)), path, "HERE"))
    for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(ProtocolError):
            decode_client(text.replace('"HERE"', deep))
        header = f'{{"id":{deep}}}'.encode()
        with pytest.raises(ProtocolError):
            decode_frame(protocol.MAGIC + protocol.HEADER_LENGTH.pack(len(header)) + header)


def test_pictures_that_are_cut_or_lie_are_refused():
    whole = encode_frame(Frame(1, 4, 3, "raw", bytes(36), 1, 2, 3.0, 4.0, 5.0))
    assert decode_frame(whole).picture == bytes(36)
    for end in range(len(whole)):
        with pytest.raises(ProtocolError):
            decode_frame(whole[:end])
    for wrong in (
        b"X" + whole,
        whole + b"x",
        whole.replace(b'"raw"', b'"bmp"'),
        whole.replace(b'"id": 1', b'"id":-1'),
    ):
        with pytest.raises(ProtocolError):
            decode_frame(wrong)


def test_damaged_bytes_give_a_message_or_a_protocol_error():
    """Bytes turned, cut, doubled and swapped at random."""
    rng = random.Random(5)
    texts = [encode(message) for message in EXAMPLES.values()]
    frame = encode_frame(Frame(1, 4, 3, "raw", bytes(36)))
    refused = 0
    for _ in range(3000):
        data = bytearray(rng.choice([*(text.encode() for text in texts), frame]))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[at] = rng.randrange(256)
            elif how == 1:
                del data[at : at + rng.randint(1, 20)]
            elif how == 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            else:
                data[at:at] = rng.choice(
                    [b"NaN", b"1e999", b"null", b"[", b"}", b'"', b"-", b"\\u0000", b"\xff"]
                )
            data = data or bytearray(b"{")
        for decode in (decode_client, decode_server, decode_frame):
            try:
                decode(bytes(data))
            except ProtocolError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 6000


# --- fields ----------------------------------------------------------------------------------------------

HUGE = 10**400  # JSON has no largest number
Unit = Annotated[float, Meta(ge=0, le=1)]


def read(kind, value):
    """`value` as the one field of a message, of the type `kind`."""
    return read_fields({"it": value}, make_dataclass("Holder", [("it", kind)]), "message").it


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Annotated[int, Meta(ge=1, le=9)], [1, 9], [0, 10, 1.0, "1", True, None, [], HUGE, -HUGE]),
        (
            Annotated[float, Meta(ge=-1, le=1)],
            [-1, 0, 0.5, 1],
            [2, float("nan"), float("inf"), "0", False, None, {}, HUGE],
        ),
        (bool, [True, False], [0, 1, "true", None, []]),
        (Annotated[str, Meta(max_length=3)], ["", "abc"], ["abcd", 1, None, ["a"]]),
        (Literal["a", "b"], ["a"], ["c", "", 0, None, ["a"], {}]),
        (Annotated[tuple, Meta(max_length=2)], [[], [1, 2]], [[1, 2, 3], "ab", {}, None]),
        (
            Annotated[tuple[Annotated[int, Meta(ge=0, le=9)], ...], Meta(max_length=2)],
            [[], [0, 9]],
            [[1, 2, 3], [10], [-1], [1.0], [True], [[1]], None],
        ),
        (
            tuple[Unit, Unit],
            [[0, 1], [0.5, 1.0]],
            [
                [0],
                [0, 1, 1],
                [0, 2],
                [0, float("nan")],
                [0, "1"],
                [0, True],
                [0, [1]],
                [0, HUGE],
                0,
                None,
                {},
            ],
        ),
        (tuple[Unit] | None, [None, [1]], [[], [2], 1, False]),
    ],
)
def test_what_is_taken_and_what_is_refused(kind, good, bad):
    for value in good:
        taken = read(kind, value)
        assert np.array_equal(taken, value) if value is not None else taken is None
    for value in bad:
        with pytest.raises(ProtocolError, match="^message: it must be ") as refusal:
            read(kind, value)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


def test_numbers_take_their_shape():
    numbers = [number / 2 for number in range(165)]
    content = json.loads(encode(replace(REQUEST, pose=GIVEN)))
    content["pose"] |= {"joints": numbers, "rotation": [0, 1, 0, 0, 0, 1, 1, 0, 0], "translation": [1, 2, 3]}
    pose = decode_client(json.dumps(content)).pose
    assert pose.joints.tolist() == numbers
    assert pose.rotation.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]] and pose.translation.tolist() == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    "wrong", [[0], [0] * 10, [0] * 8 + [2], [0] * 8 + [HUGE], [0] * 8 + ["1"], [[0] * 9], 0, {}]
)
def test_arrays_of_another_size_or_range_are_refused(wrong):
    content = json.loads(encode(REQUEST))
    content["pose"]["rotation"] = wrong
    with pytest.raises(ProtocolError, match="^render: pose.*rotation must be "):
        decode_client(json.dumps(content))


def test_missing_and_unknown_fields_are_named():
    for kind in (make_dataclass("Holder", [("other", str)]), make_dataclass("Holder", [("other", str, "x")])):
        with pytest.raises(ProtocolError, match="message: other is missing"):
            read_fields({}, kind, "message")
    with pytest.raises(ProtocolError, match="unknown field surplus"):
        read_fields({"it": 1, "surplus": 2}, make_dataclass("Holder", [("it", int)]), "message")


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '{"a": NaN}', '{"a": -Infinity}', "{'a': 1}",
                                  '{"a": 1} x', "[" * 5000, b"\xff\xfe{", b'{"a": "\xc3"}', "9" * 9000])  # fmt: skip
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ProtocolError):
        parse_object(text, 10_000)


def test_the_size_is_looked_at_first():
    text = json.dumps({"a": "x" * 100})
    assert parse_object(text, len(text)) == {"a": "x" * 100}
    with pytest.raises(ProtocolError, match=f"at most {len(text) - 1}"):
        parse_object(text, len(text) - 1)


def test_hands_are_those_that_there_are():
    assert ("file", *HAND_POSES) == messages.HANDS
