"""For tests of viewers: until nothing happens any more."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until_still(count: Callable[[], int], pause: float, seconds: float = 20) -> None:
    """Until `count()` is the same before and after a pause; an assertion fails if it never is."""
    deadline, before = time.monotonic() + seconds, -1
    while before != (before := count()):
        assert time.monotonic() < deadline, f"no end of it: {before}"
        time.sleep(pause)
