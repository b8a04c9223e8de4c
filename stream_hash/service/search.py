"""Search: plan, gather, prune, fetch, rank; of many queries in batches that share their round trips.

1. Plan    hash the queries under the live model; choose the buckets to probe (probing.py, directories.py).
2. Gather  the members of these buckets, read together with `live`; if that has moved, begin again (gathering.py).
           With a filter, read the records of these and keep those that match, or scan all records (filtered.py).
3. Rank    prune by signature, fetch vectors, rank exactly, stable by (score, id), and read labels and metadata of the
           results (ranking.py).

Gather, fetch and the last read are one round trip each on one server, for a whole batch. A directory that is not kept
costs two more; so do too few candidates for k results. A gather is repeated when new buckets are among those probed.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.numerics.ranking import NearestK
from stream_hash.numerics.validation import vector_faults
from stream_hash.service.answer import Answer, ChangedError, Stages
from stream_hash.service.filtered import FilteredSearch
from stream_hash.service.finding import find
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.service.ranking import Ranker, result_of
from stream_hash.settings import MAX_RESULTS, IndexSettings

MAX_RETRIES: Final = 16
"""How often a search begins again because the index changed under it."""

BATCH: Final = 64
"""Queries answered together at most."""

BATCH_CANDIDATES: Final = 131_072
"""Candidates that a batch may have, as its budgets promise: 2 MB of a reply, and little beside the vectors."""

BATCH_BY_RADIUS: Final = 16
"""Queries by radius answered together: how many candidates they have is not known beforehand."""


class Searcher:
    """Searches one index."""

    def __init__(self, handle: IndexHandle) -> None:
        self._handle = handle
        self._filtered = FilteredSearch(handle)

    @property
    def _settings(self) -> IndexSettings:
        return self._handle.settings

    def search(self, queries: NDArray[np.float32], k: int, plan: Plan) -> list[Answer]:
        """The k nearest items to each query. queries : (n, dimension) float32.

        Raises UsageError for a k out of range or a query that cannot be ranked.
        """
        if not 1 <= k <= MAX_RESULTS:
            raise UsageError(f"k is {k}", why=f"it must be from 1 to {MAX_RESULTS}", remedy="choose another k")
        plan.fetch_for(k)
        self._check(queries)
        if plan.exact and plan.matching is None:
            return self._exact(queries, k)
        step = max(1, len(queries)) if plan.exact else self.batch_size(k, plan)
        return [
            answer
            for start in range(0, len(queries), step)
            for answer in self._together(queries[start : start + step], k, plan)
        ]

    @staticmethod
    def batch_size(k: int, plan: Plan) -> int:
        """How many queries are answered together."""
        if plan.radius is not None:
            return BATCH_BY_RADIUS
        return max(1, min(BATCH, BATCH_CANDIDATES // plan.budget_for(k)))

    def _check(self, queries: NDArray[np.float32]) -> None:
        """Raise UsageError for queries that this index cannot rank."""
        if queries.ndim != 2 or queries.shape[1] != self._settings.dimension:
            raise UsageError(
                f"the queries have shape {queries.shape}",
                why=f"index {self._handle.name!r} holds vectors of {self._settings.dimension} coordinates",
                remedy="give queries of that dimension",
            )
        for row, fault in vector_faults(queries, self._settings.metric).items():
            raise UsageError(f"query {row} cannot be ranked", why=fault, remedy="leave it out")

    def _together(self, queries: NDArray[np.float32], k: int, plan: Plan) -> list[Answer]:
        """Answer queries in shared round trips; those under which the index changed, one by one."""
        start = time.perf_counter()
        for _ in range(MAX_RETRIES):
            try:
                answers = self._attempt(queries, k, plan)
            except ChangedError:
                self._handle.directories.forget()
                self._handle.reload_states()
                self._check(queries)  # the index may be another one by now
                if len(queries) > 1 and not plan.exact:
                    return [answer for query in queries for answer in self._together(query[None, :], k, plan)]
                continue
            for answer in answers:
                answer.seconds = (time.perf_counter() - start) / len(answers)
            return answers
        raise self._restless()

    def _attempt(self, queries: NDArray[np.float32], k: int, plan: Plan) -> list[Answer]:
        """Raises ChangedError when the index changed."""
        if plan.matching is not None:
            return self._filtered.attempt(queries, k, plan, plan.matching)
        stages = Stages()
        found = find(self._handle, queries, k, plan, stages, widen=plan.widen)
        ranker = Ranker(self._handle, found.partitions, found.encoded, stages)
        ranked = ranker.rank(queries, k, plan.fetch_for(k), found.candidates, found.answers)
        for answer, results in zip(found.answers, ranker.results(ranked, records=plan.records), strict=True):
            answer.results = results
            answer.stages = {stage: seconds / len(queries) for stage, seconds in stages.items()}
        return found.answers

    def _exact(self, queries: NDArray[np.float32], k: int) -> list[Answer]:
        """Rank every item: the truth that other plans are measured against."""
        start = time.perf_counter()
        for _ in range(MAX_RETRIES):
            answers = self._scan(queries, k)
            if answers is not None:
                break
        else:
            raise self._restless()
        for answer in answers:
            answer.seconds = (time.perf_counter() - start) / len(answers)
        return answers

    def _scan(self, queries: NDArray[np.float32], k: int) -> list[Answer] | None:
        """One scan of all items for all queries; None when items that it found were gone at its end."""
        if self._handle.store.settings() != self._handle.identity:
            self._handle.reopen()
            self._check(queries)
        self._handle.reload_states()
        nearest = [NearestK(query, k, self._settings.metric) for query in queries]
        scanned = 0
        for partition in range(self._settings.partitions):
            for values in self._handle.reader.scan_values(partition):
                scanned += len(values.ids)
                for one in nearest:
                    one.offer(values.ids, values.vectors)
        generation = max(state.live for state in self._handle.states)
        answers = []
        for one in nearest:
            ranked = one.ranked()
            records = self._handle.reader.records([item_id for item_id, _ in ranked])
            try:
                pairs = zip(ranked, records, strict=True)
                results = [result_of(item_id, score, record) for (item_id, score), record in pairs]
            except ChangedError:
                return None
            answers.append(Answer(results, generation, candidates=scanned, reranked=scanned))
        return answers

    def _restless(self) -> StreamHashError:
        return StreamHashError(
            f"index {self._handle.name!r} changed {MAX_RETRIES} times during one search",
            why="its generations or items are being replaced faster than they can be read",
            remedy="try again",
        )
