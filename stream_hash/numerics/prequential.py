"""The prequential series: how good answers were along the stream, each labelled item asked before it was stored.

Source: A. P. Dawid, "Statistical theory: the prequential approach", J. R. Statist. Soc. A 1984; J. Gama, R. Sebastião &
P. Rodrigues, "On evaluating stream learning algorithms", Machine Learning 2013. What is kept are means over runs of
figures of equal length. When there are too many, neighbours are joined: the whole stream stays in view, more coarsely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stream_hash.errors import IntegrityError, UsageError

FIRST_LENGTH: Final = 25
MOST_POINTS: Final = 400


@dataclass(frozen=True)
class Point:
    """position : in the stream, of the last figure of the run. mean : of the figures."""

    position: int
    mean: float


class PrequentialSeries:
    """Means of figures from 0 to 1, at most `MOST_POINTS` of them."""

    def __init__(self) -> None:
        self.length = FIRST_LENGTH
        self.points: list[Point] = []
        self._open: list[float] = [0.0, 0.0]  # sum and count of the run that is not full yet

    def __len__(self) -> int:
        """How many figures were added."""
        return len(self.points) * self.length + int(self._open[1])

    def add(self, position: int, figure: float) -> None:
        """position : where in the stream, never lower than before. Raises UsageError for a figure outside 0 to 1."""
        if not 0 <= figure <= 1:
            raise UsageError(f"a figure is {figure}", why="they go from 0 to 1", remedy="scale it")
        self._open[0] += figure
        self._open[1] += 1
        if self._open[1] < self.length:
            return
        self.points.append(Point(position, self._open[0] / self._open[1]))
        self._open = [0.0, 0.0]
        if len(self.points) == MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [Point(second.position, (first.mean + second.mean) / 2) for first, second in pairs]
            self.length *= 2

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it; `from_dict` is the way back."""
        return {"length": self.length, "points": [[p.position, p.mean] for p in self.points], "open": self._open}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> PrequentialSeries:
        """Raises IntegrityError when the state is not one of `to_dict`."""
        series = cls()
        try:
            series.length = int(state["length"])
            series.points = [Point(int(position), float(mean)) for position, mean in state["points"]]
            total, count = (float(value) for value in state["open"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError("the state of a series is not one", why=str(error)) from error
        series._open = [total, count]
        means = all(math.isfinite(p.mean) and 0 <= p.mean <= 1 for p in series.points)
        if not means or len(series.points) >= MOST_POINTS or not 0 <= total <= count < series.length:
            raise IntegrityError("the state of a series is not one", why="a value is out of its range")
        return series
