"""One field at a time out of untrusted JSON: what is taken, and that every refusal names the field."""

import json

import numpy as np
import pytest

from mmlphuman.streaming.fields import Fields, ProtocolError, parse_object

HUGE = 10**400  # JSON has no largest number


def fields(value) -> Fields:
    return Fields({"it": value}, "message")


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (lambda f: f.integer("it", 1, 9), [1, 9], [0, 10, 1.0, "1", True, None, [], HUGE, -HUGE]),
        (lambda f: f.number("it", -1, 1), [-1, 0, 0.5, 1], [2, float("nan"), float("inf"), "0", False, None, {}, HUGE]),
        (lambda f: f.boolean("it"), [True, False], [0, 1, "true", None, []]),
        (lambda f: f.text("it", 3), ["", "abc"], ["abcd", 1, None, ["a"]]),
        (lambda f: f.choice("it", ("a", "b")), ["a"], ["c", "", 0, None, ["a"], {}]),
        (lambda f: f.items("it", 2), [[], [1, 2]], [[1, 2, 3], "ab", {}, None]),
        (lambda f: f.integers("it", 2, 9), [[], [0, 9]], [[1, 2, 3], [10], [-1], [1.0], [True], [[1]], None]),
        (
            lambda f: f.numbers("it", (2,), 0, 1),
            [[0, 1], [0.5, 1.0]],
            [[0], [0, 1, 1], [0, 2], [0, float("nan")], [0, "1"], [0, True], [0, [1]], [0, HUGE], 0, None, {}],
        ),
        (lambda f: f.optional_numbers("it", (1,), 0, 1), [None, [1]], [[], [2], 1, False]),
    ],
)  # fmt: skip
def test_what_is_taken_and_what_is_refused(read, good, bad):
    for value in good:
        content = fields(value)
        taken = read(content)
        content.finish()
        assert np.array_equal(taken, value) if value is not None else taken is None
    for value in bad:
        with pytest.raises(ProtocolError, match="^message: it must be ") as refusal:
            read(fields(value))
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


def test_numbers_take_their_shape():
    assert fields([1, 2, 3, 4, 5, 6]).numbers("it", (2, 3), 0, 9).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_missing_and_unknown_fields_are_named():
    with pytest.raises(ProtocolError, match="other is missing"):
        fields(1).text("other", 5)
    content = Fields({"it": 1, "surplus": 2}, "message")
    content.integer("it", 0, 9)
    with pytest.raises(ProtocolError, match="unknown field surplus"):
        content.finish()


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
