"""Exact ranking: the k nearest of the vectors offered, stable by (score, id).

Scores are such that larger is nearer: the cosine, the inner product, or the negated Euclidean distance.

A result must not depend on which candidates it was ranked among, or the answers of different plans could
not be compared. Scores are therefore defined as float64 sums along a row. A float32 matrix product first
discards what cannot be among the k nearest even after its rounding error; the few left are scored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_hash.settings import Metric


class NearestK:
    """The k nearest of all vectors offered so far to one query."""

    def __init__(self, query: NDArray[np.float32], k: int, metric: Metric) -> None:
        """query : (dimension,) float32, finite."""
        self._query = query
        self._length = float(np.linalg.norm(query))
        self._k = k
        self._metric = metric
        self._ranked: list[tuple[float, str]] = []

    def offer(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Consider more vectors. vectors : (n, dimension) float32; ids : n different texts.

        An id offered before, as happens when an item is written while all are being read, counts as offered now.
        """
        if not len(ids):
            return
        kept = self._contenders(vectors)
        scores = exact_scores(self._query, vectors[kept], self._metric)
        # only ids of contenders are looked at, unless there is something to compare all of them with
        pairs = [(-score, ids[i]) for score, i in zip(scores.tolist(), kept.tolist(), strict=True)]
        again = {item_id for _, item_id in self._ranked}.intersection(ids) if self._ranked else set()
        before = [pair for pair in self._ranked if pair[1] not in again] if again else self._ranked
        self._ranked = sorted(before + pairs)[: self._k]

    def ranked(self) -> list[tuple[str, float]]:
        """(id, score) of the k nearest, best first; equal scores by id."""
        return [(item_id, 0.0 - negated) for negated, item_id in self._ranked]

    def _contenders(self, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        """Positions of the vectors that may be among the k nearest, for all that float32 can tell."""
        count = len(vectors)
        if count <= self._k:
            return np.arange(count)
        squares = np.vecdot(vectors, vectors)
        rough, slack = rough_scores(self._query, self._length, vectors, squares, self._metric)
        threshold = np.partition(rough, count - self._k)[count - self._k] - 2 * slack
        return np.flatnonzero(rough >= threshold)


def rough_scores(
    query: NDArray[np.float32],
    length: float,
    vectors: NDArray[np.float32],
    squares: NDArray[np.float32],
    metric: Metric,
) -> tuple[NDArray[np.float32], float]:
    """Scores in float32, larger for nearer vectors, and how far each may be off.

    Not those of `exact_scores`, but in the same order, and comparable between any vectors for one query.
    query : (dimension,) float32, and its length. vectors : (n, dimension) float32, n ≥ 1. squares : (n,) float32,
    `np.vecdot(vectors, vectors)`.
    """
    # not `@`: over so few rows a BLAS's threads spin for longer than they work
    products = np.vecdot(vectors, query)
    # |float32 dot product − exact| ≤ dimension · 2⁻²⁴ · ‖x‖‖q‖; four times that covers the few
    # operations which follow it
    unit = len(query) * 2.0**-22
    if metric == "cosine":
        return products / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny)), unit * length
    if metric == "inner":
        return products, unit * length * float(np.sqrt(squares.max()))
    return 2 * products - squares, unit * (length + float(np.sqrt(squares.max()))) ** 2


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """The score of each vector, in float64, each computed along its own row.

    query : float32 (dimension,), or one for each: (n, dimension). vectors : (n, dimension) float32.
    Returns (n,) float64.
    """
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        x -= q
        return np.asarray(-np.sqrt((x * x).sum(axis=1)))
    products = (x * q).sum(axis=1)
    if metric == "inner":
        return np.asarray(products)
    lengths = np.sqrt((x * x).sum(axis=1) * (q * q).sum(axis=-1))  # one root: the cosine of a vector with itself is 1
    return np.asarray(products / np.where(lengths > 0, lengths, 1.0))
