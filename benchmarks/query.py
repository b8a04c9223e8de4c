"""A query against the same reads issued bare; what each radius costs and finds, none of them widened; and budgets
(query_plans.py).

The bare reads are those that no search of this kind can do without: one SUNION of the ball's buckets and one
MGET of the candidates' values, on a client of redis-py, with all keys spelt out beforehand and nothing done with
the replies. Query and bare reads alternate, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.dataset import DIMENSION, Dataset, load_dataset
from benchmarks.query_plans import plans, shown
from benchmarks.report import machine, progress, publish, table
from benchmarks.round_trips import counted
from benchmarks.services import running_server, running_workers
from benchmarks.writers import item_ids
from stream_hash.client import Index
from stream_hash.numerics.evaluation import precision_at_k, recall_at_k
from stream_hash.numerics.model import Model
from stream_hash.numerics.probing import ball
from stream_hash.producer import Producer
from stream_hash.service.answer import Answer
from stream_hash.settings import IndexSettings
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.models import Models
from stream_hash.storage.reads import numbers_of

INDEX = "benchmark"
SETTINGS = IndexSettings(dimension=DIMENSION)
RADIUS = 2
RADII = range(5)
K = 10
EXACT_QUERIES = 20
"""An exact search reads every vector, so its time is measured on a few; what it finds is computed for all."""
STAGES = ("plan", "gather", "prune", "fetch", "rank", "results")


@dataclass(frozen=True)
class BareReads:
    """The keys that one query reads, spelt out: of the ball's buckets, and of the candidates in them."""

    buckets: list[str]
    values: list[str]


