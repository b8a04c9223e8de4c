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

from stream_hash.numerics.asymmetric import table_scores
from stream_hash.numerics.model import EncodedQueries
from stream_hash.numerics.ranking import NearestK
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
            wanted = [self._pruned(query, candidates, fetch) for query, candidates in enumerate(found)]
        nearest = [NearestK(query, k, self._handle.settings.metric) for query in queries]
        for answer, candidates in zip(answers, found, strict=True):
            answer.candidates, answer.reranked = candidates.count, 0
        for piece in self._pieces(self._union(wanted)):
            with self._stages.timed("fetch"):
                fetched = self._values([(self._partitions[at][0], numbers) for at, numbers in piece])
            with self._stages.timed("rank"):
                for (at, _), values in zip(piece, fetched, strict=True):
                    for query, one in enumerate(nearest):
                        answers[query].reranked += _offer(one, values, wanted[query][at], alone=len(nearest) == 1)
        if any(answer.reranked < min(k, answer.candidates) for answer in answers):
            raise ChangedError  # candidates were deleted before they were fetched
        return [one.ranked() for one in nearest]

    def _pruned(self, query: int, found: Candidates, fetch: int | None) -> Numbers:
        """The item numbers of the candidates that may be fetched."""
        if fetch is None or found.count <= fetch:
            return [numbers_of(members) for members in found.members]
        scores = []
        for (_, generation), members in zip(self._partitions, found.members, strict=True):
            tables = _as_shares(self._encoded[generation].signature_tables[query])
            scores.append(table_scores(tables[None], (members >> NUMBER_BITS).astype(np.uint64))[0])
        best = np.zeros(found.count, dtype=np.bool_)
        best[np.argpartition(np.concatenate(scores), found.count - fetch)[found.count - fetch :]] = True
        kept = np.split(best, np.cumsum([len(members) for members in found.members])[:-1])
        return [numbers_of(members[own]) for members, own in zip(found.members, kept, strict=True)]

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


def _as_shares(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tables of scores from −1 to 1. tables : (n_bytes, 256)."""
    most, least = tables.max(axis=1, keepdims=True), tables.min(axis=1, keepdims=True)
    shares: NDArray[np.float32] = (tables - (most + least) / 2) / ((most - least).sum() / 2 or np.float32(1))
    return shares


def _offer(nearest: NearestK, values: Values, wanted: NDArray[np.int64], *, alone: bool) -> int:
    """Let a query rank those of the values that it wants; returns how many there are."""
    if alone:
        nearest.offer(values.ids, values.vectors)
        return len(values.ids)
    if not len(values.numbers):
        return 0
    at = np.minimum(np.searchsorted(values.numbers, wanted), len(values.numbers) - 1)
    rows = at[values.numbers[at] == wanted]
    nearest.offer([values.ids[row] for row in rows.tolist()], values.vectors[rows])
    return len(rows)
