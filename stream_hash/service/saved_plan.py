"""The plan that was tuned and saved: how an index is searched when a query does not say.

A process reads it when it opens the index, and again when MOST_SECONDS have passed: one round trip in front of a query.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from stream_hash.clock import now_seconds
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.settings import MAX_RESULTS
from stream_hash.storage.plans import Plans

MOST_SECONDS: Final = 60.0

Measure: TypeAlias = Literal["recall", "precision"]

_WHOLE: Final = ("budget", "fetch", "k", "generation", "items")
_REAL: Final = ("target", "measured", "standard_error", "created")

log = logging.getLogger("stream_hash.plans")


@dataclass(frozen=True)
class SavedPlan:
    """budget, fetch : as of a Plan. k : results for which they were chosen. measure, target : what was to be reached.

    measured, standard_error : what was found of it, on a sample. generation, items : of the index, then. created : Unix
    seconds.
    """

    budget: int
    fetch: int
    k: int
    measure: Measure
    target: float
    measured: float
    standard_error: float
    generation: int
    items: int
    created: float

    @classmethod
    def of(cls, values: dict[str, Any]) -> SavedPlan | None:
        """From the values of `asdict`, be there others besides; None if there is something wrong with them."""
        try:
            budget, fetch, k, generation, items = (int(values[name]) for name in _WHOLE)
            target, measured, error, created = (float(values[name]) for name in _REAL)
            measure: Measure = "precision" if values["measure"] == "precision" else "recall"
            if 1 <= k <= min(fetch, MAX_RESULTS) and budget >= 1:
                return cls(budget, fetch, k, measure, target, measured, error, generation, items, created)
        except (KeyError, OverflowError, TypeError, ValueError):
            pass
        log.warning("the saved plan %r cannot be read, and is left out", values)
        return None

    def scaled(self, k: int) -> tuple[int, int]:
        """(budget, fetch) of k results: as they were chosen up to their own k, and beyond it in proportion."""
        more = max(k, self.k)
        return -(-self.budget * more // self.k), -(-self.fetch * more // self.k)

    def plan(self, k: int, *, widen: bool, records: bool) -> Plan:
        """The plan of a query for k results."""
        budget, fetch = self.scaled(k)
        return Plan(budget=budget, fetch=fetch, widen=widen, records=records)


class PlanKeeper:
    """What is saved for one index, as this process knows it."""

    def __init__(self, handle: IndexHandle) -> None:
        """Reads it."""
        self._handle = handle
        self._plans = Plans(handle.client, handle.name)
        self.refresh()

    def refresh(self) -> None:
        """Read what is saved now."""
        self._since = now_seconds()
        values = self._plans.read()
        self._nonce = None if values is None else values.get("nonce")
        self._saved = None if values is None else SavedPlan.of(values)

    def current(self) -> SavedPlan | None:
        """What is saved for the index that is open; another that had its name has no say."""
        if not 0 <= now_seconds() - self._since < MOST_SECONDS:
            self.refresh()
        return self._saved if self._nonce == self._handle.identity.nonce else None

    def save(self, plan: SavedPlan) -> bool:
        """Have this index searched so from now on; False when it was wiped since it was opened."""
        saved = self._plans.save(self._handle.identity.nonce, asdict(plan))
        self.refresh()
        return saved

    def forget(self) -> bool:
        """Have nothing saved; False when the index was wiped since it was opened."""
        forgotten = self._plans.forget(self._handle.identity.nonce)
        self.refresh()
        return forgotten
