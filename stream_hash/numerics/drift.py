"""Drift: whether a series of figures has dropped for good. ADWIN, adaptive windowing.

Source: A. Bifet & R. Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007. A window W of the
last figures grows while their mean may be one and the same; when two parts of it, the older of n₀ and the newer of n₁
figures, have means further apart than chance explains, the oldest figures are forgotten. Section 3.1, equation 3.1:

    ε_cut = √(2/m · σ²_W · ln(2/δ')) + 2/(3m) · ln(2/δ'),    1/m = 1/n₀ + 1/n₁

with σ²_W the variance of W. Then, where the mean has not changed, the window is cut at a step with a chance of δ at
most (theorem 3.1). Section 4: the window is not kept but as sums over runs of 1, 2, 4, … figures, at most M of each
length, and only the places between runs are considered for a cut: memory and time grow with the logarithm of W.

Our departures:
1. δ' is δ over the count of places considered, where the paper's first version divides by the count of figures: a union
   bound needs no more.
2. A rise cuts the window as a drop does, or its low past would hide the next drop; but only a drop is an alarm.
3. Parts of fewer than `LEAST` figures are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from stream_hash.errors import IntegrityError, UsageError

DELTA: Final = 0.01
RUNS: Final = 5
"""M of the paper: more places to cut at, and more memory."""

LEAST: Final = 5


class Adwin:
    """The window, as runs of figures. A figure is from 0 to 1.

    delta : chance of a false cut at a step, at most. runs : how many of each length are kept, 2 or more.
    """

    def __init__(self, delta: float = DELTA, runs: int = RUNS) -> None:
        """Raises UsageError for a delta outside 0 to 1, or fewer than 2 runs."""
        if not 0 < delta < 1 or runs < 2:
            raise UsageError(f"delta={delta}, runs={runs}", remedy="give a delta between 0 and 1, and 2 runs or more")
        self.delta = delta
        self.runs = runs
        # of each length 1, 2, 4, …: (sum, sum of squared deviations from the mean) a run, oldest first
        self._levels: list[list[tuple[float, float]]] = []

    def __len__(self) -> int:
        """How many figures the window holds."""
        return sum(len(level) << power for power, level in enumerate(self._levels))

    @property
    def mean(self) -> float:
        """Of the window; NaN when it is empty."""
        return sum(total for level in self._levels for total, _ in level) / len(self) if len(self) else math.nan

    def add(self, figure: float) -> bool:
        """Take one more figure. Returns whether the mean has dropped. Raises UsageError for one outside 0 to 1."""
        if not 0 <= figure <= 1:
            raise UsageError(f"a figure is {figure}", why="they go from 0 to 1", remedy="scale it")
        self._insert(float(figure))
        dropped = False
        while (change := self._change()) is not None:
            dropped = dropped or change < 0
            self._forget()
        return dropped

    def _insert(self, figure: float) -> None:
        carried: tuple[float, float] | None = (figure, 0.0)
        power = 0
        while carried is not None:
            if power == len(self._levels):
                self._levels.append([])
            level = self._levels[power]
            level.append(carried)
            carried = None
            if len(level) > self.runs:  # the two oldest become one of the next length
                (one, spread_one), (two, spread_two) = level[:2]
                del level[:2]
                # variances of parts of equal size, 2^power each
                carried = one + two, spread_one + spread_two + (one - two) ** 2 / (2 << power)
            power += 1

    def _change(self) -> float | None:
        """The mean of the newer part less that of the older, at the first place where they differ; None if nowhere."""
        # oldest first
        runs = [(1 << power, *run) for power in reversed(range(len(self._levels))) for run in self._levels[power]]
        count, total = sum(size for size, _, _ in runs), sum(part for _, part, _ in runs)
        if count < 2 * LEAST:
            return None
        mean = total / count
        variance = sum(spread + size * (part / size - mean) ** 2 for size, part, spread in runs) / count
        chance = math.log(2 * (len(runs) - 1) / self.delta)
        older, older_total = 0, 0.0
        for size, part, _ in runs[:-1]:
            older += size
            older_total += part
            newer = count - older
            if newer < LEAST:
                return None
            if older < LEAST:
                continue
            change = (total - older_total) / newer - older_total / older
            inverse = 1 / older + 1 / newer
            if abs(change) > math.sqrt(2 * inverse * variance * chance) + 2 / 3 * inverse * chance:
                return change
        return None

    def _forget(self) -> None:
        """Drop the oldest run."""
        del self._levels[-1][0]
        while self._levels and not self._levels[-1]:
            self._levels.pop()

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it; `from_dict` is the way back. Some 40 bytes a run."""
        return {"delta": self.delta, "runs": self.runs, "levels": [[list(run) for run in lv] for lv in self._levels]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Adwin:
        """Raises IntegrityError when the state is not one of `to_dict`."""
        try:
            adwin = cls(float(state["delta"]), int(state["runs"]))
            adwin._levels = [[(float(total), float(spread)) for total, spread in lv] for lv in state["levels"]]
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise IntegrityError("the state of a drift detector is not one", why=str(error)) from error
        for power, level in enumerate(adwin._levels):
            size = 1 << power
            # NaN is in no range
            if len(level) > adwin.runs or not all(-1e-6 <= t <= size + 1e-6 and 0 <= s <= size for t, s in level):
                raise IntegrityError("the state of a drift detector is not one", why=f"runs of {size} are {level}")
        return adwin
