"""What the writes of a simulation did, in the order in which the server applied them.

It is told by the server's own replies, at the moment of each, and so knows what a search may have seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream_hash.service.answer import Answer
from stream_hash.service.plan import Plan
from stream_hash.settings import IndexSettings
from stream_hash.storage.store import HELD, WRITTEN

TOLERANCE = 1e-4
"""Scores are float32 and computed anew here in float64; vectors of the simulation lie further apart."""


@dataclass
class History:
    """The writes so far. visible : id → vector. changes : (id, vector, or None for a delete), oldest first."""

    settings: IndexSettings
    visible: dict[str, bytes] = field(default_factory=dict)
    changes: list[tuple[str, bytes | None]] = field(default_factory=list)
    effective: set[int] = field(default_factory=set)

    def wrote(self, request: str, values: Sequence[bytes], reply: Sequence[Any]) -> None:
        """The write script was called and has answered."""
        if reply[0] != b"OK":
            return
        stored = iter(values)
        for write, outcome in zip(json.loads(request)["writes"], reply[1:], strict=True):
            operation, item_id, sequence = write[:3]
            value = next(stored) if operation == "upsert" else None
            if outcome in (WRITTEN, HELD):
                assert sequence not in self.effective, f"write {sequence}, {operation} {item_id}, took effect twice"
                self.effective.add(sequence)
            if outcome == WRITTEN and value is not None:
                self._change(item_id, value[8 : 8 + 4 * self.settings.dimension])
            elif outcome == WRITTEN and operation == "delete":
                self._change(item_id, None)

    def _change(self, item_id: str, vector: bytes | None) -> None:
        self.changes.append((item_id, vector))
        if vector is None:
            self.visible.pop(item_id, None)
        else:
            self.visible[item_id] = vector


class Watched:
    """One search, from before it begins: what it may answer."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._before = dict(history.visible)
        self._start = len(history.changes)

    def check(self, query: np.ndarray[Any, Any], k: int, plan: Plan, answer: Answer) -> None:
        """Assert that the answer could be right at some moment of the search, and misses nothing that was there."""
        throughout = set(self._before)
        vectors = {item_id: {vector} for item_id, vector in self._before.items()}
        changes = self._history.changes[self._start :]
        for item_id, vector in changes:
            if vector is None:
                throughout.discard(item_id)
            else:
                vectors.setdefault(item_id, set()).add(vector)
        found = [result.id for result in answer.results]
        scores = [result.score for result in answer.results]
        assert len(set(found)) == len(found), f"an item is answered twice: {found}"
        least = min(k, len(throughout))
        assert least <= len(found) <= k, f"{len(found)} results, where {least} items were there throughout"
        assert set(found) <= set(vectors), f"{set(found) - set(vectors)} were never there during the search"
        assert scores == sorted(scores, reverse=True), f"the scores are not in order: {scores}"
        for item_id, score in zip(found, scores, strict=True):
            possible = [self._score(query, vector) for vector in vectors[item_id]]
            assert min(abs(score - one) for one in possible) < TOLERANCE, f"{item_id} never scored {score}: {possible}"
        if plan.exact or plan.radius == self._history.settings.bits or plan.budget:
            worst = scores[-1] if len(found) == k else -np.inf
            for item_id in throughout - {changed for changed, _ in changes} - set(found):
                score = self._score(query, self._before[item_id])
                assert score <= worst + TOLERANCE, f"{item_id} scores {score}, above {worst}, and is missing"

    def _score(self, query: np.ndarray[Any, Any], vector: bytes) -> float:
        x, q = np.frombuffer(vector, dtype="<f4").astype(float), query.astype(float)
        if self._history.settings.metric == "l2":
            return -float(np.sqrt(((x - q) ** 2).sum()))
        return float((x @ q) / np.sqrt((x @ x) * (q @ q)))
