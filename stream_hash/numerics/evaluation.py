"""How good answers are: the measures of the tutorial, on lists of results and, vectorised, on many queries.

The array functions share one idea. Let the columns of an array be the items in the order of their exact
nearness to each query (row), and let an entry say at which *level* the item becomes a candidate: its Hamming
distance, or the first of several budgets that reaches it. Then the k nearest candidates at a level are the
first k columns at or below it, and the true k nearest are simply the first k columns.

Average precision under ties is that of F. McSherry & M. Najork, "Computing information retrieval performance
measures efficiently in the presence of tied scores", ECIR 2008, section 2.4: its expectation over all orders
of the tied items, in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.codes import unpack_bits
from stream_hash.settings import Label


def precision_at_k(found: Sequence[Label | None], wanted: Label, k: int) -> float:
    """The share of the first k results that carry the query's label; missing results count as wrong."""
    return sum(label == wanted for label in found[:k]) / k


def recall_at_k(found: Sequence[str], truth: Sequence[str], k: int) -> float:
    """The share of the true k nearest that were found among the first k."""
    return len(set(found[:k]) & set(truth[:k])) / max(1, min(k, len(truth)))


def level_counts(levels: NDArray[np.uint8], n_levels: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """How many items each query has at each level.

    levels : (n_queries, n_items). among : the same shape; only these count. Returns (n_queries, n_levels);
    levels from `n_levels` on are not counted.
    """
    rows = len(levels)
    flat = levels + 256 * np.arange(rows)[:, None]
    counted = np.bincount(flat.ravel() if among is None else flat[among], minlength=256 * rows)
    return counted.reshape(rows, 256)[:, :n_levels]


def first_within(levels: NDArray[np.uint8], n_levels: int, k: int) -> NDArray[np.int64]:
    """The columns of the k nearest candidates at each level.

    levels : (n_queries, n_items), columns nearest first; an item is a candidate at its level and all above.
    Returns (n_levels, n_queries, k), ascending; n_items stands for each that is missing.
    """
    rows, items = levels.shape
    by_level = np.argsort(levels, axis=1, kind="stable")  # of uint8 a radix sort: linear, and it keeps the order
    counts = level_counts(levels, n_levels)
    starts = np.cumsum(counts, axis=1) - counts
    steps = np.arange(k)
    found = np.empty((n_levels, rows, k), dtype=np.int64)
    nearest = np.full((rows, k), items)
    for level in range(n_levels):
        at = np.minimum(starts[:, level, None] + steps, items - 1)
        own = np.where(steps < counts[:, level, None], np.take_along_axis(by_level, at, axis=1), items)
        nearest = np.sort(np.concatenate([nearest, own], axis=1), axis=1)[:, :k]
        found[level] = nearest
    return found


def precisions(found: NDArray[np.int64], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """precision@k of each query at each level; missing results count as wrong.

    found : (n_levels, n_queries, k), as from `first_within`. relevant : (n_queries, n_items), in the same
    columns. Returns (n_levels, n_queries).
    """
    return np.asarray(_marked(found, relevant).mean(axis=2))


def semantic_accuracies(found: NDArray[np.int64], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Whether the first result is relevant: 1.0 or 0.0. Shapes as in `precisions`."""
    return _marked(found[:, :, :1], relevant)[:, :, 0].astype(np.float64)


def recalls(found: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    """recall@k against exact search, whose answer is the first k columns. Shapes as in `precisions`."""
    k = found.shape[2]
    return np.asarray((found < min(k, n_items)).sum(axis=2) / min(k, n_items))


def expected_average_precisions(totals: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average precision of the ranking by level, in expectation over the orders of items of equal level.

    totals, relevant : (n_queries, n_levels), how many items, and how many relevant ones, each level holds; together
    they must be all items. Returns (n_queries,); 0 for a query without any relevant item.

    With M items and R relevant ones before a level of n, r of them relevant, the i-th place of the level is
    relevant with probability r/n, and then (R + 1 + (i − 1)(r − 1)/(n − 1)) of M + i are expected to be. The
    sum over i is one of harmonic numbers.
    """
    n, r = totals.astype(np.float64), relevant.astype(np.float64)
    before, relevant_before = np.cumsum(totals, axis=1) - totals, np.cumsum(r, axis=1) - r
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(totals.sum(axis=1).max(initial=0)) + 1))])
    reciprocals = harmonic[before + totals] - harmonic[before]
    slope = np.maximum(r - 1, 0) / np.maximum(n - 1, 1)
    sums = slope * n + (relevant_before + 1 - slope * (before + 1)) * reciprocals
    return np.asarray((r / np.maximum(n, 1) * sums).sum(axis=1) / np.maximum(r.sum(axis=1), 1))


def budget_levels(
    margins: NDArray[np.floating[Any]],
    codes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    budgets: Sequence[int],
) -> NDArray[np.uint8]:
    """Which budget first takes each bucket in query-directed order: `probing.directed` for many queries.

    margins : (n_queries, bits). codes, counts : (n_buckets,), the directory of one table, codes ascending.
    budgets : ascending. Returns (n_queries, n_buckets), positions in `budgets`; its length for none of them.

    The cost of a bucket, the |margins| of the flipped bits, is (Σ|m| − m·s)/2, s the signs of its code: one matrix
    product ranks all buckets for all queries.
    """
    signs = np.where(unpack_bits(codes, margins.shape[1]), 1.0, -1.0)
    costs = -(margins.astype(np.float64) @ signs.T)
    most = min(len(codes), budgets[-1])  # a bucket holds at least one item
    cheapest = np.sort(np.argpartition(costs, most - 1, axis=1)[:, :most], axis=1)  # so that ties go by code
    by_cost = np.argsort(np.take_along_axis(costs, cheapest, axis=1), axis=1, kind="stable")
    taken = np.take_along_axis(cheapest, by_cost, axis=1)
    held = np.cumsum(counts[taken], axis=1) - counts[taken]
    levels = np.full(costs.shape, len(budgets), dtype=np.uint8)
    np.put_along_axis(levels, taken, np.searchsorted(budgets, held, side="right").astype(np.uint8), axis=1)
    return levels


def _marked(found: NDArray[np.int64], relevant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each result is relevant; False for one that is missing."""
    rows, items = relevant.shape
    marked = relevant[np.arange(rows)[:, None], np.minimum(found, items - 1)]
    return np.asarray(marked & (found < items))
