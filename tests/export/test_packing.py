"""Arrays as streams: what comes back, in which bytes, and streams that are not what they say."""

import zlib

import numpy as np
import pytest

from mmlphuman.export.packing import narrowest, packed, unpacked

RNG = np.random.default_rng(0)
ARRAYS = {
    "bytes": RNG.integers(0, 256, (50, 3)),
    "signed": RNG.integers(-128, 128, (7, 2, 5)),
    "extremes": np.array([-32768, 32767, 0, 32767, -32768]),  # differences wrap around
    "slow": np.cumsum(RNG.integers(-3, 4, (400, 3)), 0) * 7,
    "large": RNG.integers(-(2**31), 2**31, (20, 2)),
    "numbers": RNG.normal(size=(9, 4)).astype(np.float32),
    "nothing": np.zeros((0, 15, 11), int),
    "no columns": np.zeros((5, 0), int),
    "one": np.array([[[4]]]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back(name):
    array = ARRAYS[name]
    stream = packed(array)
    back = unpacked(stream.data, stream.entry())
    assert back.shape == array.shape and np.array_equal(back, array)


def test_whole_numbers_take_the_narrowest_type():
    for values, kind in (([0, 255], "u8"), ([-128, 127], "i8"), ([-1, 255], "i16"), ([0, 256], "u16"),
                         ([0, 65536], "i32"), ([], "u8")):  # fmt: skip
        assert narrowest(np.array(values, int)) == kind
    with pytest.raises(ValueError, match="do not fit into 32 bits"):
        narrowest(np.array([2**31]))


def test_bytes_are_where_the_page_says():
    """By hand: low bytes of column 0, of column 1, then high bytes; differences where `delta` says so."""
    array = np.array([[1, 515], [2, 514], [258, 513], [259, 512]])
    stream = packed(array)
    assert stream.type == "u16" and stream.shape == (4, 2)
    plain = zlib.decompress(stream.data)
    if stream.delta:
        assert plain == bytes([1, 1, 0, 1, 3, 255, 255, 255, 0, 0, 1, 0, 2, 255, 255, 255])
    else:
        assert plain == bytes([1, 2, 2, 3, 3, 2, 1, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    slow = packed(np.arange(1000, 3000))
    assert slow.delta and zlib.decompress(slow.data)[:3] == bytes([1000 % 256, 1, 1])


def test_a_stream_never_grows_beyond_what_its_entry_says():
    bomb = zlib.compress(bytes(10**7), 9)
    with pytest.raises(ValueError, match="not of the 40 bytes"):
        unpacked(bomb, {"type": "i32", "shape": [10], "delta": False, "shifted": False})
    for shape in ([2**31], [2**20, 2**20], [1] * 9, "10", [1.0], [True]):
        with pytest.raises(ValueError, match="shape"):
            unpacked(bomb, {"type": "u8", "shape": shape, "delta": False, "shifted": False})
