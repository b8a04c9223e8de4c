"""How to choose candidates, and how many of them to look at closely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from stream_hash.errors import UsageError
from stream_hash.service.filters import Filter
from stream_hash.settings import MAX_CANDIDATES

LEAST_BUDGET: Final = 300
BUDGET_A_RESULT: Final = 30
"""The default budget is the larger of 300 and 30 candidates a result. Learned bits put what shares a class into few
buckets: at 300, ten results are as precise as among ten times as many (docs/benchmarks.md), for a tenth of the reads.
"""

LEAST_FETCH: Final = 200
FETCH_A_RESULT: Final = 20
FETCH_OF_BUDGET: Final = 10
"""Unless told otherwise a budget's vectors are fetched of 200 candidates, of 20 a result, or of a tenth of the budget,
whichever is most: of 300 that lost one of two hundred true neighbours found, and nothing of the precision."""


@dataclass(frozen=True)
class Plan:
    """Candidates by `radius`, by `budget` (the default), or all items (`exact`).

    budget : probe the likeliest buckets until they hold as many; None, with neither of the others given: by k.
    fetch : of how many candidates, those with the best signatures, vectors are fetched and ranked; None for all,
    "default" for all of a radius's and some of a budget's.
    widen : whether the radius grows when it holds fewer than k items; False measures the radius itself.
    records : whether labels and metadata of the results are read, at the cost of a round trip.
    matching : what the results must have; a budget then counts candidates that match (filtered.py).
    """

    radius: int | None = None
    budget: int | None = None
    exact: bool = False
    widen: bool = True
    fetch: int | Literal["default"] | None = "default"
    records: bool = True
    matching: Filter | None = None

    def __post_init__(self) -> None:
        if self.exact + (self.radius is not None) + (self.budget is not None) > 1:
            raise UsageError(
                "more than one of radius, budget and exact is given",
                why="each chooses the candidates",
                remedy="give one of them",
            )
        for name in ("radius", "budget", "fetch"):
            value = getattr(self, name)
            if isinstance(value, int) and value < (name != "radius"):
                raise UsageError(f"the {name} is {value}", why="it cannot be that small", remedy="raise it")
            if isinstance(value, int) and name != "radius" and value > MAX_CANDIDATES:
                raise UsageError(
                    f"the {name} is {value}",
                    why=f"one search looks at {MAX_CANDIDATES} candidates at most",
                    remedy="lower it, or search exactly, which reads the items piece by piece",
                )
        if self.exact and isinstance(self.fetch, int):
            raise UsageError(
                f"fetch is {self.fetch} in an exact search", why="it ranks every item", remedy="leave one of them out"
            )

    def budget_for(self, k: int) -> int:
        """The budget of k results."""
        return max(LEAST_BUDGET, BUDGET_A_RESULT * k) if self.budget is None else self.budget

    def fetch_for(self, k: int) -> int | None:
        """Of how many candidates vectors are fetched for k results; None for all. Raises UsageError if below k."""
        if isinstance(self.fetch, int) and self.fetch < k:
            raise UsageError(
                f"fetch is {self.fetch} and k is {k}", why="results are ranked by their vectors", remedy="raise fetch"
            )
        if self.fetch != "default":
            return self.fetch
        if self.radius is not None:
            return None
        return max(LEAST_FETCH, FETCH_A_RESULT * k, self.budget_for(k) // FETCH_OF_BUDGET)
