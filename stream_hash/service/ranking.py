"""Rank: prune candidates by their signatures, fetch the vectors of the best, rank these exactly, read their records.

Pruning is by an asymmetric score of the query against the 39 bits that a member carries, so it costs no round trip.
Candidates of partitions that have different generations meanwhile have signatures of different kinds; their scores are
comparable all the same, from −1 for the least there could be to 1 for the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.asymmetric import own_scores
from stream_hash.numerics.batch_ranking import NearestOfEach
from stream_hash.numerics.model import EncodedQueries
from stream_hash.service.answer import Answer, ChangedError, Result, Stages
from stream_hash.service.gathering import Candidates
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import NUMBER_BITS, parse_label, parse_metadata
from stream_hash.storage.buckets import distinct
from stream_hash.storage.codec import Record, Values
from stream_hash.storage.reads import numbers_of

FETCH_BYTES: Final = 8 * 1024 * 1024
"""Vectors fetched in one round trip: more than any sensible query has. Batches of 64 took a quarter longer with 32 MB,
which leave the caches of both sides, and as much longer with 1 MB, in many more round trips."""

Numbers = list[NDArray[np.int64]]
"""Item numbers by partition, each ascending."""


class Ranker:
    """Ranks the candidates of the queries of one batch."""

    def __init__(
        self,
        handle: IndexHandle,
        partitions: Sequence[tuple[int, int]],
        encoded: Mapping[int, EncodedQueries],
        stages: Stages,
        values: Callable[[Sequence[tuple[int, NDArray[np.int64]]]], list[Values]] | None = None,
    ) -> None:
        """partitions : (partition, its generation). encoded : the queries, under each generation.

        values : reads values as Reader.values does, which it is if none is given.
        """
        self._handle, self._partitions, self._encoded, self._stages = handle, partitions, encoded, stages
        self._values = values or handle.reader.values

    def rank(
        self,
        queries: NDArray[np.float32],
        k: int,
        fetch: int | None,
        found: Sequence[Candidates],
        answers: list[Answer],
    ) -> list[list[tuple[str, float]]]:
        """(id, score) of the k best of each query. fetch : how many vectors to look at; None for all.

        Raises ChangedError when candidates were deleted and too few are left.
        """
        with self._stages.timed("prune"):
            wanted = self._pruned(found, fetch)
        nearest = NearestOfEach(queries, k, self._handle.settings.metric)
        for answer, candidates in zip(answers, found, strict=True):
            answer.candidates, answer.reranked = candidates.count, 0
        for piece in self._pieces(self._union(wanted)):
            with self._stages.timed("fetch"):
                fetched = self._values([(self._partitions[at][0], numbers) for at, numbers in piece])
            with self._stages.timed("rank"):
                for (at, _), values in zip(piece, fetched, strict=True):
                    if not len(values.ids):
                        continue
                    rows = None if len(wanted) == 1 else [_rows(values.numbers, own[at]) for own in wanted]
                    nearest.offer(values.ids, values.vectors, rows)
                    for query, answer in enumerate(answers):
                        answer.reranked += len(values.ids) if rows is None else len(rows[query])
        if any(answer.reranked < min(k, answer.candidates) for answer in answers):
            raise ChangedError  # candidates were deleted before they were fetched
        with self._stages.timed("rank"):
            return nearest.ranked()

    def _pruned(self, found: Sequence[Candidates], fetch: int | None) -> list[Numbers]:
        """The item numbers of each query's candidates that may be fetched; all queries' are scored in one pass."""
        if fetch is None:
            return [[numbers_of(members) for members in own.members] for own in found]
        many = [query for query, own in enumerate(found) if own.count > fetch]
        scores = [
            self._scores(at, many, [found[query].members[at] for query in many]) for at in range(len(self._partitions))
        ]
        wanted = []
        place = 0
        for own in found:
            if own.count <= fetch:
                wanted.append([numbers_of(members) for members in own.members])
                continue
            theirs = [of_partition[place] for of_partition in scores]
            place += 1
            best = np.zeros(own.count, dtype=np.bool_)
            joined = theirs[0] if len(theirs) == 1 else np.concatenate(theirs)
            best[np.argpartition(joined, own.count - fetch)[own.count - fetch :]] = True
            start, kept = 0, []
            for members in own.members:
                kept.append(numbers_of(members[best[start : start + len(members)]]))
                start += len(members)
            wanted.append(kept)
        return wanted

    def _scores(
        self, at: int, queries: Sequence[int], members: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Scores of the members of a partition that some queries have, by query."""
        if not queries:
            return []
        tables = _as_shares(self._encoded[self._partitions[at][1]].signature_tables[queries])
        sizes = [len(own) for own in members]
        joined = members[0] if len(members) == 1 else np.concatenate(members)
        scores = own_scores(tables, (joined >> NUMBER_BITS).view(np.uint64), sizes)
        ends = np.cumsum(sizes).tolist()
        return [scores[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def _union(self, wanted: Sequence[Numbers]) -> Numbers:
        """What any query wants of each partition, once."""
        if len(wanted) == 1:
            return wanted[0]
        return [distinct(np.concatenate([own[at] for own in wanted])) for at in range(len(self._partitions))]

    def _pieces(self, union: Numbers) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
        """(position of the partition, item numbers), as much at a time as one round trip may fetch."""
        most = max(1, FETCH_BYTES // (4 * self._handle.settings.dimension))
        piece: list[tuple[int, NDArray[np.int64]]] = []
        room = most
        for at, numbers in enumerate(union):
            left = numbers
            while len(left):
                piece.append((at, left[:room]))
                left, room = left[room:], room - len(piece[-1][1])
                if not room:
                    yield piece
                    piece, room = [], most
        if piece:
            yield piece

    def results(self, ranked: Sequence[list[tuple[str, float]]], *, records: bool) -> list[list[Result]]:
        """Results, with their labels and metadata if `records` are read: those of all queries in one round trip.

        Raises ChangedError when one was deleted since it was fetched.
        """
        if not records:
            return [[Result(item_id, score, None, None) for item_id, score in own] for own in ranked]
        with self._stages.timed("results"):
            ids = list(dict.fromkeys(item_id for own in ranked for item_id, _ in own))
            known = dict(zip(ids, self._handle.reader.records(ids), strict=True))
            return [[result_of(item_id, score, known[item_id]) for item_id, score in own] for own in ranked]


def result_of(item_id: str, score: float, record: Record | None) -> Result:
    """Raises ChangedError when the item was deleted."""
    if record is None or record.number is None:
        raise ChangedError
    return Result(item_id, score, parse_label(record.label), parse_metadata(record.metadata))


def _rows(numbers: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where those that are wanted stand, of those that are there. numbers : ascending, one or more."""
    at = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    return np.asarray(at[numbers[at] == wanted])


def _as_shares(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tables of scores from −1 to 1. tables : (n_queries, n_bytes, 256)."""
    most, least = tables.max(axis=2, keepdims=True), tables.min(axis=2, keepdims=True)
    reach = (most - least).sum(axis=1, keepdims=True) / 2
    return np.asarray((tables - (most + least) / 2) / np.where(reach > 0, reach, np.float32(1)))
