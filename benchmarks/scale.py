"""How ours grows: query, memory, ingest and re-index over the number of items, at an equal budget.

The items are synthetic (scale_data.py). A smaller index holds the first of a larger one's items, so that clusters grow
denser, as they do in a stream. The number of bits follows that of the items. Each size has a fresh server; it is asked
under random hyperplanes, and after a re-index under ITQ's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.memory import settled_memory
from benchmarks.peers.unlabelled_training import switch_to_itq
from benchmarks.report import machine, progress, publish, table
from benchmarks.scale_data import CENTRES, CHUNK_ITEMS, DIMENSION, Clusters
from benchmarks.services import in_own_process, running_server, running_workers
from benchmarks.writers import CALL_ITEMS
from stream_hash.client import Index
from stream_hash.producer import Producer
from stream_hash.settings import IndexSettings

INDEX = "scale"
SIZES = (60_000, 250_000, 1_000_000)
BUCKET_MEMBERS = 16
SAMPLE_ITEMS = 10_000
K = 10
VECTOR_BYTES = 4 * DIMENSION
MOST_GROWTH, MOST_BYTES = 1.5, 300
WARM_UP = 20


def bits_for(count: int) -> int:
    """So many that a bucket has 8 to 16 members if all buckets are used; fewer are, so the mean is above that."""
    return max(1, int(np.ceil(np.log2(max(2, count) / BUCKET_MEMBERS))))


def measure(sizes: Sequence[int], queries: int, budget: int, workers: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    clusters = Clusters()
    asked = clusters.queries(queries)
    facts = machine()
    rows = []
    with tempfile.TemporaryDirectory(prefix="sh-scale-") as directory:
        path = Path(directory) / "items.npy"
        progress(f"drawing {max(sizes):,} items")
        _draw(clusters, path, max(sizes))
        for count in sizes:
            with running_server() as url, redis.Redis.from_url(url) as client:
                facts = machine(client)
                rows.append(_measure_one(url, client, path, count, asked, budget, workers))
    return {
        "machine": facts,
        "data": f"synthetic, {CENTRES:,} clusters in {DIMENSION} dimensions, seed 42",
        "dimension": DIMENSION,
        "queries": len(asked),
        "budget": budget,
        "workers": workers,
        "rows": rows,
        "growth": {
            plan: rows[-1][plan]["milliseconds"]["p50"] / rows[0][plan]["milliseconds"]["p50"]
            for plan in ("lsh", "itq")
        },
    }


def _draw(clusters: Clusters, path: Path, count: int) -> None:
    """To a file, from which each process reads what it needs."""
    items = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIMENSION))
    for number, first in enumerate(range(0, count, CHUNK_ITEMS)):
        piece = items[first : first + CHUNK_ITEMS]
        piece[:] = clusters.chunk(number, len(piece))
    items.flush()


def _measure_one(
    url: str, client: Any, path: Path, count: int, asked: NDArray[np.float32], budget: int, workers: int
) -> dict[str, Any]:
    items = np.load(path, mmap_mode="r")[:count]
    sample = np.array(items[:SAMPLE_ITEMS])
    settings = IndexSettings(DIMENSION, bits=bits_for(count))
    progress(f"{count:,} items, {settings.bits} bits: ingest")
    index = Index.create(INDEX, settings, url, sample=sample)
    with running_workers(url, workers):
        before = settled_memory(client)["used_memory"]
        seconds = in_own_process(stream, url, path, count)
    stored = index.status()["items"]
    if stored != count:
        raise RuntimeError(f"{stored} of {count} items are in the index")
    truth = _nearest(items, asked)
    after_ingest = settled_memory(client)["used_memory"]
    progress(f"{count:,} items: {len(asked)} queries")
    lsh = _queried(index, asked, truth, budget)
    progress(f"{count:,} items: re-index")
    switched = switch_to_itq(INDEX, url)
    after_reindex = settled_memory(client)["used_memory"]  # waits for the rewrite of the file, too
    itq = _queried(Index(INDEX, url), asked, truth, budget)
    return {
        "items": count,
        "bits": settings.bits,
        "ingest_items_per_second": count / seconds,
        "bytes_per_item": (after_ingest - before) / count - VECTOR_BYTES,
        "bytes_per_item_after_reindex": (after_reindex - before) / count - VECTOR_BYTES,
        "reindex_seconds": switched.reindex_seconds,
        "reindex_items_per_second": count / switched.reindex_seconds,
        "lsh": lsh,
        "itq": itq,
    }


def stream(url: str, path: Path, count: int) -> float:
    """Seconds from the first upsert until every item is searchable; run in a process of its own."""
    items = np.load(path, mmap_mode="r")
    with Producer(INDEX, url) as producer:
        start = time.perf_counter()
        for first in range(0, count, CALL_ITEMS):
            last = min(first + CALL_ITEMS, count)
            producer.upsert_many([f"item-{row:011d}" for row in range(first, last)], np.array(items[first:last]))
        producer.wait()
        return time.perf_counter() - start


def _nearest(items: NDArray[np.float32], asked: NDArray[np.float32]) -> list[set[int]]:
    """The true nearest to each query by cosine, a chunk of items at a time."""
    scores = np.empty((len(asked), 0), dtype=np.float32)
    rows = np.empty((len(asked), 0), dtype=np.int64)
    for first, chunk in _chunks(items):
        fresh = asked @ (chunk / np.linalg.norm(chunk, axis=1, keepdims=True)).T
        numbers = np.broadcast_to(np.arange(first, first + len(chunk)), fresh.shape)
        scores, rows = np.hstack([scores, fresh]), np.hstack([rows, numbers])
        best = np.argpartition(-scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return [set(row) for row in rows.tolist()]


def _chunks(items: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for first in range(0, len(items), CHUNK_ITEMS):
        yield first, np.array(items[first : first + CHUNK_ITEMS])


def _queried(index: Index, asked: NDArray[np.float32], truth: list[set[int]], budget: int) -> dict[str, Any]:
    """One query at a time."""
    for query in asked[:WARM_UP]:
        index.query(query, K, budget=budget)
    seconds, recalls, candidates, probes = [], [], [], []
    for query, true in zip(asked, truth, strict=True):
        start = time.perf_counter()
        (answer,) = index.query(query, K, budget=budget)
        seconds.append(time.perf_counter() - start)
        found = {int(result.id.rpartition("-")[2]) for result in answer.results}
        recalls.append(len(found & true) / max(1, len(true)))
        candidates.append(answer.candidates)
        probes.append(answer.probes)
    p50, p95, p99 = (float(value) for value in np.percentile(np.array(seconds) * 1e3, [50, 95, 99]))
    return {
        "milliseconds": {"p50": p50, "p95": p95, "p99": p99},
        "recall_at_10": float(np.mean(recalls)),
        "mean_candidates": float(np.mean(candidates)),
        "mean_probes": float(np.mean(probes)),
        "mean_bucket": float(np.sum(candidates) / max(1, np.sum(probes))),
    }


def _tables(result: dict[str, Any]) -> list[str]:
    queries = [("items", "bits", "hash", "p50 ms", "p95 ms", "p99 ms", "recall@10", "candidates", "probes", "a probe")]
    queries += [
        (
            f"{row['items']:,}",
            f"{row['bits']}",
            plan.upper(),
            *(f"{row[plan]['milliseconds'][p]:.2f}" for p in ("p50", "p95", "p99")),
            f"{row[plan]['recall_at_10']:.3f}",
            f"{row[plan]['mean_candidates']:,.0f}",
            f"{row[plan]['mean_probes']:,.0f}",
            f"{row[plan]['mean_bucket']:.1f}",
        )
        for plan in ("lsh", "itq")
        for row in result["rows"]
    ]
    writes = [("items", "ingest/s", "bytes an item", "after re-index", "re-index s", "re-index items/s")]
    writes += [
        (
            f"{row['items']:,}",
            f"{row['ingest_items_per_second']:,.0f}",
            f"{row['bytes_per_item']:.0f}",
            f"{row['bytes_per_item_after_reindex']:.0f}",
            f"{row['reindex_seconds']:.1f}",
            f"{row['reindex_items_per_second']:,.0f}",
        )
        for row in result["rows"]
    ]
    first, last = result["rows"][0], result["rows"][-1]
    most = max(last["bytes_per_item"], last["bytes_per_item_after_reindex"])
    aims = [("target", "measured", "aim")]
    aims += [
        (f"p50 at {last['items']:,}, of that at {first['items']:,}, {plan.upper()}", f"{ratio:.2f}", f"≤ {MOST_GROWTH}")
        for plan, ratio in result["growth"].items()
    ]
    aims.append((f"bytes an item at {last['items']:,}, vectors apart", f"{most:.0f}", f"≤ {MOST_BYTES}"))
    return [
        f"{result['data']}; {result['queries']:,} queries at a budget of {result['budget']:,}, one thread; "
        f"{result['workers']} workers, re-index by one process",
        table(queries),
        table(writes),
        table(aims),
    ]


@click.command()
@click.option("--size", "sizes", type=click.IntRange(min=1), multiple=True, default=SIZES, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=1_000, show_default=True)
@click.option("--budget", type=click.IntRange(min=1), default=1_000, show_default=True, help="Candidates of a query.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="To fill the index.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(sizes: tuple[int, ...], queries: int, budget: int, workers: int, json_file: Path | None) -> None:
    """Measure how the index grows.

    Example: python -m benchmarks.scale --size 60000 --size 1000000
    """
    result = measure(sorted(sizes), queries, budget, workers)
    publish(result, _tables(result), json_file)


if __name__ == "__main__":
    main()
