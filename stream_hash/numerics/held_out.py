"""Held-out items as queries to each other: what a model takes first, what is nearest, and how sure a mean gain is.

What the gates (gate.py, recall_gate.py) have in common: these parts, their limits, and what they refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import UsageError
from stream_hash.numerics.bucket_table import BucketTable
from stream_hash.numerics.codes import unpack_bits
from stream_hash.numerics.model import Encoded, Model

K: Final = 10
MARGIN: Final = 0.01
CONFIDENCE: Final = 0.95
LEAST_QUERIES: Final = 100
"""Held-out items fewer than these decide nothing: by luck alone precision moves by .03."""

DRAWS: Final = 2_000

BLOCK_BYTES: Final = 64 * 1024 * 1024
"""What one array over queries × items of a block of queries may take."""


def check_request(live: Model, challenger: Model, budget: int, k: int, margin: float, confidence: float) -> None:
    """Raise UsageError for a budget below k, other numbers out of range, or models of different dimension or metric."""
    if budget < k or margin < 0 or not 0.5 <= confidence < 1:
        raise UsageError(
            f"budget={budget}, k={k}, margin={margin}, confidence={confidence}",
            remedy="give a budget of k or more, a margin of 0 or more, and a confidence from 0.5 to 1",
        )
    if (live.metric, live.dimension) != (challenger.metric, challenger.dimension):
        raise UsageError("the challenger and the live model are of different indexes")


def least_queries(budget: int) -> int:
    """How many held-out items are enough: more than a query's candidates, too."""
    return max(LEAST_QUERIES, budget + 2)


class HeldOutSearch:
    """One model's codes of the held-out items, and what the buckets cost each of them as a query."""

    def __init__(self, model: Model, vectors: NDArray[np.float32], ties: NDArray[np.intp]) -> None:
        """ties : a permutation of the items: in what order those of one bucket come."""
        self._ties = ties
        self._items: Encoded = model.encode(vectors)
        queries = model.encode_queries(vectors)
        self._margins = queries.margins.reshape(len(vectors), model.tables, model.bits).astype(np.float64)
        self._tables = [BucketTable(codes, model.bits) for codes in self._items.codes.T]

    def candidates(self, rows: NDArray[np.intp], budget: int) -> NDArray[np.bool_]:
        """Whether each item is among the first `budget` for each query, itself left out. Returns (len(rows), n).

        An item that several tables hold comes where it is cheapest, and counts once.
        """
        cost = np.full((len(rows), len(self._ties)), np.inf)
        for table, buckets in enumerate(self._tables):
            codes, _ = buckets.directory
            signs = np.where(unpack_bits(codes, buckets.bits), 1.0, -1.0)
            margins = self._margins[rows, table]
            # twice the sum of |margin| over the bits that differ
            of_bucket = np.abs(margins).sum(axis=1, keepdims=True) - margins @ signs.T
            np.minimum(cost, of_bucket[:, buckets.bucket_of], out=cost)
        cost[np.arange(len(rows)), rows] = np.inf
        by_cost = self._ties[np.argsort(cost[:, self._ties], axis=1, kind="stable")[:, :budget]]
        chosen = np.zeros(cost.shape, dtype=np.bool_)
        np.put_along_axis(chosen, by_cost, True, axis=1)
        return chosen


def blocks(count: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, BLOCK_BYTES // (8 * count))
    return (np.arange(start, min(start + step, count)) for start in range(0, count, step))


def nearest_first(vectors: NDArray[np.float32], rows: NDArray[np.intp], metric: str) -> NDArray[np.intp]:
    """All items in the order of their exact nearness to each query; equal ones by row. Returns (len(rows), n)."""
    scores = (vectors[rows] @ vectors.T).astype(np.float64)
    if metric != "inner":
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        if metric == "l2":
            scores = 2 * scores - squares
        else:
            scores /= np.sqrt(np.where(squares > 0, squares, 1.0))
    return np.argsort(-scores, axis=1, kind="stable")


def lower_bound(gains: NDArray[np.float64], confidence: float, rng: np.random.Generator) -> float:
    """The one-sided lower bound of the mean gain, by the percentiles of `DRAWS` bootstrap samples. gains : (n,)."""
    count = len(gains)
    step = max(1, BLOCK_BYTES // (8 * count))
    means = [
        gains[rng.integers(count, size=(min(step, DRAWS - start), count))].mean(axis=1)
        for start in range(0, DRAWS, step)
    ]
    return float(np.quantile(np.concatenate(means), 1 - confidence))
