"""Splits for the quality tables, and what a hasher finds on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import gist_like
from stream_hash.numerics.protocol import split, unit

RESULTS = 10


@dataclass(frozen=True)
class Labelled:
    """A whole data set. vectors : (n, dimension) float32 of unit length. labels : (n,) int64."""

    source: str
    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What a search found, means over the queries. candidates : how many were ranked exactly."""

    precision: float
    candidates: float


def load_labelled(path: Any, items: int) -> Labelled:
    """The `.mat` file at `path`, or `items` random vectors without one."""
    if path is None:
        vectors, labels = gist_like(np.random.default_rng(42), items)
        return Labelled("random GIST-like vectors, seed 42", vectors, labels)
    import scipy.io

    content = scipy.io.loadmat(path)
    vectors = unit(content["X"].astype(np.float32))
    return Labelled(path.name, vectors, content["X_class"].ravel().astype(np.int64))


def digits() -> Labelled:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    vectors, labels = load_digits(return_X_y=True)
    return Labelled("digits of scikit-learn", unit(vectors.astype(np.float32)), labels.astype(np.int64))


class Part:
    """One split: queries, training items and database, no item in two of them."""

    def __init__(self, data: Labelled, seed: int, queries: int, training: int) -> None:
        parts = split(len(data.labels), seed, queries=queries, training=training)
        self.seed = seed
        self.queries = data.vectors[parts.queries]
        self.training, self.labels = data.vectors[parts.training], data.labels[parts.training]
        self.database = data.vectors[parts.database]
        self.query_labels = data.labels[parts.queries]
        self.relevant = data.labels[parts.queries][:, None] == data.labels[parts.database]
        # in which order items that no code tells apart are met
        self._lot = np.random.default_rng(seed).permutation(len(self.database))

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        """About the database's mean. (n_queries, n)."""
        mean = self.database.mean(axis=0)
        return np.asarray(unit(self.queries - mean) @ unit(self.database - mean).T)

    @cached_property
    def exact(self) -> float:
        """Precision@10 of exact search over everything."""
        return self.precision(self.cosines)

    def precision(self, scores: NDArray[np.floating[Any]]) -> float:
        """Precision@10 of ranking all items by scores, larger first. scores : (n_queries, n)."""
        best = np.argpartition(-scores, RESULTS - 1, axis=1)[:, :RESULTS]
        return float(np.take_along_axis(self.relevant, best, axis=1).mean())

    def search(self, hasher: Any, budgets: Sequence[int], among: NDArray[np.bool_] | None = None) -> dict[str, Found]:
        """Radius 0, and for each budget query-directed probing with the last bucket taken whole, and cut by lot.

        among : (n_queries,), the queries to average over. Returns by name: "radius 0", "300 whole", "300 cut", ….
        """
        margins = np.asarray(hasher.decision_function(self.queries), dtype=np.float64)
        positive = np.asarray(hasher.decision_function(self.database)) >= 0
        weights = 1 << np.arange(margins.shape[1], dtype=np.int64)[::-1]
        codes, bucket, sizes = np.unique((positive @ weights)[self._lot], return_inverse=True, return_counts=True)
        members = self._lot[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(sizes)
        signs = np.where(codes[:, None] & weights, 1.0, -1.0)
        own = (margins >= 0) @ weights
        most = min(len(codes), max(budgets))
        hits: dict[str, list[tuple[float, int]]] = {}
        for query in range(len(margins)) if among is None else np.flatnonzero(among):
            costs = -(signs @ margins[query])
            nearest = np.argpartition(costs, most - 1)[:most]
            nearest = nearest[np.argsort(costs[nearest], kind="stable")]
            reached = np.cumsum(sizes[nearest])
            at = np.searchsorted(codes, own[query])
            hit = at < len(codes) and codes[at] == own[query]
            found = {"radius 0": members[ends[at] - sizes[at] : ends[at]] if hit else members[:0]}
            for budget in budgets:
                taken = nearest[: np.searchsorted(reached, budget) + 1]
                whole = np.concatenate([members[ends[b] - sizes[b] : ends[b]] for b in taken])
                found |= {f"{budget} whole": whole, f"{budget} cut": whole[:budget]}
            for name, candidates in found.items():
                hits.setdefault(name, []).append((self._hits(query, candidates), len(candidates)))
        return {name: Found(*np.mean(pairs, axis=0)) for name, pairs in hits.items()}

    def _hits(self, query: int, candidates: NDArray[np.intp]) -> float:
        """Precision@10 of the exact rank over the candidates; a result that is missing counts as wrong."""
        if len(candidates) > RESULTS:
            scores = self.cosines[query, candidates]
            candidates = candidates[np.argpartition(-scores, RESULTS - 1)[:RESULTS]]
        return float(self.relevant[query, candidates].sum()) / RESULTS


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"
