"""What a search returns, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stream_hash.settings import Label


@dataclass(frozen=True)
class Result:
    """One answer. score : larger is nearer; the negated distance under l2."""

    id: str
    score: float
    label: Label | None
    metadata: dict[str, Any] | None


@dataclass
class Answer:
    """What a query found, and what it cost.

    generation : the newest one searched; 0 when the index is empty. radius : the one searched in the end;
    None for a budget or an exact search. widened : whether it had to grow to find k results. probes : buckets
    looked up. candidates : different items found in them. reranked : of these, scored exactly. seconds : in
    all, and of queries that were answered together each one's share; stages : of these, by stage. codes : the
    query's code in each table. buckets : that are not empty, in all tables. tuned : the budget and fetch, if they are
    those that were saved for the index. matched : of the candidates, those that match the filter; None without one.
    scanned : records read to find all that match, 0 if that was not needed.
    """

    results: list[Result] = field(default_factory=list)
    generation: int = 0
    radius: int | None = None
    widened: bool = False
    probes: int = 0
    candidates: int = 0
    reranked: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    buckets: int = 0
    tuned: tuple[int, int] | None = None
    matched: int | None = None
    scanned: int = 0


class Stages(dict[str, float]):
    """Seconds by stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.perf_counter()
        yield
        self[stage] = self.get(stage, 0.0) + time.perf_counter() - start


class ChangedError(Exception):
    """The index changed under a search: begin again."""
