"""The course of the loss so far, in few points: for viewers that come later or are slow.

Data path: points of State.history as training publishes them -> LossCurve -> State.history of one viewer.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmlphuman.streaming.messages import MAX_HISTORY, MAX_LOSS

Point = tuple[int, float]  # iteration, loss


class LossCurve:
    """At most `most` points, evenly spread over the iterations; the first and the newest are always kept."""

    def __init__(self, points: Iterable[Point] = (), most: int = MAX_HISTORY):
        self._points: list[Point] = []
        self._most, self._spacing = most, 0.0  # iterations between two points
        self.add(points)

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(self._points)

    def add(self, points: Iterable[Point]) -> None:
        """Newer points. Those without a finite loss are left out: JSON has no NaN."""
        for iteration, loss in points:
            if abs(loss) <= MAX_LOSS:  # NaN compares false
                self._append((int(iteration), float(loss)))
                if len(self._points) > self._most:
                    self._thin()

    def take(self) -> tuple[Point, ...]:
        """The points, which are then gone from here."""
        points, self._points, self._spacing = self.points, [], 0.0
        return points

    def _append(self, point: Point) -> None:
        if len(self._points) > 1 and self._points[-1][0] - self._points[-2][0] < self._spacing:
            self._points[-1] = point  # the newest is kept however near it is, so here it makes room
        else:
            self._points.append(point)

    def _thin(self) -> None:
        """Doubles the spacing at least."""
        points, self._points = self._points, []
        self._spacing = 2 * (points[-1][0] - points[0][0]) / self._most
        for point in points:
            self._append(point)
        del self._points[
            : max(0, len(self._points) - self._most)
        ]  # iterations that do not grow cannot be spread
