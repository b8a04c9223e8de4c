"""Queries with a filter, by how rare its items are: time, round trips, and how near they come to the truth.

Tags are drawn at random, so that a tag's items lie everywhere; a label's items lie together, near the query or far
from it. The truth is plain numpy's, among the items that match. Filtered and unfiltered queries alternate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.dataset import DIMENSION, Dataset, load_dataset
from benchmarks.query_plans import grh, timed
from benchmarks.report import machine, progress, publish, table
from benchmarks.round_trips import counted
from benchmarks.services import running_server
from stream_hash.client import Index
from stream_hash.numerics.evaluation import recall_at_k
from stream_hash.service.answer import Answer
from stream_hash.service.connections import Connections
from stream_hash.service.evaluate import temporary_index
from stream_hash.settings import IndexSettings

K = 10
SHARES = (0.5, 0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Trial:
    """matching : (n_queries, n_items) or (n_items,) bool, which items match. options : of each query."""

    name: str
    matching: NDArray[np.bool_]
    options: Sequence[dict[str, Any]]


def measure(data: Dataset, queries: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    vectors = data.queries[:queries]
    rng = np.random.default_rng(3)
    tags = rng.choice(len(SHARES) + 1, size=len(data.items), p=[*SHARES, 1 - sum(SHARES)])
    metadata = [json.dumps({"tag": f"tag {tag}", "row": row}) for row, tag in enumerate(tags.tolist())]
    labels = [str(label) for label in data.labels.tolist()]
    with running_server() as url, redis.Redis.from_url(url) as client:
        progress("filling the index")
        settings = IndexSettings(DIMENSION, bits=16)
        filled = temporary_index(client, grh(data), data.items, settings=settings, labels=labels, metadata=metadata)
        with filled as handle:
            index = Index(handle.name, Connections(client, None))
            rows = []
            for trial in _trials(data, tags, len(vectors)):
                progress(trial.name)
                rows.append({"filter": trial.name, **_measured(index, data, vectors, trial)})
        return {
            "machine": machine(client),
            "data": data.source,
            "items": len(data.items),
            "queries": len(vectors),
            "filters": rows,
        }


def _trials(data: Dataset, tags: NDArray[np.int64], queries: int) -> list[Trial]:
    everything = np.ones(len(data.items), dtype=np.bool_)
    own = data.query_labels[:queries]
    other = (own + 1) % 10
    asked = [("its own class", own), ("another class", other)]
    return [
        Trial("none", everything, [{}] * queries),
        *(
            Trial(f"tag, {share:g}", tags == tag, [{"where": {"tag": f"tag {tag}"}}] * queries)
            for tag, share in enumerate(SHARES)
        ),
        *(
            Trial(f"label, {name}", data.labels == wanted[:, None], [{"label": int(one)} for one in wanted])
            for name, wanted in asked
        ),
        Trial("tag, 0.1, exact", tags == 1, [{"where": {"tag": "tag 1"}, "exact": True}] * queries),
    ]


def _measured(index: Index, data: Dataset, vectors: NDArray[np.float32], trial: Trial) -> dict[str, Any]:
    for options in trial.options[:10]:  # the shares are known after the first
        index.query(vectors[0], K, **options)
    with counted() as counter:
        for vector, options in zip(vectors[:20], trial.options, strict=False):
            index.query(vector, K, **options)
    own: list[float] = []
    plain: list[float] = []
    answers: list[Answer] = []
    for vector, options in zip(vectors, trial.options, strict=True):
        answers += timed(own, partial(index.query, vector, K, **options))
        timed(plain, partial(index.query, vector, K))
    truth = _truth(data, vectors, trial.matching)
    found = [[int(result.id) for result in answer.results] for answer in answers]
    pairs = list(zip(found, truth, strict=True))
    return {
        "share": float(trial.matching.mean()),
        "milliseconds": {"p50": float(np.median(own)) * 1e3, "p95": float(np.percentile(own, 95)) * 1e3},
        "unfiltered_p50": float(np.median(plain)) * 1e3,
        "round_trips": counter.count / min(20, len(vectors)),
        "candidates": float(np.mean([answer.candidates for answer in answers])),
        "matched": float(np.mean([answer.matched or 0 for answer in answers])),
        "fetched": float(np.mean([answer.reranked for answer in answers])),
        "scanning": float(np.mean([answer.scanned > 0 for answer in answers])),
        "recall_at_10": float(np.mean([recall_at_k(*pair, K) for pair in pairs])),
        "equal_to_numpy": float(np.mean([set(one) == set(other) for one, other in pairs])),
        "short": sum(len(one) < len(other) for one, other in pairs),
        "stage_milliseconds": {
            stage: float(np.median([answer.stages.get(stage, 0.0) for answer in answers])) * 1e3
            for stage in dict.fromkeys(stage for answer in answers for stage in answer.stages)
        },
    }


def _truth(data: Dataset, vectors: NDArray[np.float32], matching: NDArray[np.bool_]) -> list[list[int]]:
    """Rows of the nearest items that match, for each query: all vectors are of unit length."""
    nearest = []
    for row, vector in enumerate(vectors):
        rows = np.flatnonzero(matching if matching.ndim == 1 else matching[row])
        nearest.append(rows[np.argsort(-(data.items[rows] @ vector), kind="stable")[:K]].tolist())
    return nearest


def _shown(rows: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    heading = [
        "filter",
        "share",
        "p50 ms",
        "p95 ms",
        "unfiltered p50",
        "round trips",
        "candidates",
        "matched",
        "fetched",
    ]
    return [
        [*heading, "scanning", "recall@10", "equal to numpy", "stages"],
        *(
            [
                row["filter"],
                f"{row['share']:.4f}",
                f"{row['milliseconds']['p50']:.2f}",
                f"{row['milliseconds']['p95']:.2f}",
                f"{row['unfiltered_p50']:.2f}",
                f"{row['round_trips']:.1f}",
                *(f"{row[count]:,.0f}" for count in ("candidates", "matched", "fetched")),
                f"{row['scanning']:.2f}",
                f"{row['recall_at_10']:.3f}",
                f"{row['equal_to_numpy']:.3f}",
                ", ".join(f"{stage} {milliseconds:.2f}" for stage, milliseconds in row["stage_milliseconds"].items()),
            ]
            for row in rows
        ),
    ]


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--queries", type=click.IntRange(min=1), default=120, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(data: Path | None, items: int | None, queries: int, json_file: Path | None) -> None:
    """Measure queries with filters.

    Example: python -m benchmarks.filters --data Gist512CIFAR10.mat
    """
    result = measure(load_dataset(data, items), queries)
    publish(result, [f"{result['data']}: {result['items']:,} items", table(_shown(result["filters"]))], json_file)


if __name__ == "__main__":
    main()
