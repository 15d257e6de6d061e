"""Picture sizes follow the time that pictures take, and a sign appears for the slow ones alone."""

import numpy as np
import pytest

from viewer.pace import AIM, LEAST, LINGER, WAIT, Pace


def settled(seconds_of_whole: float, pace: Pace) -> float:
    """The share after some pictures, of a server that takes so long for a whole one."""
    for _ in range(30):
        pace.note(seconds_of_whole * pace.share**2, pace.share)
    return pace.share


def test_quick_pictures_stay_whole():
    assert settled(0.03, Pace()) == 1 and settled(0.09, Pace()) == 1


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.9])
def test_slow_pictures_become_as_small_as_is_quick(seconds):
    share = settled(seconds, Pace())
    assert share == pytest.approx(np.sqrt(AIM / seconds), abs=0.1)
    assert settled(1000.0, Pace()) == LEAST


def test_the_size_grows_again_and_one_slow_picture_says_nothing():
    pace = Pace()
    settled(2.0, pace)
    assert settled(0.02, pace) == 1
    pace.note(5.0, 1.0)
    assert pace.share == 1


def test_a_sharp_picture_in_between_does_not_let_a_moving_one_grow():
    """What is quick when small says nothing of sizes that were not asked for."""
    pace = Pace()
    share = settled(0.9, pace)
    pace.note(0.01, LEAST / 2)
    assert pace.share == share


def test_the_sign_is_for_who_waits():
    pace = Pace()
    assert not pace.waits(0.0)
    pace.asked(1.0)
    pace.asked(1.2)  # a newer one: who waits waits since the first
    assert not pace.waits(0.99 + WAIT) and pace.waits(1.01 + WAIT)
    pace.answered(1.4, last=False)
    assert pace.waits(1.5), "it does not blink"
    assert pace.waits(1.41 + WAIT), "and the next picture is awaited"
    pace.answered(1.8, last=True)
    assert not pace.waits(1.81 + WAIT + LINGER)


def test_quick_answers_never_show_the_sign():
    pace = Pace()
    for now in np.arange(0, 5, 0.1):
        pace.asked(now)
        assert not pace.waits(now + 0.05)
        pace.answered(now + 0.06, last=True)
