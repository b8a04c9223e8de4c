"""From what a peer's process has measured to figures: quality, percentiles, one row a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.task import K
from stream_hash.numerics.evaluation import precision_at_k, recall_at_k


@dataclass(frozen=True)
class Row:
    """One setting of one peer.

    p50, p95, p99 : milliseconds of a query. rates : queries a second, by the number of processes that ask.
    ingest : items a second; None where nothing is built. learning : seconds, once. whole_ingest : with these in it.
    index_bytes : an item, vectors apart. queries : answered.
    """

    peer: str
    build: str
    setting: str
    recall: float
    precision: float
    p50: float
    p95: float
    p99: float
    rates: dict[str, float]
    ingest: float | None
    whole_ingest: float | None
    learning: float
    index_bytes: float
    queries: int

    @property
    def rate(self) -> float:
        """Queries a second of one process."""
        return self.rates["1"]

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.build, self.setting) if part)


def rows_of(
    peer: str,
    figures: dict[str, Any],
    truth: NDArray[np.int64],
    labels: NDArray[np.int64],
    query_labels: NDArray[np.int64],
) -> list[Row]:
    """All settings of a peer; none when it was absent. truth : (n_queries, K) rows of items."""
    return [
        _row(peer, build, search, truth, labels, query_labels)
        for build in figures.get("builds", ())
        for search in build["searches"]
    ]


def _row(
    peer: str,
    build: dict[str, Any],
    search: dict[str, Any],
    truth: NDArray[np.int64],
    labels: NDArray[np.int64],
    query_labels: NDArray[np.int64],
) -> Row:
    found: Sequence[list[int]] = search["found"]
    items, ingest = len(labels), build["ingest_seconds"]
    p50, p95, p99 = (float(value) for value in np.percentile(np.array(search["seconds"]) * 1e3, [50, 95, 99]))
    return Row(
        peer,
        build["name"],
        search["setting"],
        _mean([recall_at_k(row, true, K) for row, true in zip(found, truth.tolist(), strict=False)]),
        _mean(
            [
                precision_at_k(labels[row].tolist(), wanted, K)
                for row, wanted in zip(found, query_labels.tolist(), strict=False)
            ]
        ),
        p50,
        p95,
        p99,
        search["queries_per_second"],
        items / ingest if ingest else None,
        items / (ingest + build["learning_seconds"]) if ingest else None,
        build["learning_seconds"],
        build["index_bytes_per_item"],
        len(found),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
