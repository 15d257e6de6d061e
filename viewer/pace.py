"""How large pictures are while the view moves, and when a sign says that one is awaited; page/pace.js is its twin.

Times of pictures -> share of their side. Where pictures come quickly nothing ever changes: the share stays 1, and the
sign does not appear. All times are in seconds.
"""

from __future__ import annotations

import math

SLOW, AIM, FAST = 0.1, 0.07, 0.04  # that one picture takes
LEAST = 0.25  # of a side
STEP = 0.05  # sizes in between would change from picture to picture
GROWTH = 1.2
WAIT = 0.3  # before the sign appears
LINGER = 0.4  # after which it goes: it does not blink with slow pictures


class Pace:
    def __init__(self):
        self.share = 1.0
        self._slow = 0  # pictures, one after the other: a single one says nothing
        self._awaited_since: float | None = None
        self._sign_until = -math.inf

    def note(self, took: float, share: float) -> None:
        """One picture of this share of the side took so long."""
        self._slow = self._slow + 1 if took > SLOW else 0
        if self._slow > 1:
            self._aim(share * math.sqrt(AIM / took))
        if took < FAST and share >= self.share:
            self._aim(share * GROWTH)

    def asked(self, now: float) -> None:
        """Somebody waits for a picture from now on."""
        if self._awaited_since is None:
            self._awaited_since = now

    def answered(self, now: float, last: bool) -> None:
        """Now for the next one, or, after the last, for none."""
        self._awaited_since = None if last else now

    def waits(self, now: float) -> bool:
        """Whether the sign is to be seen."""
        if self._awaited_since is not None and now - self._awaited_since > WAIT:
            self._sign_until = now + LINGER
        return now < self._sign_until

    def _aim(self, share: float) -> None:
        self.share = min(max(round(share / STEP) * STEP, LEAST), 1.0)
