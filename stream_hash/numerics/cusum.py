"""Whether one class's figures have dropped, and since when. CUSUM, the cumulative sum.

Source: E. S. Page, "Continuous inspection schemes", Biometrika 1954: S ← max(0, S + (mean − figure)/deviation −
ALLOWANCE), and an alarm at S > LIMIT. With ALLOWANCE ½ of the drop to be found, in deviations, that is the quickest
test of all that are as seldom wrong (G. Moustakides, Annals of Statistics 1986). The drop began where S was last 0.
ADWIN (drift.py) is for the one series of all; this takes five numbers, so that each of hundreds of classes has its own.

Our departures:
1. Mean and deviation are not known beforehand but those of the figures so far, older ones forgotten after about MEMORY;
   before there are LEAST nothing is said. What the mean may be wrong by, 1/√count, is allowed for as well. A class's
   figures rise while it fills: the mean lags behind, and no alarm.
2. The deviation is FLOOR at least: figures that were all alike say little about chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from stream_hash.errors import IntegrityError

ALLOWANCE: Final = 0.25
"""Deviations. Precision@10 of an item deviates by .25 to .3: a drop of .15 is to be found."""

LIMIT: Final = 12.0
"""A drop of one deviation is found after some 20 figures; a false alarm comes once in tens of thousands."""

MEMORY: Final = 300
LEAST: Final = 30
FLOOR: Final = 0.1


class Cusum:
    """count, mean, variance : of the figures so far. sum : S. since : the position of the figure after its last 0."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.variance = 0.0
        self.sum = 0.0
        self.since = 0

    def add(self, position: int, figure: float) -> int | None:
        """Take one more figure. Returns since which position there is a drop, if there is; begin anew then.

        position : where in the stream, not lower than before. figure : from 0 to 1.
        """
        if self.count >= LEAST:
            short = (self.mean - figure) / max(FLOOR, math.sqrt(self.variance)) - ALLOWANCE - self.count**-0.5
            if self.sum == 0:
                self.since = position
            self.sum = max(0.0, self.sum + short)
            if self.sum > LIMIT:
                return self.since
        self.count = min(self.count + 1, MEMORY)
        weight = 1 / self.count
        step = figure - self.mean
        self.mean += weight * step
        self.variance = (1 - weight) * (self.variance + weight * step * step)
        return None

    def to_list(self) -> list[float]:
        """The state as JSON can hold it; `from_list` is the way back. Some 50 bytes."""
        return [self.count, self.since, round(self.mean, 5), round(self.variance, 6), round(self.sum, 4)]

    @classmethod
    def from_list(cls, state: Sequence[float]) -> Cusum:
        """Raises IntegrityError when the state is not one of `to_list`."""
        found = cls()
        try:
            found.count, found.since = int(state[0]), int(state[1])
            found.mean, found.variance, found.sum = (float(value) for value in state[2:])
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise IntegrityError("the state of a class's figures is not one", why=str(error)) from error
        known = 0 <= found.count <= MEMORY and 0 <= found.mean <= 1 and 0 <= found.variance <= 1
        if not known or not 0 <= found.sum <= LIMIT:
            raise IntegrityError("the state of a class's figures is not one", why="a value is out of its range")
        return found
