"""Search with a filter: gather and keep what matches while that is cheap, else scan the records once.

1. A budget counts candidates that match. How many have to be gathered follows from the share that matched so far; the
   next queries of the same filter begin with that share. At ENOUGH of the budget it is not worth another round.
2. A radius is widened until k of its items match, as without a filter.
3. When it is cheaper than gathering so many, all records are scanned, once for all queries that need it, and all items
   that match are ranked: that answer is exact. So is that of a filtered `exact`.
4. Hence k results come back whenever k items match: a search ends with k matching candidates, or having met all items.
5. Records are read before vectors (matching.py), and once: results need no round trip of their own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.ranking import NearestK
from stream_hash.service.answer import Answer, ChangedError, Result, Stages
from stream_hash.service.filters import Filter
from stream_hash.service.finding import find
from stream_hash.service.gathering import Candidates
from stream_hash.service.handle import IndexHandle
from stream_hash.service.matching import Matches, Wanted
from stream_hash.service.plan import Plan
from stream_hash.service.probing import Prober
from stream_hash.service.ranking import FETCH_BYTES, Ranker, result_of

RECORDS_A_CANDIDATE: Final = 4
"""Gathering a candidate and reading its record takes as long as scanning so many records,"""
RECORDS_A_VECTOR: Final = 8
"""and so does fetching and ranking a vector of a few hundred dimensions (benchmarks/filters.py)."""

ENOUGH: Final = 0.5
MARGIN: Final = 1.1
"""Gathered beyond what the share promises, since shares differ from place to place."""

MOST_GROWTH: Final = 8
"""A share of few candidates is a guess: the next round has at most so many times as many."""

REMEMBERED: Final = 64
"""Filters whose shares are kept."""


@dataclass(frozen=True)
class Seen:
    """share : of the items that were met, how many match. items : of the whole index."""

    share: float
    items: int

    @classmethod
    def of(cls, matched: int, met: int, items: int) -> Seen:
        """Half an item more than there were: none is a guess as well."""
        return cls(min(1.0, (matched + 0.5) / (met + 0.5)), items)

    def needed(self, matching: int) -> int:
        """How many candidates hold so many that match."""
        return int(MARGIN * matching / self.share) + 1

    def scans(self, candidates: int) -> bool:
        """Whether a scan is cheaper than gathering so many."""
        scan = self.items * (1 + RECORDS_A_VECTOR * self.share)
        return RECORDS_A_CANDIDATE * min(candidates, self.items) > scan


class FilteredSearch:
    """Filtered searches of one index, by one process."""

    def __init__(self, handle: IndexHandle) -> None:
        self._handle = handle
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def attempt(self, queries: NDArray[np.float32], k: int, plan: Plan, wanted: Filter) -> list[Answer]:
        """Answer queries together. Raises ChangedError when the index changed."""
        return _Attempt(self._handle, queries, k, plan, wanted, self).answers()

    def seen(self, wanted: Filter) -> Seen | None:
        return self._seen.get(wanted.text)

    def learn(self, wanted: Filter, seen: Seen) -> None:
        self._seen[wanted.text] = seen
        self._seen.move_to_end(wanted.text)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


class _Attempt:
    """One attempt at some queries."""

    def __init__(
        self,
        handle: IndexHandle,
        queries: NDArray[np.float32],
        k: int,
        plan: Plan,
        wanted: Filter,
        memory: FilteredSearch,
    ) -> None:
        self._handle, self._queries, self._k, self._plan, self._memory = handle, queries, k, plan, memory
        self._filter, self._matches, self._stages = wanted, Matches(handle, wanted), Stages()
        self._target = k if plan.radius is not None else max(k, plan.budget_for(k))
        self._answers: dict[int, Answer] = {}

    def answers(self) -> list[Answer]:
        rows, plan = list(range(len(self._queries))), self._first()
        waiting = [(plan, rows)] if plan is not None else []
        to_scan = [] if waiting else rows
        while waiting:
            for query, following in self._gather(*waiting.pop()):
                if following is None:
                    to_scan.append(query)
                    continue
                same = [own for other, own in waiting if other == following]
                if same:
                    same[0].append(query)
                else:
                    waiting.append((following, [query]))
        if to_scan:
            self._scan(to_scan)
        for answer in self._answers.values():
            answer.stages = {stage: seconds / len(rows) for stage, seconds in self._stages.items()}
        return [self._answers[query] for query in rows]

    def _first(self) -> Plan | None:
        """The plan to begin with; None for a scan."""
        if self._plan.exact:
            return None
        seen = self._memory.seen(self._filter)
        if seen is None or self._plan.radius is not None or not self._plan.widen:
            return self._plan
        needed = max(self._target, seen.needed(self._target))
        return None if seen.scans(needed) else replace(self._plan, budget=needed)

    def _gather(self, plan: Plan, rows: Sequence[int]) -> list[tuple[int, Plan | None]]:
        """Gather for some queries, and rank for those that have enough; the others with their next plans."""
        found = find(self._handle, self._queries[rows], self._k, plan, self._stages, widen=False)
        with self._stages.timed("filter"):
            matching = self._matches.among([partition for partition, _ in found.partitions], found.candidates)
        asked = [self._asked(plan, own) for own in found.candidates]
        items = max((own.items for own in found.candidates), default=0)
        self._memory.learn(self._filter, Seen.of(sum(own.count for own in matching), sum(asked), items))
        done, following = [], []
        for at, query in enumerate(rows):
            answer = self._answers[query] = found.answers[at]
            answer.matched = matching[at].count
            answer.widened = answer.radius is not None and answer.radius > (self._plan.radius or 0)
            if self._is_enough(answer.matched, found.candidates[at]):
                done.append(at)
            else:
                seen = Seen.of(answer.matched, asked[at], items)
                following.append((query, self._next(found.prober, at, asked[at], seen)))
        if done:
            answers = [found.answers[at] for at in done]
            ranker = Ranker(self._handle, found.partitions, found.encoded_of(done), self._stages, self._matches.values)
            ranked = ranker.rank(
                self._queries[[rows[at] for at in done]],
                self._k,
                self._plan.fetch_for(self._k),
                [matching[at] for at in done],
                answers,
            )
            for answer, nearest in zip(answers, ranked, strict=True):
                answer.results = self._results(nearest, self._matches)
        for answer, own in zip(found.answers, found.candidates, strict=True):
            answer.candidates = own.count
        return following

    def _asked(self, plan: Plan, own: Candidates) -> int:
        """How many candidates were asked for, if that is more: several tables find some of them twice."""
        return (
            own.count if plan.radius is not None or own.count >= own.items else max(own.count, plan.budget_for(self._k))
        )

    def _is_enough(self, matched: int, own: Candidates) -> bool:
        if not self._plan.widen or own.count >= own.items:
            return True
        least = self._k if self._plan.radius is not None else max(self._k, int(ENOUGH * self._target))
        return matched >= least

    def _next(self, prober: Prober, at: int, asked: int, seen: Seen) -> Plan | None:
        """What to gather for a query that asked for too few; None when a scan is cheaper. at : the query's row."""
        needed, least = seen.needed(self._target), max(self._target, 2 * asked)
        if seen.scans(max(least, needed)) or prober.radius == prober.bits:
            return None
        count = max(least, min(needed, MOST_GROWTH * asked))
        if prober.radius is None:
            # queries of a batch go on together when their budgets are equal
            return replace(self._plan, budget=count if len(self._queries) == 1 else 1 << (count - 1).bit_length())
        return replace(self._plan, radius=min(max(prober.radius + 1, prober.radius_of(at, count)), prober.bits))

    def _scan(self, rows: Sequence[int]) -> None:
        """Rank all items that match, for some queries. Raises ChangedError when another index has the name."""
        if self._handle.store.settings() != self._handle.identity:
            self._handle.reopen()
            raise ChangedError
        self._handle.reload_states()
        matches, matched = Matches(self._handle, self._filter), 0
        nearest = [NearestK(self._queries[query], self._k, self._handle.settings.metric) for query in rows]
        pieces = matches.scan(max(1, FETCH_BYTES // (4 * self._handle.settings.dimension)))
        while (piece := self._timed_next(pieces)) is not None:
            with self._stages.timed("fetch"):
                found = matches.values(piece)
            with self._stages.timed("rank"):
                for values in found:
                    matched += len(values.ids)
                    for one in nearest:
                        one.offer(values.ids, values.vectors)
                matches.keep({item_id for one in nearest for item_id, _ in one.ranked()})
        self._memory.learn(self._filter, Seen.of(matched, matches.scanned, matches.scanned))
        for query, one in zip(rows, nearest, strict=True):
            answer = self._answers.setdefault(query, Answer())
            answer.generation = max(state.live for state in self._handle.states)
            answer.candidates = answer.scanned = matches.scanned
            answer.matched = answer.reranked = matched
            if self._plan.radius is not None:  # all there are: as if it had reached every code
                answer.radius, answer.widened = self._handle.settings.bits, True
            answer.results = self._results(one.ranked(), matches)

    def _timed_next(self, pieces: Iterator[Wanted]) -> Wanted | None:
        with self._stages.timed("scan"):
            return next(pieces, None)

    def _results(self, ranked: Sequence[tuple[str, float]], matches: Matches) -> list[Result]:
        if not self._plan.records:
            return [Result(item_id, score, None, None) for item_id, score in ranked]
        return [result_of(item_id, score, matches.records[item_id]) for item_id, score in ranked]
