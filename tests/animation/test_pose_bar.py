"""The strip under the picture: covers nothing, and is fuller and more alarming the farther a pose is."""

import numpy as np
import pytest

from mmlphuman.animation.pose_bar import FULL_SCALE, TRACK, add_pose_bar, bar_colour, strip_height


@pytest.mark.parametrize("shape", [(96, 96), (512, 512), (41, 31), (1022, 747), (2048, 1500)])
def test_the_picture_is_untouched_above_an_even_strip(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype(np.uint8)
    framed = add_pose_bar(image, 12.3)
    strip = strip_height(shape[1])
    assert framed.shape == (shape[0] + strip, shape[1], 3) and framed.dtype == np.uint8
    assert strip % 2 == 0 and strip < 0.3 * max(shape[0], 100)
    assert np.array_equal(framed[: shape[0]], image)


def gauge(degrees, size=512):
    """Pixels of the gauge in the bar's colour and in the empty track's, over one line through its middle."""
    image = np.zeros((8, size, 3), np.uint8)
    line = add_pose_bar(image, degrees)[8 + round(strip_height(size) * 0.35)]
    filled, empty = ((line == colour).all(1) for colour in (bar_colour(degrees), TRACK))
    return filled.sum(), empty.sum()


def test_the_gauge_is_proportional():
    full = gauge(FULL_SCALE)[0]
    assert full > 250 and gauge(FULL_SCALE)[1] == 0
    for share in (0.25, 0.5, 0.75):
        filled, empty = gauge(share * FULL_SCALE)
        assert filled == pytest.approx(share * full, abs=2)
        assert filled + empty == pytest.approx(full, abs=2)
    assert gauge(5 * FULL_SCALE)[0] == full


def test_the_colour_goes_from_calm_to_alarming():
    redness = [bar_colour(degrees)[0] - bar_colour(degrees)[2] for degrees in (0, 5, 10, 15)]
    assert redness == sorted(redness) and redness[0] < 0 < redness[-1]
    greenness = [bar_colour(degrees)[1] for degrees in (15, 20, 25, 30, 90)]
    assert greenness == sorted(greenness, reverse=True) and greenness[-1] < 60


def test_the_number_is_written():
    image = np.zeros((8, 512, 3), np.uint8)
    same_bar = [add_pose_bar(image, degrees)[:, :140] for degrees in (50.0, 51.0)]
    assert (same_bar[0] != same_bar[1]).any()
