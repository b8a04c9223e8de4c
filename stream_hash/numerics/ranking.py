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

    def offer(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        rows: NDArray[np.intp] | None = None,
        squares: NDArray[np.float32] | None = None,
    ) -> None:
        """Consider more vectors. vectors : (n, dimension) float32; ids : n different texts.

        rows : which of them; None for all. squares : (n,) float32, `np.vecdot(vectors, vectors)`, if it is known.

        An id offered before, as happens when an item is written while all are being read, counts as offered now.
        """
        if not (len(ids) if rows is None else len(rows)):
            return
        own = vectors if rows is None else vectors[rows]
        if squares is None:
            squares = np.vecdot(own, own)
        elif rows is not None:
            squares = squares[rows]
        kept = self._contenders(own, squares)
        scores = exact_scores(self._query, own[kept], self._metric)
        at = kept if rows is None else rows[kept]
        # only ids of contenders are looked at, unless there is something to compare all of them with
        pairs = [(-score, ids[i]) for score, i in zip(scores.tolist(), at.tolist(), strict=True)]
        again: set[str] = set()
        if self._ranked:
            offered = ids if rows is None else [ids[i] for i in rows.tolist()]
            again = {item_id for _, item_id in self._ranked}.intersection(offered)
        before = [pair for pair in self._ranked if pair[1] not in again] if again else self._ranked
        self._ranked = sorted(before + pairs)[: self._k]

    def ranked(self) -> list[tuple[str, float]]:
        """(id, score) of the k nearest, best first; equal scores by id."""
        return [(item_id, 0.0 - negated) for negated, item_id in self._ranked]

    def _contenders(self, vectors: NDArray[np.float32], squares: NDArray[np.float32]) -> NDArray[np.intp]:
        """Positions of the vectors that may be among the k nearest, for all that float32 can tell."""
        count, dimension = vectors.shape
        if count <= self._k:
            return np.arange(count)
        # not `@`: over so few rows a BLAS's threads spin for longer than they work
        products = np.vecdot(vectors, self._query)
        length = self._length
        # |float32 dot product − exact| ≤ dimension · 2⁻²⁴ · ‖x‖‖q‖; four times that covers the few
        # operations which follow it
        unit = dimension * 2.0**-22
        if self._metric == "cosine":
            rough = products / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
            slack = unit * length
        elif self._metric == "inner":
            rough = products
            slack = unit * length * float(np.sqrt(squares.max()))
        else:
            rough = 2 * products - squares
            slack = unit * (length + float(np.sqrt(squares.max()))) ** 2
        threshold = np.partition(rough, count - self._k)[count - self._k] - 2 * slack
        return np.flatnonzero(rough >= threshold)


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """The score of each vector, in float64, each computed along its own row.

    query : (dimension,) float32. vectors : (n, dimension) float32. Returns (n,) float64.
    """
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        x -= q
        return np.asarray(-np.sqrt((x * x).sum(axis=1)))
    products = (x * q).sum(axis=1)
    if metric == "inner":
        return np.asarray(products)
    lengths = np.sqrt((x * x).sum(axis=1) * (q * q).sum())  # one root: the cosine of a vector with itself is 1
    return np.asarray(products / np.where(lengths > 0, lengths, 1.0))