def measure(data: Dataset, queries: int, workers: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    with running_server() as url, redis.Redis.from_url(url) as client:
        progress("filling the index")
        index = Index.create(INDEX, SETTINGS, url, sample=data.training)
        ids = item_ids(len(data.items))
        with running_workers(url, workers), Producer(INDEX, url) as producer:
            producer.upsert_many(ids, data.items)
            producer.wait()
        vectors, classes = data.queries[:queries], data.query_labels[:queries].tolist()
        truth = _nearest(data, vectors, ids)
        label_of = dict(zip(ids, data.labels.tolist(), strict=True))
        progress(f"{len(vectors)} queries of radius {RADIUS} against the bare reads")
        against_bare = _against_bare(index, client, vectors)
        radii = []
        for radius in RADII:
            progress(f"radius {radius}")
            answers = [index.query(vector, K, radius=radius, widen=False)[0] for vector in vectors]
            found = [[result.id for result in answer.results] for answer in answers]
            radii.append({"radius": radius, **_quality(found, truth, classes, label_of), **_cost(answers)})
        progress("exact search")
        exact = {
            **_quality(truth, truth, classes, label_of),
            **_exact_cost(index, vectors[:EXACT_QUERIES], truth),
        }
        rows = [[str(int(position)) for position in row] for row in _positions(data, vectors)]
        return {
            "machine": machine(client),
            "data": data.source,
            "items": len(ids),
            "dimension": DIMENSION,
            "queries": len(vectors),
            f"radius_{RADIUS}": against_bare,
            "radii": radii,
            "plans": plans(client, data, vectors, rows),
            "exact": exact,
        }


def _against_bare(index: Index, client: Any, vectors: NDArray[np.float32]) -> dict[str, Any]:
    """Times of a query and of its bare reads, and the round trips of the query."""
    model = Model.from_arrays(Models(client, INDEX).load(1))
    bare = [_bare_reads(client, model, vector) for vector in vectors]
    index.query(vectors[0], K, radius=RADIUS, widen=False)  # loads the model, once
    trips = []
    for vector in vectors[:200]:
        with counted() as counter:
            index.query(vector, K, radius=RADIUS, widen=False)
        trips.append(counter.count)
    own, theirs = [], []
    for vector, reads in zip(vectors, bare, strict=True):
        start = time.perf_counter()
        index.query(vector, K, radius=RADIUS, widen=False)
        middle = time.perf_counter()
        client.sunion(reads.buckets)
        if reads.values:
            client.mget(reads.values)
        end = time.perf_counter()
        own.append(middle - start)
        theirs.append(end - middle)
    return {
        "query_milliseconds": _percentiles(own),
        "bare_milliseconds": _percentiles(theirs),
        "ratio": float(np.median(np.array(own) / np.array(theirs))),
        "ratio_of_medians": float(np.median(own) / np.median(theirs)),
        "round_trips": {"median": float(np.median(trips)), "greatest": max(trips)},
    }


def _bare_reads(client: Any, model: Model, vector: NDArray[np.float32]) -> BareReads:
    codes = ball(int(model.encode_queries(vector[None, :]).codes[0, 0]), SETTINGS.bits, RADIUS)
    keys = IndexKeys(INDEX).partition(0)
    buckets = [keys.bucket(1, 0, code) for code in codes.tolist()]
    numbers = numbers_of(np.array(sorted(map(int, client.sunion(buckets))), dtype=np.int64))
    return BareReads(buckets, [keys.value(number) for number in numbers.tolist()])


def _nearest(data: Dataset, vectors: NDArray[np.float32], ids: Sequence[str]) -> list[list[str]]:
    """The ids of the true nearest items to each query."""
    return [[ids[position] for position in row] for row in _positions(data, vectors).tolist()]


def _positions(data: Dataset, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Where the true nearest items to each query stand: all vectors are of unit length. (n_queries, k)."""
    nearest = []
    for start in range(0, len(vectors), 100):
        scores = vectors[start : start + 100] @ data.items.T
        few = min(K, scores.shape[1] - 1)
        nearest.append(np.argpartition(-scores, few, axis=1)[:, :K])
    return np.concatenate(nearest)


def _quality(
    found: Sequence[list[str]], truth: Sequence[list[str]], classes: Sequence[int], label_of: dict[str, int]
) -> dict[str, float]:
    labels = [[label_of[item_id] for item_id in row] for row in found]
    return {
        "precision_at_10": _mean(
            [precision_at_k(row, wanted, K) for row, wanted in zip(labels, classes, strict=False)]
        ),
        "recall_at_10": _mean([recall_at_k(row, true, K) for row, true in zip(found, truth, strict=False)]),
    }


def _cost(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "mean_candidates": _mean([answer.candidates for answer in answers]),
        "mean_probes": _mean([answer.probes for answer in answers]),
        "milliseconds": _percentiles([answer.seconds for answer in answers]),
        "stage_milliseconds": {
            stage: float(np.median([answer.stages.get(stage, 0.0) for answer in answers])) * 1e3 for stage in STAGES
        },
    }


def _exact_cost(index: Index, vectors: NDArray[np.float32], truth: Sequence[list[str]]) -> dict[str, Any]:
    answers = [index.query(vector, K, exact=True)[0] for vector in vectors]
    found = [[result.id for result in answer.results] for answer in answers]
    agreement = _mean([recall_at_k(row, true, K) for row, true in zip(found, truth, strict=False)])
    return {
        "timed_queries": len(answers),
        "agreement_with_numpy": agreement,
        "milliseconds": _percentiles([answer.seconds for answer in answers]),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def _tables(result: dict[str, Any]) -> list[str]:
    own = result[f"radius_{RADIUS}"]
    against = [
        (f"radius {RADIUS}", "p50 ms", "p95 ms"),
        ("query", *(f"{own['query_milliseconds'][p]:.2f}" for p in ("p50", "p95"))),
        ("bare SUNION + MGET", *(f"{own['bare_milliseconds'][p]:.2f}" for p in ("p50", "p95"))),
        ("median ratio (target: at most 3)", f"{own['ratio']:.2f}", ""),
        ("most round trips (target: at most 3)", f"{own['round_trips']['greatest']}", ""),
    ]
    heading = ("plan", "P@10", "recall@10", "candidates", "probes", "p50 ms", "p95 ms", " / ".join(STAGES))
    rows = [heading] + [
        (
            f"radius {row['radius']}",
            f"{row['precision_at_10']:.3f}",
            f"{row['recall_at_10']:.3f}",
            f"{row['mean_candidates']:,.0f}",
            f"{row['mean_probes']:,.0f}",
            f"{row['milliseconds']['p50']:.2f}",
            f"{row['milliseconds']['p95']:.2f}",
            " / ".join(f"{row['stage_milliseconds'][stage]:.2f}" for stage in STAGES),
        )
        for row in result["radii"]
    ]
    exact = result["exact"]
    rows.append(
        (
            "exact",
            f"{exact['precision_at_10']:.3f}",
            f"{exact['recall_at_10']:.3f}",
            f"{result['items']:,}",
            "",
            f"{exact['milliseconds']['p50']:.1f}",
            f"{exact['milliseconds']['p95']:.1f}",
            "",
        )
    )
    return [
        f"{result['data']}: {result['items']:,} × {result['dimension']}, {result['queries']:,} queries",
        table(against),
        table(rows),
        table(shown(result["plans"])),
    ]


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--queries", type=click.IntRange(min=1), default=1_318, show_default=True, help="The tutorial's are 120.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="To fill the index.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(data: Path | None, items: int | None, queries: int, workers: int, json_file: Path | None) -> None:
    """Measure queries.

    Example: python -m benchmarks.query --data Gist512CIFAR10.mat
    """
    result = measure(load_dataset(data, items), queries, workers)
    publish(result, _tables(result), json_file)


if __name__ == "__main__":
    main()
