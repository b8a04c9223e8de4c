"""An allowance: work beside the main work, in a bounded share of a process's time.

Time on the clock, not time at work: a busy process gives `share` of its time away; one that waits most of the time
has that to spare, and no more than `most_seconds` of it at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """Seconds that may be spent. What is spent beyond them is missing later."""

    def __init__(self, share: float, most_seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock : seconds, of any beginning."""
        self._share, self._most = share, most_seconds
        self._clock = clock
        self._then = clock()
        self._saved = 0.0
        self._unit = 0.0

    def grant(self, wanted: int) -> int:
        """How many units of work may be done now, at most `wanted`; one while nothing is known of what they take."""
        now = self._clock()
        # however long a unit takes, there comes a time for one
        self._saved = min(self._saved + self._share * (now - self._then), max(self._most, self._unit))
        self._then = now
        if self._saved <= 0:
            return 0
        return min(wanted, int(self._saved / self._unit) if self._unit else 1)

    def spend(self, seconds: float, units: int) -> None:
        """Account for `units` that were done in so many seconds."""
        self._saved -= seconds
        self._unit = (self._unit + seconds / units) / 2 if self._unit else seconds / units
