"""Search: plan, gather, fetch, rank.

1. Plan    hash the query under the live model; choose the buckets to probe.
2. Gather  the members of these buckets, read together with `live`; if that has moved, plan again.
3. Fetch   the candidates' vectors.
4. Rank    exactly, stable by (score, id); then read the labels and metadata of the results.

Gather, fetch and the last read are one round trip each on one server; a radius whose ball is larger than
the directory, a budget, or too few candidates for k results cost two more, for the directory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import GenerationGoneError, StreamHashError, UsageError
from stream_hash.numerics.model import Encoded
from stream_hash.numerics.probing import Directory, ball, ball_size, directed, members_within, within
from stream_hash.numerics.ranking import NearestK
from stream_hash.numerics.validation import vector_faults
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import MAX_RESULTS, IndexSettings, Label, parse_label, parse_metadata
from stream_hash.storage.codec import Record
from stream_hash.storage.reads import Gathered, Probes, numbers_of

DEFAULT_RADIUS: Final = 2
ENUMERATE_AT_LEAST: Final = 1_024
"""Balls up to this size are enumerated without asking how large the directory is: 2 ms of server time."""

FETCH_BYTES: Final = 32 * 1024 * 1024
"""Vectors fetched in one round trip: more candidates than any sensible plan has, and a bound on memory."""

MAX_RETRIES: Final = 16
"""How often a search begins again because the index changed under it."""


@dataclass(frozen=True)
class Plan:
    """How to choose candidates: by `radius`, by `budget`, or all of them (`exact`).

    widen : whether the radius grows when it holds fewer than k items; False measures the radius itself.
    """

    radius: int | None = None
    budget: int | None = None
    exact: bool = False
    widen: bool = True

    def __post_init__(self) -> None:
        if self.exact + (self.radius is not None) + (self.budget is not None) > 1:
            raise UsageError(
                "more than one of radius, budget and exact is given",
                why="each chooses the candidates",
                remedy="give one of them",
            )
        for name in ("radius", "budget"):
            value = getattr(self, name)
            if value is not None and value < (name == "budget"):
                raise UsageError(f"the {name} is {value}", why="it cannot be that small", remedy="raise it")


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
    all; stages : of these, by stage. codes : the query's code in each table.
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

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.perf_counter()
        yield
        self.stages[stage] = self.stages.get(stage, 0.0) + time.perf_counter() - start


class _ChangedError(Exception):
    """The index changed under a search: begin again."""


class Searcher:
    """Searches one index."""

    def __init__(self, handle: IndexHandle) -> None:
        self._handle = handle
        self._buckets_known = 0

    @property
    def _settings(self) -> IndexSettings:
        return self._handle.settings

    def search(self, queries: NDArray[np.float32], k: int, plan: Plan) -> list[Answer]:
        """The k nearest items to each query. queries : (n, dimension) float32.

        Raises UsageError for a k out of range or a query that cannot be ranked.
        """
        if not 1 <= k <= MAX_RESULTS:
            raise UsageError(f"k is {k}", why=f"it must be from 1 to {MAX_RESULTS}", remedy="choose another k")
        self._check(queries)
        if plan.exact:
            return self._exact(queries, k)
        return [self._search_one(query, k, plan) for query in queries]

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

    def _search_one(self, query: NDArray[np.float32], k: int, plan: Plan) -> Answer:
        start = time.perf_counter()
        answer = Answer()
        for _ in range(MAX_RETRIES):
            try:
                _Search(self, query, k, plan, answer).run()
            except _ChangedError:
                self._handle.reload_states()
                self._check(query[None, :])  # the index may be another one by now
                continue
            answer.seconds = time.perf_counter() - start
            return answer
        raise self._restless()

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
                results = [_result(item_id, score, record) for (item_id, score), record in pairs]
            except _ChangedError:
                return None
            answers.append(Answer(results, generation, candidates=scanned, reranked=scanned))
        return answers

    def _restless(self) -> StreamHashError:
        return StreamHashError(
            f"index {self._handle.name!r} changed {MAX_RETRIES} times during one search",
            why="its generations or items are being replaced faster than they can be read",
            remedy="try again",
        )


class _Search:
    """One attempt at one query."""

    def __init__(self, searcher: Searcher, query: NDArray[np.float32], k: int, plan: Plan, answer: Answer) -> None:
        self._searcher = searcher
        self._handle = searcher._handle
        self._settings = searcher._handle.settings
        self._query, self._k, self._plan, self._answer = query, k, plan, answer
        self._partitions = [(p, s.live) for p, s in enumerate(self._handle.states) if s.live]
        self._encoded: dict[int, Encoded] = {}

    def run(self) -> None:
        answer = self._answer
        if len(self._partitions) < self._settings.partitions:
            self._handle.reload_states()  # no generation there when it was opened; perhaps there is now
            self._partitions = [(p, s.live) for p, s in enumerate(self._handle.states) if s.live]
        with answer.timed("plan"):
            for generation in {generation for _, generation in self._partitions}:
                try:
                    model = self._handle.model(generation)
                except GenerationGoneError:
                    raise _ChangedError from None
                self._encoded[generation] = model.encode_queries(self._query[None, :])
            answer.generation = max((generation for _, generation in self._partitions), default=0)
            if answer.generation:
                answer.codes = self._codes(answer.generation)
            probes = self._probes()
        gathered = self._gather(probes)
        if self._plan.widen:
            gathered = self._widen(gathered)
        answer.candidates = sum(len(found.members) for found in gathered)
        nearest = NearestK(self._query, self._k, self._settings.metric)
        answer.reranked = 0
        for wanted in self._pieces(gathered):
            with answer.timed("fetch"):
                fetched = self._handle.reader.values(wanted)
            with answer.timed("rank"):
                for values in fetched:
                    nearest.offer(values.ids, values.vectors)
            answer.reranked += sum(len(values.ids) for values in fetched)
        ranked = nearest.ranked()
        if answer.reranked < min(self._k, answer.candidates):
            raise _ChangedError  # candidates were deleted before they were fetched
        with answer.timed("results"):
            records = self._handle.reader.records([item_id for item_id, _ in ranked])
        answer.results = [
            _result(item_id, score, record) for (item_id, score), record in zip(ranked, records, strict=True)
        ]

    def _pieces(self, gathered: Sequence[Gathered]) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
        """The candidates' (partition, item numbers), as much at a time as one round trip may fetch."""
        most = max(1, FETCH_BYTES // (4 * self._settings.dimension))
        piece: list[tuple[int, NDArray[np.int64]]] = []
        room = most
        for (partition, _), found in zip(self._partitions, gathered, strict=True):
            numbers = numbers_of(found.members)
            while len(numbers):
                piece.append((partition, numbers[:room]))
                numbers, room = numbers[room:], room - len(piece[-1][1])
                if not room:
                    yield piece
                    piece, room = [], most
        if piece:
            yield piece

    def _codes(self, generation: int) -> list[int]:
        return [int(code) for code in self._encoded[generation].codes[0]]

    def _probes(self) -> list[Probes]:
        """The probes of the plan, for each partition."""
        if self._plan.budget is not None:
            return self._directed(self._plan.budget)
        radius = DEFAULT_RADIUS if self._plan.radius is None else self._plan.radius
        self._answer.radius = radius = min(radius, self._settings.bits)
        size = ball_size(self._settings.bits, radius)
        if size <= max(ENUMERATE_AT_LEAST, self._searcher._buckets_known):
            return [
                Probes(p, g, [ball(code, self._settings.bits, radius) for code in self._codes(g)])
                for p, g in self._partitions
            ]
        return self._walk(self._directories(), radius)

    def _directories(self) -> list[list[Directory]]:
        directories = self._handle.reader.directories(self._partitions)
        sizes = [len(codes) for tables in directories for codes, _ in tables]
        self._searcher._buckets_known = max(sizes, default=0)
        return directories

    def _walk(self, directories: Sequence[Sequence[Directory]], radius: int) -> list[Probes]:
        """The non-empty buckets within a radius."""
        return [
            Probes(p, g, [within(d[0], code, radius) for d, code in zip(tables, self._codes(g), strict=True)])
            for (p, g), tables in zip(self._partitions, directories, strict=True)
        ]

    def _directed(self, budget: int) -> list[Probes]:
        """The buckets most likely to hold neighbours, until they hold the budget, shared by partitions."""
        directories = self._directories()
        share = -(-budget // max(1, len(self._partitions)))
        shape = (self._settings.tables, self._settings.bits)
        return [
            Probes(p, g, directed(tables, self._codes(g), self._encoded[g].margins.reshape(shape), share))
            for (p, g), tables in zip(self._partitions, directories, strict=True)
        ]

    def _gather(self, probes: list[Probes]) -> list[Gathered]:
        with self._answer.timed("gather"):
            gathered = self._handle.reader.gather(probes) if probes else []
        if any(found.nonce != self._handle.identity.nonce for found in gathered):
            self._handle.reopen()
            raise _ChangedError
        if any(found.live != probe.generation for probe, found in zip(probes, gathered, strict=True)):
            raise _ChangedError
        self._answer.probes = sum(probe.count for probe in probes)
        self._answer.buckets = sum(found.buckets for found in gathered)
        per_table = max((found.buckets for found in gathered), default=0) // self._settings.tables
        self._searcher._buckets_known = per_table
        return gathered

    def _widen(self, gathered: list[Gathered]) -> list[Gathered]:
        """Grow the radius until there are k candidates, or all items, whichever is fewer."""
        radius = self._answer.radius or 0
        while sum(len(found.members) for found in gathered) < min(self._k, sum(found.items for found in gathered)):
            if radius >= self._settings.bits:
                raise _ChangedError  # items were added after the directory was read
            with self._answer.timed("plan"):
                directories = self._directories()
                reached = sum(
                    members_within(tables, self._codes(g), self._settings.bits)
                    for (_, g), tables in zip(self._partitions, directories, strict=True)
                )
                enough = np.flatnonzero(np.asarray(reached) >= self._k)
                holding = int(enough[0]) if len(enough) else self._settings.bits
                radius = max(radius + 1, holding)
                probes = self._walk(directories, radius)
            gathered = self._gather(probes)
            self._answer.radius, self._answer.widened = radius, True
        return gathered


def _result(item_id: str, score: float, record: Record | None) -> Result:
    if record is None or record.number is None:
        raise _ChangedError  # deleted since it was fetched
    return Result(item_id, score, parse_label(record.label), parse_metadata(record.metadata))
