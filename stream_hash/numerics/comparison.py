"""Hashers compared on one split of one data set, in memory: a trial of each plan, a value of each query.

Queries are taken in blocks. For a block, all items are put in the order of their exact nearness once, and every
hasher, length of code, radius and budget is then measured on this order (see evaluation.py). A block's arrays take
at most `BLOCK_BYTES`, however many queries and items there are.

Exact nearness is the cosine about the database's mean, as float32 matrix products give it; equal ones go by row.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.bucket_table import BucketTable
from stream_hash.numerics.codes import pack_bits
from stream_hash.numerics.evaluation import (
    budget_levels,
    expected_average_precisions,
    first_within,
    level_counts,
    precisions,
    recalls,
    semantic_accuracies,
)
from stream_hash.numerics.methods import Hasher, fitted
from stream_hash.numerics.probing import directed
from stream_hash.numerics.protocol import Classes, Split, unit

PlanName: TypeAlias = Literal["exact", "radius", "budget", "ranking"]
"""Exact search over everything; within a radius; within a budget; Hamming ranking of all items, without re-ranking."""

BLOCK_BYTES: Final = 256 * 2**20
_CELL_BYTES: Final = 48
"""What a block holds at its widest for each pair of a query and an item: orders, distances, costs."""

TIMED_QUERIES: Final = 30
"""Queries that are timed, each on its own: a wide radius takes 0.1 s."""


@dataclass(frozen=True)
class What:
    """What is tried: a plan, and the method and bits of the codes it goes by (none for the exact search).

    at : the radius or the budget; None for the other plans.
    """

    method: str
    bits: int | None
    plan: PlanName
    at: int | None = None


@dataclass(frozen=True)
class Trial:
    """What came out. measures : by name, (n_queries,) float64 each; milliseconds perhaps of fewer queries."""

    what: What
    measures: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Settings:
    """What to compare. bits, radii, budgets : ascending. k : results a query."""

    methods: Sequence[str]
    bits: Sequence[int] = (16,)
    radii: Sequence[int] = tuple(range(5))
    budgets: Sequence[int] = (100, 300, 1000)
    k: int = 10

    def radii_of(self, bits: int) -> list[int]:
        """Those that codes of so many bits have."""
        return [radius for radius in self.radii if radius <= bits]


@dataclass(frozen=True)
class Data:
    """One split. queries, training, database : (n, dimension) float32, of unit length. seed : of the hashers.

    relevant : whether each item shares a class with each of the queries whose positions (an array) it is given.
    target : what hashers learn from: (n_training,) classes, or (n_training, n_classes) membership.
    mean : (dimension,) float32 of the database.
    """

    queries: NDArray[np.float32]
    training: NDArray[np.float32]
    database: NDArray[np.float32]
    mean: NDArray[np.float32]
    target: Any
    relevant: Callable[[NDArray[np.intp]], NDArray[np.bool_]]
    seed: int

    @classmethod
    def of(cls, vectors: NDArray[np.float32], classes: Classes, parts: Split, seed: int) -> Data:
        """vectors : (n, dimension) float32 of unit length."""
        mean = vectors[parts.database].mean(axis=0, dtype=np.float64).astype(np.float32)
        of_item = classes.of_item
        return cls(
            vectors[parts.queries],
            vectors[parts.training],
            vectors[parts.database],
            mean,
            classes.membership[parts.training] if of_item is None else of_item[parts.training],
            lambda rows: classes.relevant(parts.queries[rows], parts.database),
            seed,
        )


@dataclass
class _Contender:
    """One hasher, fitted: its codes of all items and of all queries, and the queries' margins."""

    method: str
    bits: int
    hasher: Hasher
    table: BucketTable
    codes: NDArray[np.uint64]
    query_codes: NDArray[np.uint64]
    margins: NDArray[np.floating[Any]]
    measures: dict[What, dict[str, list[NDArray[np.float64]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    @classmethod
    def of(cls, method: str, bits: int, data: Data) -> _Contender:
        hasher = fitted(method, bits, data.seed, data.training, data.target)
        codes = np.concatenate(
            [pack_bits(np.asarray(hasher.decision_function(part) >= 0)) for part in _pieces(data.database)]
        )
        margins = hasher.decision_function(data.queries)
        return cls(method, bits, hasher, BucketTable(codes, bits), codes, pack_bits(margins >= 0), margins)


def compare(data: Data, settings: Settings, show: Callable[[str], None] = lambda _: None) -> Iterator[Trial]:
    """Every method and length of code on one split; the exact search first. show : told what is being done."""
    contenders = []
    for method in settings.methods:
        for bits in settings.bits:
            show(f"training {method} with {bits} bits")
            contenders.append(_Contender.of(method, bits, data))
    exact = What("exact", None, "exact")
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    queries, database = unit(data.queries - data.mean), unit(data.database - data.mean)
    block = max(1, BLOCK_BYTES // (_CELL_BYTES * len(database)))
    for start in range(0, len(queries), block):
        show(f"{start} of {len(queries)} queries, {len(contenders)} codes of each")
        rows = np.arange(start, min(start + block, len(queries)))
        order = np.argsort(-(queries[rows] @ database.T), axis=1, kind="stable").astype(np.int32)
        relevant = np.take_along_axis(data.relevant(rows), order, axis=1)
        _record([found], _measured(np.zeros(order.shape, dtype=np.uint8), 1, relevant, settings.k))
        for contender in contenders:
            _measure(contender, rows, order, relevant, settings)
    yield Trial(exact, _joined(found) | {"milliseconds": _exact_milliseconds(queries, database, settings.k)})
    for contender in contenders:
        show(f"timing {contender.method} with {contender.bits} bits")
        for what, measures in contender.measures.items():
            timed = {} if what.plan == "ranking" else _timed(contender, what, data, database, settings.k)
            yield Trial(what, _joined(measures) | timed)


def _measure(
    contender: _Contender,
    rows: NDArray[np.intp],
    order: NDArray[np.int32],
    relevant: NDArray[np.bool_],
    settings: Settings,
) -> None:
    """All plans of one hasher on one block of queries."""

    def kept(plan: PlanName, at: int | None = None) -> dict[str, list[NDArray[np.float64]]]:
        return contender.measures[What(contender.method, contender.bits, plan, at)]

    distances = np.bitwise_count(contender.query_codes[rows][:, None] ^ contender.codes)
    levels = np.take_along_axis(distances, order, axis=1)
    radii = settings.radii_of(contender.bits)
    if radii:
        every = _measured(levels, radii[-1] + 1, relevant, settings.k)
        _record(
            [kept("radius", radius) for radius in radii],
            {name: values[radii] for name, values in every.items()},
        )
    codes, counts = contender.table.directory
    if settings.budgets:
        budgets = list(settings.budgets)
        reached = budget_levels(contender.margins[rows], codes, counts, budgets)
        taken = np.take_along_axis(reached, contender.table.bucket_of[order], axis=1)
        _record([kept("budget", at) for at in budgets], _measured(taken, len(budgets), relevant, settings.k))
    totals = level_counts(levels, contender.bits + 1)
    ranked = expected_average_precisions(totals, level_counts(levels, contender.bits + 1, relevant))
    _record([kept("ranking")], {"mean_average_precision": ranked[None]})


def _measured(
    levels: NDArray[np.uint8], n_levels: int, relevant: NDArray[np.bool_], k: int
) -> dict[str, NDArray[np.float64]]:
    """By name of the measure, (n_levels, n_queries)."""
    found = first_within(levels, n_levels, k)
    return {
        "precision_at_k": precisions(found, relevant),
        "semantic_accuracy": semantic_accuracies(found, relevant),
        "recall_at_k": recalls(found, levels.shape[1]),
        "candidates": np.cumsum(level_counts(levels, n_levels), axis=1).T.astype(np.float64),
    }


def _record(into: Sequence[dict[str, list[NDArray[np.float64]]]], values: dict[str, NDArray[np.float64]]) -> None:
    """Add the rows of each array, one to each of `into`."""
    for name, rows in values.items():
        for kept, row in zip(into, rows, strict=True):
            kept[name].append(row)


def _joined(kept: dict[str, list[NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate(blocks) for name, blocks in kept.items()}


def _exact_milliseconds(queries: NDArray[np.float32], database: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    return _milliseconds(lambda row: _nearest(database @ queries[row], k), len(queries))


def _timed(
    contender: _Contender, what: What, data: Data, database: NDArray[np.float32], k: int
) -> dict[str, NDArray[np.float64]]:
    """The time of single queries: hash, look up, rank. database : (n, dimension) float32, centred, of unit length."""
    at = what.at or 0

    def search(row: int) -> None:
        query = data.queries[row]
        margins = contender.hasher.decision_function(query[None])
        code = int(pack_bits(np.asarray(margins >= 0))[0])
        if what.plan == "radius":
            candidates = contender.table.probe(code, at)
        else:
            (codes,) = directed([contender.table.directory], [code], margins.astype(np.float32), at)
            candidates = contender.table.members(codes)
        _nearest(np.vecdot(database[candidates], query - data.mean), k)

    return {"milliseconds": _milliseconds(search, len(data.queries))}


def _nearest(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    top = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
    return np.asarray(top[np.argsort(-scores[top])])


def _milliseconds(search: Callable[[int], object], queries: int) -> NDArray[np.float64]:
    seconds = []
    for row in range(min(queries, TIMED_QUERIES)):
        start = time.perf_counter()
        search(row)
        seconds.append(time.perf_counter() - start)
    return 1e3 * np.array(seconds)


def _pieces(vectors: NDArray[np.float32]) -> Iterable[NDArray[np.float32]]:
    return (vectors[start : start + 8_192] for start in range(0, len(vectors), 8_192))
