"""The k nearest to each of many queries that have candidates in common: fetched once, ranked for whom they are.

What `NearestK` of each query would find (ranking.py), to the last bit of the scores: each is a sum along its own row.
Two things save a good part of the calls that a batch would make for every query and piece. No id comes twice, so only
those of contenders are looked at. And contenders wait until all pieces have come, then those of several queries are
scored exactly in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.ranking import exact_scores, rough_scores
from stream_hash.settings import Metric

SCORED_AT_ONCE: Final = 256
"""Vectors in one pass of exact scoring: with 512 coordinates a megabyte of float64."""


class NearestOfEach:
    """The k nearest to each query, of all vectors offered."""

    def __init__(self, queries: NDArray[np.float32], k: int, metric: Metric) -> None:
        """queries : (n_queries, dimension) float32, finite."""
        self._queries, self._k, self._metric = queries, k, metric
        self._lengths = np.sqrt(np.vecdot(queries, queries)).tolist()
        # what k vectors surely reach: whatever cannot is none of the k nearest
        self._floors = [-math.inf] * len(queries)
        self._ids: list[list[str]] = [[] for _ in queries]
        self._vectors: list[list[NDArray[np.float32]]] = [[] for _ in queries]
        self._ranked: list[list[tuple[float, str]]] = [[] for _ in queries]

    def offer(
        self, ids: Sequence[str], vectors: NDArray[np.float32], rows: Sequence[NDArray[np.intp]] | None = None
    ) -> None:
        """Consider more vectors. vectors : (n, dimension) float32; ids : n texts, none of them offered before.

        rows : for each query, which of them are its; None for all.
        """
        squares = np.vecdot(vectors, vectors)
        for query, waiting in enumerate(self._ids):
            if rows is None:
                kept = self._contenders(query, vectors, squares)
                self._vectors[query].append(vectors[kept])
            else:
                own = vectors[rows[query]]
                contenders = self._contenders(query, own, squares[rows[query]])
                kept = rows[query][contenders]
                self._vectors[query].append(own[contenders])
            waiting += [ids[at] for at in kept.tolist()]
            if len(waiting) > SCORED_AT_ONCE + self._k:  # as many as that are equal, or nearly
                self._score(range(query, query + 1))

    def _contenders(self, query: int, vectors: NDArray[np.float32], squares: NDArray[np.float32]) -> NDArray[np.intp]:
        """Positions of those that may be among the k nearest, for all that float32 can tell."""
        if not len(vectors):
            return np.arange(0)
        rough, slack = rough_scores(self._queries[query], self._lengths[query], vectors, squares, self._metric)
        if len(rough) >= self._k:
            reached = float(np.partition(rough, len(rough) - self._k)[len(rough) - self._k]) - slack
            self._floors[query] = max(self._floors[query], reached)
        return np.flatnonzero(rough >= self._floors[query] - slack)

    def ranked(self) -> list[list[tuple[str, float]]]:
        """For each query (id, score) of the k nearest, best first; equal scores by id."""
        for queries in self._passes():
            self._score(queries)
        return [[(item_id, 0.0 - negated) for negated, item_id in own] for own in self._ranked]

    def _passes(self) -> Iterator[range]:
        """Queries whose contenders are scored together."""
        start, size = 0, 0
        for query, waiting in enumerate(self._ids):
            if size and size + len(waiting) > SCORED_AT_ONCE:
                yield range(start, query)
                start, size = query, 0
            size += len(waiting)
        yield range(start, len(self._ids))

    def _score(self, queries: range) -> None:
        """Score what waits, exactly, and keep the k best."""
        pieces = [piece for query in queries for piece in self._vectors[query]]
        if not pieces:
            return
        vectors = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        asking = self._queries[queries.start]
        if len(queries) > 1:
            counts = [len(self._ids[query]) for query in queries]
            asking = np.repeat(self._queries[queries.start : queries.stop], counts, axis=0)
        scores = iter(exact_scores(asking, vectors, self._metric).tolist())
        for query in queries:
            scored = [(-next(scores), item_id) for item_id in self._ids[query]]
            self._ranked[query] = sorted(self._ranked[query] + scored)[: self._k]
            self._ids[query].clear()
            self._vectors[query].clear()
